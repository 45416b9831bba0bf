"""Ours beside the paper's: which cells agree, which are partial or another checkpoint's, exit statuses, RESULTS.md."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spvae_tf import files
from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.reproduction import authors, compare, figure2, table1
from spvae_tf.reproduction import plots as figures
from spvae_tf.reproduction import report as results_page
from spvae_tf.training import records as results

ROOT = Path(__file__).parents[2]


def make_row(model="SPVAE", dataset="mnist", likelihood="continuous", **changes):
    """A row of table1.csv: a whole run at Table 2's sizes that hits the published number."""
    cell = paper.cell(model, dataset, likelihood)
    row = dict(
        model=model, dataset=dataset, likelihood=likelihood, protocol="released", preset="tuned", seed=0,
        hidden_units=cell.hidden_units if cell else 1, latent_dim=cell.latent_dim if cell else 1, params=1,
        num_train=50_000, batches=5408, best_batch=4000, train_seconds=3600.0, val_ll_k5=1.5, test_ll_k5=2.5,
        test_ll=float(cell.test_ll) if cell else 0.0, test_ll_stderr=1.0, num_samples=5000, num_test_images=10_000,
        paper_test_ll=cell.test_ll if cell else None, device="a machine", versions="some", commit="0")
    return row | changes


def cells_of(*rows):
    """The rows of a comparison that were run, by (model, dataset, likelihood, sizes)."""
    return {(r["model"], r["dataset"], r["likelihood"], r["sizes"]): r for r in compare.compare(list(rows))
            if r["verdict"] != "not run"}


def verdict(*rows):
    row, = cells_of(*rows).values()
    return row["verdict"]


# --- when a cell agrees -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("key, bound", [(("SPVAE", "mnist", "continuous"), 0.02 * 2819),
                                        (("VAE", "cifar10", "discrete"), 0.02 * 7200)])
@pytest.mark.parametrize("sign", [1, -1])
def test_within_two_per_cent(key, bound, sign):
    published = paper.CELLS[key].test_ll
    assert verdict(make_row(*key, test_ll=published + sign * (bound - 0.01))) == "agrees"
    assert verdict(make_row(*key, test_ll=published + sign * (bound + 0.01))) == "disagrees"


def test_within_two_deviations_over_seeds():
    def runs(center, spread):
        return [make_row(seed=n, test_ll=center + spread * d) for n, d in enumerate((-1, 0, 1))]  # deviation = spread
    assert verdict(*runs(2819 + 199, 100)) == "agrees"
    assert verdict(*runs(2819 + 201, 100)) == "disagrees"
    assert verdict(runs(2819 + 199, 100)[1]) == "disagrees"  # one seed has no deviation


def test_differences_are_ours_minus_theirs():
    found, = cells_of(make_row(test_ll=2800.0), make_row(seed=1, test_ll=2830.0)).values()
    assert (found["runs"], found["test_ll"], found["paper_test_ll"], found["difference"]) == (2, 2815, 2819, -4)
    assert found["test_ll_std"] == pytest.approx(30 / math.sqrt(2))
    assert found["difference_per_pixel"] == pytest.approx(-4 / 784)
    assert found["difference_percent"] == pytest.approx(-100 * 4 / 2819)
    assert (found["logged_val_ll_k5"], found["logged_test_ll_k5"]) == (2754, 2763)
    found, = cells_of(make_row("VAE", "cifar10", "discrete", test_ll=-7128.0)).values()
    assert found["difference_percent"] == pytest.approx(1) and found["difference_per_pixel"] == pytest.approx(72 / 1024)


# --- what does not count ----------------------------------------------------------------------------------------------

PARTIAL = {"k = 500": dict(num_samples=500), "100 of 10000 test images": dict(num_test_images=100),
           "cut off after 5407 batches": dict(batches=5407)}


@pytest.mark.parametrize("why", PARTIAL)
def test_partial_runs_are_named_and_do_not_count(why):
    partial = make_row(seed=1, **({"test_ll": 0.0} | PARTIAL[why]))
    alone, = cells_of(partial).values()
    assert alone["verdict"] == "partial" and why in alone["note"]
    assert not compare.disagreements([alone])
    beside, = cells_of(make_row(), partial).values()
    assert (beside["verdict"], beside["runs"], beside["test_ll"]) == ("agrees", 1, 2819)
    assert "1 partial runs left out" in beside["note"]


