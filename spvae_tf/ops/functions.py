"""Functions of tensors, written so that XLA computes them fast on a CPU and compiles them soon.

Unless a docstring says otherwise a function takes any shape and returns the same.
"""

import math

import numpy as np
import tensorflow as tf


def polynomial(function, low, high, degree):
    """A smooth function of a float as one of a tensor with values in [low, high], of any floating dtype.

    It is the polynomial through Chebyshev's points: exact to float32, cheaper than XLA's own functions.
    """
    series = np.polynomial.Chebyshev.interpolate(np.vectorize(function), degree, domain=[low, high])
    power = series.convert(kind=np.polynomial.Polynomial, domain=series.domain)  # in the interval mapped to (−1, 1)
    offset, scale = power.mapparms()

    def evaluate(x):
        place, value = offset + scale * x, tf.constant(power.coef[-1], x.dtype)
        for coefficient in power.coef[-2::-1]:  # Horner
            value = value * place + tf.constant(coefficient, x.dtype)
        return value
    return evaluate


_log1p_ratio = polynomial(lambda x: np.log1p(x) / x if x > 0 else 1.0, 0, 1, 9)


@tf.custom_gradient
def log1p(x):
    """log(1 + x) for x in [0, 1], as in log(1 + e^−|a|); float64 is left to the library."""
    value = tf.math.log1p(x) if x.dtype == tf.float64 else x * _log1p_ratio(x)
    return value, lambda upstream: upstream / (1 + x)


@tf.custom_gradient
def softplus(x):
    """log(1 + e^x), exact to float32 in absolute terms."""
    value = tf.maximum(x, 0) + log1p(tf.exp(tf.minimum(x, -x)))  # −|x|; `abs` takes XLA longer to compile
    # XLA computes cheap operations anew wherever they are used, across the layout if that is another; not a division
    return value, lambda upstream: upstream / (1 + tf.exp(-x))


def log_gamma(x):
    """log Γ(x) of float64 above 0 to 1e-9, by Stirling's series at x + 8: a quarter of the library's time, in XLA."""
    steps = math.prod(x + n for n in range(8))  # Γ(x + 8) / Γ(x)
    far = x + 8
    square = 1 / (far * far)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / far
    return (far - 0.5) * tf.math.log(far) - far + 0.5 * math.log(2 * math.pi) + series - tf.math.log(steps)


def in_one_row(function, x):
    """An elementwise function of x laid out as one row.

    Along a short last axis XLA would leave vector registers unfilled, or LLVM unroll the function for each element.
    """
    return tf.reshape(function(tf.reshape(x, [-1])), tf.shape(x))


def halves(x):
    """The two halves of x [2n, …], the second cut out of one row, where `in_one_row` needs it."""
    first, _ = tf.split(x, 2)
    _, row = tf.split(tf.reshape(x, [-1]), 2)
    return first, tf.reshape(row, tf.shape(first))


@tf.custom_gradient
def sum_last(x):
    """Σ over the last axis, [..., n] -> [...], of a known length, as a product with ones.

    On a CPU XLA then computes what is summed while it sums. The gradient is written out, or it would be a product too.
    """
    rows, shape = tf.reshape(x, [-1, x.shape[-1]]), x.shape if x.shape.is_fully_defined() else tf.shape(x)
    total = tf.reshape(tf.matmul(rows, tf.ones([x.shape[-1], 1], x.dtype)), shape[:-1])
    return total, lambda upstream: tf.broadcast_to(tf.expand_dims(upstream, -1), shape)


def dense(rows, kernel, bias, fill_up=False):
    """rows · kernel + bias of every expert: [experts, rows, inputs] -> [experts, rows, units].

    `fill_up` appends units of weight zero up to a multiple of 8, for whole vector registers: 30 as 32 take two thirds
    of the time. Features beyond the kernel's inputs are such units, and do not count.
    """
    surplus, missing = -kernel.shape[2] % 8 if fill_up else 0, rows.shape[-1] - kernel.shape[1]
    if missing or surplus:
        kernel = tf.pad(kernel, [[0, 0], [0, missing], [0, surplus]])
        bias = tf.pad(bias, [[0, 0], [0, 0], [0, surplus]])
    return tf.matmul(rows, kernel) + bias


def repeat_along_last(x, times):
    """x [a, b, n] side by side, [a, b, times · n]."""
    # as a product, or XLA would look each element up while it adds x to something, at a fifth of the speed
    x = tf.convert_to_tensor(x)
    return tf.matmul(x, tf.constant(np.tile(np.eye(x.shape[2]), times), x.dtype)[None])


def gather_parts(x, columns):
    """Columns of x [batch, n], of any dtype, in groups [groups, size]: [groups, batch, size]."""
    # out of one row, or XLA would lay the parts out with the batch last and have all that follows cross it
    places = x.shape[1] * tf.range(tf.shape(x)[0])[:, None] + columns[:, None]
    return tf.gather(tf.reshape(x, [-1]), places)


def draw_index(weights, uniforms):
    """Draws an index along axis 1, with P proportional to weights [a, n, …], from uniforms on [0, 1) [a, …]."""
    # the first index at which the cumulative weight exceeds the uniform
    cumulative = tf.cumsum(weights, axis=1)
    threshold = tf.expand_dims(uniforms, 1) * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=1)


def ratios(values):
    """(e^{v − max} [a, n, …], their sum [a, …], max [a, …]) over axis 1, of which log-sum-exp and softmax are made.

    Values may be −∞; the maximum of values that are all −∞ is the least finite number.
    """
    top = tf.reduce_max(values, axis=1, keepdims=True)
    top = tf.maximum(top, top.dtype.min)  # to ask what is finite takes XLA longer to compile
    terms = tf.exp(values - top)
    return terms, tf.reduce_sum(terms, axis=1), tf.squeeze(top, axis=1)


def quotients(terms, total):
    """terms / total, the totals being sums over axis 1; 0 where a total is 0."""
    return terms * tf.expand_dims(tf.math.divide_no_nan(tf.ones_like(total), total), 1)


def softmax(values):
    """e^{v_i} / Σ_j e^{v_j} over axis 1, [a, n, …]; 0 where all values are −∞."""
    # not e^(v − log-sum-exp): a log-sum-exp of −45,000 nats is rounded to 0.004
    return quotients(*ratios(values)[:2])


@tf.custom_gradient
def log_sum_exp(values):
    """log Σ_i e^{v_i} over axis 1, [a, n, …] -> [a, …]; −∞, with gradient 0, where all values are −∞."""
    terms, total, top = ratios(values)

    def gradient(upstream):  # the softmax, written out: half the operations to compile
        return tf.expand_dims(tf.math.divide_no_nan(upstream, total), 1) * terms
    return tf.math.log(total) + top, gradient
