"""Runs so small that they take no time, and a record as a run leaves it."""

import numpy as np

from spvae_tf.training import configuration
from spvae_tf.training.data import Dataset


def make_dataset(num_train=24):
    rng = np.random.default_rng(0)
    train, validation, test = (np.float32(rng.integers(0, 256, (n, 144)) / 255) for n in (num_train, 7, 9))
    return Dataset("tiny", (12, 12), train, validation, test, None, None, None)


def make_config(model="SPVAE", **overrides):
    config = configuration.make_config(model, "tiny.npz")
    config.update(dict(hidden_units=4, latent_dim=2, batch_size=8, train_samples=2, validate_every=2, max_batches=6,
                       test_samples=12, num_test_images=5))
    config.update(overrides)
    return config


def make_record(**overrides):
    record = dict(
        model="SPVAE", dataset="mnist", likelihood="continuous", protocol="paper", preset="tuned", seed=0,
        hidden_units=30, latent_dim=25, params=413352, num_train=50_000, batches=2560, best_batch=1152,
        train_seconds=61.2, val_ll_k5=2801.123, test_ll_k5=2803.25, test_ll=2820.5, test_ll_stderr=2.125,
        num_samples=5000, num_test_images=10_000, paper_test_ll=2819, device='a "fast" one, 2 cores',
        versions="python 3.12.1; numpy 2.1.0", commit="70318f1abc+", config={"train_fraction": 1.0})
    return record | overrides


def without_config(record):
    """What of a record stands in a table."""
    return {key: value for key, value in record.items() if key != "config"}


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
