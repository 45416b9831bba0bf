"""When a cell agrees, which runs count, numbers of another checkpoint, and the command line with its exit statuses."""

import csv
import math

import command_line
import numpy as np
import pytest
from rows import make_row, write_runs

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import compare
from spvae_tf.training import records


def cells_of(*rows):
    """The rows of a comparison that were run, by (model, dataset, likelihood, sizes)."""
    return {(r["model"], r["dataset"], r["likelihood"], r["sizes"]): r for r in compare.compare(list(rows))
            if r["verdict"] != "not run"}


def only_cell(*rows):
    row, = cells_of(*rows).values()
    return row


def verdict(*rows):
    return only_cell(*rows)["verdict"]


# --- when a cell agrees -----------------------------------------------------------------------------------------------

SE_IN_BOUND = 10 * math.sqrt(3)  # a deviation of three seeds, of a number of 1,000: twice its standard error is 20


@pytest.mark.parametrize("off, deviation, expected", [
    (0, SE_IN_BOUND - 0.01, "agrees"), (19.99, SE_IN_BOUND - 0.01, "agrees"), (19.99, 0, "agrees"),
    (0, SE_IN_BOUND + 0.01, "undecided"), (19.99, 1000, "undecided"),  # within, but nobody knows how far
    (20.01, 0, "disagrees"), (20.01, 10, "disagrees"), (20.01, 10.01, "undecided"),
    (100, 49.9, "disagrees"), (100, 50.1, "undecided"), (100, 1000, "undecided")])  # 10 % off: never "agrees"
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("theirs", [1000, -1000])
def test_verdict_on_three_seeds(off, deviation, expected, sign, theirs):
    assert compare.verdict(sign * off, theirs, deviation, 3) == expected


@pytest.mark.parametrize("key, bound", [(("SPVAE", "mnist", "continuous"), 0.02 * 2819),
                                        (("VAE", "cifar10", "discrete"), 0.02 * 7200)])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_run_is_within_or_outside_two_per_cent(key, bound, sign):
    theirs = published.CELLS[key].test_ll
    assert verdict(make_row(*key, test_ll=theirs + sign * (bound - 0.01))) == "within 2 %, one run"
    assert verdict(make_row(*key, test_ll=theirs + sign * (bound + 0.01))) == "outside 2 %, one run"


def three_seeds(center, deviation, **changes):
    return [make_row(seed=n, test_ll=center + deviation * d, **changes) for n, d in enumerate((-1, 0, 1))]


def test_verdict_on_runs():
    assert verdict(*three_seeds(2819 + 56, 40)) == "agrees"
    assert verdict(*three_seeds(2819 + 57, 20)) == "disagrees"
    assert verdict(*three_seeds(2819 - 282, 200)) == "undecided"  # 10 % below


def test_verdict_and_difference_know_the_published_margin():
    row = only_cell(*three_seeds(2819 - 22.1, 1))
    assert row["difference_margin_percent"] == pytest.approx(-10)  # of 2819 − 2598
    row = only_cell(make_row("Conv-VAE", "cifar10", "discrete", test_ll=-6752 + 165.7))
    assert row["difference_margin_percent"] == pytest.approx(10)  # of SPVAE over VAE there, −5543 + 7200


# --- two preparations of the images -----------------------------------------------------------------------------------

def test_preparations_are_never_averaged():
    earlier = three_seeds(2000, 10, preparation="earlier")
    row = only_cell(*earlier)
    assert (row["runs"], row["test_ll"], row["preparation"]) == (3, 2000, "earlier")
    row = only_cell(make_row(), *earlier[1:])  # seed 0 has been made again
    assert (row["runs"], row["test_ll"], row["preparation"]) == (1, 2819, "authors")
    assert row["verdict"] == "within 2 %, one run" and row["note"] == "2 earlier runs left out"
    row = only_cell(make_row(num_samples=10), *earlier[1:])  # but not yet tested as a whole
    assert (row["runs"], row["test_ll"], row["preparation"]) == (2, 2005, "earlier")
    assert row["note"] == "1 partial runs left out"
    better = make_row(preset="grid", hidden_units=16, val_ll_k5=9.0, preparation="earlier")
    row = only_cell(make_row(preset="grid", hidden_units=8), better)
    assert (row["runs"], row["hidden_units"]) == (1, 8)


