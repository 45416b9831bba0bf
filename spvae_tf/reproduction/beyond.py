"""What trained models know: hidden halves of images, labels from few examples; and how tight their bounds are."""

from pathlib import Path

import numpy as np

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.infer import HIDDEN_HALVES, read_mask
from spvae_tf.reproduction import plots as figures
from spvae_tf.reproduction import text
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration
from spvae_tf.training import provenance as environment
from spvae_tf.training import run as experiment

LABELS = (100, 1000, 10_000)  # labelled images a probe learns from
PROBES, POOL = 5, 20_000  # probes for each of them at most, on disjoint parts of the first so many training images
PENALTIES = 10.0 ** np.arange(-6, 3)  # of the ridge regression, times the mean square of the features
IMAGE, HALF, PROBE = "log p(image)", "log p(hidden half | visible half)", "accuracy of a linear probe on "
AMORTISED, FITTED = "q(z | x) of the encoder", "q(z | x) fitted to each image"
NOTHING = "nothing"
FIELDS = ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim", "train_fraction", "changes",
          "seed", "task", "setting", "value", "stderr", "repeats", "num_samples", "refinements", "value_at_half",
          "num_images", "device", "versions", "commit")


def hidden_halves(model, images, num_samples, refinements, seed=0, halves=HIDDEN_HALVES):
    """log p(hidden half | visible half) for each half, all bounds with the same noise.

    An encoder has never seen half an image, so that a VAE's bound of the visible half may be far from as tight as that
    of all pixels; q(z | x) is therefore fitted to each image. (A half that covers whole leaf regions leaves the bounds
    of an SPVAE as tight as they are.)

    Args:
      model: SPVAE.
      images: [n, pixels] in [0, 1].
      num_samples: k.
      refinements: steps of fitting q(z | x) to each image, for all bounds (`SPVAE.refine`).
      seed: integer.
      halves: of answers.HIDDEN_HALVES.

    Returns:
      (log p(image) [n], dict half -> [n]), nats per image.
    """
    def bound(observed=None):
        return model.log_prob(images, num_samples, observed, seed, refinements).numpy().astype(np.float64)

    whole = bound()
    return whole, {half: whole - bound(read_mask(half, len(images), model.image_shape)) for half in halves}


def linear_probe(train, test):
    """The accuracy of a linear classifier: ridge regression on indicators of the classes.

    The penalty is the one of PENALTIES with the least squared error on images left out one at a time: nothing but the
    labelled images is used. With the hat matrix H, which gives the predictions ŷ = Hy, the error of the prediction
    for an image from all the others is (y_i − ŷ_i) / (1 − H_ii).

    Args:
      train, test: pairs (features [n, d], labels [n]).

    Returns:
      The share of test images classified rightly.
    """
    mean, classes = train[0].mean(axis=0, dtype=np.float64), np.unique(train[1])
    targets = np.equal.outer(train[1], classes).astype(np.float64)
    offset = targets.mean(axis=0)
    u, singular, vt = np.linalg.svd(train[0] - mean, full_matrices=False)
    rotated, penalties = u.T @ (targets - offset), PENALTIES * np.mean(singular**2)

    def error_left_out(penalty):
        shrunk = singular**2 / (singular**2 + penalty)
        residual = targets - offset - u @ (shrunk[:, None] * rotated)
        return np.mean((residual / (1 - u**2 @ shrunk - 1 / len(u))[:, None])**2)

    penalty = min(penalties, key=error_left_out)
    weights = vt.T @ (singular[:, None] / (singular[:, None]**2 + penalty) * rotated)
    guesses = classes[np.argmax((test[0] - mean) @ weights + offset, axis=1)]
    return np.mean(guesses == test[1])


def probe(train, test, number):
    """Probes that learn from disjoint parts of the training images.

    Args:
      train, test: pairs (features [n, d], labels [n]).
      number: of labelled images in each part.

    Returns:
      The accuracies, at most PROBES of them.
    """
    starts = range(0, len(train[0]) - number + 1, number)[:PROBES]
    return np.array([linear_probe([a[start:start + number] for a in train], test) for start in starts])


