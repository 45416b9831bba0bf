"""The leaves: any number of VAEs (experts) evaluated at once.

An expert is a decoder p(x | z) of equation (3) with its private encoder q(z | x) of equation (8). Tensors are
[experts, rows, features].
"""

import math

import keras
import tensorflow as tf

from spvae_tf.model.layers import StackedConv, StackedDense, StackedMLP
from spvae_tf.ops import small_conv as superpixels
from spvae_tf.ops.functions import halves, in_one_row, softplus

ARCHITECTURES = ("dense", "conv_leaf", "conv_image")
# The encoder's two convolutions, filters and stride: of a super-pixel's VAE, of a whole image's (section 4).
CONV_LEAF = ((4, 8), 1)
CONV_IMAGE = ((32, 64), 2)


def mean_and_precision(outputs):
    """The mean and the precision 1 + s² of q(z | x), equation (8), of an encoder's two linear outputs.

    Args:
      outputs: [2 · experts, rows, latent_dim], the means of all experts first, then s.

    Returns:
      (mean, precision), each [experts, rows, latent_dim]; the precision is at least 1, so no deviation exceeds 1.
    """
    mean, root = halves(outputs)
    return mean, in_one_row(lambda s: 1 + tf.square(s), root)


class DenseEncoder(keras.layers.Layer):
    """q(z | x) = N(mean(x), 1/precision(x)): two separate perceptrons with two hidden layers each.

    Args:
      num_experts: E.
      num_pixels: D of a leaf.
      hidden_units: H of each hidden layer.
      latent_dim: n_z.
      rng: numpy Generator that the initial weights come from.
    """

    def __init__(self, num_experts, num_pixels, hidden_units, latent_dim, rng, **kwargs):
        super().__init__(**kwargs)
        self.heads = StackedMLP(num_experts, 2, (num_pixels, hidden_units, hidden_units, latent_dim), rng)

    def call(self, x):
        """Mean and precision of q(z | x).

        Args:
          x: [experts, rows, pixels].

        Returns:
          (mean, precision), each [experts, rows, latent_dim].
        """
        return mean_and_precision(self.heads(x))


class DenseDecoder(keras.layers.Layer):
    """z -> the outputs that parametrise p(x | z): one perceptron with two hidden layers for each.

    Args:
      num_experts: E.
      latent_dim: n_z.
      hidden_units: H of each hidden layer.
      num_pixels: D of a leaf.
      num_outputs: outputs per pixel, 2 for the Gaussian and 1 for the Binomial.
      rng: numpy Generator that the initial weights come from.
    """

    def __init__(self, num_experts, latent_dim, hidden_units, num_pixels, num_outputs, rng, **kwargs):
        super().__init__(**kwargs)
        self.heads = StackedMLP(num_experts, num_outputs, (latent_dim, hidden_units, hidden_units, num_pixels), rng)

    def call(self, z):
        """The outputs of p(x | z).

        Args:
          z: [experts, rows, latent_dim].

        Returns:
          A tuple of [experts, rows, pixels].
        """
        return tuple(tf.split(self.heads(z), self.heads.num_heads))


