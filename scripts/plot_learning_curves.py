"""Draws the learning curves of finished runs: validation ELBO against batches, one panel per data set and likelihood.

Example:
  python scripts/plot_learning_curves.py --results_dir=results/released --out=results/figures/learning_curves.png
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from absl import flags

from spvae_tf import figures

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results/released", "Folder with records/ and curves/.")
_OUT = flags.DEFINE_string("out", "results/figures/learning_curves.png", "The picture.")


def main():
    figures.learning_curves(_RESULTS_DIR.value, _OUT.value)
    print(_OUT.value)


if __name__ == "__main__":
    cli.run(main)
