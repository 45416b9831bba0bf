"""The generated parts of RESULTS.md and README.md: as committed, and cases that no committed result has."""

import math

import command_line
import pytest
from command_line import ROOT
from rows import make_row, write_runs

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import beyond, compare, figure2, report, table1, text
from spvae_tf.training import configuration, records

# --- the pages --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, blocks_of", [("RESULTS.md", report.results_blocks),
                                             ("README.md", report.readme_blocks)])
def test_pages_are_up_to_date(name, blocks_of):
    """Every committed number on them follows from the committed CSVs."""
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == report.fill(page, blocks_of(ROOT / "results")), "run python scripts/make_results.py"


def test_command_line_fills_both_pages_or_neither(tmp_path):
    def make_results():
        flags = [f"--{name}={tmp_path / path}" for name, path in pages.items()]
        return command_line.run("make_results.py", *flags, f"--figures={tmp_path}")

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
    for path, page in sound.items():
        assert (tmp_path / path).read_text(encoding="utf-8") == page
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["ours_against_paper.png", "tightness.png"]


def test_blocks_are_replaced_and_nothing_else():
    text = "a\n<!-- begin: one -->\nold\n<!-- end: one -->\nb\n<!-- begin: two -->\n<!-- end: two -->\n"
    filled = report.fill(text, {"one": "1", "two": r"\2"})
    assert filled == text.replace("old", "1").replace("two -->\n<", "two -->\n\\2\n<")
    assert report.fill(filled, {"one": "1", "two": r"\2"}) == filled


@pytest.mark.parametrize("text", ["", "<!-- begin: one -->\n<!-- end: two -->", "<!-- begin: one -->\n",
                                  "<!-- begin: three -->\n<!-- end: three -->",
                                  "<!-- begin: one -->\n<!-- begin: one -->\n<!-- end: one -->\n<!-- end: one -->"])
def test_marks_that_do_not_match_are_errors(text):
    with pytest.raises(InputError, match="marks of the blocks do not match|the blocks are"):
        report.fill(text, {"one": "1"})


# --- Tables 1 and 2 ---------------------------------------------------------------------------------------------------

def test_a_number_of_another_checkpoint_stands_beside_the_log_of_ours():
    row = make_row("Conv-VAE", "mnist", "discrete", test_ll=-1000.0, test_ll_k5=-2185.0)
    _, line, uniform = report.beside_table1(compare.compare([row]))
    assert uniform[0] == "uniform over the counts, mnist, discrete" and uniform[5] == "8, which is -4347.4 nats"
    assert line[5] == "1.840 (3.863)"  # 1000 and 2099 nats over 784 log 2
    assert line[6] == "-1.0" and line[10] == "the authors' log, k = 5: ours -2185.0 (1), theirs -2184"


def test_parameters_beside_the_papers_thousands():
    rows = [dict(model="VAE", dataset="mnist", likelihood="discrete", params=params, paper_kparams=1158)
            for params in (1_158_999, 1_160_000)]
    assert [line[1:] for line in report.table2(compare.compare_sizes(rows))[1:]] == [
        ["1,158,999", "1158k", "+0k", "+0.0", "agrees"], ["1,160,000", "1158k", "+2k", "+0.2", "disagrees"]]


def test_short_table_has_the_cells_that_were_run_as_a_whole():
    rows = [make_row("VAE", likelihood="discrete", test_ll=-2300.0), make_row("Conv-VAE", likelihood="discrete"),
            *(make_row(seed=n, test_ll=2800.0 + n) for n in (0, 2)), make_row(num_samples=10, test_ll=0.0),
            make_row("VAE", batches=4001)]
    earlier = compare.compare([rows[0] | dict(preparation="earlier", test_ll=-2200.0)])
    lines = report.summary({"paper": earlier, "released": compare.compare(rows)})
    assert lines == [["cell", "paper", "ours, protocol paper (runs)", "verdict", "ours, protocol released (runs)",
                      "verdict", report.BITS],
                     ["SPVAE, mnist, continuous", "2819", "—", "—", "2801.0 ± 1.4 (2)", "agrees", "density"],
                     ["VAE, mnist, discrete", "-2351", "-2200.0 (1) †", "outside 2 %, one run", "-2300.0 (1)",
                      "outside 2 %, one run", "4.048, 4.232 (4.326)"],
                     ["Conv-VAE, mnist, discrete", "-2099 (of other sizes)", "—", "—", "-2099.0 (1)",
                      "outside 2 %, one run", "—, 3.863 (3.863)"],
                     ["uniform over the counts, mnist, discrete", "—", "—", "—", "—", "—", "8, which is -4347.4 nats"]]
    assert text.markdown(lines).endswith(f"|\n\n{text.FOOTNOTE}") and text.aligned(lines).endswith(f"\n{text.FOOTNOTE}")
    assert text.FOOTNOTE not in text.markdown(lines[:2]) + text.aligned(lines[:2])