def conv_sizes(size, stride):
    """The image sizes after the first and the second "same" convolution of a stride.

    Args:
      size: (height, width).
      stride: of both convolutions.

    Returns:
      ((height, width), (height, width)).
    """
    middle = tuple(-(-n // stride) for n in size)
    return middle, tuple(-(-n // stride) for n in middle)


class ConvEncoder(keras.layers.Layer):
    """q(z | x) with one trunk for both heads: conv 3×3, conv 3×3, flatten, dense(H), {mean, precision}.

    Args:
      num_experts: E.
      size: (height, width) of a leaf.
      filters: of the two convolutions.
      stride: of both.
      hidden_units: H of the dense layer.
      latent_dim: n_z.
      rng: numpy Generator that the initial weights come from.
    """

    def __init__(self, num_experts, size, filters, stride, hidden_units, latent_dim, rng, **kwargs):
        super().__init__(**kwargs)
        middle, small = conv_sizes(size, stride)
        self.trunk = [
            StackedConv(num_experts, size, middle, (1, filters[0]), stride, rng, name="conv_0"),
            StackedConv(num_experts, middle, small, filters, stride, rng, name="conv_1"),
            StackedDense(num_experts, math.prod(small) * filters[1], hidden_units, rng, name="hidden")]
        self.mean = StackedDense(num_experts, hidden_units, latent_dim, rng, name="mean")
        self.precision = StackedDense(num_experts, hidden_units, latent_dim, rng, name="precision")

    def call(self, x):
        """Mean and precision of q(z | x).

        Args:
          x: [experts, rows, pixels].

        Returns:
          (mean, precision), each [experts, rows, latent_dim].
        """
        first, second, hidden = self.trunk
        if superpixels.is_written_out(second):
            images = superpixels.convolve_softplus(second, superpixels.from_rows(first, x))
            code = superpixels.to_features(hidden, images, second.output_size)[:, :x.shape[1]]
        else:
            code = hidden(softplus(second(softplus(first(x)))))
        code = softplus(code)
        return mean_and_precision(tf.concat([self.mean(code), self.precision(code)], 0))


class ConvDecoder(keras.layers.Layer):
    """z -> dense -> reshape -> transposed conv to the first filter count -> a one-channel transposed conv per output.

    Args:
      num_experts: E.
      latent_dim: n_z.
      size: (height, width) of a leaf.
      filters: of the encoder's two convolutions.
      stride: of both transposed convolutions.
      num_outputs: outputs per pixel.
      rng: numpy Generator that the initial weights come from.
    """

    def __init__(self, num_experts, latent_dim, size, filters, stride, num_outputs, rng, **kwargs):
        super().__init__(**kwargs)
        middle, small = conv_sizes(size, stride)
        self.dense = StackedDense(num_experts, latent_dim, math.prod(small) * filters[1], rng, name="dense")
        self.deconv = StackedConv(num_experts, small, middle, filters[::-1], stride, rng, True, name="deconv")
        self.heads = [StackedConv(num_experts, middle, size, (filters[0], 1), stride, rng, True, name=f"output_{n}")
                      for n in range(num_outputs)]

    def call(self, z):
        """The outputs of p(x | z).

        Args:
          z: [experts, rows, latent_dim].

        Returns:
          A tuple of [experts, rows, pixels].
        """
        if superpixels.is_written_out(self.deconv):
            images = superpixels.from_features(self.dense, z, self.deconv.input_size)
            outputs = superpixels.convolve_to_rows(self.heads, superpixels.convolve_softplus(self.deconv, images))
            return tuple(output[:, :z.shape[1]] for output in outputs)
        features = softplus(self.deconv(softplus(self.dense(z))))
        return tuple(head(features) for head in self.heads)


def build_experts(architecture, num_experts, size, hidden_units, latent_dim, num_outputs, rng):
    """The encoder and decoder of all experts.

    Args:
      architecture: "dense", "conv_leaf" (super-pixels) or "conv_image" (whole images).
      num_experts: E, leaf regions times VAEs per leaf region.
      size: (height, width) of a leaf region; dense experts only use the product.
      hidden_units: H.
      latent_dim: n_z.
      num_outputs: outputs of p(x | z) per pixel.
      rng: numpy Generator that the initial weights come from.

    Returns:
      (encoder, decoder).
    """
    if architecture == "dense":
        pixels = math.prod(size)
        return (DenseEncoder(num_experts, pixels, hidden_units, latent_dim, rng, name="encoder"),
                DenseDecoder(num_experts, latent_dim, hidden_units, pixels, num_outputs, rng, name="decoder"))
    filters, stride = CONV_LEAF if architecture == "conv_leaf" else CONV_IMAGE
    return (ConvEncoder(num_experts, size, filters, stride, hidden_units, latent_dim, rng, name="encoder"),
            ConvDecoder(num_experts, latent_dim, size, filters, stride, num_outputs, rng, name="decoder"))
