"""Measures what trained models know besides density, and adds it to a CSV.

Of test images: log p(image), by the encoder's q(z | x) and by one fitted to each image, and for each half
log p(hidden half | visible half). Of 100, 1,000 and 10,000 labels: the accuracy of a linear probe on the embedding and
on the pixels.

Examples:
  python scripts/usefulness.py --workdirs=results/paper/runs/spvae-…-seed0,results/paper/runs/vae-…-seed0
  python scripts/usefulness.py --bounds_only --workdirs=results/paper/runs/spvae-…-train_fraction=0.1-seed0
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf.reproduction import beyond
from spvae_tf.training.run import Run

_WORKDIRS = flags.DEFINE_list("workdirs", None, "Folders of trained runs.", required=True)
_OUT = flags.DEFINE_string("out", "results/usefulness.csv", "The CSV.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1000, "k of the bounds.", lower_bound=2)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 500, "Test images for the bounds.", lower_bound=2)
_REFINEMENTS = flags.DEFINE_integer("refinements", 400, "Steps that fit q(z | x) to each image.", lower_bound=2)
_BOUNDS_ONLY = flags.DEFINE_bool("bounds_only", False, "Measure log p(image) and nothing else.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; the run's own when not given.")


def main():
    beyond.read(_OUT.value)  # a damaged CSV ends the script before anything is measured
    only = dict(halves=(), labels=()) if _BOUNDS_ONLY.value else {}
    for workdir in _WORKDIRS.value:
        rows = beyond.measure(Run.open(workdir, _DATA_DIR.value), _NUM_SAMPLES.value, _NUM_IMAGES.value,
                              _REFINEMENTS.value, **only)
        beyond.write(Path(_OUT.value), rows)
        print("\n".join(f"{r['model']}, {r['likelihood']}, {100 * r['train_fraction']:g} % of the images, "
                        f"seed {r['seed']}: {r['task']} ({r['setting']}): "
                        f"{r['value']} ± {r['stderr']}" for r in rows), flush=True)


if __name__ == "__main__":
    cli.run(main)
