"""The leaves: any number of VAEs (experts) evaluated at once, their weights stacked along a leading expert axis.

An expert is a decoder p(x | z) of equation (3) with its private encoder q(z | x) of equation (8). Tensors are
[experts, rows, features]; a dense layer of all experts is one batched matrix product. The loop over experts is what
made the published code several times slower than a VAE.
"""

import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf import environment
from spvae_tf.polynomial import log1p
from spvae_tf.tiling import UNCUT, WHOLE, grown, places, quarters

ARCHITECTURES = ("dense", "conv_leaf", "conv_image")
# The encoder's two convolutions, filters and stride: of a super-pixel's VAE, of a whole image's (section 4).
CONV_LEAF = ((4, 8), 1)
CONV_IMAGE = ((32, 64), 2)


def _seed(rng):
    return int(rng.integers(2**31))


@tf.custom_gradient
def softplus(x):
    """log(1 + e^x), exact to float32 in absolute terms.

    Args:
      x: any shape.

    Returns:
      The same shape.
    """
    value = tf.maximum(x, 0) + log1p(tf.exp(tf.minimum(x, -x)))  # −|x|; `abs` takes XLA longer to compile
    # divided by, or XLA would compute it anew for every use of it, across the layout where that is another one
    return value, lambda upstream: upstream / (1 + tf.exp(-x))


class _Stacked(keras.layers.Layer):
    """One linear layer of every expert, whose input and output can come in parts: rectangles of images (tiling.py).

    A layer has `matrices` to multiply by and biases, `bias_at`.
    """

    transposed = False  # whether `matrices` are [experts, outputs, inputs] and not [experts, inputs, outputs]

    def at(self, wanted):
        """Rectangles of the output.

        Args:
          wanted: (rectangle, parts) each; the parts, (rectangle, [experts, rows, features]) each, are those of the
            input that this rectangle of the output depends on.

        Returns:
          A list of [experts, rows, features].
        """
        matrices = iter(self.matrices([(inputs, outputs) for outputs, parts in wanted for inputs, _ in parts]))
        results = []
        for outputs, parts in wanted:
            total = self.bias_at(outputs)
            for _, rows in parts:
                total += tf.matmul(rows, next(matrices), transpose_b=self.transposed)
            results.append(total)
        return results


class StackedDense(_Stacked):
    """One dense layer of every expert: [experts, rows, inputs] -> [experts, rows, units].

    Args:
      num_experts: E.
      num_inputs: features in.
      units: features out.
      rng: numpy Generator that the initial kernels come from.
      input_size: (height, width), where the inputs are images.
      output_size: (height, width), where the outputs are images and the inputs are not.
    """

    def __init__(self, num_experts, num_inputs, units, rng, input_size=(1, 1), output_size=(1, 1), **kwargs):
        super().__init__(**kwargs)
        self.input_size, self.output_size = input_size, output_size
        # a normal cut at two deviations, its variance 2/fan_in after the cut (released code)
        stddev = math.sqrt(2 / num_inputs) / 0.87962566103423978
        self.kernel = self.add_weight(
            shape=(num_experts, num_inputs, units), name="kernel",
            initializer=keras.initializers.TruncatedNormal(0.0, stddev, seed=_seed(rng)))
        self.bias = self.add_weight(shape=(num_experts, 1, units), name="bias", initializer="zeros")
        self.built = True  # or Keras would trace everything twice, to find out what there is to build

    def call(self, rows, surplus=0):
        """The layer, with `surplus` units of weight zero besides; surplus features of `rows` meet weights of zero."""
        kernel, bias = tf.cast(self.kernel, rows.dtype), tf.cast(self.bias, rows.dtype)
        missing = rows.shape[-1] - kernel.shape[1]
        if missing or surplus:
            kernel = tf.pad(kernel, [[0, 0], [0, missing], [0, surplus]])
            bias = tf.pad(bias, [[0, 0], [0, 0], [0, surplus]])
        return tf.matmul(rows, kernel) + bias

    def at(self, wanted):
        if self.input_size != (1, 1):
            return super().at(wanted)
        # Features that are no image, the same for all rectangles, get ones appended. The weights of the first are the
        # biases, whose gradients then come with the kernel's; the others have weight 0 and fill whole vector registers.
        (_, rows), = wanted[0][1]
        surplus = 8 - rows.shape[-1] % 8
        rows = tf.pad(rows, [[0, 0], [0, 0], [0, surplus]], constant_values=1)
        kernel = tf.pad(tf.concat([self.kernel, self.bias], 1), [[0, 0], [0, surplus - 1], [0, 0]])
        images = tf.reshape(kernel, [*kernel.shape[:2], *self.output_size, -1])
        rectangles = [images[:, :, *rectangle] for rectangle, _ in wanted]
        return [tf.matmul(rows, tf.reshape(r, [*r.shape[:2], math.prod(r.shape[2:])])) for r in rectangles]

    def matrices(self, blocks):
        """What to multiply rectangles of the input by for all of the output.

        Args:
          blocks: (rectangle of the input, WHOLE) each.

        Returns:
          A list of [experts, inputs, units].
        """
        images = tf.reshape(self.kernel, [self.kernel.shape[0], *self.input_size, -1, self.kernel.shape[2]])
        rectangles = [images[:, *inputs] for inputs, _ in blocks]
        return [tf.reshape(r, [r.shape[0], math.prod(r.shape[1:4]), r.shape[4]]) for r in rectangles]

    def bias_at(self, outputs):
        """The biases of all of the output, [experts, 1, units]."""
        return tf.convert_to_tensor(self.bias)


