"""Images in parts: strips and tiles make up the image, and a tile's pieces are what it sees of it and nothing else."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import tiling, vae

SIZES = [*itertools.product((1, 2, 4, 5, 6, 7, 10), repeat=2)]
TILINGS = [pytest.param(cut(size), size, id=f"{cut.__name__} {size}")
           for cut, size in itertools.product((tiling.quarters, tiling.whole), SIZES)]


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
        assert pixels(cut.strips[piece.strip], size)[piece.first:piece.last] == pixels(piece.rectangle, size)


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


@pytest.mark.parametrize("size", [(5, 5), (7, 7), (8, 3), (3, 9), (10, 10)])
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_networks_are_the_same_with_and_without_tiles(network, size, monkeypatch):
    encoder, decoder = vae.build_experts("conv_leaf", 3, size, 4, 8, 2, np.random.default_rng(0))
    network, features = (encoder, math.prod(size)) if network == "encoder" else (decoder, 8)
    for n, variable in enumerate(network.trainable_variables):
        if variable.name == "bias":
            variable.assign(tf.random.stateless_normal(variable.shape, [0, n]))
    x = tf.random.stateless_normal([3, 6, features], [1, 2])

    def outputs_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x)
            loss = sum(tf.reduce_sum(tf.sin(output)) for output in outputs)
        return [*outputs, *map(tf.convert_to_tensor, tape.gradient(loss, [x, *network.trainable_variables]))]

    tiled = outputs_and_gradients()
    monkeypatch.setattr(vae, "quarters", tiling.whole)
    for one, other in zip(tiled, outputs_and_gradients(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
