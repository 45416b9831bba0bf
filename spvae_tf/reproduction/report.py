"""RESULTS.md and README.md: every figure on them, recomputed from the CSVs that the runs left, and the plot of them.

Log-likelihoods are nats per image.
"""

import math
import re
from pathlib import Path

from spvae_tf import files
from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.reproduction import authors, compare, figure2, text
from spvae_tf.reproduction import beyond as usefulness
from spvae_tf.reproduction import plots as figures
from spvae_tf.spvae import MODELS
from spvae_tf.training import records as results

SEEDS = {"SPVAE": 3, "VAE": 3, "Conv-SPVAE": 1, "Conv-VAE": 1}  # that a cell is to be run with
PAIRS = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))
BENCHMARKS = tuple(dict.fromkeys(key[1:] for key in paper.CELLS))


def results_blocks(results_dir):
    """Every figure of RESULTS.md, recomputed from the CSVs.

    Args:
      results_dir: folder with table2.csv, and `<protocol>/table1.csv`, `<protocol>/low_data_sweep.csv`, usefulness.csv
        and svhn_subset/`<protocol>`/table1.csv, of which what is not there has not been run.

    Returns:
      dict name of a block -> its Markdown.
    """
    rows = compare.read_protocols(results_dir)
    compared = {protocol: compare.compare(rows[protocol]) for protocol in rows}
    useful = _useful_rows(results_dir)
    tables = {"margins": margin_lines(compared), "the authors' choice": authors.choice_lines(),
              "usefulness": usefulness.table_lines([row for row in useful if row["train_fraction"] == 1]),
              "bounds": usefulness.bounds_lines(useful),
              "table 2": compare.table2_lines(files.read_table(Path(results_dir) / "table2.csv"))}
    for protocol in rows:
        tables |= {f"table 1, {protocol}": compare.table1_lines(compared[protocol]),
                   f"validation, {protocol}": compare.validation_lines(compared[protocol]),
                   f"less data, {protocol}": sweep_lines(Path(results_dir) / protocol),
                   f"cost, {protocol}": cost_lines(rows[protocol])}
    blocks = {name: text.markdown(lines) for name, lines in tables.items()}
    blocks |= {f"not run, {protocol}": _not_run_block(rows[protocol], protocol) for protocol in rows}
    return blocks | {"svhn subset": _subset_block(results_dir)}


def readme_blocks(results_dir):
    """The table of README.md, recomputed from the CSVs.

    Args:
      results_dir: as in `results_blocks`.

    Returns:
      dict name of a block -> its Markdown.
    """
    compared = {protocol: compare.compare(rows) for protocol, rows in compare.read_protocols(results_dir).items()}
    return {"table 1": text.markdown(summary_lines(compared))}


def _useful_rows(results_dir):
    """The rows of usefulness.csv at Table 2's sizes and settings."""
    def is_table2s(row):
        cell = paper.CELLS.get((row["model"], row["dataset"], row["likelihood"]))
        found = row["hidden_units"], row["latent_dim"], row["changes"]
        return cell is not None and found == (cell.hidden_units, cell.latent_dim, usefulness.NOTHING)

    return list(filter(is_table2s, usefulness.read(Path(results_dir) / "usefulness.csv")))


def fill(text, blocks):
    """Puts blocks between their marks, `<!-- begin: name -->` and `<!-- end: name -->`.

    Args:
      text: of RESULTS.md or README.md.
      blocks: of `results_blocks` or `readme_blocks`.

    Returns:
      The text with its blocks made anew.

    Raises:
      InputError: when the text names a block that there is not, lacks one, or has marks that do not match.
    """
    pattern = re.compile(r"<!-- begin: (.+?) -->\n.*?<!-- end: (.+?) -->", re.DOTALL)
    marks = re.findall(r"<!-- (?:begin|end): (.+?) -->", text)
    if marks != [name for pair in pattern.findall(text) for name in pair] or marks[::2] != marks[1::2]:
        raise InputError("the marks of the blocks do not match; each is <!-- begin: NAME --> … <!-- end: NAME -->")
    if sorted(marks[::2]) != sorted(blocks):
        raise InputError(f"the blocks are {', '.join(sorted(marks[::2]))}; they must be {', '.join(sorted(blocks))}")
    return pattern.sub(lambda m: f"<!-- begin: {m[1]} -->\n{blocks[m[1]]}\n<!-- end: {m[1]} -->", text)


