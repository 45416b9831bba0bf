"""Cross-validation: section 4's grids, selection by validation, the test of the winner, dry runs."""

import contextlib
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation, table1
from spvae_tf.training import configuration, data, records, run
from spvae_tf.training.trainer import Trainer

# --- the grids --------------------------------------------------------------------------------------------------------

# section 4: "n_z ∈ {1, 2, 5, 25, 50, 100, 150, 200}, H ∈ {30, 100, 300, 600} for VAEs, and n_z ∈ {1, 2, 5, 25, 50},
# H ∈ {8, 16, 32} for SPVAEs"; Conv-VAEs: "units in the fully connected layer in {32, 64, 128} and n_z ∈ {1, 2, 5, 25,
# 50, 100, 150, 200}"; Conv-SPVAEs: "{8, 32, 64} and n_z ∈ {1, 2, 5, 25, 50}, for each leaf"
SECTION_4 = {
    "SPVAE": ({8, 16, 32}, {1, 2, 5, 25, 50}), "VAE": ({30, 100, 300, 600}, {1, 2, 5, 25, 50, 100, 150, 200}),
    "Conv-SPVAE": ({8, 32, 64}, {1, 2, 5, 25, 50}), "Conv-VAE": ({32, 64, 128}, {1, 2, 5, 25, 50, 100, 150, 200})}


@pytest.mark.parametrize("model, dataset, likelihood", itertools.product(
    SECTION_4, ("mnist", "svhn_cropped", "cifar10"), ("continuous", "discrete")))
def test_grid_is_section_4s(model, dataset, likelihood):
    for name, extra in (("paper", set()), ("released", {30, 100} if model == "SPVAE" else set())):
        configs = table1.make_configs("grid", "released", [model], [dataset], [likelihood], [3], grid=name)
        hidden, latent = SECTION_4[model]
        expected = sorted(itertools.product(hidden | extra, latent))
        assert sorted((c.hidden_units, c.latent_dim) for c in configs) == expected  # each point once
        for config in configs:
            assert (config.model, config.dataset, config.likelihood) == (model, dataset, likelihood)
            assert (config.preset, config.protocol, config.seed, config.test_samples) == ("grid", "released", 3, 5000)
            assert config.num_test_images is None and config.max_batches is None


def test_grid_of_a_training_fraction_and_seeds():
    configs = table1.make_configs("grid", "paper", ["SPVAE"], ["mnist"], ["discrete"], ["0", "1"], train_fraction=0.1)
    assert len(configs) == len({c.name for c in configs}) == 30
    assert {c.train_fraction for c in configs} == {0.1}
    found = cross_validation.cross_validations(configs)
    assert [{c.seed for c in points} for points in found.values()] == [{0}, {1}]  # each has its own


def test_unknown_grid():
    with pytest.raises(InputError, match="grid is 'all'; it must be one of paper, released"):
        cross_validation.points(configuration.make_config(), "all")


def test_checkpoint_preset_has_the_two_cells_of_other_sizes():
    configs = table1.make_configs("checkpoint", "paper", list(SECTION_4), ["mnist", "svhn_cropped", "cifar10"],
                                    ["continuous", "discrete"], [0])
    assert [(c.model, c.dataset, c.likelihood, c.hidden_units, c.latent_dim) for c in configs] == [
        ("SPVAE", "svhn_cropped", "discrete", 100, 50), ("Conv-VAE", "mnist", "discrete", 64, 100)]
    with pytest.raises(InputError, match="nothing to run.*checkpoint of its own"):
        table1.make_configs("checkpoint", "paper", ["VAE"], ["mnist"], ["discrete"], [0])


# --- selection --------------------------------------------------------------------------------------------------------

def point(val, test=0.0, params=10, hidden=1, latent=1):
    return dict(val_ll_k5=val, test_ll_k5=test, test_ll=test, params=params, hidden_units=hidden, latent_dim=latent)


def test_selection_uses_validation_only():
    best_test, best_validation = point(-5.0, test=100.0), point(-4.0, test=-100.0)
    for found in itertools.permutations([best_test, best_validation, point(-6.0, test=200.0)]):
        assert cross_validation.select(found) is best_validation


def test_a_record_with_a_nan_is_never_selected():
    sound = point(-5.0)
    for bad in (math.nan, math.inf, -math.inf, None):
        assert cross_validation.select([point(bad), sound]) is cross_validation.select([sound, point(bad)]) is sound
        assert cross_validation.select([point(bad)]) is None
    assert cross_validation.select([]) is None


