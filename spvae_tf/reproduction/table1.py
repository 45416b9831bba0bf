"""Table 1, reproduced: which runs it needs, making those that are missing, and showing it."""

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation, text, workers
from spvae_tf.spvae import MODELS, canonical_name
from spvae_tf.training import configuration, data, records


class Preset(NamedTuple):
    """What a table is run with by default."""

    datasets: tuple
    results_dir: str
    test_samples: int = 5000  # k of the test
    num_test_images: int | None = None  # None: all
    max_batches: tuple = (None, None)  # of dense and of convolutional models; None: early stopping ends the run


_WHOLE = Preset(("mnist", "cifar10"), "results")
# tuned: Table 2's sizes. checkpoint: those of the checkpoint behind Table 1's number, in the two cells where they are
# others. grid: section 4's cross-validation. The preset is in a run's name and record, so that no mean mixes them.
PRESETS = {"mini": Preset(("mnist_sample", "cifar10_sample"), "results/mini", 500, 100, (512, 256)),
           "tuned": _WHOLE, "checkpoint": _WHOLE, "grid": _WHOLE}


def make_configs(preset, protocol, models, datasets, likelihoods, seeds, grid="paper", cell_of=None, **overrides):
    """Table 1's runs, resolved; **overrides are settings, or None. Raises InputError for a bad name, or none."""
    settings, configs = PRESETS[preset], []
    axes = (map(canonical_name, models), settings.datasets if datasets is None else datasets, likelihoods,
            map(_seed, seeds))
    for model, dataset, likelihood, seed in itertools.product(*map(dict.fromkeys, axes)):
        config = configuration.make_config(model, dataset, likelihood, cell_of)
        config.update(protocol=protocol, preset=preset, seed=seed, test_samples=settings.test_samples,
                      num_test_images=settings.num_test_images, max_batches=settings.max_batches["Conv" in model])
        config.update({key: value for key, value in overrides.items() if value is not None})
        configs += _at_sizes_of_preset(config, grid, cell_of)
    if not configs:
        raise InputError("there is nothing to run; --models, --datasets, --likelihoods and --seeds must not be empty"
                         + (", and hold a cell that has a checkpoint of its own" if preset == "checkpoint" else ""))
    return sorted(configs, key=lambda config: list(MODELS).index(config.model))


def _seed(word):
    try:
        return int(word)
    except ValueError as error:
        raise InputError(f"seed is {word!r}; it must be an integer") from error


def _at_sizes_of_preset(config, grid, cell_of):
    """A cell's configuration, resolved, at each of its preset's sizes."""
    if config.preset == "grid":
        return cross_validation.points(config, grid)
    if config.preset == "checkpoint":
        cell = published.CELLS.get((config.model, cell_of or config.dataset, config.likelihood))
        if not cell or not cell.checkpoint:
            return []
        config.hidden_units, config.latent_dim = cell.checkpoint
    return [configuration.resolve(config)]


def reproduce(configs, results_dir, num_workers=1):
    """Makes the missing runs, writes table1.csv after each, prints the table; returns 1 when a run failed, else 0."""
    folder = Path(results_dir) / configs[0].protocol
    write(folder)  # before hours of work: can the results be written?
    made, failures = cross_validation.make_runs(configs, lambda config: True, results_dir, num_workers,
                                                functools.partial(write, folder))
    shown = [config for config in configs if config.preset != "grid"] + cross_validation.winners(configs, made)
    if tested := [made[c.name] for c in shown if c.name in made and made[c.name]["test_ll"] is not None]:
        print("\n" + as_text(tested))
    print(f"\n{folder / 'table1.csv'}: {len(made)} of {len(configs)} runs done")
    return workers.report(failures)


