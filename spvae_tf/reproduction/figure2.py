"""Figure 2: how the test ELBO falls when there are fewer training images (section 4.1)."""

import collections
import sys
import time
from pathlib import Path

from tqdm import tqdm

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation as grid
from spvae_tf.reproduction import table1, text
from spvae_tf.training import configuration
from spvae_tf.training import provenance as environment
from spvae_tf.training import records as results
from spvae_tf.training import run as experiment

# paper: in steps of 10 % from 100 % to 10 %, then exponentially to 0.5 % in three steps. released: the authors' code's.
FRACTIONS = {
    "paper": (0.005, 0.014, 0.037, *(n / 10 for n in range(1, 11))),
    "released": (*(n / 100 for n in range(1, 10)), *(n / 10 for n in range(1, 11))),
    "mini": (0.02, 0.14, 1.0),
}
FIELDS = (*results.FIELDS, "train_fraction")


def parse_fractions(words):
    """The fractions that a flag asks for.

    Args:
      words: list of str: a key of FRACTIONS alone, or numbers.

    Returns:
      Ascending tuple of floats, each once.

    Raises:
      InputError: when a word is neither, or a number is not in (0, 1].
    """
    if len(words) == 1 and words[0] in FRACTIONS:
        return FRACTIONS[words[0]]
    fractions = set()
    for word in words:
        try:
            fractions.add(float(word))
        except ValueError as error:
            raise InputError(f"fraction is {word!r}; it must be a number above 0 and at most 1, or all of them one of "
                             f"{', '.join(FRACTIONS)}") from error
        if not 0 < float(word) <= 1:  # NaN too
            raise InputError(f"fraction is {word}; it must be above 0 and at most 1")
    if not fractions:
        raise InputError(f"there are no fractions; give numbers or one of {', '.join(FRACTIONS)}")
    return tuple(sorted(fractions))


def make_configs(fractions, preset, protocol, models, datasets, likelihoods, seeds, **overrides):
    """The configurations of a sweep, smallest fractions first.

    At fraction 1 they are Table 1's own, so that each of these runs is made once for both.

    Args:
      fractions: of the training set, in (0, 1].
      preset, protocol, models, datasets, likelihoods, seeds, **overrides: as in table1.make_configs.

    Returns:
      list of resolved configurations.

    Raises:
      InputError: for a name, a seed or a fraction that is not allowed.
    """
    configs = [config for fraction in fractions for config in table1.make_configs(
        preset, protocol, models, datasets, likelihoods, seeds, train_fraction=fraction, **overrides)]
    return sorted(configs, key=lambda c: (c.train_fraction, c.dataset, c.likelihood))  # stable: models as in Table 1


def reproduce(configs, test_fractions, results_dir, workers=1):
    """Runs what is missing and writes `<results_dir>/<protocol>/low_data_sweep.csv` after each run.

    Every run is tested with k = 5. One that failed is named, and the others go on.

    Args:
      configs: of `make_configs`.
      test_fractions: where to test with the configuration's k besides (of a grid, the winner); 1, Table 1's, always is.
      results_dir: folder of results.
      workers: processes that make runs side by side.

    Returns:
      0, or 1 when a run failed.

    Raises:
      InputError: before anything is written, when no fraction is below 1, one leaves no image, a record belongs to
        another configuration, or the data cannot be loaded; or when the results cannot be written.
    """
    folder = Path(results_dir) / configs[0].protocol
    if all(config.train_fraction == 1 for config in configs) and not results.read_rows(path_of(folder), FIELDS):
        raise InputError("the only fraction is 1; a sweep has smaller ones (runs on the whole training set alone are "
                         "reproduce_table1.py's)")
    tested = [config for config in configs if config.train_fraction in (1, *test_fractions)]
    tasks = [grid.Task(config, config in tested and config.preset != "grid") for config in configs]
    missing = [task.config for task in tasks if not _is_there(task, results_dir)]
    for config in {c.dataset: c for c in reversed(missing)}.values():  # the smallest fraction of each data set
        experiment.load_data(config)
    write(folder)
    failures = _perform(tasks, results_dir, workers)
    failures |= _perform([grid.Task(config, True) for config in winners(tested, results_dir)], results_dir, workers)
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return int(bool(failures))


def _is_there(task, results_dir):
    record = experiment.finished(task.config, results_dir)
    return record is not None and (record["test_ll"] is not None or not task.test)


def _perform(tasks, results_dir, workers):
    """Makes the runs that are missing; returns dict name -> why it failed."""
    failures, started, todo = {}, {}, collections.deque()
    for task in tasks:
        if _is_there(task, results_dir):
            print(f"{task.config.name}: already there")
        else:
            todo.append(task)

    if todo:
        print(f"on {environment.device()}:", flush=True)

    def announce(task):
        name = task.config.name
        started[name] = time.monotonic()
        tqdm.write(f"{name}: to be run")

    for task, outcome in grid.outcomes(todo, results_dir, workers, announce) if todo else ():
        name, folder = task.config.name, Path(results_dir) / task.config.protocol
        if isinstance(outcome, grid.Failure):
            failures[name] = outcome.reason
            continue
        tqdm.write(f"  {name}: {outcome['num_train']} training images, {_test_ll(outcome)}, {outcome['batches']} "
                   f"batches, {time.monotonic() - started[name]:.0f} s")
        write(folder)
        if task.config.train_fraction == 1:
            table1.write(folder)
    return failures