def test_preparation_and_name_are_of_the_record(tmp_path):
    """Of its own: not of another experiment in the same cell, nor of the run that it replaces."""
    rows = [make_row(), make_row(seed=1, preparation="earlier", test_ll=2800.125)]
    write_runs(tmp_path, *rows)
    experiment = {key: rows[1][key] for key in records.FIELDS} | dict(test_ll=1.0, config=dict(patience=60))
    records.write_record(tmp_path, "another", experiment | dict(config=dict(patience=60, preparation="authors")))
    assert [(row["name"], row["preparation"]) for row in compare.read(tmp_path)] == [
        ("SPVAE-mnist-continuous-30-0", "authors"), ("SPVAE-mnist-continuous-30-1", "earlier")]
    files.write_table(tmp_path / "table1.csv", [rows[0] | dict(test_ll=2800.0)], records.FIELDS)  # no record is of it
    assert [(row["name"], row["preparation"]) for row in compare.read(tmp_path)] == [(None, "earlier")]


def test_committed_rows_have_records_and_no_mean_is_of_two_preparations():
    for rows in compare.read_protocols(command_line.ROOT / "results").values():
        assert rows and all(row["name"] for row in rows)
        for row in compare.compare(rows):
            used = [r for r in rows if not compare.why_partial(r) and all(r[key] == row[key] for key in (
                "model", "dataset", "likelihood", "hidden_units", "latent_dim", "preparation"))]
            if row["verdict"] not in ("not run", "partial"):
                assert row["test_ll"] == pytest.approx(np.mean([r["test_ll"] for r in used]))


def test_differences_are_ours_minus_theirs():
    row = only_cell(make_row(test_ll=2800.0), make_row(seed=1, test_ll=2830.0))
    assert (row["runs"], row["test_ll"], row["paper_test_ll"], row["difference"]) == (2, 2815, 2819, -4)
    assert row["difference_per_pixel"] == pytest.approx(-4 / 784)
    assert row["difference_percent"] == pytest.approx(-100 * 4 / 2819)
    assert (row["logged_val_ll_k5"], row["logged_test_ll_k5"]) == (2754, 2763)
    row = only_cell(make_row("VAE", "cifar10", "discrete", test_ll=-7128.0))
    assert row["difference_percent"] == pytest.approx(1) and row["difference_per_pixel"] == pytest.approx(72 / 1024)


@pytest.mark.parametrize("field", ["test_ll", "val_ll_k5", "test_ll_k5"])
def test_means_and_deviations_are_numpys(field):
    values = [-7200.5, -7100.25, -7301.0]
    row = only_cell(*(make_row("VAE", "cifar10", "discrete", seed=n) | {field: v} for n, v in enumerate(values)))
    assert row[field] == pytest.approx(np.mean(values)) and row[f"{field}_std"] == pytest.approx(np.std(values, ddof=1))


# --- what does not count ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("why, change", [("k = 500", dict(num_samples=500)),
                                         ("100 of 10000 test images", dict(num_test_images=100)),
                                         ("cut off after 5407 batches", dict(batches=5407))])
def test_partial_runs_are_named_and_do_not_count(why, change):
    partial = make_row(seed=1, test_ll=0.0, **change)
    alone = only_cell(partial)
    assert alone["verdict"] == "partial" and why in alone["note"] and not compare.failing([alone])
    beside = only_cell(make_row(), partial)
    assert (beside["verdict"], beside["runs"], beside["test_ll"]) == ("within 2 %, one run", 1, 2819)
    assert "1 partial runs left out" in beside["note"]


def test_patience_is_the_protocols():
    cut = dict(batches=4640, best_batch=4000)  # five validations without a new best
    assert verdict(make_row(protocol="paper", **cut)) == "within 2 %, one run"
    assert verdict(make_row(protocol="released", **cut)) == "partial"


def test_other_sizes_do_not_count():
    assert verdict(make_row(hidden_units=7)) == "partial"


