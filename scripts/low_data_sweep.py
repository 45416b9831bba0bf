"""Figure 2: trains on ever smaller parts of the training set and draws how the test ELBO falls.

Examples:
  python scripts/low_data_sweep.py --preset=mini
    the embedded sample of MNIST; minutes.
  python scripts/low_data_sweep.py --fractions=0.005,0.1,1 --protocol=released --datasets=mnist --seeds=0,1,2
    MNIST with Table 2's hyper-parameters and early stopping; k = 5 everywhere, k = 5,000 besides at --test_fractions.
  python scripts/low_data_sweep.py --protocol=released --plot_only
    draws the figure and prints the summary from results/released/low_data_sweep.csv alone.

The subsets are nested and the same for every model. The smallest, which take a minute or two, come first; what the
results already hold is not run again, Table 1's runs among them, and a run that was stopped goes on where it was.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf import published
from spvae_tf.reproduction import figure2, plots, table1
from spvae_tf.training import configuration

_FRACTIONS = flags.DEFINE_list("fractions", None, "Of the training set: paper (100 % to 10 % in steps of 10 %, 10 % to "
                               "0.5 % in three), released, mini, or numbers; by default paper, or mini for its preset.")
_TEST_FRACTIONS = flags.DEFINE_list("test_fractions", ["0.005", "0.1", "1"],
                                    "Where to test with the preset's k besides k = 5; always at 1.")
_PRESET = flags.DEFINE_enum("preset", "tuned", list(table1.PRESETS), "tuned: Table 2's hyper-parameters. grid: "
                            "cross-validated at each fraction. mini: the embedded sample and few batches.")
_PROTOCOL = flags.DEFINE_enum("protocol", "paper", list(configuration.PROTOCOLS),
                              "paper: as the text says. released: as the authors' code does.")
_MODELS = flags.DEFINE_list("models", ["SPVAE", "VAE"], "Models.")
_DATASETS = flags.DEFINE_list("datasets", None, "Data sets; mnist (mini: mnist_sample) by default.")
_LIKELIHOODS = flags.DEFINE_list("likelihoods", list(published.LIKELIHOODS), "Likelihoods.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' folder; without it downloaded on first use.")
_RESULTS_DIR = flags.DEFINE_string("results_dir", None, "Results; results/ by default, results/mini/ for mini.")
_MAX_BATCHES = flags.DEFINE_integer("max_batches", None, "Ends each training early.", lower_bound=1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "k at --test_fractions; the preset's when not given.",
                                    lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes side by side; the cores are divided among them.",
                                lower_bound=1)
_PLOT_ONLY = flags.DEFINE_bool("plot_only", False, "Draw from the CSV alone.")


def main():
    preset, protocol = _PRESET.value, _PROTOCOL.value
    results_dir = Path(_RESULTS_DIR.value or table1.PRESETS[preset].results_dir)
    status = 0
    if not _PLOT_ONLY.value:
        fractions = ["mini" if preset == "mini" else "paper"] if _FRACTIONS.value is None else _FRACTIONS.value
        datasets = table1.PRESETS[preset].datasets[:1] if _DATASETS.value is None else _DATASETS.value
        configs = figure2.make_configs(
            figure2.parse_fractions(fractions), preset, protocol, _MODELS.value, datasets, _LIKELIHOODS.value,
            _SEEDS.value, data_dir=_DATA_DIR.value, max_batches=_MAX_BATCHES.value, test_samples=_NUM_SAMPLES.value)
        status = figure2.reproduce(configs, figure2.parse_fractions(_TEST_FRACTIONS.value), results_dir, _WORKERS.value)
    rows = figure2.read(results_dir / protocol, preset)
    path = results_dir / "figures" / f"low_data_sweep_{protocol}_{preset}.png"
    plots.low_data_sweep(rows, path)
    print(f"{figure2.as_text(rows)}\n\n{results_dir / protocol / figure2.CSV}: {len(rows)} runs\n{path}")
    return status


if __name__ == "__main__":
    cli.run(main)
