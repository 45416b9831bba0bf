"""What the structure is good for besides density: hidden halves of images, and labels from few examples."""

import numpy as np

from spvae_tf import experiment, results
from spvae_tf.answers import HIDDEN_HALVES, read_mask
from spvae_tf.errors import InputError

LABELS = (100, 1000, 10_000)  # labelled images a probe learns from
PENALTIES = 10.0 ** np.arange(-6, 3)  # of the ridge regression, times the mean square of the features
FIELDS = ("model", "dataset", "likelihood", "protocol", "seed", "task", "setting", "value", "stderr", "num_samples",
          "num_images", "device", "versions", "commit")


def hidden_half(model, images, half, num_samples, seed=0):
    """log p(hidden half | visible half), both bounds with the same noise.

    Args:
      model: SPVAE.
      images: [n, pixels] in [0, 1].
      half: which one is hidden, one of answers.HIDDEN_HALVES.
      num_samples: k.
      seed: integer.

    Returns:
      (mean, standard error over images), nats per image.
    """
    visible = read_mask(half, len(images), model.image_shape)
    values = model.conditional_log_prob(images, ~visible, visible, num_samples, seed).numpy().astype(np.float64)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def linear_probe(train, validation, test):
    """The accuracy of a linear classifier: ridge regression on indicators, its penalty chosen by validation.

    Args:
      train, validation, test: pairs (features [n, d], labels [n]).

    Returns:
      The share of test images classified rightly.
    """
    mean = train[0].mean(axis=0)
    features = [(np.asarray(f, np.float64) - mean) for f, _ in (train, validation, test)]
    classes = np.unique(train[1])
    targets = np.equal.outer(train[1], classes).astype(np.float64)
    offset = targets.mean(axis=0)
    # (XᵀX + λI)⁻¹ Xᵀ for every λ from one decomposition
    u, singular, vt = np.linalg.svd(features[0], full_matrices=False)
    rotated, scale = u.T @ (targets - offset), np.mean(singular**2)

    def accuracy(penalty, part):
        weights = vt.T @ (singular[:, None] / (singular[:, None]**2 + penalty * scale) * rotated)
        guesses = classes[np.argmax(features[part] @ weights + offset, axis=1)]
        return np.mean(guesses == (train, validation, test)[part][1])

    best = max(PENALTIES, key=lambda penalty: accuracy(penalty, 1))
    return accuracy(best, 2)


def measure(workdir, data_dir=None, num_samples=1000, num_images=1000, labels=LABELS):
    """All figures of one trained run.

    Args:
      workdir: folder of the run, on labelled images.
      data_dir: of TensorFlow Datasets; the run's own when None.
      num_samples: k of the conditionals.
      num_images: test images for them.
      labels: how many labelled images the probes learn from; those there are not enough training images for are left
        out.

    Returns:
      list of dicts with the keys FIELDS: for each half the conditional, and for each number of labels the accuracy of
      a probe on `embed` and, for comparison, on the pixels.

    Raises:
      InputError: when the folder holds no run, or the images no labels.
    """
    config, model = experiment.load_config(workdir), experiment.load(workdir)
    config.data_dir = data_dir or config.data_dir
    dataset = experiment.load_data(config)
    if dataset.train_labels is None or dataset.test_labels is None:
        raise InputError(f"data set {dataset.name} has no labels")
    common = dict(model=config.model, dataset=dataset.name, likelihood=config.likelihood, protocol=config.protocol,
                  seed=config.seed, device=experiment.device(), versions=experiment.versions(),
                  commit=experiment.commit())
    rows = []
    for half in HIDDEN_HALVES:
        value, stderr = hidden_half(model, dataset.test[:num_images], half, num_samples)
        rows.append(common | dict(task="log p(hidden half | visible half)", setting=half, value=round(value, 3),
                                  stderr=round(stderr, 3), num_samples=num_samples,
                                  num_images=len(dataset.test[:num_images])))
    count = min(max(labels), len(dataset.train))
    parts = [(dataset.train[:count], dataset.train_labels[:count]), (dataset.validation, dataset.validation_labels),
             (dataset.test, dataset.test_labels)]
    for kind, describe in (("embedding", lambda x: model.embed(x).numpy()), ("pixels", np.asarray)):
        described = [(describe(x), y) for x, y in parts]
        for number in (n for n in labels if n <= len(dataset.train)):
            (features, classes), *others = described
            value = linear_probe((features[:number], classes[:number]), *others)
            rows.append(common | dict(task=f"accuracy of a linear probe on {kind}", setting=number,
                                      value=round(float(value), 4), num_images=len(dataset.test),
                                      stderr=round(float(np.sqrt(value * (1 - value) / len(dataset.test))), 4)))
    return rows


def write(path, rows):
    """Adds rows to a CSV, in place of those of the same run, task and setting; atomically.

    Args:
      path: of the CSV.
      rows: of `measure`.
    """
    def key(row):
        return tuple(str(row[field]) for field in FIELDS[:7])

    known = {key(row): row for row in (results.read_table(path) if path.exists() else [])}
    known |= {key(row): row for row in rows}
    results.write_table(path, list(known.values()), FIELDS)