def summary_lines(compared):
    """Table 1 in short: the cells run as a whole, at Table 2's sizes, under any protocol.

    Args:
      compared: dict protocol -> of `compare`.

    Returns:
      list of lists of str, the first the head; nats per image, in brackets the runs.
    """
    whole = {protocol: _whole_cells(rows) for protocol, rows in compared.items()}
    lines = [["cell", "paper", *(f"ours, protocol {name} (runs)" for name in compared)]]
    for key, cell in sorted(paper.CELLS.items(), key=lambda item: BENCHMARKS.index(item[0][1:])):
        ours = [text.spread(r["test_ll"], r["test_ll_std"], r["runs"]) if (r := cells.get(key)) else "—"
                for cells in whole.values()]
        if set(ours) != {"—"}:
            lines.append([", ".join(key), f"{cell.test_ll}{' (of other sizes)' if cell.checkpoint else ''}", *ours])
    return lines


def _whole_cells(compared):
    return {(r["model"], r["dataset"], r["likelihood"]): r for r in compared
            if r["sizes"] == "Table 2's" and r["verdict"] in ("agrees", "disagrees")}


def margin_lines(compared):
    """By how much the model with an SPN beats the one without, at Table 2's sizes, on every benchmark.

    The deviation is that of a difference of two runs, the root of the sum of both variances over seeds.

    Args:
      compared: dict protocol -> of `compare`.

    Returns:
      list of lists of str, the first the head; nats per image, in brackets the runs of either model.
    """
    lines = [["benchmark", "difference", "published", *(f"protocol {name}" for name in compared)]]
    for one, other in PAIRS:
        for dataset, likelihood in BENCHMARKS:
            cells = [paper.CELLS[name, dataset, likelihood] for name in (one, other)]
            mark = " *" if any(cell.checkpoint for cell in cells) else ""
            lines.append([f"{dataset}, {likelihood}", f"{one} − {other}",
                          f"{cells[0].test_ll - cells[1].test_ll:+d}{mark}",
                          *(_margin(c, [(name, dataset, likelihood) for name in (one, other)])
                            for c in compared.values())])
    return lines


def _margin(compared, keys):
    whole = _whole_cells(compared)
    if not all(key in whole for key in keys):
        return "—"
    one, other = (whole[key] for key in keys)
    deviation = math.hypot(*(math.nan if r["test_ll_std"] is None else r["test_ll_std"] for r in (one, other)))
    return text.spread(one["test_ll"] - other["test_ll"], deviation, f"{one['runs']}, {other['runs']}", sign="+")


def cost_lines(rows):
    """What the runs took.

    Args:
      rows: of `read`.

    Returns:
      list of lists of str, the first the head.
    """
    lines, groups = [["cell", "H, n_z", "runs", "batches", "best after", "hours of training, all runs", "device"]], {}
    for row in rows:
        if row["dataset"] in paper.DATASETS:
            groups.setdefault((compare.cell_name(row), row["hidden_units"], row["latent_dim"]), []).append(row)
    for (name, *sizes), group in groups.items():
        devices = sorted({row["device"] for row in group})
        hours = [sum(row["train_seconds"] for row in group if row["device"] == device) / 3600 for device in devices]
        mean = {key: sum(row[key] for row in group) / len(group) for key in ("batches", "best_batch")}
        lines.append([name, "{}, {}".format(*sizes), str(len(group)), f"{mean['batches']:.0f}",
                      f"{mean['best_batch']:.0f}", "; ".join(f"{h:.2f}" for h in hours), "; ".join(devices)])
    return lines


