"""Images in parts: strips and tiles make up the image, and a tile's pieces are what it sees of it and nothing else."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import benchmark, environment, tiling, vae
from spvae_tf.model import SPVAE
from spvae_tf.region_graph import poon_domingos

SIZES = [*itertools.product((1, 2, 3, 4, 5, 6, 7, 10), repeat=2)]
TILINGS = [*((tiling.quarters(size), size) for size in SIZES), (tiling.UNCUT, (7, 7))]


def pixels(rectangle, size):
    """The (row, column) pairs of a rectangle, in their order."""
    rows, columns = (range(length)[part] for part, length in zip(rectangle, size))
    return list(itertools.product(rows, columns))


def test_places():
    size = 3, 4
    assert tiling.places(tiling.WHOLE, size, 2).tolist() == list(range(24))
    rectangle = slice(1, 3), slice(2, 4)
    assert tiling.places(rectangle, size).tolist() == [4 * row + column for row, column in pixels(rectangle, size)]
    assert tiling.places(rectangle, size, 2).tolist() == [12, 13, 14, 15, 20, 21, 22, 23]


@pytest.mark.parametrize("cut, size", TILINGS)
def test_strips_and_tiles_make_up_the_image(cut, size):
    for rectangles in (cut.strips, [rectangle for rectangle, _ in cut.tiles]):
        together = [pixel for rectangle in rectangles for pixel in pixels(rectangle, size)]
        assert sorted(together) == pixels(tiling.WHOLE, size)


@pytest.mark.parametrize("cut, size", TILINGS)
def test_a_piece_is_a_part_of_its_strip(cut, size):
    for piece in cut.pieces:
        assert pixels(cut.strips[piece.strip], size)[piece.pixels] == pixels(piece.rectangle, size)


@pytest.mark.parametrize("cut, size", TILINGS)
def test_a_tile_sees_its_own_pixels_and_their_neighbours(cut, size):
    for rectangle, pieces in cut.tiles:
        seen = {(row + i, column + j) for row, column in pixels(rectangle, size)
                for i, j in itertools.product((-1, 0, 1), repeat=2)} & set(pixels(tiling.WHOLE, size))
        together = [pixel for n in pieces for pixel in pixels(cut.pieces[n].rectangle, size)]
        assert sorted(together) == sorted(seen)


def test_four_tiles_of_a_super_pixel_of_7x7_take_43_percent_of_the_multiplications():
    cut = tiling.quarters((7, 7))
    products = [sum(len(pixels(cut.pieces[n].rectangle, (7, 7))) for n in pieces) * len(pixels(rectangle, (7, 7)))
                for rectangle, pieces in cut.tiles]
    assert len(products) == 4
    assert sum(products) / 49**2 == pytest.approx(0.43, abs=0.005)


NETWORKS = [("float32", (5, 5), 4), ("float32", (7, 7), 4), ("float32", (8, 3), 2), ("float32", (4, 9), 2),
            ("float32", (4, 4), 1), ("float64", (10, 10), 4)]


@pytest.mark.parametrize("dtype, size, num_tiles", NETWORKS)
@pytest.mark.parametrize("encodes", [True, False])
def test_networks_are_the_same_with_and_without_tiles(encodes, dtype, size, num_tiles, monkeypatch):
    keras.config.set_dtype_policy(dtype)
    try:
        encoder, decoder = vae.build_experts("conv_leaf", 3, size, 4, 8, 2, np.random.default_rng(0))
    finally:
        keras.config.set_dtype_policy("float32")
    network, layer, features = (encoder, encoder.trunk[1], math.prod(size)) if encodes else (decoder, decoder.deconv, 8)
    for n, variable in enumerate(network.trainable_variables):
        if variable.name == "bias":
            variable.assign(tf.random.stateless_normal(variable.shape, [0, n], dtype=dtype))
    x = tf.random.stateless_normal([3, 6, features], [1, 2], dtype=dtype)

    @tf.function(jit_compile=True)
    def outputs_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x)
            loss = sum(tf.reduce_sum(tf.sin(output)) for output in outputs)
        return [*outputs, *map(tf.convert_to_tensor, tape.gradient(loss, [x, *network.trainable_variables]))]

    assert len(layer.tiling.tiles) == num_tiles
    tiled = outputs_and_gradients()
    assert all(one.dtype == dtype for one in tiled)
    monkeypatch.setattr(vae.StackedConv, "tiling", tiling.UNCUT)
    uncut = tf.function(outputs_and_gradients.python_function, jit_compile=True)()
    for one, other in zip(tiled, uncut, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_tiles_of_the_outputs_make_only_the_rows_they_reach(monkeypatch):
    """Of a 7×7 super-pixel rows 0–4 from the upper tiles, rows 3–6 from the lower ones."""
    _, decoder = vae.build_experts("conv_leaf", 2, (7, 7), 4, 8, 2, np.random.default_rng(0))
    made, matrices = [], vae.StackedConv.matrices

    def noted(layer, blocks):
        results = matrices(layer, blocks)
        if layer in decoder.heads:
            made.extend(matrix.shape[1] for matrix in results)
        return results

    monkeypatch.setattr(vae.StackedConv, "matrices", noted)
    decoder(tf.zeros([2, 3, 8]))
    assert made == 4 * [7 * 5] + 4 * [7 * 4]


def test_a_gpu_multiplies_whole_images(monkeypatch):
    encoder, _ = vae.build_experts("conv_leaf", 2, (7, 7), 4, 8, 2, np.random.default_rng(0))
    monkeypatch.setattr(environment, "on_gpu", lambda: True)
    assert encoder.trunk[1].tiling == tiling.UNCUT


@pytest.mark.parametrize("likelihood", ["continuous", "discrete"])
@pytest.mark.parametrize("architecture", ["dense", "conv_leaf", "conv_image"])
def test_floors_are_made_of_all_products(architecture, likelihood):
    """Each weight of encoder and decoder is in exactly one of the products that a step's floor consists of."""
    model = SPVAE(poon_domingos(10, 5, 5), (10, 5), likelihood, architecture, 3, 2)
    dense = architecture == "dense"
    for network, followed in ((model.encoder, [1, 1, 0] if dense else [1, 1, 1, 0, 0]), (model.decoder, [1, 1, 0])):
        products = list(benchmark._products(network, 4))
        assert [is_hidden for *_, is_hidden in products] == followed
        variables = [v.path for _, _, layers, _ in products for layer in layers for v in layer.trainable_variables]
        assert sorted(variables) == sorted(v.path for v in network.trainable_variables)
        for function, arguments, layers, _ in products:
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                outputs = tf.concat(tf.nest.flatten(function(*arguments)), -1)
            assert {tuple(x.shape[:2]) for x in (*arguments, outputs)} == {(layers[0].kernel.shape[0], 4)}
            weights = [variable for layer in layers for variable in layer.trainable_variables]
            assert all(gradient is not None for gradient in tape.gradient(outputs, [*arguments, *weights]))
    for gradients in (True, False):  # an evaluation's floor is without the encoder
        pieces = benchmark.floor_timings(model, 2, 4, gradients)
        assert len(pieces["matrix products"]) == (3 + (3 if dense else 5) if gradients else 3)
        assert all(timing.first() > 0 for timings in pieces.values() for timing in timings)


