"""Builds the embedded samples of MNIST and CIFAR-10 from the official data sets.

The first images of every split, in the (random) order in which `spvae_tf.data.load_splits` divides the data set,
in grey and otherwise untouched: preprocessing happens when they are loaded, as for every other data set.
"""

import pathlib
import sys

from absl import app, flags
import numpy as np

from spvae_tf import data
from spvae_tf.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS data sets; none: TFDS's own, downloading.")
flags.DEFINE_string("out_dir", str(data.EMBEDDED_DIR), "Where <data set>_sample.npz are written.")
flags.DEFINE_integer("seed", 0, "Seed of the division into training and validation set.", lower_bound=0)

COUNTS = {
    "mnist": {"train": 6_000, "validation": 1_000, "test": 1_000},
    "cifar10": {"train": 2_400, "validation": 500, "test": 500},
}


def sample(name, data_dir, seed):
    """Returns the arrays of a sample's .npz: x_<split> uint8 [n, height, width], y_<split> uint8 [n].

    Args:
        name: "mnist" or "cifar10".
        data_dir: as in `spvae_tf.data.load_dataset`.
        seed: as in `spvae_tf.data.load_splits`.

    Raises:
        InputError: the data set cannot be loaded.
    """
    splits = data.load_splits(name, data_dir=data_dir, seed=seed)
    arrays = {}
    for split, count in COUNTS[name].items():
        images, labels = splits[split]
        arrays[f"x_{split}"] = images[:count]
        arrays[f"y_{split}"] = labels[:count].astype(np.uint8)
    return arrays


def main(_):
    for name in COUNTS:
        path = pathlib.Path(FLAGS.out_dir) / f"{name}_sample.npz"
        try:
            arrays = sample(name, FLAGS.data_dir, FLAGS.seed)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    app.run(main)
