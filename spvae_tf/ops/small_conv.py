"""Convolutions of small images, such as super-pixels, by matrix products with the kernel written out.

One product of all experts outruns a convolution per expert. Images are [experts, channels, height, width, samples]
here: with the samples last a part of an image consists of long runs, so that cutting it costs nothing.

Written out as a matrix [pixels, pixels], a 3×3 kernel on 7×7 pixels is 85 % zeros. Therefore the output is made in four
tiles. A tile sees no more of the input than its window, its own pixels and their neighbours, which is 43 % of the
multiplications for all four. Where windows overlap, softplus is computed once for each, for less than copying costs.
"""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from spvae_tf.ops import device
from spvae_tf.ops.functions import softplus

WHOLE = slice(None), slice(None)  # a rectangle: a pair of slices, of an image's rows and columns
LARGEST = 100  # pixels of an image; of more, too much is zeros
SHORTEST_CUT = 5  # pixels of a side that is cut in two; with shorter ones nothing is gained
SAMPLES = 16  # images have a multiple of as many, samples of no meaning being appended, for whole vector registers


def is_written_out(conv):
    """Whether a StackedConv is left to this module: one of several experts, of small images, with stride 1."""
    return conv.kernel.shape[0] > 1 and conv.stride == 1 and math.prod(conv.input_size) <= LARGEST


def tiles(size):
    """The rectangles in which the output of a convolution is made.

    Args:
      size: (height, width) of its input and of its output.

    Returns:
      A list of rectangles, row by row; on a GPU the whole image, where more and smaller products may take longer.
    """
    if device.on_gpu():
        return [WHOLE]
    return list(itertools.product(*map(_halves, size)))


