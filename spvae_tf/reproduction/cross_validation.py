"""Cross-validation (section 4): points, each the resolved configuration of one pair of sizes; the winner; its test."""

import itertools
import math

from spvae_tf.errors import check_choice
from spvae_tf.reproduction import workers
from spvae_tf.training import configuration

_VAE_LATENT, _LEAF_LATENT = (1, 2, 5, 25, 50, 100, 150, 200), (1, 2, 5, 25, 50)
# of each model the H of every layer of an MLP, or the units of a convolutional VAE's fully connected layer; and n_z
GRIDS = {"paper": {"SPVAE": ((8, 16, 32), _LEAF_LATENT), "VAE": ((30, 100, 300, 600), _VAE_LATENT),
                   "Conv-SPVAE": ((8, 32, 64), _LEAF_LATENT), "Conv-VAE": ((32, 64, 128), _VAE_LATENT)}}
# besides, the SPVAE sizes off that grid that stand behind entries of Tables 1 and 2
GRIDS["released"] = GRIDS["paper"] | {"SPVAE": ((8, 16, 30, 32, 100), _LEAF_LATENT)}


def points(config, grid="paper"):
    """The points of a configuration's cross-validation; `grid` is a key of GRIDS."""
    check_choice("grid", grid, GRIDS)
    return [configuration.resolve(config, hidden_units=hidden_units, latent_dim=latent_dim)
            for hidden_units, latent_dim in itertools.product(*GRIDS[grid][config.model])]


def select(records):
    """The record with the best validation ELBO, of equals that of the smallest model; None where none is finite."""
    sound = [r for r in records if r["val_ll_k5"] is not None and math.isfinite(r["val_ll_k5"])]
    return min(sound, key=lambda r: (-r["val_ll_k5"], r["params"], r["hidden_units"], r["latent_dim"]), default=None)


def cross_validations(configs):
    """The points among configurations: dict the name of a cross-validation, that of its runs without sizes -> list."""
    found = {}
    for config in configs:
        if config.preset == "grid":
            name = config.name.replace(f"-h{config.hidden_units}-z{config.latent_dim}", "", 1)
            if config.preparation == configuration.EARLIER:
                name += ", images prepared in an earlier way"  # no point of the same grid
            found.setdefault(name, []).append(config)
    return found


def winner(points, records):
    """The point that `select` chooses; None while one has no record, or where none has a finite validation ELBO."""
    if not all(config.name in records for config in points):
        return None
    chosen = select([records[config.name] for config in points])
    return next((config for config in points if records[config.name] is chosen), None)


def winners(configs, records):
    """The winners of all cross-validations among configurations, as far as they have one."""
    return [won for points in cross_validations(configs).values() if (won := winner(points, records))]


def make_runs(configs, is_tested, results_dir, num_workers, on_record):
    """workers.make_missing: points with k = 5 alone; then the tests of winners, and of others for which `is_tested`."""
    tasks = [workers.Task(config, is_tested(config) and config.preset != "grid") for config in configs]
    records, failures = workers.make_missing(tasks, results_dir, num_workers, on_record)
    untested = []
    for name, points in cross_validations(filter(is_tested, configs)).items():
        if not (won := winner(points, records)):
            failures[name] = "it has no winner: a point failed, or none has a finite validation ELBO"
            continue
        print(f"{name}: H = {won.hidden_units}, n_z = {won.latent_dim} wins with a validation ELBO of "
              f"{records[won.name]['val_ll_k5']:.1f}")
        if records[won.name]["test_ll"] is None:
            untested.append(workers.Task(won, True))
    tested, failed = workers.make_missing(untested, results_dir, num_workers, on_record)
    return records | tested, failures | failed
