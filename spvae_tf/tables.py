"""Tables 1 and 2 of the paper, reproduced: which runs they need, running them, and showing them."""

import gc
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import keras

from spvae_tf import experiment, paper, results
from spvae_tf.errors import InputError
from spvae_tf.model import MODELS, build_model, canonical_name
from spvae_tf.training import NonFiniteError

LIKELIHOODS = ("continuous", "discrete")


class Preset(NamedTuple):
    """What a table is run with.

    Attributes:
      datasets: by default.
      results_dir: by default.
      max_batches: (dense models, convolutional models), or None for early stopping alone.
      test_samples: k of the test.
      num_test_images: test images for that k, or None for all.
    """

    datasets: tuple
    results_dir: str
    max_batches: tuple | None
    test_samples: int
    num_test_images: int | None


PRESETS = {
    "mini": Preset(("mnist_sample", "cifar10_sample"), "results/mini", (512, 256), 500, 100),
    "tuned": Preset(("mnist", "cifar10"), "results", None, 5000, None),
}


# --- Table 2 ----------------------------------------------------------------------------------------------------------

TABLE2_FIELDS = ("model", "dataset", "likelihood", "params", "paper_kparams")


def table2():
    """The parameters of the 24 models of Table 2.

    Returns:
      list of dicts with the keys TABLE2_FIELDS.
    """
    rows = []
    for (model, dataset, likelihood), cell in paper.PAPER.items():
        side = 28 if dataset == "mnist" else 32
        built = build_model(model, (side, side), likelihood, cell.hidden_units, cell.latent_dim)
        rows.append(dict(zip(TABLE2_FIELDS, (model, dataset, likelihood, built.count_params(), cell.kparams))))
    return rows


def write_table2(results_dir, rows):
    """Writes `<results_dir>/table2.csv`.

    Args:
      results_dir: folder of results.
      rows: of `table2`.
    """
    results.write_table(Path(results_dir) / "table2.csv", rows, TABLE2_FIELDS)


def format_table2(rows):
    """Table 2 as text: ours, with the paper's thousands in brackets.

    Args:
      rows: of `table2`.

    Returns:
      str.
    """
    cells = {(r["model"], r["dataset"], r["likelihood"]): f"{r['params']:,} ({r['paper_kparams']}k)" for r in rows}
    return _grid("Parameters (the paper's, in thousands, in brackets)", cells, paper.DATASETS)


def _grid(title, cells, datasets):
    """A table with the paper's rows and columns from a dict (model, data set, likelihood) -> text."""
    columns = [(d, li) for li in LIKELIHOODS for d in datasets if any((m, d, li) in cells for m in MODELS)]
    heads = [f"{dataset}, {likelihood}" for dataset, likelihood in columns]
    lines = [["", *heads]] + [[m, *(cells.get((m, *column), "—") for column in columns)]
                              for m in MODELS if any((m, *column) in cells for column in columns)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join([title] + ["  ".join([line[0].ljust(widths[0])]
                                          + [text.rjust(w) for text, w in zip(line[1:], widths[1:])])
                                for line in lines])


# --- Table 1 ----------------------------------------------------------------------------------------------------------

def table1_configs(preset, protocol, models, datasets, likelihoods, seeds, **overrides):
    """The configurations of Table 1's runs, cheapest models first.

    Args:
      preset: a key of PRESETS.
      protocol: a key of experiment.PROTOCOLS.
      models: names.
      datasets: names, or None for the preset's.
      likelihoods: names.
      seeds: integers, or their decimal text.
      **overrides: fields of the configuration; None leaves a field alone.

    Returns:
      list of resolved configurations.

    Raises:
      InputError: for a name or a seed that does not exist.
    """
    settings, configs = PRESETS[preset], []
    for name in (canonical_name(m) for m in models):
        for dataset in datasets or settings.datasets:
            for likelihood in likelihoods:
                config = experiment.make_config(name, dataset, likelihood)
                config.protocol, config.preset = protocol, preset
                config.test_samples, config.num_test_images = settings.test_samples, settings.num_test_images
                if settings.max_batches:
                    config.max_batches = settings.max_batches["conv" in MODELS[name][1]]
                config.update({key: value for key, value in overrides.items() if value is not None})
                for seed in seeds:
                    config.seed = _seed(seed)
                    configs.append(experiment.resolve(config))
    if not configs:
        raise InputError("there is nothing to run; --models, --datasets, --likelihoods and --seeds must not be empty")
    order = {name: n for n, name in enumerate(("SPVAE", "VAE", "Conv-VAE", "Conv-SPVAE"))}
    return sorted(configs, key=lambda c: order[c.model])


def _seed(text):
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"seed is {text!r}; it must be an integer") from error