def test_margins_of_the_paper_and_ours():
    rows = [make_row(seed=n, test_ll=2800.0 + 30 * n) for n in (0, 1)]
    rows += [make_row("VAE", seed=n, test_ll=2600.0 + 40 * n) for n in (0, 1)]
    lines = report.margins({"released": compare.compare(rows), "paper": compare.compare(rows[:2])})
    assert lines[0][2:] == ["published", "protocol released", "protocol paper"]
    by_name = {tuple(line[:2]): line[2:] for line in lines[1:]}
    deviation = math.hypot(30, 40) / math.sqrt(2)
    assert by_name["mnist, continuous", "SPVAE − VAE"] == ["+221", f"+195.0 ± {deviation:.1f} (2, 2)", "—"]
    half, whole = ([row | dict(preparation="earlier") for row in rows[:n]] + rows[n:] for n in (2, 4))
    lines = report.margins({"half": compare.compare(half), "whole": compare.compare(whole)})
    assert lines[1][3:] == ["—", f"+195.0 ± {deviation:.1f} (2, 2) †"]  # no difference of two preparations
    assert by_name["mnist, continuous", "Conv-SPVAE − Conv-VAE"][0] == "-205"
    assert by_name["mnist, discrete", "Conv-SPVAE − Conv-VAE"][0] == "+1172 *"
    assert len(by_name) == 12


def test_authors_runs_hold_the_logged_values_of_every_cell():
    runs = published.authors_runs()
    assert sum(len(values) for sizes in runs.values() for values in sizes.values()) == 559
    assert set(runs) == set(published.CELLS)
    for key, cell in published.CELLS.items():
        for size, logged in (((cell.hidden_units, cell.latent_dim), (cell.logged_val_ll, cell.logged_test_ll)),
                             (cell.checkpoint, cell.checkpoint_logged)):
            if None not in (size, logged) and None not in logged:
                assert tuple(map(round, runs[key][size][0])) == logged


def test_commands_for_what_is_missing():
    def commands(rows):
        return [line.split("  # ")[0] for line in report.commands_for_missing(rows, "paper", {})]

    def command(*flags):
        return "bash scripts/reproduce_table1.sh --preset={} --protocol=paper --datasets={} --models={} " \
               "--likelihoods={} --seeds={}".format(*flags)

    rows = [make_row(seed=0), make_row(seed=2), make_row("Conv-VAE", likelihood="discrete")]
    rows += [make_row("VAE", seed=n, likelihood=li) for n in (3, 4, 5) for li in ("continuous", "discrete")]
    assert {command("tuned", "mnist", "SPVAE", "continuous", "1"),
            command("tuned", "mnist", "SPVAE", "discrete", "0,1,2"),
            command("tuned", "cifar10", "VAE", "continuous", "0,1,2"),
            command("tuned", "mnist", "Conv-VAE", "continuous", "0"),
            command("checkpoint", "mnist", "Conv-VAE", "discrete", "0")} <= set(commands(rows))
    assert not [line for line in commands(rows) if "--datasets=mnist --models=VAE" in line]
    for change in ({"num_samples": 500}, {"preparation": "earlier"}):
        assert command("tuned", "mnist", "VAE", "discrete", "0,1,2") in commands([row | change for row in rows])
    rows += [make_row("Conv-VAE", likelihood="discrete", preset="checkpoint", latent_dim=100)]
    assert not [line for line in commands(rows) if "--models=Conv-VAE" in line and "mnist" in line
                and "discrete" in line]
    svhn = ["svhn" in line for line in commands(rows)]
    assert svhn == sorted(svhn)  # comes last