def measure(workdir, data_dir=None, num_samples=1000, num_images=500, refinements=400, halves=HIDDEN_HALVES,
            labels=LABELS):
    """All figures of one trained run.

    Args:
      workdir: folder of the run.
      data_dir: of TensorFlow Datasets; the run's own when None.
      num_samples: k of the bounds.
      num_images: test images for them.
      refinements: steps for them, as in `hidden_halves`. `value_at_half` is the same with half as many steps and half
        as many samples, to see whether it has levelled off.
      halves: of answers.HIDDEN_HALVES.
      labels: how many labelled images the probes learn from; those there are not enough training images for are left
        out.

    Returns:
      list of dicts with the keys FIELDS: log p(image) by the encoder's q and by one fitted to each image, for each half
      the conditional, all in nats per image, and for each number of labels the accuracy of probes on `embed` and, for
      comparison, on the pixels. `stderr` is over images, or over `repeats` probes, each from other labelled images.
      `changes` says what was set besides the fields before it and the seed, or NOTHING.

    Raises:
      InputError: when the folder holds no run, or probes are asked for and the images have no labels.
    """
    config, model = experiment.load_config(workdir), experiment.load(workdir)
    config.data_dir = data_dir or config.data_dir
    dataset = experiment.load_data(config)
    if labels and (dataset.train_labels is None or dataset.test_labels is None):
        raise InputError(f"data set {dataset.name} has no labels of its training and test images")
    common = dict(model=config.model, dataset=dataset.name, likelihood=config.likelihood, protocol=config.protocol,
                  hidden_units=config.hidden_units, latent_dim=config.latent_dim,
                  train_fraction=config.train_fraction, changes=_changes(config), seed=config.seed,
                  device=environment.device(), versions=environment.versions(), commit=environment.commit())
    images, rows = dataset.test[:num_images], []

    def add(task, setting, values, steps, values_at_half):
        rows.append(common | dict(task=task, setting=setting, value=round(values.mean(), 3),
                                  stderr=round(values.std(ddof=1) / np.sqrt(len(values)), 3), repeats=1,
                                  num_samples=num_samples, refinements=steps,
                                  value_at_half=round(values_at_half.mean(), 3), num_images=len(values)))

    amortised = [model.log_prob(images, k, seed=0).numpy().astype(np.float64)
                 for k in (num_samples, max(1, num_samples // 2))]
    add(IMAGE, AMORTISED, amortised[0], 0, amortised[1])
    whole, conditionals = hidden_halves(model, images, num_samples, refinements, halves=halves)
    whole_at_half, at_half = hidden_halves(model, images, max(1, num_samples // 2), refinements // 2, halves=halves)
    add(IMAGE, FITTED, whole, refinements, whole_at_half)
    for half, values in conditionals.items():
        add(HALF, half, values, refinements, at_half[half])
    pool = slice(POOL)
    described = (("embedding", lambda x: model.embed(x).numpy()), ("pixels", np.asarray)) if labels else ()
    for kind, describe in described:
        train = describe(dataset.train[pool]), dataset.train_labels[pool]
        test = describe(dataset.test), dataset.test_labels
        for number in (n for n in labels if n <= len(train[0])):
            found = probe(train, test, number)
            stderr = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
            rows.append(common | dict(task=PROBE + kind, setting=number, value=round(found.mean(), 4),
                                      stderr=round(stderr, 4), repeats=len(found), num_images=len(dataset.test)))
    return rows


def _changes(config):
    """What was set besides cell, sizes, seed and fraction: a run so is another run."""
    limit = [] if config.max_batches is None else [f"max_batches={config.max_batches}"]
    changed = [change for change in configuration.changes_as_text(config) if not change.startswith("train_fraction=")]
    return ", ".join(changed + limit) or NOTHING


def read(path):
    """The rows of the CSV; none where there is no file.

    Args:
      path: of the CSV.

    Returns:
      list of dicts with the keys FIELDS.

    Raises:
      InputError: when the file is damaged or has other columns.
    """
    rows = files.read_table(path) if Path(path).exists() else []
    if rows and set(rows[0]) != set(FIELDS):
        raise InputError(f"{path} has the columns {', '.join(rows[0])}; they must be {', '.join(FIELDS)}")
    return rows


def write(path, rows):
    """Adds rows to a CSV, in place of those of the same run, task and setting; atomically, after other processes' rows.

    Args:
      path: of the CSV.
      rows: of `measure`.
    """
    def key(row):
        return tuple(str(row[field]) for field in FIELDS[:FIELDS.index("value")])

    with files.lock(Path(path).parent, wait=True):
        known = {key(row): row for row in read(path)}
        known |= {key(row): row for row in rows}
        files.write_table(path, list(known.values()), FIELDS)


def table_lines(rows):
    """The figures side by side, a line for each task, setting and model: mean ± standard deviation over seeds (runs).

    Args:
      rows: of the CSV.

    Returns:
      list of rows of text, the first a head.
    """
    groups = {}
    for row in rows:
        groups.setdefault((*_benchmark(row), row["task"], row["setting"]), {}).setdefault(row["model"], []).append(row)
    models = sorted({row["model"] for row in rows}, key=list(MODELS).index)
    lines = [["data, protocol", "task", "setting", *models]]
    for (dataset, likelihood, protocol, task, setting), by_model in sorted(groups.items(), key=_order):
        unit = f"{setting:,} labels" if isinstance(setting, int) else setting + " half hidden" * (task == HALF)
        cells = [_cell(by_model.get(model, []), task) for model in models]
        lines.append([f"{dataset}, {likelihood}, {protocol}", task, unit, *cells])
    return lines


def _order(item):
    dataset, likelihood, protocol, task, setting = item[0]
    rank = (IMAGE, HALF).index(task) if task in (IMAGE, HALF) else 2
    return dataset, likelihood, protocol, rank, setting if isinstance(setting, int) else 0, task


def _cell(rows, task):
    scale, unit = (1, "") if task in (IMAGE, HALF) else (100, " %")
    return text.mean_of([scale * row["value"] for row in rows], unit=unit)


def plot_bounds(rows, path):
    """log p(image) by the encoder's q (open marks) and by a fitted one (full marks) against the fraction of the
    training images, a panel for each data set, likelihood and protocol.

    Bars are standard deviations over seeds; what lies far below all else stands as a number at the lower edge.

    Args:
      rows: of the CSV.
      path: of the PNG.
    """
    rows = [row for row in rows if row["task"] == IMAGE]
    benchmarks = sorted({_benchmark(row) for row in rows})
    figure, all_axes = figures.panels(len(benchmarks), 5.2, 3.8)
    for axes, benchmark in zip(all_axes, benchmarks):
        points = []
        for (model, setting), found in _by_model_and_setting(r for r in rows if _benchmark(r) == benchmark).items():
            (fractions, means, deviations), colour = figures.over_seeds(found, "value"), figures.COLOURS[model]
            axes.errorbar(fractions, means, deviations, color=colour, marker="o", ms=5, capsize=3,
                          ls="--" if setting == AMORTISED else "-", label=f"{model}, {setting}",
                          fillstyle="none" if setting == AMORTISED else "full")
            points += [(fraction, mean, colour) for fraction, mean in zip(fractions, means)]
        figures.fraction_axis(axes)
        figures.mark_points_far_below(axes, [points])
        axes.set(title="{}, {}, protocol {}".format(*benchmark), xlabel="fraction of the training images",
                 ylabel="bound of log p(image), nats per image")
    if benchmarks:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figures.save(figure, path)


def _benchmark(row):
    return row["dataset"], row["likelihood"], row["protocol"]


def _by_model_and_setting(rows):
    found = {}
    for row in rows:
        found.setdefault((row["model"], row["setting"]), []).append(row)
    return found


def bounds_lines(rows):
    """log p(image) by the encoder's q and by a fitted one, a line for each part of the training images.

    Args:
      rows: of the CSV.

    Returns:
      list of rows of text, the first a head; nats per image, mean ± standard deviation over seeds (runs), and SPVAE's
      mean minus VAE's.
    """
    groups = {}
    for row in rows:
        if row["task"] == IMAGE:
            groups.setdefault((*_benchmark(row), row["train_fraction"]), []).append(row)
    columns = [(model, setting) for model in ("SPVAE", "VAE") for setting in (AMORTISED, FITTED)]
    lines = [["data, protocol", "training images", *(f"{model}, {setting}" for model, setting in columns),
              *(f"SPVAE − VAE, {setting}" for setting in (AMORTISED, FITTED))]]
    for (*data, fraction), group in sorted(groups.items(), key=lambda item: (*item[0][:3], -item[0][3])):
        found = _by_model_and_setting(group)
        means = {column: np.mean([row["value"] for row in found.get(column, [])] or [np.nan]) for column in columns}
        margins = [means["SPVAE", setting] - means["VAE", setting] for setting in (AMORTISED, FITTED)]
        lines.append([", ".join(data), text.per_cent(fraction), *(_cell(found.get(c, []), IMAGE) for c in columns),
                      *("—" if np.isnan(margin) else f"{margin:+.1f}" for margin in margins)])
    return lines
