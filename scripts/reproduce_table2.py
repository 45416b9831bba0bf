"""Table 2: the size of all 24 models, counted on models that are built, beside the paper's thousands.

Example:
  python scripts/reproduce_table2.py --results_dir=results
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf import files
from spvae_tf.reproduction import table2

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "table2.csv goes here.")


def main():
    rows = table2.count_parameters()
    files.write_table(Path(_RESULTS_DIR.value) / "table2.csv", rows, table2.FIELDS)
    print(table2.as_text(rows))


if __name__ == "__main__":
    cli.run(main)
