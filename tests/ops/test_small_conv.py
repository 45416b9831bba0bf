"""Convolutions of small images by matrix products, tile by tile, against one convolution per expert."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf.model import experts
from spvae_tf.model.layers import StackedConv
from spvae_tf.ops import device, small_conv

SIZES = [*itertools.product((1, 2, 3, 4, 5, 6, 7, 10), repeat=2)]


def pixels(rectangle, size):
    """The (row, column) pairs of a rectangle, in their order."""
    rows, columns = (range(length)[part] for part, length in zip(rectangle, size))
    return list(itertools.product(rows, columns))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_make_up_the_image_row_by_row(size):
    tiles = small_conv.tiles(size)
    assert sorted(pixel for tile in tiles for pixel in pixels(tile, size)) == pixels(small_conv.whole(size), size)
    assert len(tiles) == math.prod(2 if length >= small_conv.SHORTEST_CUT else 1 for length in size)
    assert [pixels(tile, size)[0] for tile in tiles] == sorted(pixels(tile, size)[0] for tile in tiles)


@pytest.mark.parametrize("size", SIZES)
def test_a_window_is_a_tile_and_its_neighbours(size):
    for tile in (*small_conv.tiles(size), small_conv.whole(size)):
        seen = {(row + i, column + j) for row, column in pixels(tile, size)
                for i, j in itertools.product((-1, 0, 1), repeat=2)} & set(pixels(small_conv.whole(size), size))
        assert pixels(small_conv.window(tile, size), size) == sorted(seen)


def test_four_tiles_of_a_super_pixel_of_7x7_take_43_percent_of_the_multiplications():
    size = 7, 7
    products = [len(pixels(small_conv.window(tile, size), size)) * len(pixels(tile, size))
                for tile in small_conv.tiles(size)]
    assert len(products) == 4
    assert sum(products) / 49**2 == pytest.approx(0.43, abs=0.005)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (5, 6), (9, 4)])
def test_tiles_are_parts_of_the_convolution(size, transposed):
    layer = StackedConv(2, size, size, (3, 2), 1, np.random.default_rng(0), transposed)
    layer.bias.assign(np.random.default_rng(1).standard_normal(layer.bias.shape))
    images = tf.random.stateless_normal([2, 3, *size, 4], [0, 1])
    rows = tf.reshape(tf.transpose(images, [0, 4, 2, 3, 1]), [2, 4, -1])
    expected = tf.transpose(tf.reshape(layer._by_expert(rows), [2, 4, *size, 2]), [0, 4, 2, 3, 1])
    for tile in (*small_conv.tiles(size), small_conv.whole(size)):
        window = small_conv.window(tile, size)
        kernel = tf.convert_to_tensor(layer.kernel)
        matrix, transpose = (
            small_conv.matrix(kernel, size, window, tile, transposed, first) for first in (False, True))
        result = tf.matmul(matrix, tf.reshape(images[:, :, *window], [2, -1, 4]))
        result = tf.reshape(result, [2, 2, -1, 4]) + layer.bias[:, 0, :, None, None]
        np.testing.assert_allclose(result, tf.reshape(expected[:, :, *tile], result.shape), atol=1e-5)
        np.testing.assert_array_equal(transpose, tf.transpose(matrix, [0, 2, 1]))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_gradients_of_products(shape):
    """Those of one product, whichever of the two copies of the matrices they go to."""
    matrices = tf.random.stateless_normal([2, *shape], [0, 1])
    columns = tf.random.stateless_normal([2, shape[1], 6], [2, 3])

    def product(m, c):
        return tf.sin(small_conv._product(m, tf.transpose(m, [0, 2, 1]), c))

    def simple(m, c):
        return tf.sin(tf.matmul(m, c))

    (values, gradients), (expected_values, expected) = (
        (function(matrices, columns), tape_gradients(function, matrices, columns)) for function in (product, simple))
    np.testing.assert_allclose(values, expected_values, rtol=1e-6)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-6)


def tape_gradients(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return tape.gradient(value, arguments)


@pytest.mark.parametrize("dtype, size, on_gpu, num_tiles, num_rows", [
    ("float32", (7, 7), False, 4, 6), ("float64", (5, 5), False, 4, 16), ("float64", (7, 7), False, 4, 17),
    ("float64", (8, 3), False, 2, 6), ("float64", (4, 9), False, 2, 6), ("float64", (4, 4), False, 1, 6),
    ("float64", (10, 10), False, 4, 6), ("float64", (7, 7), True, 1, 6), ("float64", (8, 3), True, 1, 6)])
@pytest.mark.parametrize("encodes", [True, False])
def test_networks_are_those_of_one_convolution_per_expert(encodes, dtype, size, on_gpu, num_tiles, num_rows,
                                                          monkeypatch):
    """Compiled; outputs, and gradients by all weights and by the input. A GPU makes whole images."""
    monkeypatch.setattr(device, "on_gpu", lambda: on_gpu)
    keras.config.set_dtype_policy(dtype)
    try:
        encoder, decoder = experts.build_experts("conv_leaf", 3, size, 4, 8, 2, 1, np.random.default_rng(0))
    finally:
        keras.config.set_dtype_policy("float32")
    network, num_inputs = (encoder, math.prod(size)) if encodes else (decoder, 8)
    for n, variable in enumerate(network.trainable_variables):
        if variable.name == "bias":
            variable.assign(tf.random.stateless_normal(variable.shape, [0, n], dtype=dtype))
    x = tf.random.stateless_normal([3, num_rows, num_inputs], [1, 2], dtype=dtype)
    made, convolve = [], small_conv.convolve

    def noted(*arguments):
        images = convolve(*arguments)
        made.append(len(images))
        return images

    def outputs_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x)
            loss = sum(tf.reduce_sum(tf.sin(output)) for output in outputs)
        return [*outputs, *map(tf.convert_to_tensor, tape.gradient(loss, [x, *network.trainable_variables]))]

    monkeypatch.setattr(small_conv, "convolve", noted)
    tiled = tf.function(outputs_and_gradients, jit_compile=True)()
    assert made == [1, num_tiles][-len(made):]  # pixels are no channels yet
    assert all(one.dtype == dtype for one in tiled)
    monkeypatch.setattr(small_conv, "LARGEST", 0)
    made.clear()
    looped = outputs_and_gradients()
    assert not made
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    for one, other in zip(tiled, looped, strict=True):
        np.testing.assert_allclose(one, other, rtol=10 * tolerance, atol=tolerance * np.abs(other).max())


def test_tiles_of_the_outputs_make_only_the_rows_they_reach(monkeypatch):
    """Of a 7×7 super-pixel rows 0–4 from the upper tiles, rows 3–6 from the lower ones."""
    _, decoder = experts.build_experts("conv_leaf", 2, (7, 7), 4, 8, 2, 1, np.random.default_rng(0))
    made, matrix = [], small_conv.matrix

    def noted(kernel, *arguments, **options):
        result = matrix(kernel, *arguments, **options)
        if kernel.shape[3:] == (2, 4):  # of both outputs
            made.append(result.shape[2])
        return result

    monkeypatch.setattr(small_conv, "matrix", noted)
    decoder(tf.zeros([2, 3, 8]))
    assert made == 2 * [2 * 7 * 5] + 2 * [2 * 7 * 4]


@pytest.mark.parametrize("num_experts, size, stride, is_small", [
    (1, (7, 7), 1, False), (2, (7, 7), 1, True), (2, (10, 10), 1, True), (2, (10, 11), 1, False),
    (2, (7, 7), 2, False)])
def test_which_images_are_small(num_experts, size, stride, is_small):
    output_size = experts.conv_sizes(size, stride)[0]
    layer = StackedConv(num_experts, size, output_size, (1, 2), stride, np.random.default_rng(0))
    assert layer.small_images == (size if is_small else None)
