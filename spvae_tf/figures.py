"""Pictures of runs, drawn from committed records alone."""

from pathlib import Path

import matplotlib.figure

from spvae_tf import checkpoint, paper, results
from spvae_tf.errors import InputError

# colours that differ in lightness too, so that they survive grey printing (Okabe & Ito)
COLOURS = {"SPVAE": "#0072B2", "VAE": "#E69F00", "Conv-SPVAE": "#56B4E9", "Conv-VAE": "#B35A00"}


def save(figure, path):
    """Saves a figure atomically as PNG.

    Args:
      figure: matplotlib Figure.
      path: of the PNG.
    """
    checkpoint.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def learning_curves(folder, path):
    """Validation ELBO (k = 5) against batches, a panel for each data set and likelihood, a line for each run.

    Args:
      folder: `<results_dir>/<protocol>` with records/ and curves/.
      path: of the PNG.

    Raises:
      InputError: when the folder holds no records.
    """
    records = [r for r in results.read_records(folder) if (Path(folder) / "curves" / f"{r['name']}.csv").exists()]
    if not records:
        raise InputError(f"{folder} holds no records of finished runs")
    panels = list(dict.fromkeys((r["dataset"], r["likelihood"]) for r in records))
    figure = matplotlib.figure.Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        _curves_panel(axes, folder, [r for r in records if (r["dataset"], r["likelihood"]) == panel])
        axes.set(title=f"{panel[0]}, {panel[1]}", xlabel="batches of 128 images",
                 ylabel="validation ELBO, k = 5 (nats per image)")
    save(figure, path)


def _curves_panel(axes, folder, records):
    lows, highs = [], []
    for record in records:
        rows = results.read_table(Path(folder) / "curves" / f"{record['name']}.csv")
        values = [row["val_ll"] for row in rows]
        label = record["model"] if record["model"] not in axes.get_legend_handles_labels()[1] else None
        axes.plot([row["batch"] for row in rows], values, color=COLOURS[record["model"]], lw=1.2, label=label)
        axes.plot(record["best_batch"], record["val_ll_k5"], "o", color=COLOURS[record["model"]], ms=4)
        lows.append(values[min(3, len(values) - 1)])  # the first validations are far below
        highs.append(max(values))
    for model in dict.fromkeys(r["model"] for r in records):
        cell = paper.PAPER.get((model, records[0]["dataset"], records[0]["likelihood"]))
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
        axes.minorticks_off()
        axes.set(xlabel=title, ylabel="ms per training step", ylim=(1, None))
        axes.grid(alpha=0.3)
    save(figure, path)