def _halves(length):
    if length < SHORTEST_CUT:
        return [slice(0, length)]
    return [slice(0, -(-length // 2)), slice(-(-length // 2), length)]


def grown(rectangle, size):
    """The window of a tile: what it sees through a 3×3 kernel, and what it is seen by.

    Args:
      rectangle: pair of slices.
      size: (height, width) of the image.

    Returns:
      The rectangle with one pixel more on each side, where the image has one.
    """
    return tuple(slice(max((part.start or 0) - 1, 0), min((part.stop or length) + 1, length))
                 for part, length in zip(rectangle, size))


@functools.lru_cache
def _sights(size):
    """[3, 3, *pixel out, *pixel in], 1 where a pixel of the output sees one of the input through a tap."""
    height, width = size
    sights = np.zeros([3, 3, *size, *size], np.float32)
    for row, column, a, b in np.ndindex(*size, 3, 3):
        if 0 <= row + a - 1 < height and 0 <= column + b - 1 < width:
            sights[a, b, row, column, row + a - 1, column + b - 1] = 1
    return sights


def matrix(conv, window, tile, inputs_first=False):
    """The kernel written out: multiplying by this matrix is the convolution.

    Args:
      conv: StackedConv.
      window: rectangle of the input.
      tile: rectangle of the output.
      inputs_first: whether to return the transposed matrix.

    Returns:
      [experts, outputs, inputs], or [experts, inputs, outputs], features ordered (channel, row, column).
    """
    # the transpose of a convolution looks through its taps the other way round
    sights = _sights(conv.input_size)[::-1, ::-1] if conv.transposed else _sights(conv.input_size)
    sights = sights[:, :, *tile, *window]
    sights = sights.reshape(9, math.prod(sights.shape[2:4]), -1)  # [taps, pixels out, pixels in]
    outer, inner = (3, 4) if conv.transposed else (4, 3)  # the kernel's axes of channels out and in
    if inputs_first:
        sights, outer, inner = sights.transpose(0, 2, 1), inner, outer
    experts, num_outer, num_inner = (conv.kernel.shape[axis] for axis in (0, outer, inner))
    taps = tf.transpose(conv.kernel, [0, outer, 1, 2, inner])
    taps = tf.reshape(taps, [experts * num_outer, 9 * num_inner])
    # taps with the inner channels, times where they go: the product is in order and need not be transposed
    where = np.einsum("toi,cd->tcodi", sights, np.eye(num_inner)).reshape(9 * num_inner, -1)
    written = tf.matmul(taps, tf.constant(where, taps.dtype))
    return tf.reshape(written, [experts, num_outer * sights.shape[1], num_inner * sights.shape[2]])


def _flat(images):
    return tf.reshape(images, [images.shape[0], math.prod(images.shape[1:4]), -1])


@tf.custom_gradient
def _product(matrices, transposed, columns):
    """matrices · columns, given the matrices' transposes too: gradients take, and go to, what is faster on a CPU."""
    def gradients(upstream):
        if matrices.shape[1] >= matrices.shape[2]:
            by_matrices, by_transposed = tf.matmul(upstream, columns, transpose_b=True), None
            by_columns = tf.matmul(transposed, upstream)
        else:
            by_matrices, by_transposed = None, tf.matmul(columns, upstream, transpose_b=True)
            by_columns = tf.matmul(matrices, upstream, transpose_a=True)
        return by_matrices, by_transposed, by_columns

    return tf.matmul(matrices, columns), gradients


def _images(kernel, rows, size):
    """Images from a kernel, [experts, inputs and 1, channels, pixels], whose last weights are biases, and its inputs.

    Inputs are [experts, samples, inputs] and get ones appended. The weights of the first are the biases, whose
    gradients then come with the kernel's; the others have weight 0 and fill whole vector registers. Images are
    [experts, channels, height, width, samples], samples filled up to a multiple of SAMPLES where their number is known.
    """
    experts, _, channels, _ = kernel.shape
    surplus, missing = 8 - rows.shape[2] % 8, -(rows.shape[1] or 0) % SAMPLES
    kernel = tf.pad(kernel, [[0, 0], [0, surplus - 1], [0, 0], [0, 0]])
    columns = tf.pad(tf.transpose(rows, [0, 2, 1]), [[0, 0], [0, surplus], [0, missing]], constant_values=1)
    transposed = tf.reshape(kernel, [*kernel.shape[:2], -1])
    matrices = tf.reshape(tf.transpose(kernel, [0, 2, 3, 1]), [experts, -1, kernel.shape[1]])
    return tf.reshape(_product(matrices, transposed, columns), [experts, channels, *size, -1])


def from_features(dense, rows, size):
    """A dense layer whose units are the features of images, ordered (row, column, channel).

    Args:
      dense: StackedDense.
      rows: [experts, samples, inputs].
      size: (height, width) of the images.

    Returns:
      [experts, channels, height, width, samples], a multiple of SAMPLES.
    """
    kernel = tf.concat([dense.kernel, dense.bias], 1)
    kernel = tf.reshape(kernel, [*kernel.shape[:2], math.prod(size), -1])
    return _images(tf.transpose(kernel, [0, 1, 3, 2]), rows, size)


def from_rows(conv, rows):
    """A convolution of images of one channel.

    Args:
      conv: StackedConv.
      rows: [experts, samples, pixels].

    Returns:
      [experts, channels out, height, width, samples], a multiple of SAMPLES.
    """
    experts, _, channels = conv.bias.shape
    num_pixels = math.prod(conv.output_size)
    kernel = tf.reshape(matrix(conv, WHOLE, WHOLE, inputs_first=True), [experts, -1, channels, num_pixels])
    biases = tf.tile(conv.bias[..., None], [1, 1, 1, num_pixels])
    return _images(tf.concat([kernel, biases], 1), rows, conv.output_size)


def convolve(conv, images, window, tile):
    """A tile of a convolution.

    Args:
      conv: StackedConv.
      images: [experts, channels in, height, width, samples], the window of the input.
      window: its rectangle.
      tile: rectangle of the output.

    Returns:
      [experts, channels out, height, width, samples], the tile.
    """
    product = _product(matrix(conv, window, tile), matrix(conv, window, tile, inputs_first=True), _flat(images))
    size = np.empty(conv.output_size)[tile].shape
    experts, _, channels = conv.bias.shape
    product = tf.reshape(product, [experts, channels, *size, -1])
    return product + tf.reshape(conv.bias, [experts, channels, 1, 1, 1])


def convolve_softplus(conv, images):
    """softplus(conv(softplus(images))), tile by tile.

    Args:
      conv: StackedConv.
      images: [experts, channels in, height, width, samples].

    Returns:
      A list of (rectangle, [experts, channels out, height, width, samples]).
    """
    results = []
    for tile in tiles(conv.input_size):
        window = grown(tile, conv.input_size)
        results.append((tile, softplus(convolve(conv, softplus(images[:, :, *window]), window, tile))))
    return results


def to_features(dense, images, size):
    """A dense layer of images, whose weights are ordered (row, column, channel).

    Args:
      dense: StackedDense.
      images: tiles, a list of (rectangle, [experts, channels, height, width, samples]).
      size: (height, width) of the whole images.

    Returns:
      [experts, samples, units].
    """
    experts, _, units = dense.kernel.shape
    kernel = tf.reshape(dense.kernel, [experts, *size, -1, units])
    parts = [tf.transpose(kernel[:, *tile], [0, 3, 1, 2, 4]) for tile, _ in images]
    kernel = tf.concat([tf.reshape(part, [experts, -1, units]) for part in parts], 1)
    # one product, since XLA gives small ones to one thread, one after the other
    columns = tf.concat([_flat(features) for _, features in images], 1)
    return tf.matmul(columns, kernel, transpose_a=True) + dense.bias


def convolve_to_rows(convs, images):
    """Convolutions of the same images to one channel each, in one product for each tile.

    Args:
      convs: list of StackedConv.
      images: tiles, a list of (rectangle, [experts, channels in, height, width, samples]).

    Returns:
      A list of [experts, samples, pixels], one for each convolution.
    """
    height, width = size = convs[0].output_size
    outputs = [tf.convert_to_tensor(conv.bias) for conv in convs]
    for side, abreast in itertools.groupby(images, lambda tile: tile[0][0]):
        # whole rows of the output, which lie side by side, and no others than these tiles reach
        reached = grown((side, slice(None)), size)
        total = 0
        for tile, features in abreast:
            kernels = [matrix(conv, tile, reached, inputs_first=True) for conv in convs]
            total += tf.matmul(_flat(features), tf.concat(kernels, 2), transpose_a=True)
        margins = [width * reached[0].start, width * (height - reached[0].stop)]
        parts = tf.split(total, len(convs), 2)
        outputs = [output + tf.pad(part, [[0, 0], [0, 0], margins]) for output, part in zip(outputs, parts)]
    return outputs