def dry_run(configs, results_dir):
    """Prints the runs that `reproduce` would make, and what such runs took that are recorded; writes nothing."""
    there, failures = workers.already_there([workers.Task(c, c.preset != "grid") for c in configs], results_dir)
    for reason in failures.values():
        raise InputError(reason)
    costs = recorded_costs({protocol: Path(results_dir) / protocol for protocol in configuration.PROTOCOLS},
                           configs[0].protocol)
    for config in configs:
        print(f"{config.name}: {'already there' if config.name in there else cost_of(config, costs)}")
    for name, points in cross_validation.cross_validations(configs).items():
        winner = cross_validation.winner(points, there)
        if winner is None or there[winner.name]["test_ll"] is None:
            print(f"{name}: then the test of the winner")
    print(f"\n{len(there)} of {len(configs)} runs are there")


def recorded_costs(folders, protocol):
    """What training took, for `cost_of`; of a run that only another protocol's folder has recorded, there."""
    costs = {}
    for other in sorted(folders, key=lambda name: name == protocol):
        found, recorded = {}, [record | {"kind": _kind(configuration.recorded_config(record["config"]))}
                               for record in records.read_records(folders[other])]
        for (kind, device), made in text.grouped(recorded, "kind", "device").items():
            hours = text.mean_of([record["train_seconds"] / 3600 for record in made], 2, unit=" h")
            batches = text.mean_of([record["batches"] for record in made], 0, runs=False)
            under = "" if other == protocol else f" under {other}"
            found.setdefault(kind, []).append(f"{hours} of training{under} on {device}, {batches} batches")
        costs |= found
    return costs


def cost_of(config, costs):
    """What training runs like a configuration's took, as text; `costs` of `recorded_costs`."""
    return "; ".join(costs.get(_kind(config), ["no record of such a run"]))


def _kind(config):
    """What is the same in runs that differ in their seeds alone."""
    return (config.model, data.dataset_name(config.dataset), config.likelihood, config.hidden_units,
            config.latent_dim, config.max_batches, *configuration.changes_as_text(config))


def records_of(folder):
    """The records that stand for a cell: of whole training sets, with its settings, or a user's own images and any."""
    def counts(record):
        changes = configuration.changes(configuration.recorded_config(record["config"]))
        return "train_fraction" not in changes if record["paper_test_ll"] is None else not changes

    return [record for record in records.read_records(folder) if counts(record)]


def write(folder):
    """Makes table1.csv anew from the records."""
    with files.lock(folder, wait=True):  # or a record that another process adds meanwhile would be missing
        files.write_table(Path(folder) / "table1.csv", records_of(folder), records.FIELDS)


def as_text(tested):
    """Table 1 as text, of records of tested runs of one preset and protocol."""
    cells, notes = {}, []
    for key, group in text.grouped(tested, *text.CELL).items():
        ours, theirs = text.mean_of([r["test_ll"] for r in group], digits=0, runs=False), group[0]["paper_test_ll"]
        ours = ours if theirs is None else f"{ours} ({theirs})"
        bits = text.bits(group[0], np.mean([r["test_ll"] for r in group]))
        cells[key] = ours if bits == "—" else f"{ours}; {bits}"
        cell, sizes = published.cell(*key), (group[0]["hidden_units"], group[0]["latent_dim"])
        if cell and cell.checkpoint and group[0]["preset"] != "grid" and sizes != cell.checkpoint:
            notes.append(f"The paper's number for {', '.join(key)} belongs to another model: H = {cell.checkpoint[0]}, "
                         f"n_z = {cell.checkpoint[1]} instead of Table 2's {cell.hidden_units}, {cell.latent_dim}")
    cells |= {key: f"{value:.0f}; 8" for key, value in text.uniform_of(tested).items()}
    tests = sorted({(r["num_samples"], r["num_test_images"]) for r in tested})
    title = (f"Test ELBO in nats per image, {', '.join(f'k = {k} on {n} images' for k, n in tests)}; "
             "the paper's (k = 5000, whole test set) in brackets; bits per dimension, or that it is a density")
    if any(r["dataset"].endswith("_sample") for r in tested):
        title += "\nSmall samples and short runs: they show that everything runs, and are not to be compared"
    return "\n".join([title, text.aligned(text.by_model(cells), numbers=True), *notes])