def test_missing_are_64_of_mnist_and_cifar10_and_come_with_recorded_hours(tmp_path):
    def runs(protocol, **changes):
        return [make_row(*key, protocol=protocol, seed=n, **changes) for key in published.CELLS
                if key[1] != "svhn_cropped" for n in range(1 if "Conv" in key[0] else 3)]

    rows_of = {protocol: [] for protocol in configuration.PROTOCOLS}
    assert report.coverage(rows_of).startswith("0 of 64 runs")
    assert sum(len(seeds) for (preset, key), seeds in report.missing([]).items()
               if preset == "tuned" and key[1] != "svhn_cropped") == 32
    rows_of |= dict(paper=runs("paper"), released=runs("released", preparation="earlier"))
    assert report.coverage(rows_of).splitlines()[0].startswith("32 of 64 runs")
    assert "Protocol released: 16 of 24 cells have a run, 0 on the authors' images." in report.coverage(rows_of)
    assert {key[1] for _, key in report.missing(rows_of["paper"])} == {"svhn_cropped", "mnist"}  # a checkpoint's sizes

    folders = {protocol: tmp_path / protocol for protocol in rows_of}
    write_runs(folders["paper"], *(make_row(protocol="paper", seed=n, train_seconds=3600.0 + 1800 * n) for n in (0, 1)))
    write_runs(folders["released"], make_row("VAE", train_seconds=900.0, batches=7))
    first, *others = report.commands_for_missing([], "paper", table1.recorded_costs(folders, "paper"))
    assert first.endswith("--seeds=0,1,2  # 1.25 h ± 0.35 (2) of training on a machine, 5408 ± 0 batches")
    vae, = [line for line in others if "--datasets=mnist --models=VAE --likelihoods=continuous" in line]
    assert vae.endswith("# 0.25 h (1) of training under released on a machine, 7 batches")
    assert others[-1].endswith("# no record of such a run")


# --- less data --------------------------------------------------------------------------------------------------------

def test_subset_stands_beside_the_sweep_at_a_twentieth(tmp_path):
    def subset_row(seed, test_ll_k5, **changes):
        return make_row(dataset="svhn_subset", num_train=3433, num_test_images=1952, hidden_units=32, latent_dim=25,
                        seed=seed, test_ll_k5=test_ll_k5, test_ll=test_ll_k5 + 10) | changes

    rows = [subset_row(0, 1500.0), subset_row(1, 1520.0), subset_row(2, 0.0, num_samples=10),
            subset_row(3, 0.0, batches=4001), subset_row(0, 100.0, hidden_units=8),
            subset_row(0, 200.0, latent_dim=5, num_samples=10, num_test_images=100)]
    files.write_table(tmp_path / "svhn_subset" / "released" / "table1.csv", rows, records.FIELDS)
    head, narrower, few_codes, whole = report.subset(tmp_path)
    assert whole == ["SPVAE, svhn_subset, continuous", "32, 25", "released", "3433", "1510.0 ± 14.1 (2) †",
                     "1520.0 ± 14.1 (2) †", "1707.8", "1704.4", "2 partial runs left out"]
    assert narrower[1] == "8, 25" and narrower[4:6] == ["100.0 (1) †", "110.0 (1) †"] and narrower[-1] == ""
    assert few_codes[1] == "32, 5" and few_codes[-1] == "partial (k = 10, 100 of 1952 test images)"


def test_command_of_the_subset_stands_where_nothing_has_been_run(tmp_path):
    command = ("bash scripts/reproduce_table1.sh --preset=tuned --protocol=released "
               "--datasets=<path>/svhn_subset.npz --cell_of=svhn_cropped --models=SPVAE,VAE "
               "--results_dir=results/svhn_subset")
    for name in ("table2.csv", "usefulness.csv"):
        files.write_text(tmp_path / name, (ROOT / "results" / name).read_text(encoding="utf-8"))
    assert command in report.results_blocks(tmp_path)["svhn subset"].splitlines()


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
    assert report.less_data(tmp_path) == [["model", "likelihood", "data set", "sizes", "k"]]
    files.write_table(tmp_path / figure2.CSV, rows, figure2.FIELDS)
    assert [[cell.replace(" †", "") for cell in line] for line in report.less_data(tmp_path)] == [
        ["model", "likelihood", "data set", "sizes", "k", "100 %", "10 %", "0.5 %"],
        ["SPVAE", "continuous", "mnist", "Table 2's", "5", "2750.0 ± 70.7 (2)", "-60.0 ± 14.1 (2)", "-800.0 (1)"],
        ["VAE", "continuous", "mnist", "Table 2's", "5", "2500.0 (1)", "-300.0 (1)", "-1500.0 (1)"],
        ["VAE", "continuous", "mnist", "Table 2's", "5,000", "2600.0 (1)", "-200.0 (1)", "—"]]  # not of 100 images


