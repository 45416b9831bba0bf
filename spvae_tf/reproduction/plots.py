"""Plots of runs, drawn from records and CSVs into a PNG, `path`; log-likelihoods are nats per image."""

import functools
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import bits_per_dimension, get_likelihood
from spvae_tf.reproduction import beyond, compare, report, table1, text
from spvae_tf.reproduction.text import grouped

# colours that differ in lightness too, so that they survive grey printing (Okabe & Ito)
COLOURS = {"SPVAE": "#0072B2", "VAE": "#E69F00", "Conv-SPVAE": "#56B4E9", "Conv-VAE": "#B35A00"}
DATASET_STYLES = {"mnist": ("#0072B2", "o"), "svhn_cropped": ("#35124A", "^"), "cifar10": ("#E69F00", "s")}
OTHER_STYLE = ("black", "D")
PROTOCOL_STYLES = (("s", "none", 0.12), ("o", "full", -0.12))  # marks that can be told apart in grey
LINE_STYLES = {model: "--" if "SPVAE" in model else "-" for model in COLOURS}
TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def save(figure, path, legend=False):
    """Saves a matplotlib Figure atomically as PNG, with the first panel's legend below it if `legend`."""
    if legend and figure.axes:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    files.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def panels(count, width, height):
    """A figure of equal panels and the list of their axes, in one row, or from four on in two; sizes are inches."""
    rows = 1 if count < 4 else 2
    columns = max(-(-count // rows), 1)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, n + 1) for n in range(count)]


def of_results(results_dir, folder):
    """Draws the plots of RESULTS.md that are made from several CSVs into a folder; returns their paths."""
    ours_against_paper(compare.compare_protocols(results_dir), first := Path(folder) / "ours_against_paper.png")
    tightness(report.useful_rows(results_dir), second := Path(folder) / "tightness.png")
    return first, second


def label_nats(axes, what, rows):
    """Names the vertical axis, nats per image; rows of counts in images of one size have bits per dimension beside."""
    pixels = {get_likelihood(row["likelihood"]).of_counts and text.num_pixels(row) for row in rows}
    axes.set_ylabel(f"{what}\n(nats per image{', a density' if pixels == {False} else ''})")
    size = pixels.pop() if len(pixels) == 1 else None
    if size:
        def to_nats(bits):
            return -bits * size * math.log(2)

        axes.secondary_yaxis("right", functions=(lambda nats: bits_per_dimension(nats, size), to_nats)).set_ylabel(
            "bits per dimension (uniform: 8)")


def ours_against_paper(compared, path):
    """Ours (compare.compare_protocols) beside the paper's at Table 2's sizes, a panel for each benchmark."""
    run = {(row["dataset"], row["likelihood"]) for rows in compared.values() for row in rows if row["runs"]}
    benchmarks = [benchmark for benchmark in published.BENCHMARKS if benchmark in run]
    figure, all_axes = panels(len(benchmarks), 3.4, 3.6)
    models = list(COLOURS)
    for axes, benchmark in zip(all_axes, benchmarks):
        axes.set(title=", ".join(benchmark), xlim=(-0.5, 3.5))
        label_nats(axes, "test ELBO, k = 5000", [dict(zip(text.CELL[1:], benchmark))])
        axes.set_xticks(range(4), [model.replace("-", "-\n") for model in models], fontsize=8)
        cells = [published.CELLS[model, *benchmark] for model in models]
        axes.plot(range(4), [math.nan if c.checkpoint else c.test_ll for c in cells], "k_", ms=22, mew=2, label="paper")
        axes.plot(range(4), [c.test_ll if c.checkpoint else math.nan for c in cells], "kx", ms=7,
                  label="paper, of a checkpoint of other sizes")
        for (protocol, rows), (marker, fill_style, shift) in zip(compared.items(), PROTOCOL_STYLES):
            ours = [row for cell, row in report.whole_cells(rows).items() if cell[1:] == benchmark]
            deviations = np.array([row["test_ll_std"] for row in ours], float)  # NaN of a single run: no bar
            axes.errorbar([models.index(row["model"]) + shift for row in ours], [row["test_ll"] for row in ours],
                          deviations, fmt=marker, fillstyle=fill_style, color="0.3", ms=6, capsize=3, lw=1,
                          label=f"ours, protocol {protocol}")
            _mark(axes, {models.index(row["model"]) + shift: [row] for row in ours}, "test_ll")
        axes.grid(axis="y", alpha=0.3)
    save(figure, path, legend=True)


def learning_curves(folder, path):
    """Validation ELBO (k = 5) against batches of the runs in `<results_dir>/<protocol>`, a panel for each benchmark."""
    runs = [record | {"curve": files.read_table(curve)} for record in table1.records_of(folder)
            if record["preset"] == "tuned" and record["dataset"] in published.DATASETS
            and (curve := Path(folder) / "curves" / f"{record['name']}.csv").exists()]
    if not runs:
        raise InputError(f"{folder} holds no finished runs of Table 1 with Table 2's sizes")
    benchmarks = grouped(runs, "dataset", "likelihood")
    figure, all_axes = panels(len(benchmarks), 5.2, 3.8)
    for axes, (benchmark, runs) in zip(all_axes, benchmarks.items()):
        _draw_curves(axes, runs)
        axes.set(title=", ".join(benchmark), xlabel="batches of 128 images")
        label_nats(axes, "validation ELBO, k = 5", runs)
    save(figure, path)


def _draw_curves(axes, runs):
    """A panel: records with their `curve`, and the authors' logs as dotted lines."""
    for (model,), of_model in grouped(runs, "model").items():
        for n, run in enumerate(of_model):
            batches, values = zip(*((row["batch"], row["val_ll"]) for row in run["curve"]))
            axes.plot(batches, values, color=COLOURS[model], lw=1.2, label=None if n else model)
            axes.plot(run["best_batch"], run["val_ll_k5"], "o", color=COLOURS[model], ms=4)
        cell = published.cell(model, run["dataset"], run["likelihood"])
        if cell and (logged := cell.logged_val_ll) is not None:
            axes.axhline(logged, color=COLOURS[model], ls=":", lw=1)
            axes.annotate(f"authors' log, {model}", (0.3, logged), va="bottom", xycoords=("axes fraction", "data"),
                          fontsize=7, color=COLOURS[model])
    low = min(run["curve"][:4][-1]["val_ll"] for run in runs)  # the first validations are far below
    high = max(row["val_ll"] for run in runs for row in run["curve"])
    margin = 0.1 * (high - low) or 1
    axes.set_ylim(low - margin, high + 2 * margin)
    axes.legend(frameon=False, loc="lower right")


def scaling(timings, path):
    """How an SPVAE training step grows with k, batch, Δ and experts (benchmark.scaling), a panel each."""
    figure = Figure(figsize=(3.2 * len(timings), 3.2), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(timings), squeeze=False)[0], timings.items()):
        values, seconds = zip(*points)
        axes.loglog(values, [1e3 * s for s in seconds], "o-", color=COLOURS["SPVAE"])
        axes.set_xticks(values, [str(v) for v in values])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel=title, ylabel="ms per training step", ylim=(500 * min(seconds), 2000 * max(seconds)))
        axes.grid(alpha=0.3)
    save(figure, path)