class StackedConv(_Stacked):
    """One 3×3 convolution, or transposed convolution, of every expert, with "same" padding.

    Images are rows of features ordered (row, column, channel). Small images are convolved by matrix products with the
    kernel written out as a [pixels·channels, pixels·channels] matrix, which for 7×7 super-pixels outruns a loop over
    experts; larger ones by one convolution per expert.

    Args:
      num_experts: E.
      input_size: (height, width).
      output_size: (height, width); the smaller of the two is the larger one divided by the stride, rounded up.
      channels: (in, out).
      stride: of the convolution, or of the convolution that this is the transpose of.
      rng: numpy Generator that the initial kernels come from.
      transposed: whether to transpose.
    """

    WRITTEN_OUT_LIMIT = 100  # pixels of the larger image

    def __init__(self, num_experts, input_size, output_size, channels, stride, rng, transposed=False, **kwargs):
        super().__init__(**kwargs)
        self.input_size, self.output_size, self.channels = input_size, output_size, channels
        # a transposed one's matrices are transposed too: it has more inputs than outputs, and the longer side should be
        # the inner one when their gradient is computed
        self.stride, self.transposed = stride, transposed
        self.num_outputs = math.prod(output_size) * channels[1]
        taps = channels[::-1] if transposed else channels
        limit = math.sqrt(6 / (9 * sum(channels)))  # Glorot's uniform (released code)
        self.kernel = self.add_weight(
            shape=(num_experts, 3, 3, *taps), name="kernel",
            initializer=keras.initializers.RandomUniform(-limit, limit, seed=_seed(rng)))
        self.bias = self.add_weight(shape=(num_experts, 1, channels[1]), name="bias", initializer="zeros")
        self.built = True  # as above

    @property
    def is_written_out(self):
        """Whether this is matrix products instead of a convolution per expert."""
        pixels = max(math.prod(self.input_size), math.prod(self.output_size))
        return self.kernel.shape[0] > 1 and pixels <= self.WRITTEN_OUT_LIMIT

    @property
    def tiling(self):
        """How to cut the images, for `tiles`; not at all on a GPU, where more and smaller products may take longer."""
        if self.is_written_out and self.stride == 1 and not environment.on_gpu():
            return quarters(self.input_size)
        return UNCUT

    def call(self, rows):
        """The layer on whole images: [experts, rows, inputs] -> [experts, rows, outputs]; networks use `at`."""
        return self.at([(WHOLE, [(WHOLE, rows)])])[0]

    def tiles(self, pieces):
        """The tiles of the output.

        Args:
          pieces: those of `tiling`, a list of [experts, rows, features].

        Returns:
          A list of [experts, rows, features].
        """
        parts = [(piece.rectangle, rows) for piece, rows in zip(self.tiling.pieces, pieces, strict=True)]
        return self.at([(rectangle, [parts[n] for n in seen]) for rectangle, seen in self.tiling.tiles])

    def at(self, wanted):
        if self.is_written_out:
            return super().at(wanted)
        ((outputs, ((_, rows),)),) = wanted  # uncut
        kernel, num_rows = tf.convert_to_tensor(self.kernel), tf.shape(rows)[1]
        images = tf.reshape(rows, [kernel.shape[0], num_rows, *self.input_size, self.channels[0]])
        if kernel.shape[0] == 1:
            out = self._convolve((images[0], kernel[0]))
        else:
            out = tf.map_fn(self._convolve, (images, kernel), fn_output_signature=rows.dtype)
        return [tf.reshape(out, [kernel.shape[0], num_rows, self.num_outputs]) + self.bias_at(outputs)]

    def _convolve(self, images_and_kernel):
        images, kernel = images_and_kernel
        if not self.transposed:
            return tf.nn.conv2d(images, kernel, self.stride, "SAME")
        shape = [tf.shape(images)[0], *self.output_size, self.channels[1]]
        return tf.nn.conv2d_transpose(images, kernel, shape, self.stride, "SAME")

    def matrices(self, blocks):
        """The kernel written out: multiplying by these matrices is the convolution.

        Args:
          blocks: (rectangle of the input, rectangle of the output) each.

        Returns:
          A list of [experts, inputs, outputs], or of [experts, outputs, inputs] if `transposed`.
        """
        # a transposed convolution is the transpose of the one from its output's size to its input's
        experts, _, _, channels_in, channels_out = self.kernel.shape
        sizes = [self.output_size, self.input_size] if self.transposed else [self.input_size, self.output_size]
        taps = tf.reshape(tf.transpose(self.kernel, [0, 3, 4, 1, 2]), [-1, 9])
        positions = []
        for block in blocks:
            rectangles = reversed(block) if self.transposed else block
            places_in, places_out = (places(rectangle, size) for rectangle, size in zip(rectangles, sizes))
            positions.append(_tap_positions(*sizes, self.stride)[:, places_in][:, :, places_out])
        # all blocks by one product: fewer operations to compile
        written = tf.matmul(taps, tf.constant(np.concatenate([p.reshape(9, -1) for p in positions], 1), taps.dtype))
        matrices = []
        for block, position in zip(tf.split(written, [p[0].size for p in positions], 1), positions):
            _, pixels_in, pixels_out = position.shape
            matrix = tf.reshape(block, [experts, channels_in, channels_out, pixels_in, pixels_out])
            matrix = tf.transpose(matrix, [0, 3, 1, 4, 2])
            matrices.append(tf.reshape(matrix, [experts, pixels_in * channels_in, pixels_out * channels_out]))
        return matrices

    def bias_at(self, outputs):
        """The biases of a rectangle of the output, [experts, 1, outputs].

        By a product, or XLA would look each pixel's up while it adds them, at a fifth of the speed.
        """
        every_pixel = np.tile(np.eye(self.channels[1]), len(places(outputs, self.output_size)))
        bias = tf.convert_to_tensor(self.bias)
        return tf.matmul(bias, tf.constant(every_pixel, bias.dtype)[None])