def reproduce_table1(configs, results_dir):
    """Runs what is missing, writes `<results_dir>/<protocol>/table1.csv` after each run, and prints the table.

    A run that fails is named, and the others go on.

    Args:
      configs: of one protocol.
      results_dir: folder of results.

    Returns:
      0, or 1 when a run failed.

    Raises:
      InputError: when the results cannot be written.
    """
    folder = Path(results_dir) / configs[0].protocol
    write_table1(folder)  # before hours of work: can the results be written?
    failures, datasets, done = {}, {}, []
    for number, config in enumerate(configs, 1):
        name = experiment.run_name(config)
        started = time.monotonic()
        try:
            if record := experiment.finished(config, results_dir):
                done.append(record)
                print(f"[{number}/{len(configs)}] {name}: already there")
                continue
            print(f"[{number}/{len(configs)}] {name}", flush=True)
            key = (config.dataset, config.likelihood)
            if key not in datasets:
                datasets = {key: experiment.load_data(config)}  # one at a time: CIFAR-10 takes 250 MB
            record = experiment.run(config, results_dir, datasets[key])
        except (InputError, NonFiniteError) as error:
            failures[name] = error
            continue
        except Exception as error:  # whatever it is, the other cells are still worth having
            failures[name] = error
            traceback.print_exc()
            continue
        finally:
            keras.backend.clear_session()
            gc.collect()
        done.append(record)
        print(f"  test ELBO {record['test_ll']:.1f} ± {record['test_ll_stderr']:.1f} (k = {record['num_samples']}, "
              f"{record['num_test_images']} images), validation {record['val_ll_k5']:.1f} (k = 5), "
              f"{record['batches']} batches, {time.monotonic() - started:.0f} s", flush=True)
        write_table1(folder)
    print("\n" + format_table1(done))
    print(f"\n{folder / 'table1.csv'}: {len(done)} of {len(configs)} runs done")
    for name, error in failures.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    return int(bool(failures))


def write_table1(folder):
    """Makes table1.csv anew from the records of Table 1 in a results folder.

    Args:
      folder: `<results_dir>/<protocol>`.
    """
    records = [r for r in results.read_records(folder) if r["config"]["train_fraction"] == 1]
    results.write_table(Path(folder) / "table1.csv", records)


def format_table1(records):
    """Table 1 as text: mean ± standard deviation over seeds, the paper's number in brackets.

    Args:
      records: of one preset and protocol.

    Returns:
      str, one column per data set and likelihood.
    """
    groups = {}
    for record in records:
        groups.setdefault((record["model"], record["dataset"], record["likelihood"]), []).append(record)
    cells = {}
    for key, group in groups.items():
        mean, deviation = results.mean_and_deviation([r["test_ll"] for r in group])
        spread = f" ± {deviation:.0f}" if len(group) > 1 else ""
        published = group[0]["paper_test_ll"]
        cells[key] = f"{mean:.0f}{spread}" + (f" ({published})" if published is not None else "")
    counts = sorted({(r["num_samples"], r["num_test_images"]) for r in records})
    used = ", ".join(f"k = {k} on {n} images" for k, n in counts)
    title = f"Test ELBO in nats per image, {used}; the paper's (k = 5000, whole test set) in brackets"
    if any(r["dataset"].endswith("_sample") for r in records):
        title += "\nSmall samples and short runs: they show that everything runs, and are not to be compared"
    datasets = list(dict.fromkeys(key[1] for key in groups))
    notes = [f"The paper's number for {', '.join(key)} belongs to another model: H = {cell.checkpoint[0]}, "
             f"n_z = {cell.checkpoint[1]} instead of Table 2's {cell.hidden_units}, {cell.latent_dim}"
             for key in groups if (cell := paper.cell(*key)) and cell.checkpoint]
    return "\n".join([_grid(title, cells, datasets), *notes])
