"""The leaves: decoders p(x | z) of equation (3) and encoders q(z | x) of equation (8), of all experts at once.

An encoder takes the experts' pixels [experts, rows, pixels] and gives (mean, precision) of q(z | x), each [experts,
rows, latent_dim]. A decoder takes codes [experts, rows, latent_dim] and gives the outputs that parametrise p(x | z), a
tuple of [experts, rows, width · pixels].

Arguments: num_experts E; size (height, width) of a leaf, or its num_pixels; hidden_units H; latent_dim n_z; num_outputs
of p(x | z) and their width, as in likelihoods.py; filters of the encoder's two convolutions and the stride of both; rng
as in layers.py.
"""

import math

import keras
import tensorflow as tf

from spvae_tf.model.layers import StackedConv, StackedDense, StackedMLP, convolve_to_rows
from spvae_tf.ops.functions import halves, in_one_row, softplus

ARCHITECTURES = ("dense", "conv_leaf", "conv_image")
# The encoder's two convolutions, filters and stride: of a super-pixel's VAE, of a whole image's (section 4).
CONV_LEAF = ((4, 8), 1)
CONV_IMAGE = ((32, 64), 2)


def mean_and_precision(outputs):
    """The mean and the precision 1 + s² of q(z | x) (8), of linear outputs: the means of all experts first, then s."""
    mean, root = halves(outputs)
    return mean, in_one_row(lambda s: 1 + tf.square(s), root)


class DenseEncoder(keras.layers.Layer):
    """Two separate perceptrons with two hidden layers each, one for the mean and one for the precision."""

    def __init__(self, num_experts, num_pixels, hidden_units, latent_dim, rng, **kwargs):
        super().__init__(**kwargs)
        self.heads = StackedMLP(num_experts, 2, (num_pixels, hidden_units, hidden_units, latent_dim), rng)

    def call(self, x):
        return mean_and_precision(self.heads(x))


class DenseDecoder(keras.layers.Layer):
    """One perceptron with two hidden layers for each output."""

    def __init__(self, num_experts, latent_dim, hidden_units, num_pixels, num_outputs, width, rng, **kwargs):
        super().__init__(**kwargs)
        widths = latent_dim, hidden_units, hidden_units, width * num_pixels
        self.heads = StackedMLP(num_experts, num_outputs, widths, rng)

    def call(self, z):
        return tuple(tf.split(self.heads(z), self.heads.num_heads))


def conv_sizes(size, stride):
    """The image sizes (height, width) after the first and the second "same" convolution of a stride."""
    middle = tuple(-(-n // stride) for n in size)
    return middle, tuple(-(-n // stride) for n in middle)


class ConvEncoder(keras.layers.Layer):
    """One trunk for both heads: conv 3×3, conv 3×3, flatten, dense(H), {mean, precision}; softplus in between."""

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
        first, second, hidden = self.trunk
        features = second(first(x), activation=softplus)
        code = softplus(hidden(features, activation=softplus, image_size=second.small_images)[:, :x.shape[1]])
        return mean_and_precision(tf.concat([self.mean(code), self.precision(code)], 0))


class ConvDecoder(keras.layers.Layer):
    """Dense, reshape, transposed conv, a transposed conv to `width` channels for each output; softplus in between."""

    def __init__(self, num_experts, latent_dim, size, filters, stride, num_outputs, width, rng, **kwargs):
        super().__init__(**kwargs)
        middle, small = conv_sizes(size, stride)
        self.dense = StackedDense(num_experts, latent_dim, math.prod(small) * filters[1], rng, name="dense")
        self.deconv = StackedConv(num_experts, small, middle, filters[::-1], stride, rng, True, name="deconv")
        self.heads = [StackedConv(num_experts, middle, size, (filters[0], width), stride, rng, True, name=f"output_{n}")
                      for n in range(num_outputs)]

    def call(self, z):
        features = self.dense(z, image_size=self.deconv.small_images)
        features = self.deconv(features, activation=softplus)
        return tuple(output[:, :z.shape[1]] for output in convolve_to_rows(self.heads, features, softplus))


def build_experts(architecture, num_experts, size, hidden_units, latent_dim, num_outputs, width, rng):
    """(encoder, decoder) of an architecture: "dense", "conv_leaf" (super-pixels) or "conv_image" (whole images)."""
    if architecture == "dense":
        pixels = math.prod(size)
        return (DenseEncoder(num_experts, pixels, hidden_units, latent_dim, rng, name="encoder"),
                DenseDecoder(num_experts, latent_dim, hidden_units, pixels, num_outputs, width, rng, name="decoder"))
    filters, stride = CONV_LEAF if architecture == "conv_leaf" else CONV_IMAGE
    return (ConvEncoder(num_experts, size, filters, stride, hidden_units, latent_dim, rng, name="encoder"),
            ConvDecoder(num_experts, latent_dim, size, filters, stride, num_outputs, width, rng, name="decoder"))