def _two_layers(first, second, rows):
    """softplus(second(softplus(first(rows)))), the second layer a convolution, tile by tile where it is tiled.

    Args:
      first: StackedDense or StackedConv, whose outputs are images.
      second: StackedConv.
      rows: [experts, rows, features] for the first.

    Returns:
      The tiles of the result, a list of (rectangle, [experts, rows, features]).
    """
    tiling, channels = second.tiling, second.channels[0]
    strips = first.at([(strip, [(WHOLE, rows)]) for strip in tiling.strips])
    pieces = []
    for piece in tiling.pieces:
        ends = (end and end * channels for end in (piece.pixels.start, piece.pixels.stop))
        pieces.append(softplus(strips[piece.strip][..., slice(*ends)]))
    return [(rectangle, softplus(tile)) for (rectangle, _), tile in zip(tiling.tiles, second.tiles(pieces))]


@functools.lru_cache
def _tap_positions(size_in, size_out, stride):
    """[9 taps, pixels in, pixels out], 1 where an output pixel sees an input pixel through a tap ("same" padding)."""
    where = np.zeros([3, 3, *size_in, *size_out], np.float32)
    starts = [max((o - 1) * stride + 3 - i, 0) // 2 for i, o in zip(size_in, size_out)]
    for row, column, a, b in np.ndindex(*size_out, 3, 3):
        i, j = row * stride + a - starts[0], column * stride + b - starts[1]
        if 0 <= i < size_in[0] and 0 <= j < size_in[1]:
            where[a, b, i, j, row, column] = 1
    return where.reshape(9, math.prod(size_in), -1)


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
        """[experts, rows, inputs] -> a list of [experts, rows, outputs], one for each head."""
        rows = tf.tile(rows, [self.num_heads, 1, 1])
        for layer in self.dense[:-1]:
            rows = softplus(layer(rows, surplus=self.surplus(layer)))
        return tf.split(self.dense[-1](rows), self.num_heads)

    def surplus(self, layer):
        """Units by which a hidden layer fills whole vector registers: H = 30 as 32 takes two thirds of the time."""
        return 0 if layer is self.dense[-1] else -layer.bias.shape[-1] % 8


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
          (mean, precision), each [experts, rows, latent_dim]; precision = 1 + s², so no deviation exceeds 1.
        """
        mean, root = self.heads(x)
        return mean, 1 + tf.square(root)


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
        return tuple(self.heads(z))


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
            StackedDense(num_experts, math.prod(small) * filters[1], hidden_units, rng, small, name="hidden")]
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
        code, = hidden.at([(WHOLE, _two_layers(first, second, x))])
        code = softplus(code)
        return self.mean(code), 1 + tf.square(self.precision(code))


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
        self.dense = StackedDense(
            num_experts, latent_dim, math.prod(small) * filters[1], rng, output_size=small, name="dense")
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
        return tuple(self.outputs(_two_layers(self.dense, self.deconv, z)))

    def outputs(self, tiles):
        """The output convolutions, where they are written out all in one product for each tile.

        Args:
          tiles: of the features before them, a list of (rectangle, [experts, rows, features]).

        Returns:
          A list of [experts, rows, pixels].
        """
        if not self.heads[0].is_written_out:
            return [head.at([(WHOLE, tiles)])[0] for head in self.heads]
        height, width = self.heads[0].output_size
        outputs = [head.bias_at(WHOLE) for head in self.heads]
        for row_slice, abreast in itertools.groupby(tiles, lambda tile: tile[0][0]):
            rectangles, features = zip(*abreast)
            # whole rows of the output, which lie side by side, and no others than these tiles reach; a tile is all of
            # the image where the stride is not 1
            reached = grown(row_slice, height)
            matrices = [head.matrices([(r, (reached, slice(None))) for r in rectangles]) for head in self.heads]
            total = sum(tf.matmul(x, tf.concat(of_heads, 1), transpose_b=True)
                        for x, *of_heads in zip(features, *matrices))
            margins = [width * reached.start, width * (height - reached.stop)]
            for n, part in enumerate(tf.split(total, len(self.heads), 2)):
                outputs[n] += tf.pad(part, [[0, 0], [0, 0], margins])
        return outputs


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