def test_samples_and_own_images_have_no_cell():
    rows = [make_row(dataset="mnist_sample", test_ll=0.0, num_test_images=1000),
            make_row(dataset="svhn_subset"), make_row(dataset="npz_mnist")]
    assert not cells_of(*rows)
    assert compare.without_a_cell(rows) == ["mnist_sample", "npz_mnist", "svhn_subset"]


def test_cells_that_were_not_run_are_listed():
    compared = compare.compare([make_row()])
    assert len(compared) == 24 and [row["verdict"] for row in compared].count("not run") == 23


# --- other checkpoints, other sizes -----------------------------------------------------------------------------------

def test_number_of_another_checkpoint():
    """Table 2's sizes are held against the authors' log of them, the checkpoint's own sizes against Table 1."""
    key = ("Conv-VAE", "mnist", "discrete")  # Table 2: n_z = 200, logged −2184; Table 1's −2099: n_z = 100
    ours = make_row(*key, test_ll=-1000.0, test_ll_k5=-2185.0)
    theirs = make_row(*key, preset="checkpoint", latent_dim=100, test_ll=-2100.0, test_ll_k5=-3000.0)
    cells = cells_of(ours, theirs)
    row = cells[*key, "Table 2's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("within 2 %, one run", compare.LOG, -1)
    assert "belongs to another checkpoint, H = 64, n_z = 100" in row["note"]
    row = cells[*key, "the checkpoint's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("within 2 %, one run", compare.TABLE_1, -1)
    assert (row["logged_val_ll_k5"], row["logged_test_ll_k5"]) == (-2283, -2241)
    assert verdict(ours | dict(test_ll=-2099.0, test_ll_k5=-1000.0)) == "outside 2 %, one run"
    assert verdict(theirs | dict(test_ll=-1000.0, test_ll_k5=-2241.0)) == "outside 2 %, one run"
    spread = [ours | dict(seed=n, test_ll_k5=-2185.0 + d, test_ll=-2099.0) for n, d in enumerate((-1, 1))]
    assert verdict(*spread) == "agrees"  # by the spread at k = 5
    assert verdict(*(row | dict(test_ll_k5=-2185.0 + 100 * n) for n, row in enumerate(spread))) == "undecided"


def test_cross_validated_runs_have_a_row_of_their_own():
    """Whatever their sizes; each seed has its own winner."""
    winners = [make_row(preset="grid", seed=n, hidden_units=h, test_ll=t)
               for n, h, t in ((0, 16, 2800.0), (1, 32, 2840.0))]
    narrower = make_row(preset="grid", seed=1, hidden_units=8, val_ll_k5=1.0, test_ll=9e9)  # another grid's winner
    cells = cells_of(make_row(test_ll=0.0), narrower, *winners)
    assert cells["SPVAE", "mnist", "continuous", "Table 2's"]["verdict"] == "outside 2 %, one run"
    row = cells["SPVAE", "mnist", "continuous", "by validation"]
    assert (row["verdict"], row["runs"], row["test_ll"], row["hidden_units"], row["latent_dim"]) == (
        "agrees", 2, 2820, None, 25)


def test_a_seed_counts_once():
    """Table 2's sizes may have been run for another preset too."""
    row = only_cell(make_row(seed=0), make_row(seed=0, preset="single"), make_row(seed=1, test_ll=2829.0))
    assert (row["runs"], row["test_ll"]) == (2, 2824) and row["test_ll_std"] == pytest.approx(np.sqrt(50))


def test_parameters_that_are_not_table_2s():
    rows = compare.compare_sizes([dict(model="VAE", dataset="mnist", likelihood="discrete", params=params,
                                       paper_kparams=1158) for params in (1_158_999, 1_160_000)])
    assert [(row["difference"], row["verdict"]) for row in rows] == [(0, "agrees"), (2, "disagrees")]
    assert compare.failing([], rows) == [
        "disagrees: VAE, mnist, discrete: 1,160,000 parameters, +2k (+0.2 %) from Table 2"]


# --- files and the command line ---------------------------------------------------------------------------------------

def run_script(*flags):
    return command_line.run("compare_to_paper.py", *flags)


def test_check_from_the_command_line(tmp_path):
    """Both protocols at once; what disagrees and what is undecided ends with status 1."""
    write_runs(tmp_path / "released", *three_seeds(2819, 1), make_row("VAE", test_ll=2000.0),
               make_row("VAE", likelihood="discrete", num_samples=10, test_ll=0.0),
               make_row("SPVAE", "mnist_sample", test_ll=0.0))
    write_runs(tmp_path / "paper", *three_seeds(2819 - 282, 200, protocol="paper", preparation="earlier"))
    undecided = ("undecided: protocol paper, SPVAE, mnist, continuous: -282.0 nats (-10.0 %) from Table 1, over 3 runs")
    done = run_script(f"--results_dir={tmp_path}", "--check", f"--csv={tmp_path / 'c.csv'}")
    assert (done.returncode, done.stderr.splitlines()) == (1, [undecided])
    assert "partial (k = 10)" in done.stdout and "no such data: mnist_sample" in done.stdout
    assert "2537.0 ± 200.0 (3) †" in done.stdout and "2819.0 ± 1.0 (3) " in done.stdout and "3,288,224" in done.stdout
    assert "4 of 64 runs are there" in done.stdout
    assert "Protocol paper: 1 of 24 cells have a run, 0 on the authors' images." in done.stdout
    assert "Protocol released: 3 of 24 cells have a run, 3 on the authors' images." in done.stdout
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert len(rows) == 48 and tuple(rows[0]) == compare.FIELDS
    assert sorted((row["protocol"], row["verdict"]) for row in rows if row["verdict"] != "not run") == [
        ("paper", "undecided"), ("released", "agrees"), ("released", "outside 2 %, one run"), ("released", "partial")]
    done = run_script(f"--results_dir={tmp_path}", "--check", "--allow_undecided")
    assert done.returncode == 0 and not done.stderr


def test_a_cell_that_disagrees_cannot_be_allowed(tmp_path):
    folder = write_runs(tmp_path, *three_seeds(2819 - 282, 1))  # of one protocol
    done = run_script(f"--results_dir={folder}", "--check", "--allow_undecided")
    assert (done.returncode, done.stderr.splitlines()) == (1, [
        "disagrees: protocol released, SPVAE, mnist, continuous: -282.0 nats (-10.0 %) from Table 1, over 3 runs"])
    assert "3 of 32 runs are there" in done.stdout and "Protocol paper" not in done.stdout


def test_bad_folders_are_one_line_and_status_2(tmp_path):
    assert compare.read(tmp_path) == []
    done = run_script(f"--results_dir={tmp_path}")
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path} holds no tested runs of Table 1\n"
    head = ",".join(records.FIELDS).encode() + b"\n"
    for content, why in ((b"model,seed\nVAE,1\n", "dataset is None"), (b"\xff\xfe\x00", "binary data"),
                         (head + b"VAE," * 22 + b"x\n", "seed is 'VAE'"), (head + b"VAE,mnist\n", "fewer fields"),
                         (head + b"x," * 23 + b"x\n", "more or fewer fields")):
        (tmp_path / "table1.csv").write_bytes(content)
        with pytest.raises(InputError, match=f"table1.csv is damaged.*{why}"):
            compare.read(tmp_path)
    for change, why in ((dict(protocol="mine"), "protocol is 'mine'"), (dict(num_samples=None), "only a part"),
                        (dict(val_ll_k5=None), "val_ll_k5 is None")):
        files.write_table(tmp_path / "table1.csv", [make_row(**change)], records.FIELDS)
        with pytest.raises(InputError, match=f"table1.csv is damaged.*{why}"):
            compare.read(tmp_path)
    done = run_script(f"--results_dir={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_untested_points_of_a_grid_are_not_compared(tmp_path):
    untested = make_row(preset="grid", hidden_units=8) | dict.fromkeys(
        ("test_ll", "test_ll_stderr", "num_samples", "num_test_images"))
    assert [row["test_ll"] for row in compare.read(write_runs(tmp_path, make_row(), untested))] == [2819]


def test_a_table_without_a_row_has_not_been_run(tmp_path):
    """As it is while a first run goes on."""
    write_runs(tmp_path / "released")
    assert compare.read_protocols(tmp_path) == {"paper": [], "released": []}
