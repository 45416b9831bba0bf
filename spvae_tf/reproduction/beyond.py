"""Not in the paper: how tight models' bounds are, what they know of hidden halves, and labels from few examples.

Images are [n, pixels] in [0, 1], log-densities nats per image.
"""

from pathlib import Path

import numpy as np

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.queries.masks import HIDDEN_HALVES, hide_half
from spvae_tf.training import configuration, provenance

LABELS = (100, 1000, 10_000)  # labelled images a probe learns from
PROBES, POOL = 5, 20_000  # probes for each of them at most, on disjoint parts of the first so many training images
PENALTIES = 10.0 ** np.arange(-6, 3)  # of the ridge regression, times the mean square of the features
IMAGE, HALF, PROBE = "log p(image)", "log p(hidden half | visible half)", "accuracy of a linear probe on "
AMORTISED, FITTED = "q(z | x) of the encoder", "q(z | x) fitted to each image"
NOTHING = "nothing"
FIELDS = ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim", "train_fraction", "changes",
          "seed", "task", "setting", "value", "stderr", "repeats", "num_samples", "refinements", "value_at_half",
          "num_images", "device", "versions", "commit")


def measure(run, num_samples=1000, num_images=500, refinements=400, halves=HIDDEN_HALVES, labels=LABELS):
    """A trained run's bounds, and the accuracy of probes on `embed` and on the pixels: a list of dicts of FIELDS.

    `value_at_half` is of half as many steps and samples, to see whether a bound has levelled off; `stderr` is over
    images, or over `repeats` probes. Raises InputError when the run is untrained or images have no labels for probes.
    """
    model, dataset = run.model, run.dataset
    if labels and (dataset.train_labels is None or dataset.test_labels is None):
        raise InputError(f"data set {dataset.name} has no labels of its training and test images")
    images = dataset.test[:num_images]
    full = bounds(model, images, num_samples, refinements, halves)
    at_half = bounds(model, images, max(1, num_samples // 2), refinements // 2, halves)
    rows = [_row(task, setting, values, 3) | dict(
        repeats=1, num_samples=num_samples, refinements=0 if setting == AMORTISED else refinements,
        value_at_half=round(at_half[task, setting].mean(), 3), num_images=len(values))
        for (task, setting), values in full.items()]
    if labels:
        rows += [_row(PROBE + kind, number, accuracies, 4) | dict(
            repeats=len(accuracies), num_images=len(dataset.test))
            for (kind, number), accuracies in _probes(model, dataset, labels).items()]
    changed = [change for change in configuration.changes_as_text(run.config) if "train_fraction=" not in change]
    if run.config.max_batches is not None:
        changed.append(f"max_batches={run.config.max_batches}")
    about_run = {field: run.config[field] for field in FIELDS if field in run.config} | dict(
        dataset=dataset.name, changes=", ".join(changed) or NOTHING, **provenance.here())
    return [about_run | row for row in rows]


def _row(task, setting, values, digits):
    stderr = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return dict(task=task, setting=setting, value=round(values.mean(), digits), stderr=round(stderr, digits))


def bounds(model, images, num_samples, refinements, halves=HIDDEN_HALVES):
    """(IMAGE, AMORTISED), (IMAGE, FITTED) and (HALF, half) for each half: dict -> float64 [n], of equal noise."""
    def bound(steps, observed=None):
        return model.log_prob(images, num_samples, observed, 0, steps).numpy().astype(np.float64)

    whole = bound(refinements)  # the halves' are of the fitted q, too: an encoder has never seen half an image
    return {(IMAGE, AMORTISED): bound(0), (IMAGE, FITTED): whole} | {
        (HALF, half): whole - bound(refinements, hide_half(half, len(images), model.image_shape)) for half in halves}


def _probes(model, dataset, labels):
    """Accuracies on the embedding and on the pixels: dict ("embedding" or "pixels", number of labels) -> [probes]."""
    accuracies = {}
    for kind, features_of in (("embedding", lambda x: model.embed(x).numpy()), ("pixels", np.asarray)):
        train = features_of(dataset.train[:POOL]), dataset.train_labels[:POOL]
        test = features_of(dataset.test), dataset.test_labels
        accuracies |= {(kind, number): probe(train, test, number) for number in labels if number <= len(train[0])}
    return accuracies


def probe(train, test, number):
    """Accuracies of at most PROBES `linear_probe`s that learn from disjoint parts, `number` training images each."""
    starts = range(0, len(train[0]) - number + 1, number)[:PROBES]
    return np.array([linear_probe([a[start:start + number] for a in train], test) for start in starts])


def linear_probe(train, test):
    """The accuracy of ridge regression on indicators of the classes; `train`, `test` are (features [n, d], labels [n]).

    The penalty is the one of PENALTIES with the least squared error on images left out one at a time. With the hat
    matrix H, which gives the predictions ŷ = Hy, the error of an image left out is (y_i − ŷ_i) / (1 − H_ii).
    """
    mean, classes = train[0].mean(axis=0, dtype=np.float64), np.unique(train[1])
    targets = np.equal.outer(train[1], classes).astype(np.float64)
    offset = targets.mean(axis=0)
    u, singular, vt = np.linalg.svd(train[0] - mean, full_matrices=False)
    rotated = u.T @ (targets - offset)

    def error_left_out(penalty):
        shrunk = singular**2 / (singular**2 + penalty)
        residual = targets - offset - u @ (shrunk[:, None] * rotated)
        return np.mean((residual / (1 - u**2 @ shrunk - 1 / len(u))[:, None])**2)

    penalty = min(PENALTIES * np.mean(singular**2), key=error_left_out)
    weights = vt.T @ (singular[:, None] / (singular[:, None]**2 + penalty) * rotated)
    guesses = classes[np.argmax((test[0] - mean) @ weights + offset, axis=1)]
    return np.mean(guesses == test[1])


def read(path):
    """The rows of the CSV, none where there is no file; raises InputError for other columns or a damaged file."""
    rows = files.read_table(path) if Path(path).exists() else []
    if rows and set(rows[0]) != set(FIELDS):
        raise InputError(f"{path} has the columns {', '.join(rows[0])}; they must be {', '.join(FIELDS)}")
    return rows


def write(path, rows):
    """Adds rows to the CSV, in place of those of the same run, task and setting, and beside other processes' rows."""
    def by_key(rows):
        return {tuple(str(row[field]) for field in FIELDS[:FIELDS.index("value")]): row for row in rows}

    with files.lock(Path(path).parent, wait=True):
        files.write_table(path, (by_key(read(path)) | by_key(rows)).values(), FIELDS)
