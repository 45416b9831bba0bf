"""Pictures of runs, drawn from committed records alone."""

from pathlib import Path

import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker

from spvae_tf import files
from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.reproduction import table1, text

# colours that differ in lightness too, so that they survive grey printing (Okabe & Ito)
COLOURS = {"SPVAE": "#0072B2", "VAE": "#E69F00", "Conv-SPVAE": "#56B4E9", "Conv-VAE": "#B35A00"}
DATASET_STYLES = {"mnist": ("#0072B2", "o"), "svhn_cropped": ("#35124A", "^"), "cifar10": ("#E69F00", "s")}


def save(figure, path):
    """Saves a figure atomically as PNG.

    Args:
      figure: matplotlib Figure.
      path: of the PNG.
    """
    files.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def panels(count, width, height):
    """A figure of equal panels, in one row, or from four on in two.

    Args:
      count: how many.
      width, height: of each, inches.

    Returns:
      (matplotlib Figure, list of its Axes).
    """
    rows = 1 if count < 4 else 2
    columns = max(-(-count // rows), 1)
    figure = matplotlib.figure.Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def learning_curves(folder, path):
    """Validation ELBO (k = 5) against batches of Table 1's runs at Table 2's sizes, a panel for each data set and
    likelihood, a line for each run.

    Args:
      folder: `<results_dir>/<protocol>` with records/ and curves/.
      path: of the PNG.

    Raises:
      InputError: when the folder holds no such run.
    """
    records = [r for r in table1.records_of(folder) if r["preset"] == "tuned" and r["dataset"] in paper.DATASETS
               and (Path(folder) / "curves" / f"{r['name']}.csv").exists()]
    if not records:
        raise InputError(f"{folder} holds no finished runs of Table 1 with Table 2's sizes")
    benchmarks = list(dict.fromkeys((r["dataset"], r["likelihood"]) for r in records))
    figure, all_axes = panels(len(benchmarks), 5.2, 3.8)
    for axes, benchmark in zip(all_axes, benchmarks):
        _curves_panel(axes, folder, [r for r in records if (r["dataset"], r["likelihood"]) == benchmark])
        axes.set(title=", ".join(benchmark), xlabel="batches of 128 images",
                 ylabel="validation ELBO, k = 5 (nats per image)")
    save(figure, path)


def _curves_panel(axes, folder, records):
    lows, highs = [], []
    for record in records:
        rows = files.read_table(Path(folder) / "curves" / f"{record['name']}.csv")
        values = [row["val_ll"] for row in rows]
        label = record["model"] if record["model"] not in axes.get_legend_handles_labels()[1] else None
        axes.plot([row["batch"] for row in rows], values, color=COLOURS[record["model"]], lw=1.2, label=label)
        axes.plot(record["best_batch"], record["val_ll_k5"], "o", color=COLOURS[record["model"]], ms=4)
        lows.append(values[min(3, len(values) - 1)])  # the first validations are far below
        highs.append(max(values))
    for model in dict.fromkeys(r["model"] for r in records):
        cell = paper.CELLS.get((model, records[0]["dataset"], records[0]["likelihood"]))
        if cell and cell.logged_val_ll is not None:
            axes.axhline(cell.logged_val_ll, color=COLOURS[model], ls=":", lw=1)
            axes.annotate(f"authors' log, {model}", (0.3, cell.logged_val_ll), va="bottom",
                          xycoords=("axes fraction", "data"), fontsize=7, color=COLOURS[model])
    margin = 0.1 * (max(highs) - min(lows)) or 1
    axes.set_ylim(min(lows) - margin, max(highs) + 2 * margin)
    axes.legend(frameon=False, loc="lower right")


def scaling(report, path):
    """How an SPVAE training step grows with k, batch, Δ and experts, a panel each, both axes logarithmic.

    Args:
      report: of benchmark.scaling.
      path: of the PNG.
    """
    figure = matplotlib.figure.Figure(figsize=(3.2 * len(report), 3.2), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(report), squeeze=False)[0], report.items()):
        values, seconds = zip(*points)
        axes.loglog(values, [1e3 * s for s in seconds], "o-", color=COLOURS["SPVAE"])
        axes.set_xticks(values, [str(v) for v in values])
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel=title, ylabel="ms per training step", ylim=(500 * min(seconds), 2000 * max(seconds)))
        axes.grid(alpha=0.3)
    save(figure, path)


# --- Figure 2 ---------------------------------------------------------------------------------------------------------

TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def low_data_sweep(rows, path):
    """Figure 2: test ELBO against the fraction of the training set, continuous left, discrete right.

    Lines are k = 5 (mean over seeds, bars are standard deviations), crosses the larger k where there is one; grey is
    the authors' sweep, digitised from their notebooks.

    Args:
      rows: of one protocol and preset, as figure2.read returns them.
      path: of the PNG.

    Raises:
      InputError: when every run diverged.
    """
    rows = [row for row in rows if row["test_ll_k5"] is not None]  # not diverged
    if not rows:
        raise InputError("every run of the sweep diverged; there is nothing to draw")
    likelihoods = [name for name in ("continuous", "discrete") if any(r["likelihood"] == name for r in rows)]
    figure = matplotlib.figure.Figure(figsize=(5.2 * len(likelihoods), 4.2), layout="constrained")
    for axes, likelihood in zip(figure.subplots(1, len(likelihoods), squeeze=False)[0], likelihoods):
        _sweep_panel(axes, [r for r in rows if r["likelihood"] == likelihood])
        axes.set(title=likelihood, xlabel="fraction of the training images", ylabel="test ELBO (nats per image)")
    figure.legend(handles=_sweep_legend(rows), frameon=False, loc="outside lower center", ncols=4, fontsize=9)
    save(figure, path)


def _sweep_panel(axes, rows):
    drawn = {}  # data set -> (fraction, test ELBO, colour) of every point
    for dataset, model in dict.fromkeys((r["dataset"], r["model"]) for r in rows):
        chosen = [r for r in rows if (r["dataset"], r["model"]) == (dataset, model)]
        published = paper.digitized_sweep().get((model, dataset, rows[0]["likelihood"]), {})
        axes.plot(published.keys(), published.values(), color="0.85", ls=_line(model), lw=3, zorder=1)
        colour, marker = _dataset_style(dataset)
        fractions, means, deviations = over_seeds(chosen, "test_ll_k5")
        axes.errorbar(fractions, means, deviations, color=colour, ls=_line(model), marker=marker, ms=4, lw=1.5,
                      capsize=3, zorder=3)
        drawn.setdefault(dataset, []).extend((fraction, mean, colour) for fraction, mean in zip(fractions, means))
        if tested := [r for r in chosen if r["test_ll"] is not None]:
            fractions, means, _ = over_seeds(tested, "test_ll")
            axes.plot(fractions, means, "x", color=colour, ms=6, mew=1.5, zorder=3)
    fraction_axis(axes)
    mark_points_far_below(axes, drawn.values())


def fraction_axis(axes):
    """Makes the fraction axis of drawn lines readable at both ends: logarithmic, in per cent."""
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [text.per_cent(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(min(min(line.get_xdata(), default=1) for line in axes.lines) / 1.35, 1.2)
    axes.grid(alpha=0.3)


def mark_points_far_below(axes, points):
    """Keeps a collapsed model from flattening all else: its values stand as numbers at the lower edge.

    Args:
      axes: with their lines drawn.
      points: of each data set a list of (fraction, value, colour). A point is far below the others of its own data set;
        another's may lie anywhere.
    """
    below, others = [], []
    for of_dataset in points:
        values = sorted(value for _, value, _ in of_dataset)
        quartile = values[len(values) // 4]
        limit = quartile - 5 * (values[-1] - quartile)
        below += [point for point in of_dataset if point[1] < limit]
        others += [value for value in values if value >= limit]
    if below:
        lowest = min(others)
        top = max(max(line.get_ydata(), default=lowest) for line in axes.lines)
        axes.set_ylim(lowest - 0.25 * (top - lowest), top + 0.08 * (top - lowest))
    for fraction, value, colour in below:
        axes.annotate(f"{value:.0f}".replace("-", "−"), (fraction, 0.01), (0, 16), color=colour, ha="center",
                      fontsize=8, xycoords=("data", "axes fraction"), textcoords="offset points",
                      arrowprops=dict(arrowstyle="->", color=colour))


def _line(model):
    return "--" if "SPVAE" in model else "-"


def _dataset_style(dataset):
    return DATASET_STYLES.get(paper.whole_name(dataset), ("black", "D"))


def over_seeds(rows, field):
    """(ascending fractions, means over seeds, standard deviations, NaN for a single seed: it gets no bar)."""
    values = {}
    for row in sorted(rows, key=lambda r: r["train_fraction"]):
        values.setdefault(row["train_fraction"], []).append(row[field])
    return list(values), *zip(*map(text.mean_and_deviation, values.values()))


def _sweep_legend(rows):
    def line(label, **style):
        return matplotlib.lines.Line2D([], [], label=label, **style)

    datasets, models = dict.fromkeys(r["dataset"] for r in rows), dict.fromkeys(r["model"] for r in rows)
    handles = [line(d, color=_dataset_style(d)[0], marker=_dataset_style(d)[1], ls="") for d in datasets]
    handles += [line(f"{m}, k = 5", color="black", ls=_line(m)) for m in models]
    handles += [line(f"k = {k}", color="black", marker="x", ls="")
                for k in sorted({r["num_samples"] for r in rows if r["num_samples"] is not None})]
    if paper.digitized_sweep().keys() & {(r["model"], r["dataset"], r["likelihood"]) for r in rows}:
        handles.append(line("authors' notebooks, k = 5", color="0.85", lw=3))
    return handles
