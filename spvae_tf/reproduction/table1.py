"""Table 1, reproduced: which runs it needs, running what is missing, and showing it."""

import collections
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation as grid
from spvae_tf.reproduction import text
from spvae_tf.spvae import MODELS, canonical_name
from spvae_tf.training import configuration, data
from spvae_tf.training import provenance as environment
from spvae_tf.training import records as results
from spvae_tf.training import run as experiment


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
    "checkpoint": Preset(("mnist", "cifar10"), "results", None, 5000, None),
    "grid": Preset(("mnist", "cifar10"), "results", None, 5000, None),
}

def make_configs(preset, protocol, models, datasets, likelihoods, seeds, grid_name="paper", cell_of=None,
                   **overrides):
    """The configurations of Table 1's runs, in the order of its models.

    Args:
      preset: a key of PRESETS. "checkpoint" has only the cells whose published number belongs to a checkpoint of other
        sizes than Table 2's, at its sizes; "grid" has every point of a cross-validation.
      protocol: a key of configuration.PROTOCOLS.
      models: names.
      datasets: names, or None for the preset's.
      likelihoods: names.
      seeds: integers, or their decimal text.
      grid_name: a key of grid.GRIDS, for "grid".
      cell_of: of a user's own images, the data set whose cells they take the sizes of (configuration.make_config).
      **overrides: fields of the configuration, train_fraction for one; None leaves a field alone.

    Returns:
      list of resolved configurations.

    Raises:
      InputError: for a name or a seed that does not exist.
    """
    settings, configs = PRESETS[preset], []
    models, seeds = (dict.fromkeys(map(check, words)) for check, words in ((canonical_name, models), (_seed, seeds)))
    for name in models:  # each word once, however it is written
        for dataset in dict.fromkeys(settings.datasets if datasets is None else datasets):
            for likelihood in dict.fromkeys(likelihoods):
                config = configuration.make_config(name, dataset, likelihood, cell_of)
                config.protocol, config.preset = protocol, preset
                config.test_samples, config.num_test_images = settings.test_samples, settings.num_test_images
                if settings.max_batches:
                    config.max_batches = settings.max_batches["conv" in MODELS[name][1]]
                config.update({key: value for key, value in overrides.items() if value is not None})
                for seed in seeds:
                    config.seed = seed
                    configs += map(configuration.resolve, _sized(config, preset, grid_name, cell_of))
    if not configs:
        raise InputError("there is nothing to run; --models, --datasets, --likelihoods and --seeds must not be empty"
                         + (", and hold a cell that has a checkpoint of its own" if preset == "checkpoint" else ""))
    return sorted(configs, key=lambda c: list(MODELS).index(c.model))


def _sized(config, preset, grid_name, cell_of):
    """A cell's configuration at each of the preset's sizes."""
    if preset == "grid":
        return grid.points(config, grid_name)
    if preset == "checkpoint":
        cell = published.CELLS.get((config.model, cell_of or config.dataset, config.likelihood))
        if not cell or not cell.checkpoint:
            return []
        config.hidden_units, config.latent_dim = cell.checkpoint
    return [config]


def _seed(word):
    try:
        return int(word)
    except ValueError as error:
        raise InputError(f"seed is {word!r}; it must be an integer") from error


