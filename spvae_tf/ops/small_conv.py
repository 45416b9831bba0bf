"""3×3 convolutions of small images, such as super-pixels, of many experts at once, by matrix products.

One product of all experts outruns a convolution per expert. Written out as a matrix [pixels, pixels], a 3×3 kernel on
7×7 pixels is 85 % zeros. So the output is made in four tiles. A tile is multiplied by its window alone, its own pixels
and their neighbours, which takes 43 % of the multiplications:

    the tiles A, B, C, D      the window of A      the window of D
       A A A A B B B          a a a a a . .        . . . . . . .
       A A A A B B B          a a a a a . .        . . . . . . .
       A A A A B B B          a a a a a . .        . . . . . . .
       A A A A B B B          a a a a a . .        . . . d d d d
       C C C C D D D          a a a a a . .        . . . d d d d
       C C C C D D D          . . . . . . .        . . . d d d d
       C C C C D D D          . . . . . . .        . . . d d d d

Images are [experts, channels, height, width, samples] here: with samples last, a window is cut out at no cost. They are
a tuple of tiles, or of one whole image. Elsewhere images are rows [experts, samples, features], features ordered (row,
column, channel). A rectangle is a pair of slices. Kernels are [experts, inputs, units] of dense layers, [experts, 3, 3,
channels in, channels out] of convolutions, out before in if transposed; biases are [experts, 1, units or channels].
Layers apply the activation to their input, for each window anew, which costs less than to copy it.
"""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from spvae_tf.ops import device

LARGEST = 100  # pixels of an image; of more, too much is zeros
SHORTEST_CUT = 5  # pixels of a side that is cut in two; with shorter ones nothing is gained
SAMPLES = 16  # images have a multiple of so many, samples of no meaning being appended, for whole vector registers


def is_small(num_experts, size):
    """Whether images of a (height, width) are convolved here, with stride 1."""
    return num_experts > 1 and math.prod(size) <= LARGEST


def tiles(size):
    """The rectangles in which a convolution is made, row by row; on a GPU the whole: small products may take longer."""
    if device.on_gpu():
        return [whole(size)]
    return list(itertools.product(*map(_halves, size)))


def whole(size):
    """The rectangle that is the image."""
    return tuple(slice(0, length) for length in size)