def write_sweep(folder, *rows):
    """low_data_sweep.csv and the records of its rows, of two preparations."""
    for n, row in enumerate(rows):
        config = dict(preparation=row["preparation"], train_fraction=row["train_fraction"])
        records.write_record(folder, str(n), {key: row[key] for key in records.FIELDS} | dict(config=config))
    files.write_table(folder / figure2.CSV, rows, figure2.FIELDS)


def test_a_sweep_never_mixes_preparations(tmp_path):
    """The whole training set has been run again, with 10 % seed 0 alone, with less nothing."""
    def swept(fraction, seed, test_ll_k5, preparation):
        return make_row(seed=seed, test_ll_k5=test_ll_k5, train_fraction=fraction, preparation=preparation)

    write_sweep(tmp_path, swept(1.0, 0, 2800.0, "authors"), swept(1.0, 1, 2700.0, "earlier"),
                swept(0.1, 0, 2750.0, "authors"), swept(0.1, 1, 2600.0, "earlier"), swept(0.005, 0, 2000.0, "earlier"),
                swept(0.03, 1, 2500.0, "earlier"))
    head, at_k5, _ = report.less_data(tmp_path)
    assert head[5:] == ["100 %", "10 %", "3 %", "0.5 %"]
    assert at_k5[5:] == ["2800.0 (1)", "-50.0 (1)", "-200.0 (1) †", "—"]
    theirs = published.digitized_sweep()["SPVAE", "mnist", "continuous"]
    _, line = report.beside_figure2(tmp_path)
    assert line[3:] == ["2800.0 (1); —", f"2750.0 (1); {2750 - theirs[0.1]:+.1f}",
                        f"2500.0 (1) †; {2500 - theirs[0.03]:+.1f}", "2000.0 (1) †; —"]


def test_between_two_digitized_points_the_logarithm_decides(tmp_path):
    curve = {0.01: 100.0, 0.04: 200.0}
    assert published.digitized_at(curve, 0.01) == 100 and published.digitized_at(curve, 0.02) == pytest.approx(150)
    assert all(math.isnan(published.digitized_at(*outside)) for outside in ((curve, 0.005), (curve, 1), ({}, 0.1)))
    write_sweep(tmp_path, make_row("VAE", test_ll_k5=1000.0, train_fraction=0.014))
    assert report.beside_figure2(tmp_path)[1][3].endswith(" ≈")


def test_digitized_sweep():
    sweep = published.digitized_sweep()
    assert len(sweep) == 12 and sum(map(len, sweep.values())) == 157
    assert sweep["VAE", "mnist", "discrete"][0.01] == -10534.7
    assert set(sweep) < set(published.CELLS)


# --- beyond the paper -------------------------------------------------------------------------------------------------

def test_page_shows_runs_of_table_2_alone(tmp_path):
    """Runs of other sizes, or in which something else was set, are measured but do not stand for a cell."""
    row = dict.fromkeys(beyond.FIELDS, "a") | dict(
        model="SPVAE", dataset="mnist", likelihood="discrete", hidden_units=30, latent_dim=25,
        changes=beyond.NOTHING, seed=0)
    others = [dict(seed=1, changes="patience=60"), dict(seed=2, latent_dim=2), dict(seed=3, dataset="mine"),
              dict(seed=4, changes="preparation=earlier")]
    beyond.write(tmp_path / "usefulness.csv", [row, *(row | other for other in others)])
    assert [(row["seed"], row["preparation"]) for row in report.useful_rows(tmp_path)] == [
        (0, "authors"), (4, "earlier")]


def test_bounds_without_a_model_or_a_setting():
    row = dict(task=beyond.IMAGE, dataset="mnist", likelihood="discrete", protocol="paper", train_fraction=0.005,
               preparation="authors")
    rows = [row | dict(model="VAE", setting=beyond.FITTED, value=value) for value in (-30, -32)]
    rows.append(row | dict(model="VAE", setting=beyond.FITTED, task=beyond.HALF, value=-1000))  # not of the image
    head, line = report.bounds(rows)
    assert line == ["mnist, discrete, paper", "0.5 %", "—", "—", "—", "-31.0 ± 1.4 (2)", "—", "—"]
    assert len(head) == len(line)
    rows += [row | dict(model="VAE", setting=beyond.FITTED, value=0, preparation="earlier"),
             *(row | dict(model="SPVAE", setting=setting, value=-9, preparation="earlier") for setting in
               (beyond.AMORTISED, beyond.FITTED))]
    _, line = report.bounds(rows)
    assert line[2:] == ["-9.0 (1) †", "-9.0 (1) †", "—", "-31.0 ± 1.4 (2)", "—", "—"]
