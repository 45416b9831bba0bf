"""Compares Table 1 and Figure 2 as run here with the paper's, cell by cell, and Table 2's sizes; lists what is missing.

A cell agrees when its mean lies within 2 % of the published number and twice its standard error over seeds does so,
too. It disagrees when its mean lies outside 2 % and outside two standard deviations over seeds. Else it is undecided.
Of one run it is only said whether it lies within or outside 2 %. Where the published number belongs to a checkpoint of
other sizes than Table 2's, Table 2's sizes are compared with the authors' own log of them (k = 5) instead.

Example:
  python scripts/compare_to_paper.py --check
  python scripts/compare_to_paper.py --from_values
"""

import cli  # isort: skip (first: it quiets TensorFlow)
import sys

from absl import flags

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import compare, paired, report, table2

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "Folder with paper/ and released/, or one of these.")
_CHECK = flags.DEFINE_bool("check", False, "Exit with status 1 when something disagrees or is undecided.")
_ALLOW_UNDECIDED = flags.DEFINE_bool("allow_undecided", False, "With --check: a cell may be undecided.")
_FROM_VALUES = flags.DEFINE_bool(
    "from_values", False, "Only recompute means, standard errors and paired differences from the values of every test "
    "image; exit with status 1 when one is not the table's.")
_CSV = flags.DEFINE_string("csv", None, "The comparison also goes to this file.")


def main():
    folders = compare.folders(_RESULTS_DIR.value)
    if not any(map(compare.read, folders.values())):
        raise InputError(f"{_RESULTS_DIR.value} holds no tested runs of Table 1")
    if _FROM_VALUES.value:
        return _say_wrong(paired.check(folders))
    sizes = compare.compare_sizes(table2.count_parameters())
    cells = [row for rows in compare.compare_protocols(_RESULTS_DIR.value).values() for row in rows]
    if _CSV.value:
        files.write_table(_CSV.value, cells, compare.FIELDS)
    print(report.comparison(folders, sizes))
    if _CHECK.value:
        verdicts = ("disagrees",) if _ALLOW_UNDECIDED.value else ("disagrees", "undecided")
        return _say_wrong(compare.failing(cells, sizes, verdicts))


def _say_wrong(lines):
    print(*lines, sep="\n", end="\n" * bool(lines), file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    cli.run(main)