def _halves(length):
    if length < SHORTEST_CUT:
        return [slice(0, length)]
    return [slice(0, -(-length // 2)), slice(-(-length // 2), length)]


def window(tile, size):
    """What a rectangle sees through a 3×3 kernel, and what sees it: a pixel more on each side, where there is one."""
    return tuple(slice(max(part.start - 1, 0), min(part.stop + 1, length)) for part, length in zip(tile, size))


@functools.lru_cache
def _sights(size):
    """[3, 3, *pixel out, *pixel in], 1 where a pixel of the output sees one of the input through a tap."""
    sights = np.zeros([3, 3, *size, *size], np.float32)
    for row, column, a, b in np.ndindex(*size, 3, 3):
        if 0 <= row + a - 1 < size[0] and 0 <= column + b - 1 < size[1]:
            sights[a, b, row, column, row + a - 1, column + b - 1] = 1
    return sights


def matrix(kernel, size, seen, made, transposed=False, inputs_first=False):
    """A kernel written out: multiplying the rectangle `seen` of the input by it gives `made` of the output.

    It is [experts, outputs, inputs], or transposed (`inputs_first`), with features ordered (channel, row, column).
    """
    # the transpose of a convolution looks through its taps the other way round
    sights = _sights(size)[::-1, ::-1] if transposed else _sights(size)
    sights = sights[:, :, *made, *seen]
    sights = sights.reshape(9, math.prod(sights.shape[2:4]), -1)  # [taps, pixels out, pixels in]
    outer, inner = (3, 4) if transposed else (4, 3)  # the kernel's axes of channels out and in
    if inputs_first:
        sights, outer, inner = sights.transpose(0, 2, 1), inner, outer
    taps = tf.transpose(kernel, [0, outer, 1, 2, inner])
    experts, outer, _, _, inner = taps.shape
    # taps with the inner channels, times where they go: the product is in order and need not be transposed
    where = np.einsum("toi,cd->tcodi", sights, np.eye(inner)).reshape(9 * inner, -1)
    written = tf.matmul(tf.reshape(taps, [experts * outer, 9 * inner]), tf.constant(where, taps.dtype))
    return tf.reshape(written, [experts, outer * sights.shape[1], inner * sights.shape[2]])


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


def _columns(images):
    return tf.reshape(images, [images.shape[0], math.prod(images.shape[1:4]), -1])


def from_rows(rows, size):
    """Images, whole, from rows."""
    experts, samples, features = rows.shape
    rows = tf.pad(rows, [[0, 0], [0, -(samples or 0) % SAMPLES], [0, 0]])
    images = tf.reshape(rows, [experts, -1, *size, features // math.prod(size)])
    return (tf.transpose(images, [0, 4, 2, 3, 1]),)


def dense_to_images(kernel, bias, rows, size):
    """A dense layer of rows: its units as images, whole."""
    experts, inputs, units = kernel.shape
    surplus, missing = 8 - inputs % 8, -(rows.shape[1] or 0) % SAMPLES
    kernel = tf.reshape(tf.concat([kernel, bias], 1), [experts, inputs + 1, *size, -1])
    kernel = tf.pad(tf.transpose(kernel, [0, 1, 4, 2, 3]), [[0, 0], [0, surplus - 1], [0, 0], [0, 0], [0, 0]])
    # rows get ones appended: the biases are weights of the first, so that their gradients come with the kernel's; the
    # others have weight 0 and fill whole vector registers
    columns = tf.pad(tf.transpose(rows, [0, 2, 1]), [[0, 0], [0, surplus], [0, missing]], constant_values=1)
    matrices = tf.reshape(tf.transpose(kernel, [0, 2, 3, 4, 1]), [experts, units, -1])
    images = _product(matrices, tf.reshape(kernel, [experts, -1, units]), columns)
    return (tf.reshape(images, [experts, units // math.prod(size), *size, columns.shape[2] or -1]),)


def convolve(kernel, bias, images, transposed, activation):
    """A convolution of images, whole: its tiles; of images of one channel, where little is to be gained, the whole."""
    (images,), results = images, []
    size = tuple(images.shape[2:4])
    for tile in tiles(size) if images.shape[1] > 1 else [whole(size)]:
        seen = window(tile, size)
        matrices, transposes = (matrix(kernel, size, seen, tile, transposed, first) for first in (False, True))
        product = _product(matrices, transposes, _columns(activation(images[:, :, *seen])))
        product = tf.reshape(product, [images.shape[0], bias.shape[2], *np.empty(size)[tile].shape, -1])
        results.append(product + bias[:, 0, :, None, None, None])
    return tuple(results)


def convolve_to_rows(kernel, bias, images, size, transposed, activation):
    """A convolution of images, in tiles: for each channel out rows [experts, samples, pixels]."""
    outputs = tf.split(bias, bias.shape[2], 2)
    for side, abreast in itertools.groupby(zip(tiles(size), images), lambda pair: pair[0][0]):
        # whole rows of the output, which lie side by side, and no others than these tiles reach
        reached = window((side, slice(0, size[1])), size)
        total = 0
        for tile, features in abreast:
            matrices = matrix(kernel, size, tile, reached, transposed, inputs_first=True)
            total += tf.matmul(_columns(activation(features)), matrices, transpose_a=True)
        margins = [size[1] * reached[0].start, size[1] * (size[0] - reached[0].stop)]
        parts = tf.split(total, len(outputs), 2)
        outputs = [output + tf.pad(part, [[0, 0], [0, 0], margins]) for output, part in zip(outputs, parts)]
    return outputs


def dense_of_images(kernel, bias, images, size, activation):
    """A dense layer of images, in tiles: rows [experts, samples, units]."""
    experts, _, units = kernel.shape
    kernel = tf.reshape(kernel, [experts, *size, -1, units])
    parts = [tf.transpose(kernel[:, *tile], [0, 3, 1, 2, 4]) for tile in tiles(size)]
    kernel = tf.concat([tf.reshape(part, [experts, -1, units]) for part in parts], 1)
    # one product, since XLA gives small ones to one thread, one after the other
    columns = tf.concat([_columns(activation(features)) for features in images], 1)
    return tf.matmul(columns, kernel, transpose_a=True) + bias