def low_data_sweep(rows, path):
    """Figure 2, of the rows of figure2.read: test ELBO at k = 5 against the fraction, crosses at the larger k."""
    rows = [row for row in rows if row["test_ll_k5"] is not None]  # not diverged
    if not rows:
        raise InputError("every run of the sweep diverged; there is nothing to draw")
    likelihoods = sorted(grouped(rows, "likelihood").items())
    figure, all_axes = panels(len(likelihoods), 5.2, 4.2)
    for axes, ((likelihood,), some) in zip(all_axes, likelihoods):
        for (dataset, model), runs in grouped(some, "dataset", "model").items():
            _draw_model(axes, dataset, model, likelihood, runs)
        _finish_fractions(axes)
        axes.set(title=likelihood)
        label_nats(axes, "test ELBO", some)
    figure.legend(handles=_sweep_legend(rows), frameon=False, loc="outside lower center", ncols=4, fontsize=9)
    save(figure, path)


def _draw_model(axes, dataset, model, likelihood, rows):
    theirs = published.digitized_sweep().get((model, dataset, likelihood), {})
    axes.plot(theirs.keys(), theirs.values(), color="0.85", ls=LINE_STYLES[model], lw=3, zorder=1)
    colour, marker = DATASET_STYLES.get(published.whole_name(dataset), OTHER_STYLE)
    axes.errorbar(*_over_seeds(rows, "test_ll_k5"), color=colour, ls=LINE_STYLES[model], marker=marker, ms=4, lw=1.5,
                  capsize=3, zorder=3)
    if tested := [row for row in rows if row["test_ll"] is not None]:
        axes.plot(*_over_seeds(tested, "test_ll")[:2], "x", color=colour, ms=6, mew=1.5, zorder=3)
    _mark(axes, _by_fraction(rows), "test_ll_k5")


