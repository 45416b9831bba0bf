"""Layers of any number of experts at once, their weights stacked along a leading expert axis.

Features are [experts, rows, features], so that a dense layer of all experts is one batched matrix product. The loop
over experts is what made the published code several times slower than a VAE. How small images are convolved without one
is in `superpixels.py`.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.ops.functions import softplus


def _seed(rng):
    return int(rng.integers(2**31))


class StackedDense(keras.layers.Layer):
    """One dense layer of every expert: [experts, rows, inputs] -> [experts, rows, units].

    Args:
      num_experts: E.
      num_inputs: features in.
      units: features out.
      rng: numpy Generator that the initial kernels come from.
    """

    def __init__(self, num_experts, num_inputs, units, rng, **kwargs):
        super().__init__(**kwargs)
        # a normal cut at two deviations, with TensorFlow 1's 1.3 for what the cut takes: a variance of 2.012/fan_in
        stddev = math.sqrt(1.3 * 2 / num_inputs)
        self.kernel = self.add_weight(
            shape=(num_experts, num_inputs, units), name="kernel",
            initializer=keras.initializers.TruncatedNormal(0.0, stddev, seed=_seed(rng)))
        self.bias = self.add_weight(shape=(num_experts, 1, units), name="bias", initializer="zeros")
        self.built = True  # or Keras would trace everything twice, to find out what there is to build

    @property
    def num_inputs(self):
        """Features in."""
        return self.kernel.shape[1]

    def call(self, rows, surplus=0):
        """The layer, with `surplus` units of weight zero besides; surplus features of `rows` meet weights of zero."""
        kernel, bias = tf.cast(self.kernel, rows.dtype), tf.cast(self.bias, rows.dtype)
        missing = rows.shape[-1] - kernel.shape[1]
        if missing or surplus:
            kernel = tf.pad(kernel, [[0, 0], [0, missing], [0, surplus]])
            bias = tf.pad(bias, [[0, 0], [0, 0], [0, surplus]])
        return tf.matmul(rows, kernel) + bias


class StackedConv(keras.layers.Layer):
    """One 3×3 convolution, or transposed convolution, of every expert, with "same" padding.

    Images are rows of features ordered (row, column, channel).

    Args:
      num_experts: E.
      input_size: (height, width).
      output_size: (height, width); the smaller of the two is the larger one divided by the stride, rounded up.
      channels: (in, out).
      stride: of the convolution, or of the convolution that this is the transpose of.
      rng: numpy Generator that the initial kernels come from.
      transposed: whether to transpose.
    """

    def __init__(self, num_experts, input_size, output_size, channels, stride, rng, transposed=False, **kwargs):
        super().__init__(**kwargs)
        self.input_size, self.output_size, self.channels = input_size, output_size, channels
        self.stride, self.transposed = stride, transposed
        taps = channels[::-1] if transposed else channels
        limit = math.sqrt(6 / (9 * sum(channels)))  # Glorot's uniform (released code)
        self.kernel = self.add_weight(
            shape=(num_experts, 3, 3, *taps), name="kernel",
            initializer=keras.initializers.RandomUniform(-limit, limit, seed=_seed(rng)))
        self.bias = self.add_weight(shape=(num_experts, 1, channels[1]), name="bias", initializer="zeros")
        self.built = True  # as above

    @property
    def num_inputs(self):
        """Features in."""
        return math.prod(self.input_size) * self.channels[0]

    def call(self, rows):
        """One convolution per expert: [experts, rows, inputs] -> [experts, rows, outputs]."""
        kernel, num_rows = tf.convert_to_tensor(self.kernel), tf.shape(rows)[1]
        images = tf.reshape(rows, [kernel.shape[0], num_rows, *self.input_size, self.channels[0]])
        if kernel.shape[0] == 1:
            out = self._convolve((images[0], kernel[0]))
        else:
            out = tf.map_fn(self._convolve, (images, kernel), fn_output_signature=rows.dtype)
        num_pixels = math.prod(self.output_size)
        out = tf.reshape(out, [kernel.shape[0], num_rows, num_pixels * self.channels[1]])
        return out + self._bias_row(num_pixels)

    def _bias_row(self, num_pixels):
        # by a product, or XLA would look each pixel's up while it adds them, at a fifth of the speed
        every_pixel = np.tile(np.eye(self.channels[1]), num_pixels)
        bias = tf.convert_to_tensor(self.bias)
        return tf.matmul(bias, tf.constant(every_pixel, bias.dtype)[None])

    def _convolve(self, images_and_kernel):
        images, kernel = images_and_kernel
        if not self.transposed:
            return tf.nn.conv2d(images, kernel, self.stride, "SAME")
        shape = [tf.shape(images)[0], *self.output_size, self.channels[1]]
        return tf.nn.conv2d_transpose(images, kernel, shape, self.stride, "SAME")


class StackedMLP(keras.layers.Layer):
    """Multilayer perceptrons, several of every expert on the same features: softplus, linear output (section 4).

    The first perceptrons of all experts come first along the leading axis, then the second ones.

    Args:
      num_experts: E.
      num_heads: perceptrons per expert.
      widths: (inputs, hidden units, …, outputs).
      rng: numpy Generator that the initial weights come from.
    """

    def __init__(self, num_experts, num_heads, widths, rng, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dense = [StackedDense(num_heads * num_experts, i, o, rng, name=f"dense_{n}")
                      for n, (i, o) in enumerate(zip(widths, widths[1:]))]
        self.built = True  # as above

    def call(self, rows):
        """[experts, rows, inputs] -> [num_heads · experts, rows, outputs], the first head of all experts first."""
        rows = tf.tile(rows, [self.num_heads, 1, 1])
        for layer in self.dense[:-1]:
            rows = softplus(layer(rows, surplus=self.surplus(layer)))
        return self.dense[-1](rows)

    def surplus(self, layer):
        """Units by which a hidden layer fills whole vector registers: H = 30 as 32 takes two thirds of the time."""
        return 0 if layer is self.dense[-1] else -layer.bias.shape[-1] % 8
