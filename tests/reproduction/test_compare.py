"""When a cell agrees, which runs count, numbers of another checkpoint, and the command line with its exit statuses."""

import csv

import command_line
import numpy as np
import pytest
from rows import make_row

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

@pytest.mark.parametrize("key, bound", [(("SPVAE", "mnist", "continuous"), 0.02 * 2819),
                                        (("VAE", "cifar10", "discrete"), 0.02 * 7200)])
@pytest.mark.parametrize("sign", [1, -1])
def test_within_two_per_cent(key, bound, sign):
    theirs = published.CELLS[key].test_ll
    assert verdict(make_row(*key, test_ll=theirs + sign * (bound - 0.01))) == "agrees"
    assert verdict(make_row(*key, test_ll=theirs + sign * (bound + 0.01))) == "disagrees"


def test_within_two_deviations_over_seeds():
    def runs(center, spread):
        return [make_row(seed=n, test_ll=center + spread * d) for n, d in enumerate((-1, 0, 1))]  # deviation = spread
    assert verdict(*runs(2819 + 199, 100)) == "agrees"
    assert verdict(*runs(2819 + 201, 100)) == "disagrees"
    assert verdict(runs(2819 + 199, 100)[1]) == "disagrees"  # one seed has no deviation


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
    assert alone["verdict"] == "partial" and why in alone["note"] and not compare.disagreements([alone])
    beside = only_cell(make_row(), partial)
    assert (beside["verdict"], beside["runs"], beside["test_ll"]) == ("agrees", 1, 2819)
    assert "1 partial runs left out" in beside["note"]


def test_patience_is_the_protocols():
    cut = dict(batches=4640, best_batch=4000)  # five validations without a new best
    assert verdict(make_row(protocol="paper", **cut)) == "agrees"
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
    assert len(compared) == 24 and len(compare.not_run(compared)) == 23
    assert "VAE, mnist, continuous" in compare.not_run(compared)
    assert {row["verdict"] for row in compared} == {"agrees", "not run"}


# --- other checkpoints, other sizes -----------------------------------------------------------------------------------

def test_number_of_another_checkpoint():
    """Table 2's sizes are held against the authors' log of them, the checkpoint's own sizes against Table 1."""
    key = ("Conv-VAE", "mnist", "discrete")  # Table 2: n_z = 200, logged −2184; Table 1's −2099: n_z = 100
    ours = make_row(*key, test_ll=-1000.0, test_ll_k5=-2185.0)
    theirs = make_row(*key, preset="checkpoint", latent_dim=100, test_ll=-2100.0, test_ll_k5=-3000.0)
    cells = cells_of(ours, theirs)
    row = cells[*key, "Table 2's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("agrees", compare.LOG, -1)
    assert "belongs to another checkpoint, H = 64, n_z = 100" in row["note"]
    row = cells[*key, "the checkpoint's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("agrees", compare.TABLE_1, -1)
    assert (row["logged_val_ll_k5"], row["logged_test_ll_k5"]) == (-2283, -2241)
    assert verdict(ours | dict(test_ll=-2099.0, test_ll_k5=-1000.0)) == "disagrees"
    assert verdict(theirs | dict(test_ll=-1000.0, test_ll_k5=-2241.0)) == "disagrees"


def test_cross_validated_runs_have_a_row_of_their_own():
    """Whatever their sizes; each seed has its own winner."""
    winners = [make_row(preset="grid", seed=n, hidden_units=h, test_ll=t)
               for n, h, t in ((0, 16, 2800.0), (1, 32, 2840.0))]
    narrower = make_row(preset="grid", seed=1, hidden_units=8, val_ll_k5=1.0, test_ll=9e9)  # another grid's winner
    cells = cells_of(make_row(test_ll=0.0), narrower, *winners)
    assert cells["SPVAE", "mnist", "continuous", "Table 2's"]["verdict"] == "disagrees"
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
    assert compare.disagreements([], rows) == ["VAE, mnist, discrete: 1,160,000 parameters, +2k (+0.2 %) from Table 2"]


# --- files and the command line ---------------------------------------------------------------------------------------

def write_table1(folder, *rows):
    files.write_table(folder / "table1.csv", rows, records.FIELDS)
    return folder


def run(*flags):
    return command_line.run("compare_to_paper.py", *flags)


def test_check_from_the_command_line(tmp_path):
    folder = write_table1(tmp_path / "released", make_row(), make_row("VAE", test_ll=2000.0),
                          make_row("VAE", likelihood="discrete", num_samples=10, test_ll=0.0),
                          make_row("SPVAE", "mnist_sample", test_ll=0.0))
    done = run(f"--results_dir={folder}", "--check", f"--csv={tmp_path / 'c.csv'}")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "disagrees: VAE, mnist, continuous: -598.0 nats (-23.0 %) from Table 1, over 1 runs"]
    assert "partial (k = 10)" in done.stdout and "no such data: mnist_sample" in done.stdout
    assert "Not run: SPVAE, svhn_cropped, continuous; " in done.stdout and "3,288,224" in done.stdout
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert len(rows) == 24 and tuple(rows[0]) == compare.FIELDS
    assert sorted(row["verdict"] for row in rows if row["verdict"] != "not run") == ["agrees", "disagrees", "partial"]
    done = run(f"--results_dir={write_table1(tmp_path, make_row(), make_row('VAE'))}", "--check")
    assert done.returncode == 0 and not done.stderr


def test_bad_folders_are_one_line_and_status_2(tmp_path):
    assert compare.read(tmp_path) == []
    done = run(f"--results_dir={tmp_path}")
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path} holds no tested runs of Table 1\n"
    head = ",".join(records.FIELDS).encode() + b"\n"
    for content, why in ((b"model,seed\nVAE,1\n", "dataset is None"), (b"\xff\xfe\x00", "utf-8"),
                         (head + b"VAE," * 22 + b"x\n", "seed is 'VAE'"), (head + b"VAE,mnist\n", "fewer fields"),
                         (head + b"x," * 23 + b"x\n", "more or fewer fields")):
        (tmp_path / "table1.csv").write_bytes(content)
        with pytest.raises(InputError, match=f"table1.csv is damaged.*{why}"):
            compare.read(tmp_path)
    for change, why in ((dict(protocol="mine"), "protocol is 'mine'"), (dict(num_samples=None), "only a part"),
                        (dict(val_ll_k5=None), "val_ll_k5 is None")):
        write_table1(tmp_path, make_row(**change))
        with pytest.raises(InputError, match=f"table1.csv is damaged.*{why}"):
            compare.read(tmp_path)
    done = run(f"--results_dir={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_untested_points_of_a_grid_are_not_compared(tmp_path):
    untested = make_row(preset="grid", hidden_units=8) | dict.fromkeys(
        ("test_ll", "test_ll_stderr", "num_samples", "num_test_images"))
    assert [row["test_ll"] for row in compare.read(write_table1(tmp_path, make_row(), untested))] == [2819]


def test_a_table_without_a_row_has_not_been_run(tmp_path):
    """As it is while a first run goes on."""
    write_table1(tmp_path / "released")
    assert compare.read_protocols(tmp_path) == {"paper": [], "released": []}
