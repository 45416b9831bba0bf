"""Smooth functions as polynomials fitted to them: exact to float32, and on a CPU cheaper than XLA's own."""

import numpy as np
import tensorflow as tf


def polynomial(function, low, high, degree):
    """The polynomial that interpolates a function at Chebyshev's points.

    Args:
      function: of a float, smooth on the interval.
      low, high: ends of the interval.
      degree: of the polynomial.

    Returns:
      Function of a tensor with values in the interval, of any floating dtype and shape, to one of the same.
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
    """log(1 + x) for x in [0, 1], as in log(1 + e^−|a|).

    Args:
      x: any shape; float64 is left to the library.

    Returns:
      The same shape.
    """
    value = tf.math.log1p(x) if x.dtype == tf.float64 else x * _log1p_ratio(x)
    return value, lambda upstream: upstream / (1 + x)
