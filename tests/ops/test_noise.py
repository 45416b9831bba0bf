"""Random numbers from random bits."""

import math
import statistics

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf.ops.noise import random_bits, standard_normal, uniform


def test_noise_is_standard_normal():
    """Φ⁻¹ of evenly spread bits, both ends included, and of random ones."""
    bits = np.concatenate([np.arange(0, 2**32, 2**12), [2**32 - 1]]).astype(np.uint32)
    noise = standard_normal(tf.constant(bits)).numpy().astype(np.float64)
    assert np.isfinite(noise).all() and 5.2 < noise.max() <= 5.3 and noise.min() == -noise.max()
    assert abs(noise.mean()) < 1e-5
    assert noise.var() == pytest.approx(1, abs=1e-4) and (noise**4).mean() == pytest.approx(3, abs=1e-2)
    inverse = statistics.NormalDist().inv_cdf
    for number, value in zip(bits[::40_000].tolist(), noise[::40_000]):
        assert value == pytest.approx(inverse(((number >> 9) + 0.5) / 2**23), rel=2e-5, abs=2e-6)
    random = standard_normal(random_bits([2, 100_000], tf.constant([1, 2]))).numpy()
    assert (np.abs(random.mean(axis=1)) < 5 / math.sqrt(1e5)).all()
    assert (np.abs(random.var(axis=1) - 1) < 5 * math.sqrt(2 / 1e5)).all()
    assert abs(np.corrcoef(random)[0, 1]) < 5 / math.sqrt(1e5)


def test_uniform_numbers():
    """The upper 24 bits of evenly spread ones, both ends included."""
    bits = np.array([0, 255, 256, 2**31, 2**32 - 1], np.uint32)
    np.testing.assert_array_equal(uniform(tf.constant(bits)), np.array([0, 0, 2**-24, 0.5, 1 - 2**-24], np.float32))
