"""Packs the best run of each cell of Table 1 into weights/, with a card for each.

Example:
  python scripts/pack_weights.py --data_dir=/tmp/data

Runs leave their weights in results/<protocol>/weights/, which is not part of the repository.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from absl import flags

from spvae_tf.reproduction import weights
from spvae_tf.training import pretrained

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "Results, with <protocol>/weights/.")
_FOLDER = flags.DEFINE_string("folder", str(pretrained.FOLDER), "Where the weights are packed.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")


def main():
    print("\n".join(weights.pack(_RESULTS_DIR.value, _FOLDER.value, _DATA_DIR.value)))


if __name__ == "__main__":
    cli.run(main)