def test_of_equals_the_smallest_wins_in_any_order():
    equals = [point(-4.0, params=9, hidden=h, latent=z) for h, z in ((1, 3), (2, 1), (2, 2))] + [point(-4.0, params=11)]
    for found in itertools.permutations(equals):
        assert cross_validation.select(found) is equals[0]


# --- a cross-validation, in this process ------------------------------------------------------------------------------

def load_tiny(config):
    rng = np.random.default_rng(0)
    train, validation, test = (rng.random((n, 36), np.float32) for n in (24, 7, 9))
    return data.Dataset("tiny", (6, 6), train, validation, test, None, None, None)


@contextlib.contextmanager
def small_world():
    """A grid of three points on small images; functions run eagerly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cross_validation.GRIDS, "tiny", {"VAE": ((2,), (1, 2, 3))})
        patch.setattr(run, "load_data", load_tiny)
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with small_world():
        assert table1.reproduce(configs_of(), folder) == 0
    return folder


@pytest.fixture
def finished(finished_once):
    """The folder of a finished cross-validation in the small world."""
    with small_world():
        yield finished_once


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to spoil."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def configs_of():
    return table1.make_configs("grid", "paper", ["VAE"], ["tiny.npz"], ["continuous"], [0], grid="tiny",
                                 batch_size=8, train_samples=2, validate_every=2, max_batches=4, test_samples=12,
                                 num_test_images=5)


def rows_of(folder):
    return files.read_table(folder / "paper" / "table1.csv")


def winner_of(folder):
    return max(records.read_records(folder / "paper"), key=lambda r: r["val_ll_k5"])


def make_untested(folder, record):
    empty = dict.fromkeys(TEST_FIELDS)
    records.write_record(folder / "paper", record["name"], {k: v for k, v in record.items() if k != "name"} | empty)


TEST_FIELDS = {"test_ll", "test_ll_stderr", "num_samples", "num_test_images"}


def test_the_winner_alone_is_tested_and_has_one_row(finished, capsys):
    rows = rows_of(finished)
    assert len(list((finished / "paper" / "records").iterdir())) == 3
    assert [(row["hidden_units"], row["latent_dim"]) for row in rows] == [(2, 1), (2, 2), (2, 3)]
    tested, = (row for row in rows if row["test_ll"] is not None)
    assert tested["val_ll_k5"] == max(row["val_ll_k5"] for row in rows)
    assert (tested["num_samples"], tested["num_test_images"]) == (12, 5)
    for row in rows:
        assert math.isfinite(row["test_ll_k5"]) and row["batches"] == 4
        empty = {key for key, value in row.items() if value is None} - {"paper_test_ll"}
        assert empty == (set() if row is tested else TEST_FIELDS)
    for workers in (1, 2):  # again: nothing to do
        assert table1.reproduce(configs_of(), finished, workers) == 0
    assert rows_of(finished) == rows and "to be" not in (out := capsys.readouterr().out)
    assert f"H = 2, n_z = {tested['latent_dim']} wins" in out


def test_winner_left_untested_is_tested_from_its_checkpoint(copied, monkeypatch):
    before, winner = rows_of(copied), winner_of(copied)
    make_untested(copied, winner)
    monkeypatch.setattr(Trainer, "_train_block", None)  # no more training
    assert table1.reproduce(configs_of(), copied) == 0
    assert rows_of(copied) == before


def test_damaged_record_is_named_and_its_run_repeated(copied):
    before = rows_of(copied)
    victim = next(p for p in (copied / "paper" / "records").iterdir() if json.loads(p.read_text())["test_ll"] is None)
    victim.write_text(victim.read_text()[:100])
    with pytest.warns(UserWarning, match=f"{victim.name} is damaged.*its run will be repeated"):
        assert table1.reproduce(configs_of(), copied) == 0
    assert rows_of(copied) == before


def test_a_diverged_point_has_a_record_and_never_wins(copied, monkeypatch):
    winner, validate = winner_of(copied), Trainer._validate
    (copied / "paper" / "records" / f"{winner['name']}.json").unlink()
    shutil.rmtree(copied / "paper" / "runs" / winner["name"])
    monkeypatch.setattr(Trainer, "_validate",
                        lambda trainer, step: tf.constant(math.nan) if step > 2 else validate(trainer, step))
    assert table1.reproduce(configs_of(), copied) == 0
    rows = rows_of(copied)
    diverged, = (r for r in rows if math.isnan(r["val_ll_k5"]))
    assert (diverged["latent_dim"], diverged["params"]) == (winner["latent_dim"], winner["params"])
    assert diverged["test_ll"] is None and diverged["batches"] == 2
    second, = (r for r in rows if r["test_ll"] is not None)
    assert second["val_ll_k5"] == max(r["val_ll_k5"] for r in rows if r is not diverged)


def test_no_winner_before_every_point_is_there(copied, monkeypatch, capsys):
    winner = winner_of(copied)
    make_untested(copied, winner)
    victim = next(c for c in configs_of() if c.name != winner["name"])
    (copied / "paper" / "records" / f"{victim.name}.json").unlink()
    complete = run.complete

    def failing(config, *arguments, **options):
        if config == victim:
            raise RuntimeError("no space")
        return complete(config, *arguments, **options)
    monkeypatch.setattr(run, "complete", failing)
    assert table1.reproduce(configs_of(), copied) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"failed: {victim.name}: RuntimeError: no space",
        "failed: vae-npz_tiny-continuous-grid-batch_size=8-train_samples=2-validate_every=2-seed0: it has no winner: a "
        "point failed, or none has a finite validation ELBO"]
    assert len(rows_of(copied)) == 2 and all(r["test_ll"] is None for r in rows_of(copied))
    monkeypatch.setattr(run, "complete", complete)
    assert table1.reproduce(configs_of(), copied) == 0
    assert sum(r["test_ll"] is not None for r in rows_of(copied)) == 1


def test_experiments_of_another_kind_have_no_row_in_table_1(tmp_path):
    for number, change in enumerate((dict(), dict(learning_rate=0.005), dict(train_fraction=0.5), dict(patience=7))):
        config = configuration.make_config("VAE", "mnist", "discrete")
        config.update(change)
        config.update(seed=number, hidden_units=1, latent_dim=1)
        record = dict.fromkeys(records.FIELDS, 1) | dict.fromkeys(files.TEXT_COLUMNS, "") | dict(
            model="VAE", dataset="mnist", likelihood="discrete", protocol="paper", preset="single", seed=number,
            paper_test_ll=-2351, config=configuration.resolve(config).to_dict())
        records.write_record(tmp_path, f"r{number}", record)
    table1.write(tmp_path)
    assert [row["seed"] for row in files.read_table(tmp_path / "table1.csv")] == [0]


# --- dry runs ---------------------------------------------------------------------------------------------------------

def test_dry_run_writes_nothing_and_marks_what_is_there(copied, capsys):
    table1.dry_run(configs_of(), copied / "new")
    out = capsys.readouterr().out
    assert not (copied / "new").exists() and "0 of 3 runs are there" in out
    assert out.count(": no record of such a run\n") == 3
    assert "seed0: then the test of the winner\n" in out
    before = sorted(copied.rglob("*"))
    table1.dry_run(configs_of(), copied)
    out = capsys.readouterr().out
    assert "3 of 3 runs are there" in out and out.count("already there") == 3 and "test of the winner" not in out
    assert sorted(copied.rglob("*")) == before
    make_untested(copied, winner_of(copied))
    table1.dry_run(configs_of(), copied)
    assert "then the test of the winner" in capsys.readouterr().out


def test_dry_run_tells_what_such_runs_took(tmp_path, capsys):
    """The means over seeds on each device, of no other data set, sizes, part of the training set, rate or limit."""
    config, = table1.make_configs("tuned", "paper", ["SPVAE"], ["mnist"], ["discrete"], [7])
    others = (dict(train_fraction=0.1), dict(learning_rate=0.5), dict(hidden_units=8), dict(max_batches=300),
              dict(dataset="cifar10"))
    alike = ((3600, 3000, "a GPU"), (7200, 5000, "a GPU"), (100, 128, "a CPU"))
    for number, (change, took) in enumerate([({}, took) for took in alike] + [(o, (1, 1, "none")) for o in others]):
        made = configuration.resolve(config, seed=number, **change)
        found = {key: made[key] for key in records.FIELDS if key in made}
        found |= dict(zip(("train_seconds", "batches", "device"), took), config=made.to_dict(), num_test_images=1)
        records.write_record(tmp_path / "paper", made.name, dict.fromkeys(records.FIELDS, 1) | dict.fromkeys(
            files.TEXT_COLUMNS, "") | found)
    table1.dry_run([config], tmp_path)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"{config.name}: ") and sorted(line.removeprefix(f"{config.name}: ").split("; ")) == [
        "0.03 h (1) of training on a CPU, 128 batches", "1.50 h ± 0.71 (2) of training on a GPU, 4000 ± 1414 batches"]
