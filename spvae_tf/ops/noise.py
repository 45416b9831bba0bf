"""Random numbers as a function of a seed: bits first, then what is made of them.

Random bits are drawn outside compiled code, since XLA's own generator is slow on a CPU. Numbers are made of them
inside, where that is cheap. A seed is an int32 tensor [2].
"""

import math
from statistics import NormalDist

import numpy as np
import tensorflow as tf

from spvae_tf.errors import check_integer
from spvae_tf.ops.functions import in_one_row, polynomial


def make_seed(seed):
    """A seed from an integer, or a fresh one for None; raises InputError unless the integer is at least 0."""
    if seed is not None:
        check_integer("seed", seed, low=0)
    state = np.random.SeedSequence(seed).generate_state(2, np.uint32)
    return tf.constant(state.astype(np.int32))


def fold_in(seed, number):
    """The seed of the number-th of many draws; `number` may be a tensor."""
    with tf.device("CPU:0"):  # where seeds are read: made on a GPU, each would have to be waited for
        return tf.random.experimental.stateless_fold_in(seed, number)


def split(seed, count):
    """A list of `count` seeds."""
    return tf.unstack(tf.random.split(seed, count))


def drawn_in_float32(initializer):
    """A Keras initializer that draws the same numbers whatever the dtype: in float32, then cast."""
    return lambda shape, dtype: tf.cast(initializer(shape, "float32"), dtype)


def random_bits(shape, seed):
    """uint32 of a shape, 32 random bits each."""
    return tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32)


def uniform(bits, dtype=tf.float32):
    """Numbers uniform on [0, 1), of the upper 24 of each 32 random bits."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), dtype) * 2.0**-24


def _quantile_ratio(root):
    """u / Φ⁻¹((1 + u)/2), which depends on u² alone, as a function of √(4 − log(1 − u²)), in which it is smooth."""
    log_rest = 4 - root**2  # log(1 − u²)
    if log_rest > -1e-12:
        return math.sqrt(2 / math.pi)
    u = math.sqrt(-math.expm1(log_rest))
    return -u / NormalDist().inv_cdf(0.5 * math.exp(log_rest) / (1 + u))


_quantile_ratio_polynomial = polynomial(_quantile_ratio, 2, 4.4, 14)


def standard_normal(bits, dtype=tf.float32):
    """Standard normal noise, Φ⁻¹ of the upper 23 of each 32 random bits, below 5.3 (a normal exceeds it in 1e-7)."""
    def quantile(row):
        upper = tf.cast(tf.bitwise.right_shift(row, tf.constant(9, tf.uint32)), tf.float32)
        u = (upper + 0.5) * 2.0**-22 - 1  # the middle of each of 2²³ equal parts of (−1, 1), and exactly so
        root = tf.sqrt(4 - tf.math.log((1 - u) * (1 + u)))
        # with a division at last, which XLA takes for too expensive to be computed anew wherever the noise is used
        return tf.cast(u / _quantile_ratio_polynomial(root), dtype)

    return in_one_row(quantile, bits)
