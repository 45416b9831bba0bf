"""Cross-validation: section 4's grids, selection by validation, workers, what is left after a kill, estimates."""

import contextlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation as grid
from spvae_tf.reproduction import table1
from spvae_tf.training import configuration, data
from spvae_tf.training import records as results
from spvae_tf.training import run as experiment
from spvae_tf.training.trainer import Trainer

ROOT = Path(__file__).parents[2]

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
        configs = table1.make_configs("grid", "released", [model], [dataset], [likelihood], [3], grid_name=name)
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
    assert [{c.seed for c in v.points} for v in grid.cross_validations(configs)] == [{0}, {1}]  # each has its own


def test_unknown_grid():
    with pytest.raises(InputError, match="grid is 'all'; it must be one of paper, released"):
        grid.points(configuration.make_config(), "all")


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
    for records in itertools.permutations([best_test, best_validation, point(-6.0, test=200.0)]):
        assert grid.select(records) is best_validation


def test_a_record_with_a_nan_is_never_selected():
    sound = point(-5.0)
    for bad in (math.nan, math.inf, -math.inf, None):
        assert grid.select([point(bad), sound]) is grid.select([sound, point(bad)]) is sound
        assert grid.select([point(bad)]) is None
    assert grid.select([]) is None


def test_of_equals_the_smallest_wins_in_any_order():
    equals = [point(-4.0, params=9, hidden=h, latent=z) for h, z in ((1, 3), (2, 1), (2, 2))] + [point(-4.0, params=11)]
    for records in itertools.permutations(equals):
        assert grid.select(records) is equals[0]


# --- a cross-validation, in this process ------------------------------------------------------------------------------

def load_tiny(config):
    rng = np.random.default_rng(0)
    train, validation, test = (rng.random((n, 36), np.float32) for n in (24, 7, 9))
    return data.Dataset("tiny", (6, 6), train, validation, test, None, None, None)


