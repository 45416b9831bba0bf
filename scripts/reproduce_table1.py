"""Table 1: trains and tests the paper's models and prints the results beside the paper's.

Examples:
  python scripts/reproduce_table1.py --preset=mini
    real but small samples of MNIST and CIFAR-10 that come with the code, a few hundred batches per cell; minutes.
  python scripts/reproduce_table1.py --preset=tuned --protocol=released --datasets=mnist --models=SPVAE --seeds=0,1,2
    the whole data sets, Table 2's hyper-parameters, early stopping, k = 5,000 on all test images; hours on a laptop.
  python scripts/reproduce_table1.py --preset=checkpoint --datasets=mnist --likelihoods=discrete --models=Conv-VAE
    where Table 1's number belongs to a checkpoint of other sizes than Table 2's: at the checkpoint's sizes.
  python scripts/reproduce_table1.py --datasets=<path>/mine.npz --cell_of=svhn_cropped
    images of your own with the sizes of SVHN's cells, not rounded to 1/255, as SVHN's are not.
  python scripts/reproduce_table1.py --preset=grid --datasets=mnist --models=SPVAE --workers=2 --dry_run
    section 4's cross-validation: all its sizes, the best by validation tested with k = 5,000. --dry_run runs nothing:
    it prints the runs, and what such runs took that are recorded in the results.

What the results already hold is not run again, and a run that was stopped goes on where it was.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from absl import flags

from spvae_tf import published
from spvae_tf.reproduction import cross_validation, table1
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration

_PRESET = flags.DEFINE_enum("preset", "tuned", list(table1.PRESETS), "What to run; see above.")
_PROTOCOL = flags.DEFINE_enum("protocol", "paper", list(configuration.PROTOCOLS),
                              "paper: as the text says. released: as the authors' code does.")
_MODELS = flags.DEFINE_list("models", list(MODELS), "Models.")
_DATASETS = flags.DEFINE_list("datasets", None, "Data sets; mnist and cifar10 (mini: their samples) by default.")
_CELL_OF = flags.DEFINE_enum("cell_of", None, list(published.DATASETS), "For an .npz of your own: the data set whose "
                             "sizes and rounding it takes; MNIST's when not given.")
_LIKELIHOODS = flags.DEFINE_list("likelihoods", list(published.LIKELIHOODS), "Likelihoods.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' folder; without it downloaded on first use.")
_RESULTS_DIR = flags.DEFINE_string("results_dir", None, "Results; results/ by default, results/mini/ for mini.")
_MAX_BATCHES = flags.DEFINE_integer("max_batches", None, "Ends each training early.", lower_bound=1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "k of the test; the preset's when not given.", lower_bound=1)
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "Test images for that k; the preset's.", lower_bound=1)
_GRID = flags.DEFINE_enum("grid", "paper", list(cross_validation.GRIDS),
                          "paper: section 4's. released: also the authors' SPVAE sizes off it, H = 30 and 100.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes side by side; the cores are divided among them.",
                                lower_bound=1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the runs, and what recorded runs like them took.")


def main():
    configs = table1.make_configs(
        _PRESET.value, _PROTOCOL.value, _MODELS.value, _DATASETS.value, _LIKELIHOODS.value, _SEEDS.value,
        grid=_GRID.value, cell_of=_CELL_OF.value, data_dir=_DATA_DIR.value, max_batches=_MAX_BATCHES.value,
        test_samples=_NUM_SAMPLES.value, num_test_images=_NUM_IMAGES.value)
    results_dir = _RESULTS_DIR.value or table1.PRESETS[_PRESET.value].results_dir
    if _DRY_RUN.value:
        return table1.dry_run(configs, results_dir)
    return table1.reproduce(configs, results_dir, _WORKERS.value)


if __name__ == "__main__":
    cli.run(main)
