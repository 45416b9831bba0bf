"""Functions of tensors against NumPy's in float64, with their gradients."""

import numpy as np
import tensorflow as tf

from spvae_tf.ops.functions import log_sum_exp, softplus, sum_last


def test_sum_over_the_last_axis_and_its_gradient():
    rng = np.random.default_rng(4)
    x, weights = tf.constant(rng.standard_normal([2, 3, 4, 49])), rng.standard_normal([2, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = sum_last(x)
        value = tf.reduce_sum(weights * total)
    np.testing.assert_allclose(total, np.sum(x, axis=-1), atol=1e-12)
    np.testing.assert_array_equal(tape.gradient(value, x), np.repeat(weights[..., None], 49, axis=-1))


def test_softplus():
    x = np.concatenate([np.linspace(-100, 100, 20_001), np.linspace(-1e-3, 1e-3, 2_001)]).astype(np.float32)
    assert 0 in x
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = softplus(tensor)
    exact = np.logaddexp(0, x.astype(np.float64))
    assert (np.abs(value - exact) < 2e-7 * np.maximum(1, exact)).all()
    np.testing.assert_allclose(value, tf.nn.softplus(tensor), rtol=3e-7, atol=2e-7)
    slope = tape.gradient(value, tensor).numpy()
    np.testing.assert_allclose(slope, tf.sigmoid(tensor), atol=3e-7)
    tail = np.exp(-np.logaddexp(0, -x.astype(np.float64)))
    np.testing.assert_allclose(slope[x > -80], tail[x > -80], rtol=1e-5)  # small, but not zero


def test_softplus_and_its_gradient_at_the_ends():
    ends = tf.constant([-np.inf, -1e30, -100, 100, 1e30, np.inf], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(ends)
        value = softplus(ends)
    np.testing.assert_allclose(value, [0, 0, 0, 100, 1e30, np.inf], atol=1e-37)
    np.testing.assert_allclose(tape.gradient(value, ends), [0, 0, 0, 1, 1, 1], atol=1e-37)


def test_log_of_a_sum_of_nothing():
    nothing = tf.fill([1, 3], tf.constant(-np.inf))
    with tf.GradientTape() as tape:
        tape.watch(nothing)
        value = log_sum_exp(nothing)
    assert value.numpy() == -np.inf
    np.testing.assert_array_equal(tape.gradient(value, nothing), np.zeros([1, 3]))