@contextlib.contextmanager
def small_world():
    """A grid of three points on small images; functions run eagerly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grid.GRIDS, "tiny", {"VAE": grid.Sizes((2,), (1, 2, 3))})
        patch.setattr(experiment, "load_data", load_tiny)
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
    return table1.make_configs("grid", "paper", ["VAE"], ["tiny.npz"], ["continuous"], [0], grid_name="tiny",
                                 batch_size=8, train_samples=2, validate_every=2, max_batches=4, test_samples=12,
                                 num_test_images=5)


def rows_of(folder):
    return files.read_table(folder / "paper" / "table1.csv")


def winner_of(folder):
    return max(results.read_records(folder / "paper"), key=lambda r: r["val_ll_k5"])


def make_untested(folder, record):
    empty = dict.fromkeys(TEST_FIELDS)
    results.write_record(folder / "paper", record["name"], {k: v for k, v in record.items() if k != "name"} | empty)


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
    monkeypatch.setattr(Trainer, "_run_block", None)  # no more training
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
    winner, validate = winner_of(copied), Trainer._run_validation
    (copied / "paper" / "records" / f"{winner['name']}.json").unlink()
    shutil.rmtree(copied / "paper" / "runs" / winner["name"])
    monkeypatch.setattr(Trainer, "_run_validation",
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
    run = experiment.complete

    def failing(config, *arguments):
        if config == victim:
            raise RuntimeError("no space")
        return run(config, *arguments)
    monkeypatch.setattr(experiment, "complete", failing)
    assert table1.reproduce(configs_of(), copied) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"failed: {victim.name}: RuntimeError: no space")
    assert len(rows_of(copied)) == 2 and all(r["test_ll"] is None for r in rows_of(copied))
    monkeypatch.setattr(experiment, "complete", run)
    assert table1.reproduce(configs_of(), copied) == 0
    assert sum(r["test_ll"] is not None for r in rows_of(copied)) == 1


def test_experiments_of_another_kind_have_no_row_in_table_1(tmp_path):
    for number, change in enumerate((dict(), dict(learning_rate=0.005), dict(train_fraction=0.5), dict(patience=7))):
        config = configuration.make_config("VAE", "mnist", "discrete")
        config.update(change)
        config.update(seed=number, hidden_units=1, latent_dim=1)
        record = dict.fromkeys(results.FIELDS, 1) | dict.fromkeys(files.TEXT_COLUMNS, "") | dict(
            model="VAE", dataset="mnist", likelihood="discrete", protocol="paper", preset="single", seed=number,
            paper_test_ll=-2351, config=configuration.resolve(config).to_dict())
        results.write_record(tmp_path, f"r{number}", record)
    table1.write(tmp_path)
    assert [row["seed"] for row in files.read_table(tmp_path / "table1.csv")] == [0]


# --- data that are not at hand ----------------------------------------------------------------------------------------

@pytest.fixture
def offline(monkeypatch):
    def load(config):
        if config.dataset == "mnist":
            raise InputError("data set 'mnist' cannot be loaded by TFDS: no network")
        raise AssertionError("only the whole is tried beforehand")
    monkeypatch.setattr(experiment, "load_data", load)


def test_bounded_runs_take_the_sample_by_its_own_name(offline, tmp_path, capsys):
    configs = table1.make_configs("grid", "paper", ["SPVAE"], ["mnist"], ["continuous"], [0], max_batches=256)
    configs, failures = table1._with_data(configs, tmp_path)
    assert {c.dataset for c in configs} == {"mnist_sample"} and not failures
    assert all("mnist_sample" in c.name for c in configs)
    assert "mnist is not at hand: these bounded runs take the embedded mnist_sample" in capsys.readouterr().err


def test_what_was_run_on_the_whole_is_not_run_again_on_the_sample(offline, monkeypatch, tmp_path):
    configs = table1.make_configs("tuned", "paper", ["VAE"], ["mnist"], ["discrete"], [0, 1], max_batches=256)
    there = configs[0].name
    monkeypatch.setattr(results, "read_record", lambda folder, name: {} if name == there else None)
    configs, _ = table1._with_data(configs, tmp_path)
    assert [c.dataset for c in configs] == ["mnist", "mnist_sample"]


@pytest.mark.parametrize("max_batches, data_dir", [(None, None), (256, "somewhere")])
def test_the_whole_is_never_replaced_otherwise(offline, tmp_path, max_batches, data_dir):
    configs = table1.make_configs("tuned", "paper", ["VAE"], ["mnist"], ["continuous"], [0], max_batches=max_batches,
                                    data_dir=data_dir)
    configs, failures = table1._with_data(configs, tmp_path)
    assert {c.dataset for c in configs} == {"mnist"}
    assert all("--datasets=mnist_sample takes the embedded sample" in text for text in failures.values())
    assert len(failures) == (0 if data_dir else 1)  # a folder that was named is complained about by the run


# --- estimates --------------------------------------------------------------------------------------------------------

def test_estimate_is_exact_at_the_corners_and_bilinear_between(monkeypatch, tmp_path):
    measured = []

    def measure(config, shape):
        measured.append((config.hidden_units, config.latent_dim))
        assert shape == (28, 28)
        return 1.0, 0.01 * config.hidden_units + 0.001 * config.latent_dim, 1e-6 * config.hidden_units
    monkeypatch.setattr(grid, "measure", measure)
    configs = table1.make_configs("grid", "paper", ["SPVAE"], ["mnist"], ["discrete"], [0])
    estimates, count = grid.estimate(configs, tmp_path)
    assert count == 4 and sorted(measured) == [(8, 1), (8, 50), (32, 1), (32, 50)]
    for config, found in zip(configs, estimates, strict=True):
        hidden, latent = config.hidden_units, config.latent_dim
        batch = 0.01 * hidden + 0.001 * latent + 1e-6 * hidden * 5 * 10_000 / 128
        assert found.train_seconds == pytest.approx(1 + 10_000 * batch) and found.known_from == "assumed"
        assert found.test_seconds == pytest.approx(1e-6 * hidden * 5000 * 10_000)
    configs = table1.make_configs("tuned", "paper", ["SPVAE"], ["mnist"], ["discrete"], [0])
    assert grid.estimate(configs, tmp_path)[1] == 1


def test_expected_batches_are_those_of_the_same_experiment(monkeypatch, tmp_path):
    """Not of a part of the training set, another learning rate or another preset's limit; and a run that has only just
    begun has a log without a row."""
    monkeypatch.setattr(grid, "measure", lambda config, shape: (1.0, 0.01, 1e-6))
    experiments = ((dict(), 3000), (dict(seed=1, hidden_units=8), 5000), (dict(train_fraction=0.1), 100),
                   (dict(learning_rate=0.5), 200), (dict(max_batches=300, seed=2), 300))
    for number, (change, batches) in enumerate(experiments):
        config, = table1.make_configs("tuned", "paper", ["SPVAE"], ["mnist"], ["discrete"], [0])
        config = configuration.resolve(config, **change)
        results.write_record(tmp_path / "paper", f"r{number}", dict.fromkeys(results.FIELDS, 1) | dict.fromkeys(
            files.TEXT_COLUMNS, "") | {key: config[key] for key in results.FIELDS if key in config}
            | dict(num_test_images=1, batches=batches, config=config.to_dict()))
    for change, expected in ((dict(), (4000, "records")), (dict(train_fraction=0.1), (100, "records")),
                             (dict(train_fraction=0.5), (10_000, "assumed"))):
        config, = table1.make_configs("tuned", "paper", ["SPVAE"], ["mnist"], ["discrete"], [7], **change)
        log = tmp_path / "paper" / "runs" / config.name / "log.csv"
        log.parent.mkdir(parents=True)
        log.write_text("batch,train_ll,val_ll,best,seconds\n")
        (found,), _ = grid.estimate([config], tmp_path)
        assert (found.batches, found.known_from) == expected and found.begun == 0


def test_log_without_its_checkpoint_is_no_beginning(monkeypatch, tmp_path):
    """The run would begin anew: what is left of it is all of it."""
    monkeypatch.setattr(grid, "measure", lambda config, shape: (1.0, 0.01, 1e-6))
    config, = table1.make_configs("tuned", "paper", ["SPVAE"], ["mnist"], ["discrete"], [7])
    folder = tmp_path / "paper" / "runs" / config.name
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text("batch,train_ll,val_ll,best,seconds\n128,-3,-3,1,2\n")
    for name, begun in (("log.csv", 0), ("checkpoint.npz", 128)):
        (folder / name).touch()
        (found,), _ = grid.estimate([config], tmp_path)
        assert found.begun == begun


def test_measured_seconds(finished):
    compilation, batch, row = grid.measure(configs_of()[0], (6, 6))
    assert compilation > batch > row > 0


def test_dry_run_writes_nothing_and_marks_what_is_there(copied, monkeypatch, capsys):
    monkeypatch.setattr(grid, "measure", lambda config, shape: (1.0, 0.5, 0.25))
    table1.dry_run(configs_of(), copied / "new")
    out = capsys.readouterr().out
    assert not (copied / "new").exists() and "0 of 3 runs are there" in out and "measured here on 2 sizes" in out
    # compilation, 4 batches, each with its share 2 · 7 / 2 of a validation's rows
    assert out.count(f": {math.ceil(1 + 4 * (0.5 + 0.25 * 7))} s for 0 … 4 batches\n") == 3
    assert out.count(f"test of the winner of VAE, tiny.npz, continuous, seed 0: {math.ceil(12 * 5 * 0.25)} s") == 1
    winner = winner_of(copied)
    make_untested(copied, winner)
    table1.dry_run(configs_of(), copied)
    out = capsys.readouterr().out
    assert "3 of 3 runs are there" in out and out.count("already there") == 3 and "test of the winner" in out
    (copied / "paper" / "records" / f"{winner['name']}.json").unlink()
    before = sorted(copied.rglob("*"))
    table1.dry_run(configs_of(), copied)
    assert f"{winner['name']}: 1 s for 4 … 4 batches" in capsys.readouterr().out
    assert sorted(copied.rglob("*")) == before


# --- several processes, and kills -------------------------------------------------------------------------------------

def test_cores_are_divided_among_the_workers(monkeypatch):
    mine, shares = set(range(5)), []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: mine, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: shares.append(set(cores)), raising=False)
    for workers in (2, 5, 7):
        shares.clear()
        for number in range(workers):
            with grid._share_of_cores(number, workers):
                pass
        assert all(back == mine for back in shares[1::2])
        assert set().union(*shares[::2]) == mine and all(shares[::2])
        assert sum(map(len, shares[::2])) == max(workers, 5)


DRIVER = """
import runpy, sys
sys.path.insert(0, {scripts!r})
from spvae_tf.reproduction import cross_validation as grid
grid.GRIDS["paper"] = {{"VAE": grid.Sizes((4,), (1, 2))}}
if __name__ == "__main__":
    runpy.run_path({scripts!r} + "/reproduce_table1.py", run_name="__main__")
