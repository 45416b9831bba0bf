"""Theorems 1 and 2, against quadrature over the codes of every leaf expert and all induced trees."""

import math

import numpy as np
import pytest
import tensorflow as tf
from oracles import BATCH, bound_draws, exact_log_prob, images, models, standard_error

from spvae_tf.model import iwae


@pytest.mark.parametrize("name", ["VAE", "VAE, discrete", "SPVAE", "Conv-SPVAE, uneven"])
def test_expected_bounds_rise_with_k_towards_log_p(name):
    model, plain = models(name)
    x = images(model)[0]
    exact = exact_log_prob(model, plain, x[None])[0]
    num_draws = {1: 40_000, 5: 40_000, 50: 8000}
    bounds = {k: bound_draws(model, x, k, draws, seed=8) for k, draws in num_draws.items()}
    error = {k: standard_error(draws) for k, draws in bounds.items()}
    for low, high in ((1, 5), (5, 50)):
        rise = bounds[high].mean() - bounds[low].mean()
        assert rise > 5 * math.hypot(error[low], error[high])
    for k in bounds:
        assert bounds[k].mean() < exact + 5 * error[k] + 1e-6 * abs(exact)
    assert bounds[1].mean() < exact - 10 * error[1]
    # behind Theorem 2: exp L̂_SP,k is an unbiased estimate of p_SP(x)
    ratio = np.exp(bounds[50] - exact)
    assert abs(ratio.mean() - 1) < 5 * standard_error(ratio) + 1e-6 * abs(exact)


@pytest.mark.parametrize("name", ["SPVAE", "Conv-SPVAE, uneven"])
def test_spn_over_leaf_elbos_is_an_elbo(name):
    """Theorem 1, a leaf's ELBO (equation 8) being the mean of many draws; the SPN is convex in its leaves."""
    model, plain = models(name)
    x = tf.repeat(images(model)[:1], 4000, axis=0)
    noise = tf.random.stateless_normal(model.noise_shape(1, 4000), [9, 9])
    leaves = iwae.iwae_bound(model.log_importance_weights(x, model.encode(x), noise)[0])
    log_base = model.log_base(x)
    elbo = model.combine(tf.reduce_mean(leaves, axis=1, keepdims=True), log_base[:1]).numpy()[0]
    draws = model.combine(leaves, log_base).numpy()
    assert elbo < draws.mean() - 5 * standard_error(draws)
    assert elbo < exact_log_prob(model, plain, x.numpy()[:1])[0] - 10 * standard_error(draws)


def test_images_of_a_batch_do_not_meet():
    model, _ = models("SPVAE, uneven")
    x = tf.constant(images(model))
    noise = tf.random.stateless_normal(model.noise_shape(4, BATCH), [16, 16])
    together = model.bound(x, model.log_base(x), noise)
    alone = [model.bound(x[i:i + 1], model.log_base(x[i:i + 1]), noise[:, :, i:i + 1])[0]
             for i in range(BATCH)]
    np.testing.assert_allclose(together, alone, rtol=5e-6)
