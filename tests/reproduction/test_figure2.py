"""Figure 2: the fractions, the runs, what is run again and what is not, the table, the figure, the command line."""

import collections
import csv
import math
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation, figure2, table1, workers
from spvae_tf.reproduction import plots as figures
from spvae_tf.training import configuration, records, run, streams
from spvae_tf.training.trainer import Trainer

TINY = dict(hidden_units=4, latent_dim=2, max_batches=2, test_samples=7, num_test_images=20)


@pytest.fixture
def eagerly():
    """Models this small run quicker than they compile."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An .npz of 40 training images, fewer than a batch."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    sizes = dict(x_train=40, x_validation=10, x_test=120)
    np.savez(path, **{name: rng.integers(0, 256, [n, 8, 8], np.uint8) for name, n in sizes.items()})
    return str(path)


def configs_of(images, fractions=(0.05, 0.5, 1.0), models=("SPVAE", "VAE"), **overrides):
    return figure2.make_configs(fractions, "mini", "paper", models, [images], ["continuous"], [0],
                               **(TINY | overrides))


# --- fractions --------------------------------------------------------------------------------------------------------

def test_fractions_are_section_4_1s():
    """100 % to 10 % in steps of 10 %, then exponentially to 0.5 % in 3 steps."""
    *exponential, tenth = figure2.FRACTIONS["paper"][:4]
    assert figure2.FRACTIONS["paper"][3:] == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert exponential == [round(tenth * 0.05 ** (n / 3), 3) for n in (3, 2, 1)]
    assert figure2.FRACTIONS["released"] == (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.2, 0.3, 0.4,
                                           0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def test_fractions_by_name_and_by_number():
    assert figure2.parse_fractions(["released"]) == figure2.FRACTIONS["released"]
    assert figure2.parse_fractions(["1", "0.005", "0.1", "1.0"]) == (0.005, 0.1, 1)


@pytest.mark.parametrize("words, named", [(["0"], "0"), (["-0.1"], "-0.1"), (["0.1", "1.01"], "1.01"), (["nan"], "nan"),
                                          (["inf"], "inf"), (["half"], "half"), (["paper", "0.1"], "paper"),
                                          ([""], "''"), ([], "''")])
def test_other_fractions_are_refused(words, named):
    with pytest.raises(InputError) as error:
        figure2.parse_fractions(words)
    assert named in str(error.value) and "\n" not in str(error.value)


# --- the runs ---------------------------------------------------------------------------------------------------------

def test_cheapest_first_and_table_1s_runs_at_fraction_1():
    arguments = "tuned", "released", ["VAE", "SPVAE"], ["mnist"], ["continuous", "discrete"], ["0", "1"]
    configs = figure2.make_configs((0.005, 0.1, 1.0), *arguments)
    assert [c.train_fraction for c in configs] == [0.005] * 8 + [0.1] * 8 + [1] * 8
    by_name = {c.name: c for c in configs}
    assert len(by_name) == 24
    for config in table1.make_configs(*arguments):
        assert by_name[config.name] == config


def test_subsets_are_nested_and_the_same_for_every_model(images):
    for models in (["SPVAE"], ["VAE"]):
        loaded = [run.load_data(c).train for c in configs_of(images, (0.05, 0.5, 1.0), models)]
        assert [len(train) for train in loaded] == [2, 20, 40]
        for train in loaded:
            np.testing.assert_array_equal(train, run.load_data(configs_of(images)[-1]).train[:len(train)])


@pytest.mark.parametrize("stream", configuration.STREAMS)
@pytest.mark.parametrize("num_images", [1, 3, 7])
def test_fewer_images_than_a_batch_fill_it(stream, num_images):
    """Batches go on into the next pass, and every pass has every image once."""
    config = configuration.make_config()
    config.update(stream=stream, batch_size=8)
    indices = streams.make_stream(config, num_images)(0, 2 * num_images)
    assert indices.shape == (2 * num_images, 8)
    passes = np.sort(indices.reshape(-1, num_images), axis=1)
    assert (passes == np.arange(num_images)).all()


@pytest.fixture(scope="module")
def swept(images, tmp_path_factory):
    """(results folder, configurations) of a finished sweep, tested with k = 7 at fraction 1 alone."""
    tf.config.run_functions_eagerly(True)
    folder, configs = tmp_path_factory.mktemp("swept"), configs_of(images)
    assert figure2.reproduce(configs, (), folder) == 0
    tf.config.run_functions_eagerly(False)
    return folder, configs


def rows_of(folder):
    return files.read_table(Path(folder) / "paper" / figure2.CSV)


def test_one_row_for_each_run(swept):
    folder, _ = swept
    header = (folder / "paper" / figure2.CSV).read_text().splitlines()[0]
    assert header == ",".join([*records.FIELDS, "train_fraction"])
    rows = rows_of(folder)
    assert [(r["model"], r["train_fraction"], r["num_train"]) for r in rows] == [
        (model, *part) for model in ("SPVAE", "VAE") for part in ((1, 40), (0.5, 20), (0.05, 2))]
    for row in rows:
        assert math.isfinite(row["test_ll_k5"]) and row["batches"] == 2
        assert (row["num_samples"], row["num_test_images"]) == ((7, 20) if row["train_fraction"] == 1 else (None, None))


def test_table_1_shares_the_runs_on_the_whole_training_set(swept, capsys):
    folder, configs = swept
    table = files.read_table(folder / "paper" / "table1.csv")
    assert [(r["model"], r["num_train"]) for r in table] == [("SPVAE", 40), ("VAE", 40)]
    assert table1.reproduce([c for c in configs if c.train_fraction == 1], folder) == 0
    assert capsys.readouterr().out.count("already there") == 2


def test_nothing_is_run_twice_for_a_larger_k(swept, tmp_path, eagerly, monkeypatch, capsys):

    folder = tmp_path / "copy"
    shutil.copytree(swept[0], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoint.npz")}
    quick = {(r["model"], r["train_fraction"]): r["test_ll_k5"] for r in rows_of(folder)}
    monkeypatch.setattr(Trainer, "_train_block", None)  # no batch is trained
    assert figure2.reproduce(swept[1], (0.5,), folder) == 0
    assert capsys.readouterr().out.count("already there") == 4
    rows = rows_of(folder)
    assert {(r["model"], r["train_fraction"]): r["test_ll_k5"] for r in rows} == quick
    assert [r["num_samples"] for r in rows] == [7, 7, None] * 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoint.npz")} == before
    assert figure2.reproduce(swept[1], (), folder) == 0  # and a smaller k takes the tested record as it is
    assert rows_of(folder) == rows


def test_other_experiments_have_no_row(swept, tmp_path):
    record = records.read_records(swept[0] / "paper")[-1]
    others = {"learning_rate": 0.5, "delta": 2, "train_samples": 3}
    for key, value in others.items():
        config = record["config"] | {key: value}
        name = configuration.recorded_config(config).name
        records.write_record(tmp_path, name, {k: record[k] for k in records.FIELDS} | {"config": config})
    figure2.write(tmp_path)
    assert files.read_table(tmp_path / figure2.CSV) == []


def test_fraction_without_an_image_is_named_and_the_others_go_on(images, tmp_path, eagerly, capsys):
    assert figure2.reproduce(configs_of(images, (0.001, 1.0), ["VAE"]), (), tmp_path) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("failed: vae-npz_mine") and "train_fraction 0.001 keeps none of 40" in line
    assert [r["num_train"] for r in files.read_table(tmp_path / "paper" / "table1.csv")] == [40]


def test_a_run_that_fails_is_named_and_the_others_go_on(images, tmp_path, eagerly, monkeypatch, capsys):
    made = run.make_model
    monkeypatch.setattr(run, "make_model", lambda config, shape: (
        made(config, shape) if config.model == "VAE" else 1 / 0))
    assert figure2.reproduce(configs_of(images, (0.5, 1.0)), (), tmp_path) == 1
    assert capsys.readouterr().err.count("failed: spvae") == 2
    assert [r["model"] for r in rows_of(tmp_path)] == ["VAE", "VAE"]


# --- cross-validation -------------------------------------------------------------------------------------------------

def write_points(folder, fraction, validation):
    """Records of all points of a cross-validation, `validation(config)` their validation ELBO."""
    configs = figure2.make_configs((fraction,), "grid", "paper", ["SPVAE"], ["mnist"], ["discrete"], [0])
    for config in configs:
        found = dict(model="SPVAE", dataset="mnist", likelihood="discrete", preset="grid", protocol="paper", seed=0,
                     hidden_units=config.hidden_units, latent_dim=config.latent_dim, params=1, num_train=9, batches=1,
                     val_ll_k5=validation(config), test_ll_k5=-float(config.hidden_units))
        record = dict.fromkeys(records.FIELDS, 1) | dict.fromkeys(files.TEXT_COLUMNS, "") | dict.fromkeys(
            (*records.TEST_FIELDS, "paper_test_ll")) | found | {"config": config.to_dict()}
        records.write_record(folder / "paper", config.name, record)
    return configs


def winners(configs, folder):
    return cross_validation.winners(configs, {r["name"]: r for r in records.read_records(folder / "paper")})


def test_of_a_grid_the_winner_by_validation_has_a_row(tmp_path):
    wanted = {0.1: (16, 5), 1.0: (32, 50)}
    for fraction, sizes in wanted.items():
        configs = write_points(tmp_path, fraction, lambda c, s=sizes: -float((c.hidden_units, c.latent_dim) != s))
        winner, = winners(configs, tmp_path)
        assert (winner.hidden_units, winner.latent_dim) == sizes
    figure2.write(tmp_path / "paper")
    assert {r["train_fraction"]: (r["hidden_units"], r["latent_dim"]) for r in rows_of(tmp_path)} == wanted


def test_a_larger_k_of_some_points_makes_no_second_row(tmp_path):
    configs = write_points(tmp_path, 0.1, lambda config: -float(config.hidden_units))
    for config in configs[:4]:
        name = config.name
        record = records.read_record(tmp_path / "paper", name)
        record["config"] |= dict(test_samples=7, max_batches=900)
        records.write_record(tmp_path / "paper", name, record)
    figure2.write(tmp_path / "paper")
    assert [(r["hidden_units"], r["latent_dim"]) for r in rows_of(tmp_path)] == [(8, 1)]


def test_a_grid_that_is_not_over_has_no_winner(tmp_path):
    configs = write_points(tmp_path, 0.1, lambda config: -1.0)
    (tmp_path / "paper" / "records" / f"{configs[3].name}.json").unlink()
    assert winners(configs, tmp_path) == []
    figure2.write(tmp_path / "paper")
    assert rows_of(tmp_path) == []


def test_the_winner_alone_is_tested_with_the_full_k(tmp_path, monkeypatch):
    """And only at the fractions that are asked for."""
    done = []

    def outcomes(tasks, results_dir, workers):
        for task in tasks:
            (config, test), folder = task, Path(results_dir) / "paper"
            record = records.read_record(folder, config.name)
            record |= dict(test_ll=-1.0, test_ll_stderr=1.0, num_samples=5000, num_test_images=9) if test else {}
            records.write_record(folder, config.name, record)
            done.append((config.train_fraction, config.hidden_units, config.latent_dim, test))
            yield task, record, 0.0

    monkeypatch.setattr(workers, "outcomes", outcomes)
    monkeypatch.setattr(run, "load_data", lambda config: None)
    configs = [c for fraction in (0.1, 0.2)
               for c in write_points(tmp_path, fraction, lambda c: float(c.hidden_units == c.latent_dim + 7))]
    assert figure2.reproduce(configs, (0.2,), tmp_path) == 0
    assert done == [(0.2, 8, 1, True)]


# --- summary and figure -----------------------------------------------------------------------------------------------

def row(fraction, seed, test_ll_k5, model="SPVAE", likelihood="continuous", dataset="mnist", test_ll=None):
    return dict(model=model, dataset=dataset, likelihood=likelihood, preset="tuned", seed=seed, train_fraction=fraction,
                test_ll_k5=test_ll_k5, test_ll=test_ll, num_samples=5000 if test_ll else None, preparation="authors")


def test_losses_are_paired_by_seed():
    rows = [row(1, 0, 2800.0), row(1, 1, 2700.0), row(0.1, 0, 2750.0), row(0.1, 1, 2630.0), row(0.1, 2, 9.0),
            row(0.005, 0, None), row(0.1, 0, 1.0, model="VAE")]
    assert {key: {part: [row["lost"] for row in lost] for part, lost in of_model.items()}
            for key, of_model in figure2.losses(rows).items()} == {
        ("mnist", "continuous", "SPVAE"): {1: [2800, 2700], 0.1: [-50, -70]},
        ("mnist", "continuous", "VAE"): {0.1: []}}
    lines = figure2.as_text(rows).splitlines()
    assert [re.split(" {2,}", line.strip()) for line in lines[1:]] == [
        ["100 %", "10 %", "0.5 %"], ["mnist, continuous, SPVAE", "2750 ± 71", "-60 ± 14", "—"],
        ["mnist, continuous, VAE", "—", "—", "—"]]


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure))
    return saved


def test_figure_has_the_papers_form(drawn):
    rows = [row(f, seed, 100 * f + 10 * seed + (model == "SPVAE"), model, likelihood, dataset)
            for f in (0.005, 0.1, 1) for seed in (0, 1) for model in ("SPVAE", "VAE")
            for likelihood in ("discrete", "continuous") for dataset in ("mnist", "cifar10")]
    figures.low_data_sweep(rows, "unused.png")
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == ["continuous", "discrete"]
    for axes in panels:
        assert axes.get_xscale() == "log"
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels[0] == "0.5 %" and labels[-1] == "100 %"
        low, high = axes.get_xlim()
        assert low < 0.005 and high > 1
        ours = [container.lines for container in axes.containers]
        assert sorted(lines[0].get_linestyle() for lines in ours) == ["-", "-", "--", "--"]
        assert len({lines[0].get_color() for lines in ours}) == 2  # one for each data set
        spvae = next(lines for lines in ours if lines[0].get_linestyle() == "--")
        np.testing.assert_allclose(np.array(spvae[0].get_ydata(), float), [6.5, 16, 106])
        bar = spvae[2][0].get_segments()[0]  # ± the standard deviation of 0 and 10
        np.testing.assert_allclose(np.array(bar, float)[:, 1], 6.5 + np.array([-1, 1]) * math.sqrt(50), rtol=1e-6)


def test_earlier_images_are_marked_and_stand_in_no_mean(drawn):
    rows = [row(f, seed, 100.0 * seed) | dict(preparation=preparation) for f, seed, preparation in (
        (0.1, 1, "earlier"), (0.1, 2, "earlier"), (1, 1, "earlier"), (1, 3, "authors"))]
    figures.low_data_sweep(rows, "unused.png")
    axes, = drawn[0].axes
    line, *_ = axes.containers[0].lines
    assert list(line.get_xdata()) == [0.1, 1] and list(line.get_ydata()) == [150, 300]
    assert [(mark.get_text(), mark.xy) for mark in axes.texts] == [(" †", (0.1, 150))]


def test_a_sweep_in_which_all_diverged_is_refused(drawn):
    with pytest.raises(InputError, match="every run of the sweep diverged"):
        figures.low_data_sweep([row(0.1, 0, None)], "unused.png")
    assert not drawn


def test_the_authors_sweep_stands_behind_in_grey(drawn):
    figures.low_data_sweep([row(f, 0, 2000.0) for f in (0.1, 1)], "unused.png")
    grey, = [line for line in drawn[0].axes[0].lines if line.get_color() == "0.85"]
    theirs = published.digitized_sweep()["SPVAE", "mnist", "continuous"]
    assert dict(zip(grey.get_xdata(), grey.get_ydata())) == theirs and theirs[0.1] == 2702.2
    assert grey.get_linestyle() == "--"
    assert grey.get_zorder() < min(c.lines[0].get_zorder() for c in drawn[0].axes[0].containers)
    figures.low_data_sweep([row(f, 0, 2000.0, dataset="mnist_sample") for f in (0.1, 1)], "unused.png")
    assert not [line for line in drawn[1].axes[0].lines if line.get_color() == "0.85" and len(line.get_xdata())]


def test_a_collapsed_model_does_not_flatten_the_others(drawn):
    fractions = 0.005, 0.01, 0.05, 0.1, 0.5, 1
    values = [-42_000.0, 900.0, 1500.0, 1800.0, 1900.0, 2000.0]
    figures.low_data_sweep([row(f, 0, v, dataset="mine") for f, v in zip(fractions, values)], "x")
    axes, = drawn[0].axes
    low, high = axes.get_ylim()
    assert 0 < low < 900 and high > 2000
    assert [text.get_text() for text in axes.texts] == ["−42000"]


def test_a_collapsed_model_does_not_flatten_another_data_set(drawn):
    fractions, fine = (0.005, 0.01, 0.05, 0.1, 0.5, 1), [-7400.0, -7300.0, -7250.0, -7220.0, -7210.0, -7200.0]
    collapsed = [-40_000.0, -3000.0, -2700.0, -2600.0, -2550.0, -2500.0]
    figures.low_data_sweep([row(f, 0, v, dataset=name) for name, values in (("a", fine), ("b", collapsed))
                            for f, v in zip(fractions, values)], "x")
    axes, = drawn[0].axes
    assert -10_000 < axes.get_ylim()[0] < -7400 and [text.get_text() for text in axes.texts] == ["−40000"]


# --- the command line -------------------------------------------------------------------------------------------------

def run_script(*flags, expect=0):
    done = command_line.run("low_data_sweep.py", "--preset=mini", *flags)
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def csv_rows(folder):
    with open(folder / "paper" / "low_data_sweep.csv", newline="") as file:
        return [(r["model"], r["train_fraction"]) for r in csv.DictReader(file)]


def test_killed_and_started_again_each_run_has_one_row(images, tmp_path):
    flags = ["--models=VAE", f"--datasets={images}", "--likelihoods=discrete", "--max_batches=2",
             "--fractions=0.025,1", "--num_samples=7", f"--results_dir={tmp_path}"]
    process = subprocess.Popen([sys.executable, "scripts/low_data_sweep.py", "--preset=mini", *flags],
                               cwd=command_line.ROOT, stdout=subprocess.DEVNULL)
    table, deadline = tmp_path / "paper" / "low_data_sweep.csv", time.monotonic() + 300
    while (not table.exists() or not csv_rows(tmp_path)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert csv_rows(tmp_path) == [("VAE", "0.025")]  # the smallest fraction came first
    out, _ = run_script(*flags)
    assert out.count("already there") == 1 and out.count("to be run") == 1
    assert csv_rows(tmp_path) == [("VAE", "1.0"), ("VAE", "0.025")]
    picture = tmp_path / "figures" / "low_data_sweep_paper_mini.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in out
    assert not list(tmp_path.rglob("*tmp"))

    alone = tmp_path / "alone"  # the CSV and its records, nothing else
    shutil.copytree(tmp_path / "paper" / "records", alone / "paper" / "records")
    (alone / "paper" / "low_data_sweep.csv").write_bytes(table.read_bytes())
    again, _ = run_script("--plot_only", f"--results_dir={alone}")
    assert (alone / "figures" / "low_data_sweep_paper_mini.png").exists()
    assert "mine, discrete, VAE" in again and again.splitlines()[:3] == out.splitlines()[-6:-3]


def test_whole_training_set_alone_is_no_sweep(images, tmp_path):
    with pytest.raises(InputError, match="the only fraction is 1; a sweep has smaller ones"):
        figure2.reproduce(configs_of(images, fractions=(1.0,)), (), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_bad_fraction_is_one_line_and_writes_nothing(images, tmp_path):
    _, err = run_script("--fractions=0.5,2", f"--datasets={images}", f"--results_dir={tmp_path / 'new'}", expect=2)
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: the fractions are '0.5, 2'")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_miniatures_of_figures_2_and_3_take_less_than_ten_minutes_of_one_core(tmp_path):
    def spent():  # by processes that have ended; other work on the machine does not count
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    for script in ("low_data_sweep", "latent_space"):
        subprocess.run([sys.executable, f"scripts/{script}.py", "--preset=mini", f"--results_dir={tmp_path}"],
                       cwd=command_line.ROOT, check=True)
    assert spent() - before < 600
    workdir = next((tmp_path / "paper" / "runs").glob("*-z2-*"))
    done = command_line.run("latent_space.py", f"--workdir={workdir}", f"--results_dir={tmp_path / 'again'}")
    assert done.returncode == 0, done.stderr
    latent = "latent_space_spvae_mnist_sample_continuous_paper_z2_seed0"
    tables_of_both = [(tmp_path / folder / "paper" / f"{latent}.csv").read_bytes() for folder in (".", "again")]
    assert tables_of_both[0] == tables_of_both[1]
    rows = figure2.read(tmp_path / "paper", "mini")
    assert collections.Counter((r["model"], r["likelihood"]) for r in rows) == {
        (m, li): 3 for m in ("SPVAE", "VAE") for li in ("continuous", "discrete")}
    for name in ("low_data_sweep_paper_mini", latent):
        assert (tmp_path / "figures" / f"{name}.png").exists()
    for key, lost in figure2.losses(rows).items():  # the fewer images, the worse
        (smallest,), (smaller,) = lost[0.02], lost[0.14]
        assert smallest["lost"] < smaller["lost"] < 0, key