def subset_lines(results_dir):
    """The SVHN subset, under its own name, beside the authors' sweep at about as small a part of SVHN.

    Args:
      results_dir: folder with svhn_subset/`<protocol>`/table1.csv.

    Returns:
      list of lists of str, the first the head; a line for the runs of the same sizes, of which the partial ones do not
      count where there are others.
    """
    curves, groups = paper.digitized_sweep(), {}
    for protocol, rows in compare.read_protocols(Path(results_dir) / compare.SUBSET).items():
        for row in rows:
            if row["dataset"] == compare.SUBSET:
                key = row["likelihood"], row["model"], protocol, row["hidden_units"], row["latent_dim"]
                groups.setdefault(key, []).append(row)
    lines = [["run", "H, n_z", "protocol", "training images", "test, k = 5 (runs)", "test, k = 5000 (runs)",
              "authors, SVHN at 5 %, k = 5", "at 6 %", "note"]]
    for (likelihood, model, protocol, *sizes), group in sorted(groups.items()):
        curve, (used, partial) = curves.get((model, "svhn_cropped", likelihood), {}), compare.counted(group)
        lines.append([compare.cell_name(used[0]), "{}, {}".format(*sizes), protocol,
                      ", ".join(sorted({str(row["num_train"]) for row in used})),
                      *(text.mean_of([row[name] for row in used])
                        for name in ("test_ll_k5", "test_ll")), *(text.number(curve.get(at)) for at in (0.05, 0.06)),
                      partial if not compare.shortcomings(used[0]) else f"partial ({partial})"])
    return lines


def sweep_lines(folder):
    """Figure 2 as a table: the test ELBO on the whole training set, and what a part of it costs.

    Args:
      folder: `<results_dir>/<protocol>`, with low_data_sweep.csv.

    Returns:
      list of lists of str, the first the head; of each model's runs that early stopping ended a line with k = 5, and
      one with k = 5,000 where some were tested so on all test images; nats per image, paired by seed, in brackets the
      runs. A model that was not run on the whole has no line.
    """
    rows = [row for row in results.read_rows(figure2.path_of(folder), figure2.FIELDS)
            if row["dataset"] in paper.DATASETS and not compare.cut_off(row)]
    tested = [row for row in rows if row["test_ll"] is not None and not compare.shortcomings(row)]
    fractions = sorted({row["train_fraction"] for row in rows}, reverse=True)
    lines = [["model", "likelihood", "data set", "sizes", "k", *map(text.per_cent, fractions)]]
    for preset, sizes in (("tuned", "Table 2's"), ("grid", "by validation")):
        quick, full = (figure2.losses([row for row in some if row["preset"] == preset], field)
                       for some, field in ((rows, "test_ll_k5"), (tested, "test_ll")))
        for dataset, likelihood, model in quick:
            for samples, lost in ((5, quick), (compare.TEST_SAMPLES, full)):
                values = lost.get((dataset, likelihood, model), {})
                if any(values.values()):
                    lines.append([model, likelihood, dataset, sizes, f"{samples:,}",
                                  *(_lost(values, f) for f in fractions)])
    return lines


def _lost(values, fraction):
    """A model's entry at a fraction; `values` is one of figure2.losses'."""
    return text.mean_of(values.get(fraction), sign="+" if fraction < 1 else "")


def _subset_block(results_dir):
    """The table of the SVHN subset, or the command that would run it."""
    lines = subset_lines(results_dir)
    command = [] if len(lines) > 1 else ["", "```bash", SUBSET_COMMAND, "```"]
    return "\n".join([text.markdown(lines), *command])


