"""Builds the embedded samples of MNIST and CIFAR-10 from the official data sets.

The first images of every split as `spvae_tf.training.data.load_splits` divides the data set, in grey and nothing more:
preprocessing happens when they are loaded, as for every other data set.

Example:
  python scripts/build_embedded_sample.py --data_dir=$HOME/tensorflow_datasets
"""

import cli  # isort: skip (first: it quiets TensorFlow)
import pathlib

import numpy as np
from absl import flags

from spvae_tf import files
from spvae_tf.training import data

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; downloads when not given.")
_OUT_DIR = flags.DEFINE_string("out_dir", str(data.EMBEDDED_DIR), "Where <data set>_sample.npz are written.")

COUNTS = {
    "mnist": {"train": 6_000, "validation": 1_000, "test": 1_000},
    "cifar10": {"train": 2_400, "validation": 500, "test": 500},
}


def sample(name, data_dir):
    """The arrays of the .npz of "mnist" or "cifar10": x_<split> uint8 [n, height, width], y_<split> uint8 [n]."""
    splits = data.load_splits(name, data_dir=data_dir)
    arrays = {}
    for split, count in COUNTS[name].items():
        images, labels = splits[split]
        arrays[f"x_{split}"] = images[:count]
        arrays[f"y_{split}"] = labels[:count].astype(np.uint8)
    return arrays


def main():
    for name in COUNTS:
        path = pathlib.Path(_OUT_DIR.value) / f"{name}_sample.npz"
        files.write_npz(path, **sample(name, _DATA_DIR.value))
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main)
