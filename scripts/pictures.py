"""Draws pictures, one PNG each.

Examples:
  python scripts/pictures.py --pictures=region_graph
    the region graph of 2 × 2 super-pixels and the SPN over it.
  python scripts/pictures.py --pictures=learning_curves --results_dir=results/released
    validation ELBO against batches of the finished runs of Table 1, one panel per data set and likelihood.
  python scripts/pictures.py --pictures=samples,reconstructions,sum_weights --workdir=/tmp/spvae
    of a trained run: samples beside test images; reconstructions and inpainted halves; which cuts its sum weights
    and the test images prefer.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf.errors import InputError
from spvae_tf.reproduction import pictures, plots
from spvae_tf.training import configuration
from spvae_tf.training.pretrained import open_trained

OF_A_RUN = {"samples": pictures.samples, "reconstructions": pictures.reconstructions,
            "sum_weights": pictures.sum_weights}
NAMES = ("region_graph", "learning_curves", *OF_A_RUN)

_PICTURES = flags.DEFINE_list("pictures", None, f"Any of {', '.join(NAMES)}.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, f"Folder of a trained run, for {', '.join(OF_A_RUN)}.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Or the name of trained weights, see weights/README.md.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; the run's own when not given.")
_RESULTS_DIR = flags.DEFINE_string("results_dir", "results/released",
                                   "For learning_curves: folder with records/ and curves/ of one protocol.")
_OUT_DIR = flags.DEFINE_string("out_dir", "results/figures", "Folder of the pictures.")


def main():
    if unknown := set(_PICTURES.value) - set(NAMES):
        raise InputError(f"--pictures has {min(unknown)!r}; allowed are {', '.join(NAMES)}")
    of_a_run = [name for name in _PICTURES.value if name in OF_A_RUN]
    if of_a_run:
        run = open_trained(_WORKDIR.value, _WEIGHTS.value, _DATA_DIR.value)
        model, images = run.model, run.dataset.test
    folder = Path(_OUT_DIR.value)
    for name in _PICTURES.value:
        if name == "region_graph":
            pictures.region_graph(path := folder / f"{name}.png")
        elif name == "learning_curves":
            path = folder / f"{name}_{Path(_RESULTS_DIR.value).resolve().name}.png"  # the protocol's folder
            plots.learning_curves(_RESULTS_DIR.value, path)
        else:
            OF_A_RUN[name](model, images, path := folder / f"{name}_{configuration.picture_name(run.config)}.png")
        print(path)


if __name__ == "__main__":
    cli.run(main)
