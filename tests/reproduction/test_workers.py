"""Runs side by side: shares of the cores, processes that are killed, scripts that are killed or interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation, table1, workers
from spvae_tf.training import checkpoint, configuration, run

ROOT = Path(__file__).parents[2]


def test_cores_are_divided_among_the_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
    for number in (2, 5, 7):
        shares = workers._shares_of_cores(number)
        assert len(shares) == number and all(shares) and set().union(*shares) == set(range(5))
        assert sum(map(len, shares)) == max(number, 5)


def test_data_that_cannot_be_had_fail_their_runs_alone(monkeypatch, tmp_path):
    def load_data(config):
        raise InputError("data set 'mnist' cannot be loaded by TFDS: no network")

    monkeypatch.setattr(run, "load_data", load_data)
    configs = table1.make_configs("tuned", "paper", ["VAE", "SPVAE"], ["mnist"], ["discrete"], [0])
    records, failures = workers.make_missing([workers.Task(c, True) for c in configs], tmp_path)
    assert not records and failures.keys() == {config.name for config in configs}
    assert set(failures.values()) == {"data set 'mnist' cannot be loaded by TFDS: no network"}


def test_a_failure_is_one_line_and_status_1(capsys):
    assert workers.report({}) == 0
    assert workers.report({"a": "no space"}) == 1
    assert capsys.readouterr().err == "failed: a: no space\n"


@pytest.fixture
def worker(tmp_path):
    worker = workers._Worker(None, tmp_path / "log")
    yield worker
    for pid in workers_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_a_process_that_is_killed_is_replaced(worker, tmp_path):
    """The run that it had is lost, the next one is made by another process."""
    bad = workers.Task(configuration.resolve(configuration.make_config("VAE", str(tmp_path / "none.npz"))), True)

    def outcome(kill):
        future = worker.submit(bad, tmp_path)
        if kill:
            os.kill(workers_of(os.getpid())[-1], signal.SIGKILL)
        return worker.outcome(future)

    assert "its process was killed" in outcome(kill=True)
    assert "none.npz: no such file" in outcome(kill=False)
    pid, = workers_of(os.getpid())
    os.kill(pid, signal.SIGKILL)  # while it has no run
    while is_alive(pid):
        time.sleep(0.05)
    time.sleep(0.5)
    assert "none.npz: no such file" in outcome(kill=False)


# --- the script -------------------------------------------------------------------------------------------------------

DRIVER = """
import runpy, sys
sys.path.insert(0, {scripts!r})
from spvae_tf.reproduction import cross_validation
cross_validation.GRIDS["paper"] = {{"VAE": ((4,), (1, 2))}}
if __name__ == "__main__":
    runpy.run_path({scripts!r} + "/reproduce_table1.py", run_name="__main__")
"""
FLAGS = ["--preset=grid", "--datasets=mnist_sample", "--likelihoods=discrete", "--models=VAE", "--num_samples=20",
         "--num_images=30", "--workers=2"]


@pytest.fixture
def start(tmp_path):
    """Starts the script on a grid of two points and waits for a line; returns (its process, its workers' ids)."""
    (tmp_path / "driver.py").write_text(DRIVER.format(scripts=str(ROOT / "scripts")))

    def start(line_with, *flags):
        process = subprocess.Popen([sys.executable, str(tmp_path / "driver.py"), *FLAGS, *flags],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # if ignored here
        while line_with not in (line := process.stdout.readline()):
            assert line, process.communicate()
        return process, workers_of(process.pid)
    return start


def rows_of(folder):
    return files.read_table(folder / "paper" / "table1.csv")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="reads /proc")
def test_a_killed_worker_costs_one_run_and_two_workers_make_what_one_makes(start, tmp_path, monkeypatch):
    flags = "--max_batches=8", f"--results_dir={tmp_path / 'two'}"
    process, pids = start("-z2-seed0: to be run", *flags)
    os.kill(pids[1], signal.SIGKILL)
    err = process.communicate()[1].splitlines()
    assert process.returncode == 1
    assert [line for line in err if "its process was killed" in line] == [
        "failed: vae-mnist_sample-discrete-grid-h4-z2-seed0: its process was killed, as it is when memory runs out; "
        f"see {tmp_path / 'two' / 'paper' / 'runs' / 'worker2.log'}"]
    assert [(row["latent_dim"], row["test_ll"]) for row in rows_of(tmp_path / "two")] == [(1, None)]

    assert start("2 of 2 runs done", *flags)[0].wait() == 0
    rows = rows_of(tmp_path / "two")
    assert [row["latent_dim"] for row in rows] == [1, 2]
    winner, = (row for row in rows if row["test_ll"] is not None)
    assert winner["val_ll_k5"] == max(row["val_ll_k5"] for row in rows)

    monkeypatch.setitem(cross_validation.GRIDS, "paper", {"VAE": ((4,), (1, 2))})
    assert table1.reproduce(table1.make_configs(
        "grid", "paper", ["VAE"], ["mnist_sample"], ["discrete"], [0], max_batches=8, test_samples=20,
        num_test_images=30), tmp_path / "one") == 0
    for one, two in zip(rows_of(tmp_path / "one"), rows, strict=True):
        for key in one.keys() - {"train_seconds", "device", "commit"}:  # a worker has its share of the cores
            assert one[key] == (pytest.approx(two[key], rel=1e-5) if isinstance(two[key], float) else two[key]), key


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_script(start, tmp_path, end):
    """What each of them has trained is saved first, unless the script was killed."""
    process, pids = start("-z2-seed0: to be run", "--max_batches=1000000000", f"--results_dir={tmp_path}")
    paths = [tmp_path / "paper" / "runs" / f"vae-mnist_sample-discrete-grid-h4-z{z}-seed0" / "checkpoint.npz"
             for z in (1, 2)]
    wait_until(lambda: all(path.exists() for path in paths))
    steps = [checkpoint.restore(path)[1]["step"] for path in paths]
    if end != signal.SIGKILL:
        time.sleep(3)
    process.send_signal(end)
    _, err = process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_alive, pids)))
    orphans = [pid for pid in pids if is_alive(pid)]
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert len(pids) == 2 and not orphans
    if end == signal.SIGKILL:
        assert process.returncode == -end
    else:
        assert process.returncode == 128 + end and "semaphore" not in err, err
        assert err.splitlines()[-1].startswith(f"interrupted ({end.name}); the same command goes on: ")
        assert all(checkpoint.restore(path)[1]["step"] > step for path, step in zip(paths, steps))


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


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
    """The live worker processes of a script, in the order of their start."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if status_of(path.name)[1] == parent]
    return [pid for pid in sorted(pids) if is_alive(pid) and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