"""
FLAGS = ["--preset=grid", "--datasets=mnist_sample", "--likelihoods=discrete", "--models=VAE", "--max_batches=8",
         "--num_samples=20", "--num_images=30", "--workers=2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="reads /proc")
def test_workers_and_scripts_that_are_killed_leave_each_run_once(tmp_path, monkeypatch):
    """The real script on a grid of two points, first with a worker killed, then killed itself, then left alone."""
    (tmp_path / "driver.py").write_text(DRIVER.format(scripts=str(ROOT / "scripts")))
    command = [sys.executable, str(tmp_path / "driver.py"), *FLAGS, f"--results_dir={tmp_path / 'two'}"]

    def start(last_word, *flags):
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while last_word not in (line := process.stdout.readline()):
            assert line, process.communicate()
        return process, workers_of(process.pid)

    process, workers = start("-z2-seed0: to be run")
    os.kill(workers[1], signal.SIGKILL)
    err = process.communicate()[1]
    assert process.returncode == 1 and "worker 2 died (exit code -9); see" in err
    assert "failed: vae-mnist_sample-discrete-grid-h4-z2-seed0: worker 2 died" in err
    assert [row["latent_dim"] for row in rows_of(tmp_path / "two")] == [1]  # the other went on
    assert all(row["test_ll"] is None for row in rows_of(tmp_path / "two"))

    process, workers = start(": to be tested", "--num_samples=1000000000")  # it would take days
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    orphans = [pid for pid in workers if is_alive(pid)]
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert workers and not orphans
    assert [(row["latent_dim"], row["test_ll"]) for row in rows_of(tmp_path / "two")] == [(1, None), (2, None)]

    assert start("2 of 2 runs done")[0].wait() == 0
    rows = rows_of(tmp_path / "two")
    assert [row["latent_dim"] for row in rows] == [1, 2]
    winner, = (row for row in rows if row["test_ll"] is not None)
    assert winner["val_ll_k5"] == max(row["val_ll_k5"] for row in rows)

    monkeypatch.setitem(grid.GRIDS, "paper", {"VAE": grid.Sizes((4,), (1, 2))})
    assert table1.reproduce(table1.make_configs(
        "grid", "paper", ["VAE"], ["mnist_sample"], ["discrete"], [0], max_batches=8, test_samples=20,
        num_test_images=30), tmp_path / "one") == 0
    for one, two in zip(rows_of(tmp_path / "one"), rows, strict=True):
        for key in one.keys() - {"train_seconds", "device", "commit"}:  # a worker has its share of the cores
            assert one[key] == (pytest.approx(two[key], rel=1e-5) if isinstance(two[key], float) else two[key]), key


def status_of(pid):
    """(state, parent) of a process, or (None, None)."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
        return state, int(parent)
    except OSError:
        return None, None


def is_alive(pid):
    return status_of(pid)[0] not in (None, "Z")


def workers_of(parent):
    """The worker processes of a script, in the order of their start."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if status_of(path.name)[1] == parent]
    return [pid for pid in sorted(pids) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