def reproduce(configs, results_dir, workers=1):
    """Runs what is missing, writes `<results_dir>/<protocol>/table1.csv` after each run, and prints the table.

    A run that fails is named, and the others go on. The points of a grid are tested with k = 5 alone; when all of a
    cross-validation are there, its winner is tested with the full k.

    Args:
      configs: of one protocol and preset.
      results_dir: folder of results.
      workers: processes that make runs side by side.

    Returns:
      0, or 1 when a run failed.

    Raises:
      InputError: when the results cannot be written.
    """
    folder = Path(results_dir) / configs[0].protocol
    write(folder)  # before hours of work: can the results be written?
    configs, failures = _with_data(configs, results_dir)
    records = _already_there(configs, results_dir, failures)
    validations, started = grid.cross_validations(configs), {}
    tasks = collections.deque(grid.Task(c, c.preset != "grid") for c in configs
                              if c.name not in records | failures)
    for validation in filter(lambda v: v.is_over(records), validations):
        tasks.extendleft(_test_of_winner(validation, records, failures))

    if tasks:
        _say(f"on {environment.device()}:")

    def announce(task):
        name = task.config.name
        started[name] = time.monotonic()
        _say(f"{name}: " + ("to be tested" if name in records else "to be run"))

    for task, outcome in grid.outcomes(tasks, results_dir, workers, announce):
        name = task.config.name
        if isinstance(outcome, grid.Failure):
            failures[name] = outcome.reason
            continue
        records[name] = outcome
        _say(f"  {name}: {_summary(outcome)}, {time.monotonic() - started[name]:.0f} s")
        write(folder)
        for validation in validations:
            if not task.test and task.config in validation.points and validation.is_over(records):
                tasks.extendleft(_test_of_winner(validation, records, failures))
    winners = [v.winner(records) for v in validations if v.is_over(records)]
    tested = [records[name] for c in configs if (name := c.name) in records
              and (c.preset != "grid" or c in winners) and records[name]["test_ll"] is not None]
    if tested:
        print("\n" + as_text(tested))
    print(f"\n{folder / 'table1.csv'}: {len(records)} of {len(configs)} runs done")
    for name, error in failures.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    return int(bool(failures))


def _with_data(configs, results_dir):
    """Sees to the official data sets once, before the work: TFDS downloads them now, or they cannot be had.

    A bounded run (max_batches) is a check that everything runs, and then takes the embedded sample, called by its name.

    Returns:
      (configurations, dict name -> failure of those without data).
    """
    folder, failures = Path(results_dir) / configs[0].protocol, {}
    unseen = {}
    for c in configs:
        if (c.dataset in data.OFFICIAL_SIZES and c.data_dir is None
                and results.read_record(folder, c.name) is None):
            unseen.setdefault(c.dataset, []).append(c)
    for dataset, affected in unseen.items():
        sample = f"{dataset}_sample"
        try:
            experiment.load_data(affected[0])
        except InputError as error:
            if sample in data.DATASETS and affected[0].max_batches:
                print(f"{error}\n{dataset} is not at hand: these bounded runs take the embedded {sample} instead, and "
                      "are recorded as what they are", file=sys.stderr)
                configs = [configuration.resolve(c, dataset=sample) if c in affected else c for c in configs]
            else:
                hint = f", --datasets={sample} takes the embedded sample" if sample in data.DATASETS else ""
                failures |= {c.name: f"{error}; --data_dir names a folder that holds it{hint}"
                             for c in affected}
    return configs, failures


def _already_there(configs, results_dir, failures):
    """The records that need no more work, by the names of their runs; points of a grid may be untested."""
    records = {}
    for config in configs:
        name = config.name
        try:
            record = experiment.finished(config, results_dir)
        except InputError as error:
            failures[name] = error
            continue
        if record and (config.preset == "grid" or record["test_ll"] is not None):
            records[name] = record
            failures.pop(name, None)  # what is there needs no data
            print(f"{name}: already there")
    return records


def _test_of_winner(validation, records, failures):
    """The test of a cross-validation's winner as the only task of a list, unless it is there."""
    winner = validation.winner(records)
    if winner is None:
        failures[str(validation)] = "no point of the grid has a finite validation ELBO"
        return []
    record = records[winner.name]
    _say(f"{validation}: H = {winner.hidden_units}, n_z = {winner.latent_dim} wins with a validation ELBO of "
         f"{record['val_ll_k5']:.1f}")
    return [grid.Task(winner, True)] if record["test_ll"] is None else []


def _say(line):
    """Prints a line beside progress bars, at once even into a file."""
    tqdm.write(line)
    sys.stdout.flush()


def _summary(record):
    test = "" if record["test_ll"] is None else (
        f"test ELBO {record['test_ll']:.1f} ± {record['test_ll_stderr']:.1f} (k = {record['num_samples']}, "
        f"{record['num_test_images']} images), ")
    return f"{test}validation {record['val_ll_k5']:.1f} (k = 5), {record['batches']} batches"


