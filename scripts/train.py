"""Trains one model, or goes on with a run that was stopped.

Example:
  python scripts/train.py --config=configs/table1.py:mnist_sample/continuous/spvae --workdir=/tmp/spvae \
    --config.protocol=released --config.max_batches=1280

The folder then holds config.json, checkpoint.npz (weights, best weights, optimiser, step) and log.csv.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from absl import flags
from ml_collections import config_flags

from spvae_tf.errors import InputError
from spvae_tf.training import provenance
from spvae_tf.training.data import SPLITS, describe
from spvae_tf.training.evaluation import in_words, uniform_in_words
from spvae_tf.training.run import Run, tensorboard_writer

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/table1.py:DATASET/LIKELIHOOD/MODEL.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an unfinished run in it is continued.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write the log as TensorBoard scalars.")
flags.mark_flags_as_required(["config", "workdir"])


def main():
    if not _WORKDIR.value:
        raise InputError("--workdir is empty; it must name a folder")
    run = Run(_CONFIG.value, _WORKDIR.value)
    config, dataset = run.config, run.dataset
    counts = ", ".join(f"{len(getattr(dataset, split))} {split}" for split in SPLITS)
    height, width = dataset.image_shape
    print(f"{counts} images of {height}×{width} pixels, "
          + describe(dataset.num_constant, config.dataset, config.likelihood, config.round_pixels, config.preparation))
    print(f"on {provenance.device()}:", flush=True)
    trainer = run.train(tensorboard_writer(run.workdir) if _TENSORBOARD.value else None)
    print(f"{config.model} on {dataset.name}, {config.likelihood}, protocol {config.protocol}, seed {config.seed}, "
          f"{len(dataset.train)} training images")
    print(f"best validation ELBO (k = {config.train_samples}, {len(dataset.validation)} images) "
          f"{in_words(run.model, trainer.best_ll)}, after {trainer.best_step} of {trainer.step} batches, "
          f"{trainer.seconds:.0f} s")
    for line in uniform_in_words(run.model):
        print(line)


if __name__ == "__main__":
    cli.run(main)