def _sweep_legend(rows):
    line = functools.partial(Line2D, [], [])
    styles = {d: DATASET_STYLES.get(published.whole_name(d), OTHER_STYLE) for d, in grouped(rows, "dataset")}
    handles = [line(label=dataset, color=colour, marker=marker, ls="") for dataset, (colour, marker) in styles.items()]
    handles += [line(label=f"{m}, k = 5", color="black", ls=LINE_STYLES[m]) for m, in grouped(rows, "model")]
    larger = sorted({row["num_samples"] for row in rows} - {None})
    handles += [line(label=f"k = {k}", color="black", marker="x", ls="") for k in larger]
    if published.digitized_sweep().keys() & grouped(rows, "model", "dataset", "likelihood").keys():
        handles.append(line(label="authors' notebooks, k = 5", color="0.85", lw=3))
    return handles


def tightness(rows, path):
    """log p(image) against the training fraction, by the encoder's q (open marks) and by a fitted one (full marks)."""
    benchmarks = sorted(grouped([row for row in rows if row["task"] == beyond.IMAGE],
                                "dataset", "likelihood", "protocol").items())
    figure, all_axes = panels(len(benchmarks), 5.2, 3.8)
    for axes, (benchmark, some) in zip(all_axes, benchmarks):
        for (model, setting), runs in grouped(some, "model", "setting").items():
            line_style, fill_style = ("--", "none") if setting == beyond.AMORTISED else ("-", "full")
            axes.errorbar(*_over_seeds(runs, "value"), color=COLOURS[model], marker="o", ms=5, capsize=3,
                          label=f"{model}, {setting}", ls=line_style, fillstyle=fill_style)
            _mark(axes, _by_fraction(runs), "value")
        _finish_fractions(axes)
        axes.set(title="{}, {}, protocol {}".format(*benchmark))
        label_nats(axes, "bound of log p(image)", some)
    save(figure, path, legend=True)


def _over_seeds(rows, field):
    """(ascending fractions, means over seeds, standard deviations, NaN for a single seed: it gets no bar)."""
    groups = _by_fraction(rows)
    return list(groups), *zip(*(text.mean_and_deviation([row[field] for row in runs]) for runs in groups.values()))


def _by_fraction(rows):
    """Dict ascending fraction -> rows of one preparation of the images."""
    return {part: text.of_one_preparation(runs) for (part,), runs in sorted(grouped(rows, "train_fraction").items())}


def _mark(axes, runs_at, field):
    """Writes text.EARLIER beside means of runs of the earlier preparation; `runs_at` is a dict x -> runs."""
    for x, runs in runs_at.items():
        if sign := text.mark(runs):
            axes.annotate(sign, (x, text.mean_and_deviation([row[field] for row in runs])[0]), fontsize=8)


def _finish_fractions(axes):
    """Makes drawn means readable: fractions to scale at both ends, and a collapsed model does not flatten all else."""
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [text.per_cent(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(min(min(line.get_xdata(), default=1) for line in axes.lines) / 1.35, 1.2)
    axes.set_xlabel("fraction of the training images")
    axes.grid(alpha=0.3)
    points = [(*point, line.get_color()) for line, *_ in axes.containers for point in line.get_xydata()]
    values = sorted(value for _, value, _ in points)
    quartile = values[len(values) // 4]
    limit = quartile - 5 * (values[-1] - quartile)
    if values[0] < limit:
        low = min(value for value in values if value >= limit)
        high = max(max(line.get_ydata(), default=low) for line in axes.lines)
        axes.set_ylim(low - 0.25 * (high - low), high + 0.08 * (high - low))
    for fraction, value, colour in points:
        if value < limit:  # it stands as a number at the lower edge
            axes.annotate(f"{value:.0f}".replace("-", "−"), (fraction, 0.01), (0, 16), color=colour, ha="center",
                          fontsize=8, xycoords=("data", "axes fraction"), textcoords="offset points",
                          arrowprops=dict(arrowstyle="->", color=colour))