@pytest.mark.parametrize("architecture, encoders, decoders", [
    ("dense", [8], [8]), ("conv_leaf", [7 * 3 * 4, 7 * 2 * 4, 7 * 2 * 4], [7 * 3 * 8, 7 * 2 * 8, 7 * 2 * 8])])
def test_products_of_the_floor_are_as_wide_as_the_networks(architecture, encoders, decoders):
    """Hidden units are filled up to 8, and images come in strips, whose columns are left, seam and right."""
    networks = vae.build_experts(architecture, 2, (7, 7), 5, 3, 1, np.random.default_rng(0))
    for network, widths in zip(networks, (encoders, decoders)):
        function, arguments, *_ = next(benchmark._products(network, 4))
        assert [part.shape[2] for part in tf.nest.flatten(function(*arguments))] == widths


@pytest.mark.parametrize("experts, size, is_written_out", [
    (1, (7, 7), False), (2, (7, 7), True), (2, (10, 10), True), (2, (10, 11), False)])
def test_which_convolutions_are_written_out(experts, size, is_written_out):
    layer = vae.StackedConv(experts, size, size, (1, 2), 1, np.random.default_rng(0))
    assert layer.is_written_out == is_written_out
    assert (layer.tiling == tiling.UNCUT) != is_written_out
