"""The test: the k-sample bound of every test image, which goes on where it was stopped."""

import dataclasses
import hashlib
import math
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spvae_tf import files
from spvae_tf.model.likelihoods import bits_per_dimension, uniform_log_prob
from spvae_tf.training.trainer import NonFiniteError

SECONDS_BETWEEN_SAVES = 30


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A test log-likelihood."""
    log_prob: np.ndarray  # float64 [num_images], nats
    num_samples: int  # k

    @property
    def mean(self):
        """Over images, nats per image."""
        return float(self.log_prob.mean())

    @property
    def stderr(self):
        """Standard error of the mean, over images; NaN of a single one."""
        count = len(self.log_prob)
        return float(self.log_prob.std(ddof=1) / np.sqrt(count)) if count > 1 else math.nan


def in_words(model, log_prob, stderr=None):
    """A log-likelihood and its standard error, nats per image: of counts also as bits per dimension."""
    num_pixels, error = model.graph.num_variables, lambda value, digits: f" ± {abs(value):.{digits}f}"
    nats = f"{log_prob:.2f}{'' if stderr is None else error(stderr, 2)} nats per image"
    if not model.likelihood.of_counts:
        return f"{nats}, a density"
    bits = "" if stderr is None else error(bits_per_dimension(stderr, num_pixels), 4)
    return f"{nats}, {bits_per_dimension(log_prob, num_pixels):.4f}{bits} bits per dimension"


def uniform_in_words(model):
    """A line on the uniform distribution over all images of counts; none where pixels are no counts."""
    if not model.likelihood.of_counts:
        return []
    return [f"the uniform distribution: {in_words(model, uniform_log_prob(model.graph.num_variables))}"]


def evaluate(model, images, num_samples, seed=0, refinements=0, folder=None):
    """The k-sample bound of images [n, pixels] (Table 1 with k = 5,000 on the test set); returns an Evaluation.

    `refinements` are steps that fit q(z | x) to each image first; Table 1 has none. A `folder` keeps the values of
    images that are done, so that a test that was stopped goes on with the same noise. Raises NonFiniteError.
    """
    path = folder and Path(folder) / f"values-k{num_samples}-seed{seed}-refinements{refinements}.npz"
    what = path and dict(k=num_samples, seed=seed, model=_digest([v.numpy() for v in model.trainable_variables]),
                         images=_digest([images]))
    values = done = _read(path, what)
    last_save = -math.inf  # the first images are saved at once
    with tqdm(total=len(images), initial=len(done), unit="image", desc=f"k={num_samples}", disable=None,
              leave=False) as bar:
        def progress(count, log_probs):
            nonlocal last_save, values
            bar.update(count - bar.n)
            bar.set_postfix(ELBO=f"{log_probs.mean():.1f}")
            values = np.concatenate([done, log_probs])
            if path and time.monotonic() - last_save > SECONDS_BETWEEN_SAVES:
                files.write_npz(path, log_prob=values, **what)
                last_save = time.monotonic()

        if len(done) < len(images):
            try:
                new, _ = model.estimate(images, num_samples, seed=seed, refinements=refinements, progress=progress,
                                        skip=len(done))
                values = np.concatenate([done, new])
            except KeyboardInterrupt:
                if path and len(values):
                    files.write_npz(path, log_prob=values, **what)
                raise
    if not np.isfinite(values).all():
        image = np.isfinite(values).argmin()
        raise NonFiniteError(f"the bound of test image {image} is {values[image]} (k = {num_samples})")
    if path:
        files.write_npz(path, log_prob=values, **what)
    return Evaluation(np.float64(values), num_samples)


def _digest(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _read(path, what):
    """The values of images that are done; none if the file is another test's."""
    if path and path.exists():
        found = files.read_npz(path, ["log_prob", *what])
        if all(found[key] == value for key, value in what.items()):
            return found["log_prob"]
    return np.zeros([0], np.float32)
