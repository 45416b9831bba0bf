"""Importance-weighted bounds (Burda et al., 2016): equation (2), its leaf-wise use, and its streaming form.

Everything here is per leaf. What the sum-product network makes of the leaves' bounds (Theorems 1 and 2) is
`SPVAE.bound` in model.py.
"""

import math
from statistics import NormalDist

import tensorflow as tf

from spvae_tf.model.spn import log_sum_exp
from spvae_tf.ops.polynomial import polynomial


def fold_in(seed, number):
    """The seed of the number-th of many draws.

    On the CPU, where seeds are read: made on a GPU, each would have to be waited for.

    Args:
      seed: int32 [2].
      number: int32, or an integer.

    Returns:
      int32 [2].
    """
    with tf.device("CPU:0"):
        return tf.random.experimental.stateless_fold_in(seed, number)


def random_words(shape, seed):
    """Random 32-bit words, to be drawn outside compiled code: XLA's own generator is slow on a CPU.

    Args:
      shape: of the noise to be made.
      seed: int32 [2].

    Returns:
      uint32 of that shape.
    """
    return tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32)


def _quantile_ratio(root):
    """u / Φ⁻¹((1 + u)/2), which depends on u² alone, as a function of √(4 − log(1 − u²)), in which it is smooth."""
    log_rest = 4 - root**2  # log(1 − u²)
    if log_rest > -1e-12:
        return math.sqrt(2 / math.pi)
    u = math.sqrt(-math.expm1(log_rest))
    return -u / NormalDist().inv_cdf(0.5 * math.exp(log_rest) / (1 + u))


_quantile_ratio_polynomial = polynomial(_quantile_ratio, 2, 4.4, 14)


def standard_normal(words, dtype=tf.float32):
    """Standard normal noise from random words, Φ⁻¹ of their upper 23 bits; cheap inside compiled code.

    Args:
      words: uint32, of any shape.
      dtype: of the result.

    Returns:
      The same shape; no value exceeds 5.3, which a normal does once in ten million draws.
    """
    # in one row, since rows of 25 would leave vector registers unfilled; with a division at last, which XLA takes for
    # too expensive to be computed anew wherever the noise is used
    row = tf.reshape(words, [-1])
    upper = tf.cast(tf.bitwise.right_shift(row, tf.constant(9, tf.uint32)), tf.float32)
    u = (upper + 0.5) * 2.0**-22 - 1  # the middle of each of 2²³ equal parts of (−1, 1), and exactly so
    root = tf.sqrt(4 - tf.math.log((1 - u) * (1 + u)))
    return tf.reshape(tf.cast(u / _quantile_ratio_polynomial(root), dtype), tf.shape(words))


@tf.custom_gradient
def sum_last(x):
    """Σ over the last axis, as a product with ones: on a CPU XLA then computes what is summed while it sums.

    The gradient is written out, or it would be a product too.

    Args:
      x: [..., n], of a shape that is known.

    Returns:
      [...].
    """
    rows = tf.reshape(x, [-1, x.shape[-1]])
    total = tf.reshape(tf.matmul(rows, tf.ones([x.shape[-1], 1], x.dtype)), x.shape[:-1])
    return total, lambda upstream: tf.broadcast_to(tf.expand_dims(upstream, -1), x.shape)


def reparametrise(mean, precision, noise):
    """z = mean + ε / √precision: k samples of q(z | x) per row.

    Args:
      mean: [experts, batch, latent_dim] of q(z | x).
      precision: the same shape.
      noise: ε, standard normal, [experts, k, batch, latent_dim].

    Returns:
      [experts, k, batch, latent_dim].
    """
    deviation = tf.reshape(tf.exp(-0.5 * _log_of_row(precision)), tf.shape(precision))
    return mean[:, None] + noise * deviation[:, None]


def log_prior_over_proposal(z, precision, noise):
    """log p(z) − log q(z | x) with p(z) = N(0, I); log 2π cancels, and (z − mean)² precision is ε².

    Args:
      z: [experts, k, batch, latent_dim].
      precision: [experts, batch, latent_dim] of q(z | x).
      noise: the ε that z was made of.

    Returns:
      [experts, k, batch], nats.
    """
    quadratic = 0.5 * sum_last(tf.square(noise) - tf.square(z))
    return quadratic - 0.5 * sum_last(tf.reshape(_log_of_row(precision), tf.shape(precision)))[:, None]


def _log_of_row(precision):
    """log precision in one row, see vae.mean_and_precision; XLA computes it once for both functions above."""
    return tf.math.log(tf.reshape(precision, [-1]))


def iwae_bound(log_weights):
    """L̂_k = log (1/k) Σ_i p(x, z_i) / q(z_i | x), equation (2).

    Args:
      log_weights: log p(x, z_i) − log q(z_i | x), [experts, k, batch].

    Returns:
      [experts, batch], nats.
    """
    return log_sum_exp(log_weights) - math.log(log_weights.shape[1])


class RunningBound:
    """Equation (2) over a stream of samples, in constant memory.

    The state is the largest log-weight so far, log w*, with Σ w/w* and Σ (w/w*)², three tensors [experts, batch]: sums
    of ratios lose no digits however many chunks there are. `start`, `add` and the estimates below are pure functions,
    so the state travels through tf.while_loop.
    """

    @staticmethod
    def start(shape, dtype=tf.float32):
        """The state before any sample."""
        return tf.fill(shape, tf.constant(-math.inf, dtype)), tf.zeros(shape, dtype), tf.zeros(shape, dtype)

    @staticmethod
    def add(state, log_weights):
        """The state with the samples [experts, k, batch] added; a sample of log-weight −∞ does not count."""
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