SUBSET_COMMAND = (
    f"bash scripts/reproduce_table1.sh --preset=tuned --protocol=released --datasets=<path>/{compare.SUBSET}.npz "
    f"--cell_of=svhn_cropped --models=SPVAE,VAE --results_dir=results/{compare.SUBSET}")


def _not_run_block(rows, protocol):
    """The cells that were not run, or with too few seeds, and the command that would run each."""
    missing = {}
    for (model, dataset, likelihood), cell in paper.CELLS.items():
        for preset, sizes in (("tuned", "Table 2's"), ("checkpoint", "the checkpoint's")):
            there = {row["seed"] for row in rows if (row["model"], row["dataset"], row["likelihood"])
                     == (model, dataset, likelihood) and compare.sizes_of(row, cell) == sizes
                     and not compare.shortcomings(row)}
            left = [seed for seed in range(SEEDS[model]) if seed not in there][:max(SEEDS[model] - len(there), 0)]
            if left and (preset == "tuned" or cell.checkpoint):
                missing.setdefault((preset, dataset, model, tuple(left)), []).append(likelihood)
    if not missing:
        return "Every cell has been run."
    return "\n".join(["```bash", *(
        f"bash scripts/reproduce_table1.sh --preset={preset} --protocol={protocol} --datasets={dataset} "
        f"--models={model} --likelihoods={','.join(likelihoods)} --seeds={','.join(map(str, seeds))}"
        for (preset, dataset, model, seeds), likelihoods in missing.items()), "```"])


MARKERS = (("s", "none", 0.12), ("o", "full", -0.12))  # of the protocols; they can be told apart in grey


def plot(results_dir, folder):
    """The pictures of RESULTS.md that are drawn from several CSVs: ours_against_paper.png and tightness.png.

    Args:
      results_dir: as in `results_blocks`.
      folder: of the PNGs.

    Returns:
      Their paths.
    """
    paths = [Path(folder) / name for name in ("ours_against_paper.png", "tightness.png")]
    _plot_table1(results_dir, paths[0])
    usefulness.plot_bounds(_useful_rows(results_dir), paths[1])
    return paths


def _plot_table1(results_dir, path):
    """Ours against the paper's at Table 2's sizes: a panel for each benchmark that was run, models side by side."""
    compared = {protocol: compare.compare(rows) for protocol, rows in compare.read_protocols(results_dir).items()}
    benchmarks = [key for key in BENCHMARKS
                  if any((r["dataset"], r["likelihood"]) == key and r["runs"] for c in compared.values() for r in c)]
    figure, all_axes = figures.panels(len(benchmarks), 3.4, 3.6)
    for axes, key in zip(all_axes, benchmarks):
        axes.set(title=", ".join(key), ylabel="test ELBO, k = 5000 (nats per image)", xlim=(-0.5, 3.5))
        axes.set_xticks(range(4), MODELS, fontsize=8)
        cells = [paper.CELLS[model, *key] for model in MODELS]
        axes.plot(range(4), [math.nan if c.checkpoint else c.test_ll for c in cells], "k_", ms=22, mew=2, label="paper")
        axes.plot(range(4), [c.test_ll if c.checkpoint else math.nan for c in cells], "kx", ms=7,
                  label="paper, of a checkpoint of other sizes")
        for (protocol, rows), (marker, fill_style, shift) in zip(compared.items(), MARKERS):
            rows = [r for cell, r in _whole_cells(rows).items() if cell[1:] == key]
            deviations = [math.nan if r["test_ll_std"] is None else r["test_ll_std"] for r in rows]  # NaN: no bar
            axes.errorbar([list(MODELS).index(r["model"]) + shift for r in rows], [r["test_ll"] for r in rows],
                          deviations, fmt=marker, fillstyle=fill_style, color="0.3", ms=6, capsize=3, lw=1,
                          label=f"ours, protocol {protocol}")
        axes.grid(axis="y", alpha=0.3)
    if benchmarks:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figures.save(figure, path)
