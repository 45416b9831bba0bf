"""The importance-weighted bound of a leaf: the algebra of equation (2)."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from spvae_tf.model import iwae

tfd = tfp.distributions


def test_log_weights_are_densities_of_tfp():
    rng = np.random.default_rng(0)
    mean, precision = rng.standard_normal([2, 3, 4]), 1 + rng.random([2, 3, 4])
    noise = rng.standard_normal([2, 5, 3, 4])
    z = iwae.reparametrise(tf.constant(mean), tf.constant(precision), tf.constant(noise))
    np.testing.assert_allclose(z, mean[:, None] + noise / np.sqrt(precision)[:, None], rtol=1e-12)
    ratio = iwae.log_prior_over_proposal(z, tf.constant(precision), tf.constant(noise))
    prior, proposal = tfd.Normal(np.float64(0), 1), tfd.Normal(mean[:, None], precision[:, None]**-0.5)
    expected = tf.reduce_sum(prior.log_prob(z) - proposal.log_prob(z), axis=-1)
    np.testing.assert_allclose(ratio, expected, rtol=1e-10)


def test_bound_is_the_log_mean_of_the_weights():
    weights = np.random.default_rng(1).random([2, 6, 3])
    expected = np.log(weights.mean(axis=1))
    np.testing.assert_allclose(iwae.iwae_bound(tf.constant(np.log(weights))), expected, rtol=1e-12)
    far = iwae.iwae_bound(tf.constant(np.log(weights) - 5000, tf.float32))  # the nats of a discrete image
    np.testing.assert_allclose(far, expected - 5000, rtol=1e-6)


@pytest.mark.parametrize("chunks", [(12,), (5, 5, 2), (1,) * 12])
def test_running_bound_is_the_bound_of_all_samples(chunks):
    log_weights = 3 * np.random.default_rng(2).standard_normal([2, 12, 4]) - 1000
    state = iwae.RunningBound.start([2, 4], tf.float64)
    state = iwae.RunningBound.add(state, tf.fill([2, 3, 4], tf.constant(-np.inf, tf.float64)))  # nothing that counts
    for chunk in np.split(log_weights, np.cumsum(chunks)[:-1], axis=1):
        # samples of weight 0 fill a chunk up and do not count
        surplus = np.full([2, 3, 4], -np.inf)
        state = iwae.RunningBound.add(state, tf.constant(np.concatenate([chunk, surplus], axis=1)))
    bound = iwae.RunningBound.bound(state, tf.constant(12))
    np.testing.assert_allclose(bound, iwae.iwae_bound(tf.constant(log_weights)), rtol=1e-12)
    weights = np.exp(log_weights + 1000)
    np.testing.assert_allclose(iwae.RunningBound.effective_sample_size(state),
                               weights.sum(axis=1)**2 / (weights**2).sum(axis=1), rtol=1e-9)


def test_effective_sample_size_of_equal_and_of_one_sided_weights():
    equal = iwae.RunningBound.add(iwae.RunningBound.start([1, 1]), tf.fill([1, 7, 1], -2000.0))
    assert iwae.RunningBound.effective_sample_size(equal).numpy() == pytest.approx(7, rel=1e-3)
    one = iwae.RunningBound.add(iwae.RunningBound.start([1, 1]), tf.constant([[[0.0], [-500], [-500]]]))
    assert iwae.RunningBound.effective_sample_size(one).numpy() == pytest.approx(1)
