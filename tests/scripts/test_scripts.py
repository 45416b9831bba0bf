"""The scripts through their command line: what a newcomer types, what goes wrong, killed and started again."""

import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT
from command_line import run as run_script

from spvae_tf.model.region_graph import random_binary_trees
from spvae_tf.training import checkpoint

TINY = ["--config.hidden_units=4", "--config.latent_dim=2", "--config.validate_every=8", "--config.max_batches=16"]
CELL = "--config=configs/table1.py:{}/continuous/{}"


def run(script, *flags, expect=0):
    """Runs a script from the checkout; returns its standard output and error."""
    done = run_script(script, *flags)
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small .npz of grey 12×8 images, as a user would bring."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    sizes = dict(x_train=40, x_validation=10, x_test=20)
    np.savez(path, **{name: rng.integers(0, 256, [n, 12, 8], np.uint8) for name, n in sizes.items()})
    return path


@pytest.fixture(scope="module")
def workdir(images, tmp_path_factory):
    """The folder of a finished tiny run."""
    folder = tmp_path_factory.mktemp("run")
    out, _ = run("train.py", CELL.format(images, "spvae"), *TINY, f"--workdir={folder}", "--tensorboard")
    assert out.startswith("40 train, 10 validation, 20 test images of 12×8 pixels, prepared as 'authors': each image "
                          "scaled to [0, 1] by itself, rounded to 1/255, noise added, scaled again\n")
    return folder


def test_train_writes_its_log_and_tensorboard(workdir):
    rows = list(csv.DictReader((workdir / "log.csv").open()))
    assert [row["batch"] for row in rows] == ["8", "16"]
    assert list((workdir / "tensorboard").iterdir())
    assert not list(workdir.glob(".*tmp"))


def test_evaluate(workdir):
    out, _ = run("evaluate.py", f"--workdir={workdir}", "--num_samples=7", "--num_images=5")
    assert "k = 7)" in out and "5 of 20 test images" in out
    mean = float(out.split("(k = 7) ")[1].split()[0])
    pattern = r"median (\S+); the least probable is image [0-4] with (\S+), the mean of the others (\S+)"
    median, lowest, others = map(float, re.fullmatch(pattern, out.splitlines()[1]).groups())
    assert lowest < mean < others and lowest < median
    assert (4 * others + lowest) / 5 == pytest.approx(mean, abs=0.02)
    one, _ = run("evaluate.py", f"--workdir={workdir}", "--num_samples=7", "--num_images=1")
    assert len(one.splitlines()) == 1
    fitted, _ = run("evaluate.py", f"--workdir={workdir}", "--num_samples=7", "--num_images=5", "--refinements=50")
    assert "k = 7, q fitted in 50 steps" in fitted
    loose, tight = (float(text.split(") ")[1].split()[0]) for text in (out, fitted))
    assert tight > loose


def test_counts_have_bits_per_dimension_beside_nats(images, tmp_path):
    cell = CELL.format(images, "vae").replace("continuous", "tied_mixture")
    trained, _ = run("train.py", cell, *TINY, "--config.num_categories=3", f"--workdir={tmp_path}")
    tested, _ = run("evaluate.py", f"--workdir={tmp_path}", "--num_samples=7")
    for out in (trained, tested):
        nats, bits = re.search(r"(-[\d.]+)(?: ± [\d.]+)? nats per image, ([\d.]+)", out).groups()
        assert float(bits) == pytest.approx(-float(nats) / 96 / math.log(2), abs=1e-3)
        assert out.splitlines()[-1] == "the uniform distribution: -532.34 nats per image, 8.0000 bits per dimension"


