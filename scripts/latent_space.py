"""Figure 3: trains an SPVAE whose leaf VAEs have two-dimensional codes, and draws each of their latent spaces.

Examples:
  python scripts/latent_space.py --preset=mini
    on the embedded sample of MNIST, two minutes.
  python scripts/latent_space.py --protocol=released
    on MNIST, with Table 2's hidden units and early stopping.
  python scripts/latent_space.py --workdir=/tmp/run
    of a run of scripts/train.py with --config.latent_dim=2.

Training goes on where it was stopped. Beside the pictures of the super-pixels, and as CSV: which of a super-pixel's two
VAEs each class of test images prefers.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf.reproduction import figure3, table1
from spvae_tf.training import configuration
from spvae_tf.training.run import Run

_PRESET = flags.DEFINE_enum("preset", "tuned", ["mini", "tuned"], "mini: the embedded sample and few batches.")
_PROTOCOL = flags.DEFINE_enum("protocol", "paper", list(configuration.PROTOCOLS),
                              "paper: as the text says. released: as the authors' code does.")
_DATASET = flags.DEFINE_string("dataset", None, "Data set; mnist (mini: mnist_sample) by default.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed.", lower_bound=0)
_WORKDIR = flags.DEFINE_string("workdir", None, "Draw this finished run instead of training one.")
_STEPS = flags.DEFINE_integer("steps", 8, "Points along each axis of a latent space.", lower_bound=1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' folder; without it downloaded on first use.")
_RESULTS_DIR = flags.DEFINE_string("results_dir", None, "Results; results/ by default, results/mini/ for mini.")
_MAX_BATCHES = flags.DEFINE_integer("max_batches", None, "Ends the training early.", lower_bound=1)


def main():
    preset = table1.PRESETS[_PRESET.value]
    results_dir = Path(_RESULTS_DIR.value or preset.results_dir)
    if _WORKDIR.value:
        run = Run.open(_WORKDIR.value, _DATA_DIR.value)
    else:
        config, = table1.make_configs(
            _PRESET.value, _PROTOCOL.value, ["SPVAE"], [_DATASET.value or preset.datasets[0]], ["continuous"],
            [_SEED.value], latent_dim=2, data_dir=_DATA_DIR.value, max_batches=_MAX_BATCHES.value)
        run = Run.in_results(config, results_dir)
    figure3.check_labels(run.dataset)
    if not _WORKDIR.value:
        run.train()
    name = f"latent_space_{configuration.picture_name(run.config)}"
    table, picture = results_dir / run.config.protocol / f"{name}.csv", results_dir / "figures" / f"{name}.png"
    figure3.draw(run.model, run.dataset, _STEPS.value, table, picture)
    print(f"{table}\n{picture}")


if __name__ == "__main__":
    cli.run(main)