def test_patience_is_the_protocols():
    cut = dict(batches=4640, best_batch=4000)  # five validations without a new best
    assert verdict(make_row(protocol="paper", **cut)) == "agrees"
    assert verdict(make_row(protocol="released", **cut)) == "partial"


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
    found = cells_of(ours, theirs)
    row = found[*key, "Table 2's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("agrees", compare.LOG, -1)
    assert "belongs to another checkpoint, H = 64, n_z = 100" in row["note"]
    _, printed = compare.table1_lines([row])
    assert printed[5] == "-1.0" and printed[8] == "the authors' log, k = 5: ours -2185.0 (1), theirs -2184"
    row = found[*key, "the checkpoint's"]
    assert (row["verdict"], row["compared_with"], row["difference"]) == ("agrees", compare.TABLE_1, -1)
    assert (row["logged_val_ll_k5"], row["logged_test_ll_k5"]) == (-2283, -2241)
    assert verdict(ours | dict(test_ll=-2099.0, test_ll_k5=-1000.0)) == "disagrees"
    assert verdict(theirs | dict(test_ll=-1000.0, test_ll_k5=-2241.0)) == "disagrees"


def test_cross_validated_runs_have_a_row_of_their_own():
    """Whatever their sizes; each seed has its own winner."""
    winners = [make_row(preset="grid", seed=n, hidden_units=h, test_ll=t)
               for n, h, t in ((0, 16, 2800.0), (1, 32, 2840.0))]
    narrower = make_row(preset="grid", seed=1, hidden_units=8, val_ll_k5=1.0, test_ll=9e9)  # another grid's winner
    found = cells_of(make_row(test_ll=0.0), narrower, *winners)
    assert found["SPVAE", "mnist", "continuous", "Table 2's"]["verdict"] == "disagrees"
    row = found["SPVAE", "mnist", "continuous", "by validation"]
    assert (row["verdict"], row["runs"], row["test_ll"], row["hidden_units"], row["latent_dim"]) == (
        "agrees", 2, 2820, None, 25)


def test_a_seed_counts_once():
    """Table 2's sizes may have been run for another preset too."""
    rows = [make_row(seed=0), make_row(seed=0, preset="single"), make_row(seed=1, test_ll=2829.0)]
    found, = cells_of(*rows).values()
    assert (found["runs"], found["test_ll"]) == (2, 2824) and found["test_ll_std"] == pytest.approx(math.sqrt(50))


def test_other_sizes_do_not_count():
    assert verdict(make_row(hidden_units=7)) == "partial"


def test_sizes_that_are_not_table_2s():
    rows = [dict(model="VAE", dataset="mnist", likelihood="discrete", params=params, paper_kparams=1158)
            for params in (1_158_999, 1_160_000)]
    assert [line[1:] for line in compare.table2_lines(rows)[1:]] == [
        ["1,158,999", "1158k", "+0k", "+0.0", "agrees"], ["1,160,000", "1158k", "+2k", "+0.2", "disagrees"]]
    assert compare.table2_disagreements(rows) == [
        "VAE, mnist, discrete: 1,160,000 parameters, +2k (+0.2 %) from Table 2"]


# --- the command line -------------------------------------------------------------------------------------------------

def write_folder(folder, *rows):
    for n, row in enumerate(rows):
        config = {key: row[key] for key in ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim")}
        results.write_record(folder, f"r{n}", row | {"config": config})
    table1.write(folder)
    return folder


def run(*flags):
    return subprocess.run([sys.executable, "scripts/compare_to_paper.py", *map(str, flags)], cwd=ROOT, text=True,
                          capture_output=True, timeout=300)


def test_check_from_the_command_line(tmp_path):
    folder = write_folder(tmp_path / "released", make_row(), make_row("VAE", test_ll=2000.0),
                          make_row("VAE", likelihood="discrete", num_samples=10, test_ll=0.0),
                          make_row("SPVAE", "mnist_sample", test_ll=0.0))
    done = run(f"--results_dir={folder}", "--check", f"--csv={tmp_path / 'c.csv'}")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "disagrees: VAE, mnist, continuous: -598.0 nats (-23.0 %) from Table 1, over 1 runs"]
    assert "partial (k = 10)" in done.stdout and "own images: mnist_sample" in done.stdout
    assert "Not run: SPVAE, svhn_cropped, continuous; " in done.stdout and "3,288,224" in done.stdout
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert len(rows) == 24 and tuple(rows[0]) == compare.FIELDS
    assert sorted(row["verdict"] for row in rows if row["verdict"] != "not run") == ["agrees", "disagrees", "partial"]


def test_check_passes_when_nothing_disagrees(tmp_path):
    done = run(f"--results_dir={write_folder(tmp_path, make_row(), make_row('VAE'))}", "--check")
    assert done.returncode == 0 and not done.stderr


HEAD = ",".join(results.FIELDS).encode() + b"\n"


def line_of(**changes):
    """A row of table1.csv as it stands there, but for some fields."""
    return ",".join("" if v is None else str(v) for v in make_row(**changes).values()).encode() + b"\n"


def test_bad_folders_are_one_line_and_status_2(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        compare.read(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no finished runs"):
        compare.read(tmp_path)
    for content, why in ((b"model,seed\nVAE,1\n", "dataset is None"), (b"\xff\xfe\x00", "utf-8"),
                         (HEAD + b"VAE," * 22 + b"x\n", "seed is 'VAE'"), (HEAD + b"VAE,mnist\n", "fewer fields"),
                         (HEAD + b"x," * 23 + b"x\n", "more or fewer fields"),
                         (HEAD + line_of(protocol="mine"), "protocol is 'mine'"),
                         (HEAD + line_of(num_samples=None), "only a part"),
                         (HEAD + line_of(val_ll_k5=None), "val_ll_k5 is None")):
        (tmp_path / "table1.csv").write_bytes(content)
        with pytest.raises(InputError, match=f"table1.csv is damaged.*{why}"):
            compare.read(tmp_path)
    done = run(f"--results_dir={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_untested_points_of_a_grid_are_not_compared(tmp_path):
    untested = make_row(preset="grid", hidden_units=8) | dict.fromkeys(
        ("test_ll", "test_ll_stderr", "num_samples", "num_test_images"))
    assert [row["test_ll"] for row in compare.read(write_folder(tmp_path, make_row(), untested))] == [2819]


# --- RESULTS.md -------------------------------------------------------------------------------------------------------

def test_hours_are_each_devices_own():
    rows = [dict(model="VAE", dataset="mnist", likelihood="discrete", preset="tuned", hidden_units=300, latent_dim=200,
                 batches=128 * n, best_batch=128, train_seconds=3600.0 * n, device=device)
            for n, device in ((1, "b"), (2, "a"), (4, "b"))]
    assert results_page.cost_lines(rows)[1][2:] == ["3", "299", "128", "2.00; 5.00", "a; b"]


@pytest.mark.parametrize("name,blocks_of", [("RESULTS.md", results_page.results_blocks),
                                            ("README.md", results_page.readme_blocks)])
def test_pages_are_up_to_date(name, blocks_of):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == results_page.fill(page, blocks_of(ROOT / "results")), "run python scripts/make_results.py"


def test_command_line_fills_both_pages_or_neither(tmp_path):
    def make_results():
        flags = [f"--{name}={tmp_path / path}" for name, path in pages.items()]
        return subprocess.run([sys.executable, "scripts/make_results.py", *flags, f"--figures={tmp_path}"],
                              cwd=ROOT, text=True, capture_output=True, timeout=120)

    pages, sound = dict(page="RESULTS.md", readme="README.md"), {}
    for path in pages.values():
        sound[path] = (ROOT / path).read_text(encoding="utf-8")
        (tmp_path / path).write_text(stale := sound[path].replace("| 2819 |", "| 0 |"), encoding="utf-8")
        assert stale != sound[path]
    (tmp_path / "README.md").write_text("no marks", encoding="utf-8")
    done = make_results()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "the blocks are" in done.stderr
    assert "| 0 |" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8") and not list(tmp_path.glob("*.png"))

    (tmp_path / "README.md").write_text(stale, encoding="utf-8")
    assert make_results().returncode == 0
    for path, text in sound.items():
        assert (tmp_path / path).read_text(encoding="utf-8") == text
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["ours_against_paper.png", "tightness.png"]


def test_table_without_a_row_has_not_been_run(tmp_path):
    """As it is while a first run goes on."""
    files.write_table(tmp_path / "released" / "table1.csv", [], results.FIELDS)
    assert compare.read_protocols(tmp_path) == {"paper": [], "released": []}
    with pytest.raises(InputError, match="holds no finished runs"):
        compare.read(tmp_path / "released")


def test_commands_for_what_is_missing():
    def command(*flags):
        return "bash scripts/reproduce_table1.sh --preset={} --protocol=paper --datasets={} --models={} " \
               "--likelihoods={} --seeds={}".format(*flags)

    rows = [make_row(seed=0), make_row(seed=2), make_row("Conv-VAE", likelihood="discrete")]
    rows += [make_row("VAE", seed=n, likelihood=li) for n in (3, 4, 5) for li in ("continuous", "discrete")]
    lines = results_page._not_run_block(rows, "paper").splitlines()
    assert command("tuned", "mnist", "SPVAE", "continuous", "1") in lines
    assert command("tuned", "mnist", "SPVAE", "discrete", "0,1,2") in lines
    assert command("tuned", "cifar10", "VAE", "continuous,discrete", "0,1,2") in lines
    assert command("tuned", "mnist", "Conv-VAE", "continuous", "0") in lines
    assert command("checkpoint", "mnist", "Conv-VAE", "discrete", "0") in lines
    assert not [line for line in lines if "--datasets=mnist --models=VAE" in line]
    partial = results_page._not_run_block([row | {"num_samples": 500} for row in rows], "paper").splitlines()
    assert command("tuned", "mnist", "VAE", "continuous,discrete", "0,1,2") in partial
    rows += [make_row("Conv-VAE", likelihood="discrete", preset="checkpoint", latent_dim=100)]
    assert not [line for line in results_page._not_run_block(rows, "paper").splitlines() if "--models=Conv-VAE" in line
                and "mnist" in line and "discrete" in line]


def test_blocks_are_replaced_and_nothing_else():
    text = "a\n<!-- begin: one -->\nold\n<!-- end: one -->\nb\n<!-- begin: two -->\n<!-- end: two -->\n"
    filled = results_page.fill(text, {"one": "1", "two": r"\2"})
    assert filled == text.replace("old", "1").replace("two -->\n<", "two -->\n\\2\n<")
    assert results_page.fill(filled, {"one": "1", "two": r"\2"}) == filled


@pytest.mark.parametrize("text", ["", "<!-- begin: one -->\n<!-- end: two -->", "<!-- begin: one -->\n",
                                  "<!-- begin: three -->\n<!-- end: three -->",
                                  "<!-- begin: one -->\n<!-- begin: one -->\n<!-- end: one -->\n<!-- end: one -->"])
def test_marks_that_do_not_match_are_refused(text):
    with pytest.raises(InputError, match="marks of the blocks do not match|the blocks are"):
        results_page.fill(text, {"one": "1"})


def test_short_table_has_the_cells_that_were_run_as_a_whole():
    rows = [make_row("VAE", likelihood="discrete", test_ll=-2300.0), make_row("Conv-VAE", likelihood="discrete"),
            *(make_row(seed=n, test_ll=2800.0 + n) for n in (0, 2)), make_row(num_samples=10, test_ll=0.0),
            make_row("VAE", batches=4001)]
    lines = results_page.summary_lines({"paper": compare.compare(rows[:1]), "released": compare.compare(rows)})
    assert lines == [["cell", "paper", "ours, protocol paper (runs)", "ours, protocol released (runs)"],
                     ["SPVAE, mnist, continuous", "2819", "—", "2801.0 ± 1.4 (2)"],
                     ["VAE, mnist, discrete", "-2351", "-2300.0 (1)", "-2300.0 (1)"],
                     ["Conv-VAE, mnist, discrete", "-2099 (of other sizes)", "—", "-2099.0 (1)"]]


def test_margins_of_the_paper_and_ours():
    rows = [make_row(seed=n, test_ll=2800.0 + 30 * n) for n in (0, 1)]
    rows += [make_row("VAE", seed=n, test_ll=2600.0 + 40 * n) for n in (0, 1)]
    lines = results_page.margin_lines({"released": compare.compare(rows), "paper": compare.compare(rows[:2])})
    assert lines[0][2:] == ["published", "protocol released", "protocol paper"]
    by_name = {tuple(line[:2]): line[2:] for line in lines[1:]}
    deviation = math.hypot(30, 40) / math.sqrt(2)
    assert by_name["mnist, continuous", "SPVAE − VAE"] == ["+221", f"+195.0 ± {deviation:.1f} (2, 2)", "—"]
    assert by_name["mnist, continuous", "Conv-SPVAE − Conv-VAE"][0] == "-205"
    assert by_name["mnist, discrete", "Conv-SPVAE − Conv-VAE"][0] == "+1172 *"
    assert len(by_name) == 12


def test_subset_stands_beside_the_sweep_at_a_twentieth(tmp_path):
    def subset_row(seed, test_ll_k5, **changes):
        return make_row(dataset="svhn_subset", num_train=3433, num_test_images=1952, hidden_units=32, latent_dim=25,
                        seed=seed, test_ll_k5=test_ll_k5, test_ll=test_ll_k5 + 10) | changes

    rows = [subset_row(0, 1500.0), subset_row(1, 1520.0), subset_row(2, 0.0, num_samples=10),
            subset_row(3, 0.0, batches=4001), subset_row(0, 100.0, hidden_units=8),
            subset_row(0, 200.0, latent_dim=5, num_samples=10, num_test_images=100)]
    files.write_table(tmp_path / "svhn_subset" / "released" / "table1.csv", rows, results.FIELDS)
    head, narrower, few_codes, whole = results_page.subset_lines(tmp_path)
    assert whole == ["SPVAE, svhn_subset, continuous", "32, 25", "released", "3433", "1510.0 ± 14.1 (2)",
                     "1520.0 ± 14.1 (2)", "1707.8", "1704.4", "2 partial runs left out"]
    assert narrower[1] == "8, 25" and narrower[4:6] == ["100.0 (1)", "110.0 (1)"] and narrower[-1] == ""
    assert few_codes[1] == "32, 5" and few_codes[-1] == "partial (k = 10, 100 of 1952 test images)"


def test_command_of_the_subset_stands_where_nothing_has_been_run(tmp_path):
    command = ("bash scripts/reproduce_table1.sh --preset=tuned --protocol=released "
               "--datasets=<path>/svhn_subset.npz --cell_of=svhn_cropped --models=SPVAE,VAE "
               "--results_dir=results/svhn_subset")
    assert command in results_page._subset_block(tmp_path).splitlines()


def test_nats_lost_with_less_data_are_paired_by_seed(tmp_path):
    def swept(fraction, seed, test_ll_k5, model="SPVAE", **changes):
        return make_row(model, seed=seed, test_ll_k5=test_ll_k5, train_fraction=fraction) | changes

    rows = [swept(1.0, 0, 2800.0), swept(1.0, 1, 2700.0), swept(0.1, 0, 2750.0), swept(0.1, 1, 2630.0),
            swept(0.1, 2, 9.0), swept(0.005, 0, 2000.0), swept(0.005, 1, 0.0, batches=4001),  # one cut off
            swept(1.0, 0, 2500.0, "VAE", test_ll=2600.0), swept(0.1, 0, 2000.0, "VAE", preset="grid"),  # no whole
            swept(0.1, 0, 2200.0, "VAE", test_ll=2400.0), swept(0.1, 1, 0.0, "VAE", test_ll=None, num_samples=None),
            swept(0.005, 0, 1000.0, "VAE", test_ll=1400.0, num_test_images=100),
            swept(1.0, 0, 0.0, dataset="mnist_sample")]
    for row in rows:
        if row["model"] == "SPVAE":
            row |= dict(test_ll=None, num_samples=None)
    assert results_page.sweep_lines(tmp_path / "paper") == [["model", "likelihood", "data set", "sizes", "k"]]
    files.write_table(figure2.path_of(tmp_path / "paper"), rows, figure2.FIELDS)
    assert results_page.sweep_lines(tmp_path / "paper") == [
        ["model", "likelihood", "data set", "sizes", "k", "100 %", "10 %", "0.5 %"],
        ["SPVAE", "continuous", "mnist", "Table 2's", "5", "2750.0 ± 70.7 (2)", "-60.0 ± 14.1 (2)", "-800.0 (1)"],
        ["VAE", "continuous", "mnist", "Table 2's", "5", "2500.0 (1)", "-300.0 (1)", "-1500.0 (1)"],
        ["VAE", "continuous", "mnist", "Table 2's", "5,000", "2600.0 (1)", "-200.0 (1)", "—"]]  # not of 100 images


def test_digitized_sweep():
    sweep = paper.digitized_sweep()
    assert len(sweep) == 12 and sum(map(len, sweep.values())) == 157
    assert sweep["VAE", "mnist", "discrete"][0.01] == -10534.7
    assert set(sweep) < set(paper.CELLS)


def test_plot_is_drawn_from_the_tables(tmp_path):
    files.write_table(tmp_path / "released" / "table1.csv", [make_row(), make_row("VAE", likelihood="discrete")],
                      results.FIELDS)
    for folder in (tmp_path, tmp_path / "nothing"):
        drawn = results_page.plot(folder, tmp_path / "figures")
        assert [path.read_bytes()[1:4] for path in drawn] == [b"PNG", b"PNG"]


def test_plot_has_two_rows_marks_foreign_numbers_and_gives_one_seed_no_bar(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure))
    files.write_table(tmp_path / "released" / "table1.csv", [
        make_row("Conv-VAE", likelihood="discrete"), *(make_row(seed=n, test_ll=2800.0 + n) for n in (0, 2)),
        *(make_row(dataset="cifar10", likelihood=li) for li in ("continuous", "discrete"))], results.FIELDS)
    results_page.plot(tmp_path, "unused")
    axes = {a.get_title(): a for a in saved[0].axes}
    assert len({round(a.get_subplotspec().rowspan.start) for a in axes.values()}) == 2 and len(axes) == 4
    drawn = {line.get_label(): np.array(line.get_ydata(), float) for line in axes["mnist, discrete"].lines}
    np.testing.assert_array_equal(drawn["paper"], [-1532, -2351, -927, np.nan])
    np.testing.assert_array_equal(drawn["paper, of a checkpoint of other sizes"], [np.nan] * 3 + [-2099])

    def bars(title):
        ours = next(c for c in axes[title].containers if "released" in c.get_label())
        segments = (np.array(segment, float) for segment in ours.lines[2][0].get_segments())
        return [segment[:, 1] for segment in segments if segment.size and np.isfinite(segment).all()]
    assert not bars("cifar10, discrete") and not bars("mnist, discrete")
    np.testing.assert_allclose(bars("mnist, continuous"), [2801 + np.array([-1, 1]) * math.sqrt(2)])


def test_means_and_deviations_are_numpys():
    values = [-7200.5, -7100.25, -7301.0]
    for name in ("test_ll", "val_ll_k5", "test_ll_k5"):
        rows = [make_row("VAE", "cifar10", "discrete", seed=n) | {name: value} for n, value in enumerate(values)]
        found, = cells_of(*rows).values()
        assert found[name] == pytest.approx(np.mean(values))
        assert found[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))


def test_authors_runs_hold_the_logged_values_of_every_cell():
    runs = paper.authors_runs()
    assert sum(len(values) for sizes in runs.values() for values in sizes.values()) == 559
    assert set(runs) == set(paper.CELLS)
    for key, cell in paper.CELLS.items():
        for size, logged in (((cell.hidden_units, cell.latent_dim), (cell.logged_val_ll, cell.logged_test_ll)),
                             (cell.checkpoint, cell.checkpoint_logged)):
            if None not in (size, logged) and None not in logged:
                assert tuple(map(round, runs[key][size][0])) == logged


def test_how_the_authors_chose():
    lines = {line[0]: line[1:] for line in authors.choice_lines()}
    assert len(lines) == 25
    assert lines["VAE, mnist, discrete"] == [
        "32", "300, 200: -2672 (1.)", "300, 200: -2672", "300, 100: -2712", "300, 150: -2728", "—"]
    assert lines["SPVAE, mnist, discrete"][:3] == ["38", "30, 25: -1855 (5.)", "100, 25: -1476"]
    assert lines["Conv-VAE, svhn_cropped, discrete"][1] == "128, 200: not logged"
    assert lines["VAE, cifar10, discrete"][-1] == "314"  # −28,296.678 and −28,610.316
