"""Log-likelihoods of fixed models, to float32 rounding what they were before the code was made faster.

Weights, images and noise come from NumPy's generator in the order of the plain implementation, so that neither the
layout of the stacked weights nor the models' own first weights matter.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import build_model
from spvae_tf.model.reference import PlainSPVAE
from spvae_tf.ops.noise import standard_normal

# nats per image, as computed by the code of commit 1c4408e
FROZEN = {
    ("SPVAE", "continuous"): [-57.7199707, -56.3290825, -56.3998604, -58.525032],
    ("SPVAE", "discrete"): [-3909.79443, -3178.84473, -3821.02734, -3598.82373],
    ("VAE", "continuous"): [-53.4807472, -54.1726875, -53.6626015, -53.5439301],
    ("VAE", "discrete"): [-3918.26416, -3938.5166, -4081.79883, -4173.3457],
    ("Conv-SPVAE", "continuous"): [-57.7328072, -52.5768051, -64.4078598, -56.8664818],
    ("Conv-SPVAE", "discrete"): [-3659.1709, -4168.3252, -4279.3584, -3811.8999],
    ("Conv-VAE", "continuous"): [-1155.15369, -2687.24268, -1285.17639, -2504.72217],
    ("Conv-VAE", "discrete"): [-53255.8672, -45416.3281, -59060.7422, -42882.6914],
}


def fixed_bounds(name, likelihood):
    """L̂_SP,k of four images under a model of fixed weights, k = 3: [4], nats per image."""
    rng = np.random.default_rng(0)
    model = build_model(name, (8, 8), likelihood, hidden_units=6, latent_dim=3)
    for _, stacked, index in PlainSPVAE(model).counterparts(model):
        values = stacked.numpy()
        values[index] = 0.3 * rng.standard_normal(values[index].shape)
        stacked.assign(values)
    x = tf.constant(rng.integers(0, 256, [4, 64]) / 255, tf.float32)
    bits = rng.integers(0, 2**32, math.prod(model.noise_shape(3, 4)), np.uint32)
    bits = tf.constant(bits.reshape(model.noise_shape(3, 4)))
    return tf.function(lambda: model.bound(x, model.log_base(x), standard_normal(bits)), jit_compile=True)()


@pytest.mark.parametrize("cell", FROZEN)
def test_log_likelihoods_are_what_they_were(cell):
    np.testing.assert_allclose(fixed_bounds(*cell), FROZEN[cell], rtol=2e-6)
