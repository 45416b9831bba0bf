"""Layers of any number of experts at once, their weights stacked along a leading expert axis.

Features are [experts, rows, features]; those of images are ordered (row, column, channel). Small images of several
experts, such as super-pixels, are a tuple of tensors between their convolutions, as `ops/small_conv.py` lays them out;
outputs may contain padding rows; the caller cuts them off.

Arguments: num_experts E; rng, the NumPy Generator that the initial weights come from.
"""

import math

import keras
import tensorflow as tf

from spvae_tf.ops import small_conv
from spvae_tf.ops.functions import dense, repeat_along_last, softplus
from spvae_tf.ops.noise import drawn_in_float32


def _seed(rng):
    return int(rng.integers(2**31))


class StackedDense(keras.layers.Layer):
    """One dense layer of every expert: [experts, rows, num_inputs] -> [experts, rows, units]."""

    def __init__(self, num_experts, num_inputs, units, rng, **kwargs):
        super().__init__(**kwargs)
        # a normal cut at two deviations, with TensorFlow 1's 1.3 for what the cut takes: a variance of 2.012/fan_in
        stddev = math.sqrt(1.3 * 2 / num_inputs)
        self.kernel = self.add_weight(
            shape=(num_experts, num_inputs, units), name="kernel",
            initializer=drawn_in_float32(keras.initializers.TruncatedNormal(0.0, stddev, seed=_seed(rng))))
        self.bias = self.add_weight(shape=(num_experts, 1, units), name="bias", initializer="zeros")
        self.built = True  # or Keras would trace everything twice, to find out what there is to build

    def call(self, features, activation=tf.identity, hidden=False, image_size=None):
        """The layer of activation(features), rows or small images.

        `hidden` says that another dense layer follows, for which units may be padded; `image_size` is (height, width)
        of the small images that go in or are to come out, None for rows.
        """
        kernel, bias = tf.cast(self.kernel, self.compute_dtype), tf.cast(self.bias, self.compute_dtype)
        if image_size is None:
            return dense(activation(features), kernel, bias, fill_up=hidden)
        if isinstance(features, tuple):
            return small_conv.dense_of_images(kernel, bias, features, image_size, activation)
        return small_conv.dense_to_images(kernel, bias, activation(features), image_size)


class StackedConv(keras.layers.Layer):
    """One 3×3 convolution, or its transpose, of every expert, with "same" padding and `channels` (in, out)."""

    def __init__(self, num_experts, input_size, output_size, channels, stride, rng, transposed=False, **kwargs):
        super().__init__(**kwargs)
        # (height, width); the smaller of the two is the larger one divided by the stride, rounded up
        self.input_size, self.output_size, self.channels = input_size, output_size, channels
        self.stride, self.transposed = stride, transposed
        taps = channels[::-1] if transposed else channels
        limit = math.sqrt(6 / (9 * sum(channels)))  # Glorot's uniform (released code)
        self.kernel = self.add_weight(
            shape=(num_experts, 3, 3, *taps), name="kernel",
            initializer=drawn_in_float32(keras.initializers.RandomUniform(-limit, limit, seed=_seed(rng))))
        self.bias = self.add_weight(shape=(num_experts, 1, channels[1]), name="bias", initializer="zeros")
        self.built = True  # as above

    @property
    def small_images(self):
        """The (height, width) of the small images that this layer convolves, or None if it convolves rows."""
        is_small = self.stride == 1 and small_conv.is_small(self.kernel.shape[0], self.input_size)
        return self.input_size if is_small else None

    def call(self, features, activation=tf.identity):
        """The convolution of activation(features): small images if it convolves such, else rows."""
        if not self.small_images:
            return self._by_expert(activation(features))
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        images = features if isinstance(features, tuple) else small_conv.from_rows(features, self.input_size)
        return small_conv.convolve(kernel, bias, images, self.transposed, activation)

    def _by_expert(self, rows):
        """One convolution per expert, of rows."""
        kernel, num_rows = tf.convert_to_tensor(self.kernel), tf.shape(rows)[1]
        images = tf.reshape(rows, [kernel.shape[0], num_rows, *self.input_size, self.channels[0]])
        if kernel.shape[0] == 1:
            out = self._convolve((images[0], kernel[0]))
        else:
            out = tf.map_fn(self._convolve, (images, kernel), fn_output_signature=rows.dtype)
        num_pixels = math.prod(self.output_size)
        out = tf.reshape(out, [kernel.shape[0], num_rows, num_pixels * self.channels[1]])
        return out + repeat_along_last(self.bias, num_pixels)

    def _convolve(self, images_and_kernel):
        images, kernel = images_and_kernel
        if not self.transposed:
            return tf.nn.conv2d(images, kernel, self.stride, "SAME")
        shape = [tf.shape(images)[0], *self.output_size, self.channels[1]]
        return tf.nn.conv2d_transpose(images, kernel, shape, self.stride, "SAME")


def convolve_to_rows(convs, features, activation):
    """Convolutions of equal sizes, all transposed, of activation(features): for each rows, channel by channel."""
    first, channels = convs[0], convs[0].channels[1]
    if not first.small_images:
        return [_channels_first(conv(features, activation=activation), channels) for conv in convs]
    kernel, bias = tf.concat([conv.kernel for conv in convs], 3), tf.concat([conv.bias for conv in convs], 2)
    rows = small_conv.convolve_to_rows(kernel, bias, features, first.input_size, True, activation)
    return [tf.concat(rows[n:n + channels], 2) for n in range(0, len(rows), channels)] if channels > 1 else rows


def _channels_first(rows, channels):
    """Rows of (pixel, channel) [experts, rows, pixels · channels] as rows of (channel, pixel)."""
    if channels == 1:
        return rows
    images = tf.reshape(rows, [rows.shape[0], -1, rows.shape[2] // channels, channels])
    return tf.reshape(tf.linalg.matrix_transpose(images), [rows.shape[0], -1, rows.shape[2]])


class StackedMLP(keras.layers.Layer):
    """`num_heads` perceptrons of every expert on the same features, of `widths` (inputs, hidden units, …, outputs)."""

    def __init__(self, num_experts, num_heads, widths, rng, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dense = [StackedDense(num_heads * num_experts, i, o, rng, name=f"dense_{n}")
                      for n, (i, o) in enumerate(zip(widths, widths[1:]))]
        self.built = True  # as above

    def call(self, rows):
        """Softplus, linear output (section 4): [num_heads · experts, rows, outputs], all experts' first heads first."""
        rows = tf.tile(rows, [self.num_heads, 1, 1])
        for layer in self.dense[:-1]:
            rows = softplus(layer(rows, hidden=True))
        return self.dense[-1](rows)