def dry_run(configs, results_dir):
    """Prints the runs that `reproduce` would make, and how long they will take; writes nothing.

    Args:
      configs: of one protocol and preset.
      results_dir: folder of results.

    Raises:
      InputError: when a data set of the user's own cannot be loaded, or a record was made with another configuration.
    """
    there = _already_there(configs, results_dir, failures := {})
    for error in failures.values():
        raise error
    missing = [c for c in configs if c.name not in there]
    untested = [v for v in grid.cross_validations(configs) if not v.is_over(there)
                or (w := v.winner(there)) and there[w.name]["test_ll"] is None]
    wanted = missing + [c for v in untested for c in v.points if c not in missing]
    estimates, measured = grid.estimate(wanted, results_dir) if wanted else ([], 0)
    estimates = {c.name: estimate for c, estimate in zip(wanted, estimates)}
    total = 0
    for config in missing:
        estimate = estimates[name := config.name]
        seconds = estimate.train_seconds + (0 if config.preset == "grid" else estimate.test_seconds)
        total += seconds
        print(f"{name}: {_duration(seconds)} for {estimate.begun} … {estimate.batches:.0f} batches")
    for validation in untested:
        seconds = max(estimates[c.name].test_seconds for c in validation.points)
        total += seconds
        print(f"test of the winner of {validation}: {_duration(seconds)} at most")
    print(f"\n{len(there)} of {len(configs)} runs are there; what is left takes about {_duration(total)} on "
          f"{environment.device()}, with any number of workers")
    notes = {"records": "batches: the mean of this folder's records of the same model, data and settings; ",
             "assumed": f"batches: {grid.ASSUMED_BATCHES} assumed where no record tells, early stopping decides; "}
    sources = {estimates[c.name].known_from for c in missing}
    print("".join(note for source, note in notes.items() if source in sources)
          + f"seconds: measured here on {measured} sizes, validation included, interpolated in H and n_z between them")


def _duration(seconds):
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def records_of(folder):
    """The records in a results folder that stand for a cell of Table 1.

    A run on part of the training set, or in which more was set than cell, sizes and seed, is an experiment of another
    kind: it has a record, but no row in the table. For a user's own images nothing is published, and anything may be
    set.

    Args:
      folder: `<results_dir>/<protocol>`.

    Returns:
      list of dicts, as results.read_records.
    """
    def counts(record):
        changes = configuration.changes(configuration.recorded_config(record))
        return "train_fraction" not in changes if record["paper_test_ll"] is None else not changes

    return [record for record in results.read_records(folder) if counts(record)]


def write(folder):
    """Makes table1.csv anew from the records in a results folder.

    Args:
      folder: `<results_dir>/<protocol>`.
    """
    with files.lock(folder, wait=True):  # or a record that another process adds meanwhile would be missing
        files.write_table(Path(folder) / "table1.csv", records_of(folder), results.FIELDS)


def as_text(records):
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
        spread = text.mean_of([r["test_ll"] for r in group], digits=0, runs=False)
        theirs = group[0]["paper_test_ll"]
        cells[key] = spread + (f" ({theirs})" if theirs is not None else "")
    counts = sorted({(r["num_samples"], r["num_test_images"]) for r in records})
    used = ", ".join(f"k = {k} on {n} images" for k, n in counts)
    title = f"Test ELBO in nats per image, {used}; the paper's (k = 5000, whole test set) in brackets"
    if any(r["dataset"].endswith("_sample") for r in records):
        title += "\nSmall samples and short runs: they show that everything runs, and are not to be compared"
    notes = [f"The paper's number for {', '.join(key)} belongs to another model: H = {cell.checkpoint[0]}, "
             f"n_z = {cell.checkpoint[1]} instead of Table 2's {cell.hidden_units}, {cell.latent_dim}"
             for key, group in groups.items() if (cell := published.cell(*key)) and cell.checkpoint
             and group[0]["preset"] != "grid"
             and (group[0]["hidden_units"], group[0]["latent_dim"]) != cell.checkpoint]
    return "\n".join([title, text.aligned(text.by_model(cells), numbers=True), *notes])