def _test_ll(record):
    return "diverged" if record["test_ll_k5"] is None else f"test ELBO {record['test_ll_k5']:.1f} (k = 5)"


def winners(configs, results_dir):
    """The winners of the cross-validations that are over.

    Args:
      configs: resolved; those of other presets than "grid" do not count.
      results_dir: folder of results.

    Returns:
      list of configurations.
    """
    records = {c.name: record for c in configs if (record := experiment.finished(c, results_dir))}
    return [winner for validation in grid.cross_validations(configs)
            if validation.is_over(records) and (winner := validation.winner(records))]


# --- the table and the figure -----------------------------------------------------------------------------------------

def write(folder):
    """Makes low_data_sweep.csv anew from the records in a results folder: one row per run, of a grid per winner.

    The runs on the whole training set are Table 1's; they are rows where the same model has smaller fractions.

    Args:
      folder: `<results_dir>/<protocol>`.
    """
    def model_of(record):
        return tuple(record[key] for key in ("model", "dataset", "likelihood", "preset"))

    with files.lock(folder, wait=True):  # or a record that another process adds meanwhile would be missing
        rows = _sweep_rows(folder)
        swept = {model_of(row) for row in rows if row["train_fraction"] < 1}
        files.write_table(path_of(folder), [row for row in rows if model_of(row) in swept], FIELDS)


def _sweep_rows(folder):
    """The records of all fractions, 1 included, of a grid the winners'."""
    rows, points, records = [], [], {}
    for record in results.read_records(folder):
        config = configuration.recorded_config(record)
        if set(configuration.changes(config)) <= {"train_fraction"}:  # no other experiment's
            record["train_fraction"] = config.train_fraction
            # below 1 Table 1's number does not apply
            record["paper_test_ll"] = record["paper_test_ll"] if config.train_fraction == 1 else None
            if config.preset == "grid":
                points.append(config)
                records[record["name"]] = record
            else:
                rows.append(record)
    for validation in grid.cross_validations(points):
        whole = grid.CrossValidation(grid.points(validation.points[0]))
        if whole.is_over(records) and (winner := whole.winner(records)):
            rows.append(records[winner.name])
    return rows


def path_of(folder):
    """Where the sweep's CSV lies in `<results_dir>/<protocol>`."""
    return Path(folder) / "low_data_sweep.csv"


def read(folder, preset):
    """The rows of low_data_sweep.csv that belong to a preset.

    Args:
      folder: `<results_dir>/<protocol>`.
      preset: a key of table1.PRESETS.

    Returns:
      list of dicts with the keys FIELDS.

    Raises:
      InputError: when there is no such row, or the table is damaged.
    """
    rows = [row for row in results.read_rows(path_of(folder), FIELDS) if row["preset"] == preset]
    if not rows:
        raise InputError(f"{path_of(folder)} holds no sweep of preset {preset!r}")
    return rows


def losses(rows, field="test_ll_k5"):
    """The nats that each model loses against its own run on the whole training set with the same seed.

    Args:
      rows: of `read`.
      field: the test ELBO to compare, "test_ll_k5" or "test_ll"; a row that has None there does not count.

    Returns:
      dict (data set, likelihood, model) -> dict fraction -> list over seeds of test ELBOs (nats per image) at
      fraction 1, and of their differences from it at the others, as far as fraction 1 has been run.
    """
    found = {}
    for row in rows:
        model = found.setdefault((row["dataset"], row["likelihood"], row["model"]), {})
        if row[field] is not None:  # else it diverged, or was not tested with its k
            model.setdefault(row["train_fraction"], {})[row["seed"]] = row[field]
    return {key: {fraction: [value - (model[1][seed] if fraction < 1 else 0) for seed, value in values.items()
                             if seed in model.get(1, {})]
                  for fraction, values in model.items()} for key, model in found.items()}


def as_text(rows):
    """The summary of a sweep as text, a line for each model.

    Args:
      rows: of `read`.

    Returns:
      str.
    """
    fractions = sorted({row["train_fraction"] for row in rows}, reverse=True)
    lines = [["", *map(text.per_cent, fractions)]]
    for key, model in losses(rows).items():
        lines.append([", ".join(key)] + [text.mean_of(model.get(fraction), 0, "+" if fraction < 1 else "", runs=False)
                                         for fraction in fractions])
    title = ("Test ELBO (k = 5) in nats per image on the whole training set, and the difference from it on a part; "
             "mean ± standard deviation over seeds")
    return f"{title}\n{text.aligned(lines, numbers=True)}"