def test_evaluation_killed_and_started_again_loses_no_image(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "run"
    arrays = {f"x_{split}": rng.integers(0, 256, [n, 4, 4], np.uint8)
              for split, n in (("train", 40), ("validation", 10), ("test", 400))}
    np.savez(tmp_path / "mine.npz", **arrays)
    run("train.py", CELL.format(tmp_path / "mine.npz", "vae"), *TINY, f"--workdir={folder}")
    flags = ["--num_samples=15000", f"--workdir={folder}"]
    code = ("import runpy, sys; sys.path.insert(0, 'scripts'); import cli; from spvae_tf.training import evaluation; "
            "evaluation.SECONDS_BETWEEN_SAVES = -1; runpy.run_path('scripts/evaluate.py', run_name='__main__')")
    process = subprocess.Popen([sys.executable, "-c", code, *flags], cwd=ROOT, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not list(folder.glob("values-*.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    values, = folder.glob("values-*.npz")
    done = np.load(values)["log_prob"]
    assert 100 <= len(done) < 400
    resumed, _ = run("evaluate.py", *flags)
    after = np.load(values)["log_prob"]
    np.testing.assert_array_equal(after[:len(done)], done)
    values.unlink()
    assert run("evaluate.py", *flags)[0] == resumed
    np.testing.assert_array_equal(np.load(values)["log_prob"], after)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_what_is_done_and_names_the_command_that_goes_on(images, tmp_path, number):
    command = [sys.executable, "scripts/train.py", CELL.format(images, "vae"), *TINY, "--config.patience=1000000",
               "--config.max_batches=1000000", f"--workdir={tmp_path / 'a run'}"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # ignored in background
    path = tmp_path / "a run" / "checkpoint.npz"
    deadline = time.monotonic() + 300
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first = checkpoint.restore(path)[1]["step"]
    time.sleep(2)
    for _ in range(2):  # as GNU timeout does; twice Ctrl-C may save nothing
        process.send_signal(number)
        if number == signal.SIGINT:
            break
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (
        128 + number, f"interrupted ({number.name}); the same command goes on: {shlex.join(command)}\n")
    step = checkpoint.restore(path)[1]["step"]
    assert step > first and list(csv.DictReader((path.parent / "log.csv").open()))[-1]["batch"] == str(step)


ASCII = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
HELP = """
import runpy, sys
sys.path.insert(0, "scripts")
import cli
from absl import app, flags
app.define_help_flags()
before, scripts = set(flags.FLAGS), sys.argv[1:]
for script in scripts:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        print("status", end.code)
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
"""


def test_help_of_every_script_on_an_ascii_terminal():
    scripts = sorted(f"scripts/{p.name}" for p in (ROOT / "scripts").glob("*.py") if p.name != "cli.py")
    done = subprocess.run([sys.executable, "-c", HELP, *scripts], cwd=ROOT, capture_output=True, encoding="ascii",
                          env=os.environ | ASCII, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status 1\n") == len(scripts)  # absl's
    assert done.stdout.count("\nExample") == len(scripts)


def test_output_costs_no_result(workdir, tmp_path):
    """What the terminal cannot show is replaced; a full disk and a closed pipe are gone on without."""
    command = [sys.executable, "scripts/evaluate.py", f"--workdir={workdir}", "--num_images=3", "--num_samples=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="ascii", env=os.environ | ASCII, timeout=300)
    assert done.returncode == 0 and " ? " in done.stdout.splitlines()[0], done.stderr
    command = [sys.executable, "scripts/reproduce_table2.py", f"--results_dir={tmp_path}"]
    for open_output in ("exec >/dev/full", "exec >&- 2>&-", "exec > >(true); wait $!"):
        done = subprocess.run(["bash", "-c", f'{open_output}; exec "$@"', "-", *command], cwd=ROOT, text=True,
                              stderr=subprocess.PIPE, timeout=300)
        assert (done.returncode, done.stderr) == (0, ""), open_output
        (tmp_path / "table2.csv").unlink()


def test_home_folder_in_every_flag_that_is_a_path(images, tmp_path):
    (tmp_path / "mine.npz").write_bytes(images.read_bytes())
    random_binary_trees(96, 2, 1, seed=0).save(tmp_path / "graph.json")
    flags = [CELL.replace("configs", f"{ROOT}/configs").format("~/mine.npz", "spvae"), *TINY, "--workdir=~/run",
             "--config.graph=~/graph.json", "--config.data_dir=~/data"]
    done = subprocess.run([sys.executable, ROOT / "scripts" / "train.py", *flags], cwd=tmp_path, text=True,
                          capture_output=True, env=os.environ | dict(HOME=str(tmp_path)), timeout=300)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["data_dir"]) == (f"{tmp_path}/mine.npz", f"{tmp_path}/data")
    assert not (tmp_path / "~").exists()
    _, err = run("evaluate.py", "--workdir=~nobody.here/run", expect=2)
    assert err.startswith("error: ~nobody.here: ~nobody.here is no user's home folder; ") and err.count("\n") == 1


def test_picture_of_a_run_is_named_after_it(workdir, tmp_path):
    out, _ = run("pictures.py", "--pictures=samples", f"--workdir={workdir}", f"--out_dir={tmp_path}")
    assert out.strip() == str(tmp_path / "samples_spvae_mine_continuous_paper_h4_z2_validate_every=8_seed0.png")


def test_the_libraries_own_log_is_quiet_unless_asked_for():
    code = "import cli; from absl import logging; cli.run(lambda: logging.info('reading a file'))"
    for flags, said in (([], False), (["--verbosity=0"], True)):
        done = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT / "scripts", text=True,
                              capture_output=True)
        assert done.returncode == 0 and ("reading a file" in done.stderr) == said, done.stderr


def test_scripts_start_without_matplotlib():
    """Keras would import it, half a second long; what is drawn later needs it all the same."""
    code = "import cli, sys; assert 'matplotlib' not in sys.modules; import matplotlib.pyplot"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True)
    loaded = "import matplotlib as m, matplotlib.figure, cli, sys; assert sys.modules['matplotlib'] is m"
    subprocess.run([sys.executable, "-c", loaded], cwd=ROOT / "scripts", check=True)


MNIST = "--config=configs/table1.py:mnist_sample/continuous/spvae"
BAD = {  # flags of scripts/train.py, and a word that the one line must hold
    "unknown model": (["--config=configs/table1.py:mnist_sample/continuous/gan"], "gan"),
    "unknown data set": (["--config=configs/table1.py:mnits/continuous/vae"], "mnits"),
    "unknown likelihood": (["--config=configs/table1.py:mnist_sample/normal/vae"], "normal"),
    "unknown key": ([MNIST, "--config.hiden_units=3"], "hiden_units"),
    "wrong type": ([MNIST, "--config.hidden_units=many"], "many"),
    "no such file": (["--config=configs/nothing.py"], "nothing.py"),
    "unknown flag": ([MNIST, "--hidden_units=3"], "hidden_units"),
    "left-over word": ([MNIST, "spvae"], "spvae"),
    "delta too large": ([MNIST, "--config.delta=29"], "29"),
    "unknown protocol": ([MNIST, "--config.protocol=new"], "new"),
    "no images left": ([MNIST, "--config.train_fraction=0.00001"], "train_fraction"),
    "truncated npz": ([CELL.format("truncated.npz", "vae")], "truncated.npz"),
    "values outside": ([CELL.format("outside.npz", "vae")], "x_test"),
    "NaN pixels": ([CELL.format("nan.npz", "vae")], "x_train"),
    "missing npz": ([CELL.format("none.npz", "vae")], "none.npz"),
    "graph too large": ([MNIST, "--config.delta=1"], "164,836 regions"),
    "unwritable folder": ([MNIST, "--config.max_batches=1", "--workdir=outside.npz/run"], "outside.npz"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """The outcome of every bad command, {case: (status, standard error)}, and the folder."""
    folder = tmp_path_factory.mktemp("bad")
    arrays = {name: np.random.default_rng(0).random([8, 8, 8]) for name in ("x_train", "x_validation", "x_test")}
    np.savez(folder / "truncated.npz", **arrays)
    (folder / "truncated.npz").write_bytes((folder / "truncated.npz").read_bytes()[:2000])
    np.savez(folder / "outside.npz", **arrays | {"x_test": arrays["x_test"] + 1})
    np.savez(folder / "nan.npz", **arrays | {"x_train": np.full([8, 8, 8], np.nan)})

    def attempt(case):
        flags = [flag.replace("=configs", f"={ROOT}/configs") for flag in BAD[case][0]]
        flags = flags if "--workdir" in flags[-1] else [*flags, f"--workdir={case.replace(' ', '_')}"]
        done = run_script("train.py", *flags, cwd=folder)
        return done.returncode, done.stderr

    return {case: attempt(case) for case in BAD}, folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, refusals):
    outcomes, folder = refusals
    status, err = outcomes[case]
    lines = err.strip().splitlines()
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and BAD[case][1] in lines[0], err
    assert sorted(p.name for p in folder.iterdir()) == ["nan.npz", "outside.npz", "truncated.npz"]


def test_damaged_and_foreign_workdirs_are_refused(workdir, images, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir, damaged)
    path = damaged / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:1000])
    _, err = run("evaluate.py", f"--workdir={damaged}", expect=2)
    assert "damaged" in err and len(err.strip().splitlines()) == 1
    before = (workdir / "log.csv").read_text()
    _, err = run("train.py", CELL.format(images, "spvae"), *TINY, "--config.seed=1", f"--workdir={workdir}", expect=2)
    assert "seed" in err and (workdir / "log.csv").read_text() == before


TABLE = ["--preset=mini", "--models=VAE", "--likelihoods=discrete", "--max_batches=128", "--num_samples=10",
         "--num_images=20"]


def rows_of(folder):
    return list(csv.DictReader((folder / "paper" / "table1.csv").open()))


def test_table1_killed_and_started_again_has_each_run_once(images, tmp_path):
    flags = ["reproduce_table1.py", *TABLE, "--datasets=mnist_sample", "--seeds=0,1", f"--results_dir={tmp_path}"]
    process = subprocess.Popen([sys.executable, f"scripts/{flags[0]}", *flags[1:]], cwd=ROOT, stdout=subprocess.PIPE)
    table = tmp_path / "paper" / "table1.csv"
    deadline = time.monotonic() + 300
    while (not table.exists() or not rows_of(tmp_path)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(rows_of(tmp_path)) == 1
    out, _ = run(*flags)
    assert "already there" in out and "(-2351)" in out
    assert [row["seed"] for row in rows_of(tmp_path)] == ["0", "1"]
    assert {row["num_samples"] for row in rows_of(tmp_path)} == {"10"}


def test_table1_goes_on_after_a_cell_that_failed(images, tmp_path):
    script = ["bash", "scripts/reproduce_table1.sh", *TABLE, f"--datasets={tmp_path / 'none.npz'},{images}",
              f"--results_dir={tmp_path / 'results'}"]
    done = subprocess.run(script, cwd=ROOT, text=True, capture_output=True, timeout=300,
                          env=os.environ | {"PYTHON": sys.executable})
    assert done.returncode == 1
    assert "failed: vae-npz_none" in done.stderr and "1 of 2 runs done" in done.stdout
    assert [row["dataset"] for row in rows_of(tmp_path / "results")] == ["mine"]


def test_table1_refuses_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    _, err = run("reproduce_table1.py", *TABLE, f"--results_dir={tmp_path / 'file'}", expect=2)
    assert len(err.strip().splitlines()) == 1 and "cannot write" in err


def test_table2(tmp_path):
    out, _ = run("reproduce_table2.py", f"--results_dir={tmp_path}")
    rows = list(csv.DictReader((tmp_path / "table2.csv").open()))
    assert len(rows) == 24 and all(int(row["params"]) // 1000 == int(row["paper_kparams"]) for row in rows)
    assert "3,288,224 (3288k)" in out


@pytest.mark.slow
def test_benchmark(tmp_path):
    """Ratios first, every kind of figure in the JSON; not how long anything takes."""
    out, _ = run("benchmark.py", "--models=SPVAE,VAE", "--likelihoods=discrete", "--repeats=1",
                 f"--json={tmp_path / 'b.json'}")
    assert out.index("SPVAE / VAE") < out.index("step ms")
    cells = json.loads((tmp_path / "b.json").read_text())["cells"]
    assert [cell["model"] for cell in cells] == ["SPVAE", "VAE"]
    for cell in cells:
        kinds = {"step", "validation", "evaluation", "inpainting"} | ({"plain"} if cell["model"] == "SPVAE" else set())
        assert kinds == set(cell["compile"]) and all(cell[kind]["median"] > 0 for kind in kinds)
        repeated = [cell["compile"][kind] for kind in kinds & {"step", "plain"}]
        assert all(seconds["max"] > seconds["min"] > seconds["max"] / 10 for seconds in repeated)  # compiled each time
        assert cell["start"] > 0


def test_benchmark_imports_what_training_imports():
    """Starts are measured in a process that has imported the benchmark, so that it must not be slow to import."""
    code = "import sys, spvae_tf.benchmark; assert 'tensorflow_probability' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_benchmark_of_some_kinds(tmp_path):
    out, _ = run("benchmark.py", "--models=VAE", "--likelihoods=discrete,logistic", "--repeats=1", "--kinds=validation",
                 f"--json={tmp_path / 'b.json'}")
    cell, other = json.loads((tmp_path / "b.json").read_text())["cells"]
    assert (cell["likelihood"], other["likelihood"]) == ("discrete", "logistic")
    assert re.search(r"\n  VAE +logistic / discrete +\d+\.\d\d\n", out)
    assert set(cell) == {"model", "likelihood", "validation_images", "step", "validation", "compile"}
    assert cell["validation_images"] == 10_000  # as many as are said to be, not the 1,000 of the sample
    header, row = out[out.index("step ms") - 24:].splitlines()[:2]
    assert len(row) == len(header) and row.count("–") == 6, out  # two stand between least and most
    _, err = run("benchmark.py", "--kinds=speed", expect=2)
    assert err == ("error: kind is 'speed'; it must be one of step, validation, evaluation, inpainting, plain, "
                   "compile, alone\n")
