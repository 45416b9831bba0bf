"""Importance-weighted bounds of the leaves (Burda et al., 2016): equation (2), for any k in constant memory.

Everything here is per leaf. What the sum-product network makes of the leaves' bounds (Theorems 1 and 2) is
`Mixture.bound`. Shapes: mean and precision of q(z | x) are [experts, batch, latent_dim]; the noise ε and the samples z
are [experts, k, batch, latent_dim]; log-weights are [experts, k, batch] and bounds [experts, batch], in nats.
"""

import math

import tensorflow as tf

from spvae_tf.ops.functions import in_one_row, log_sum_exp, sum_last


def reparametrise(mean, precision, noise):
    """z_i = mean + ε_i / √precision: k samples of q(z | x), of standard normal noise."""
    deviation = in_one_row(lambda p: tf.exp(-0.5 * tf.math.log(p)), precision)
    return mean[:, None] + noise * deviation[:, None]


def log_prior_over_proposal(z, precision, noise):
    """log p(z_i) − log q(z_i | x) with p(z) = N(0, I): log 2π cancels, and (z − mean)² precision is ε²."""
    quadratic = 0.5 * sum_last(tf.square(noise) - tf.square(z))
    return quadratic - 0.5 * sum_last(in_one_row(tf.math.log, precision))[:, None]


def iwae_bound(log_weights):
    """L̂_k = log (1/k) Σ_i p(x, z_i) / q(z_i | x), equation (2), of the logarithms of these quotients."""
    return log_sum_exp(log_weights) - math.log(log_weights.shape[1])


class RunningBound:
    """Equation (2) over a stream of samples, in constant memory.

    The state is (log w*, Σ w/w*, Σ (w/w*)²), w* the largest weight so far, each [experts, batch]: no digits are lost.
    """

    @staticmethod
    def start(shape, dtype=tf.float32):
        """The state before any sample."""
        return tf.fill(shape, tf.constant(-math.inf, dtype)), tf.zeros(shape, dtype), tf.zeros(shape, dtype)

    @staticmethod
    def add(state, log_weights):
        """The state with k samples added; a sample of log-weight −∞ does not count."""
        top, first, second = state
        new_top = tf.maximum(top, tf.reduce_max(log_weights, axis=1))
        reference = tf.maximum(new_top, new_top.dtype.min)  # finite, even before a sample that counts
        scale, weights = tf.exp(top - reference), tf.exp(log_weights - reference[:, None])
        return (new_top, first * scale + tf.reduce_sum(weights, axis=1),
                second * tf.square(scale) + tf.reduce_sum(tf.square(weights), axis=1))

    @staticmethod
    def bound(state, num_samples):
        """L̂_k of equation (2), [experts, batch], nats."""
        return state[0] + tf.math.log(state[1] / tf.cast(num_samples, state[1].dtype))

    @staticmethod
    def effective_sample_size(state):
        """(Σ w)² / Σ w², between 1 and k, [experts, batch]."""
        return tf.square(state[1]) / state[2]
