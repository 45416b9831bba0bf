"""Compares Table 1 as run here with the paper's, cell by cell, and Table 2's sizes.

A cell agrees when its mean lies within 2 % of the published number, or within two standard deviations over its seeds.
Where the published number belongs to a checkpoint of other sizes than Table 2's, Table 2's sizes are compared with the
authors' own log of them (k = 5) instead.

Example:
  python scripts/compare_to_paper.py --results_dir=results/released --check
"""

import cli  # isort: skip (first: it quiets TensorFlow)
import sys

from absl import flags

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import compare, report, table2, text

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results/released", "Folder with table1.csv, of one protocol.")
_CHECK = flags.DEFINE_bool("check", False, "Exit with status 1 when a cell that was run, or a size, disagrees.")
_CSV = flags.DEFINE_string("csv", None, "The comparison also goes to this file.")


def main():
    rows = compare.read(_RESULTS_DIR.value)
    if not rows:
        raise InputError(f"{_RESULTS_DIR.value} holds no tested runs of Table 1")
    compared, sizes = compare.compare(rows), compare.compare_sizes(table2.count_parameters())
    print("Table 1: test ELBO, k = 5000, whole test set, nats per image; mean ± standard deviation over seeds (runs)\n")
    print(text.aligned(report.table1(compared)))
    print("\nThe same runs at k = 5, beside the authors' own logs of the same sizes\n")
    print(text.aligned(report.at_k5(compared)))
    print(f"\nNot run: {'; '.join(compare.not_run(compared)) or 'nothing'}")
    if others := compare.without_a_cell(rows):
        print(f"Not compared, since Table 1 has no such data: {', '.join(others)}")
    print("\nTable 2: parameters\n")
    print(text.aligned(report.table2(sizes)))
    if _CSV.value:
        files.write_table(_CSV.value, compared, compare.FIELDS)
    if _CHECK.value and (wrong := compare.disagreements(compared, sizes)):
        print(*(f"disagrees: {line}" for line in wrong), sep="\n", file=sys.stderr)
        return 1


if __name__ == "__main__":
    cli.run(main)
