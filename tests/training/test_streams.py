"""Streams of batches."""

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf.training import configuration
from spvae_tf.training.streams import epochs, make_stream, restarted


def test_restarted_stream_never_sees_most_of_mnist():
    """128 batches of 128 through a buffer of 1,000 images: 16,384 + 1,000 images are within reach."""
    block = restarted(50_000, 128, seed=0, shuffle_buffer=1000)
    seen = [block(128 * n, 128) for n in range(20)]
    reached = np.maximum.accumulate(np.full(16_384, 999) + np.arange(16_384))
    for indices in seen:
        assert indices.shape == (128, 128) and indices.dtype == np.int32
        assert len(np.unique(indices)) == 16_384
        assert indices.min() >= 0 and indices.max() <= 17_384
        assert (indices.ravel() <= reached).all()
    assert max(indices.max() for indices in seen) > 17_300  # but it does use its buffer


def test_restarted_stream_starts_over_with_another_order():
    block = restarted(50_000, 128, seed=0, shuffle_buffer=1000)
    first, second = block(0, 128), block(128, 128)
    for indices in (first, second):
        assert indices[0].max() < 1127  # the first batch comes from the buffer
        assert indices[-1].min() > 5000  # and the last from far behind
    assert not np.array_equal(first[0], second[0])
    assert len(np.intersect1d(first, second)) > 15_000
    np.testing.assert_array_equal(second, restarted(50_000, 128, 0, 1000)(128, 128))
    assert not np.array_equal(first, restarted(50_000, 128, 1, 1000)(0, 128))


@pytest.mark.parametrize("num_images, batch_size, count", [(500, 128, 128), (3, 5, 4), (1, 2, 2), (1500, 100, 40)])
def test_restarted_stream_repeats_a_small_training_set(num_images, batch_size, count):
    drawn = restarted(num_images, batch_size, seed=0, shuffle_buffer=1000)(0, count).ravel()
    assert len(drawn) == count * batch_size
    assert_passes(drawn, num_images)


def assert_passes(drawn, num_images):
    """Each image exactly once per pass, and passes in different orders."""
    passes = [drawn[start:start + num_images] for start in range(0, len(drawn), num_images)]
    for one in passes[:-1]:
        np.testing.assert_array_equal(np.sort(one), np.arange(num_images))
    assert len(np.unique(passes[-1])) == len(passes[-1])
    if num_images > 5:
        assert len({one.tobytes() for one in passes}) == len(passes)


def test_restarted_stream_depends_on_its_own_seed_alone():
    """A run that was stopped goes on in a program that may have set TensorFlow's global seed otherwise."""
    blocks = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        blocks.append(restarted(5000, 16, seed=0, shuffle_buffer=1000)(0, 4))
    tf.random.set_seed(None)
    np.testing.assert_array_equal(*blocks)


@pytest.mark.parametrize("num_images, batch_size", [(50, 8), (64, 16), (10, 10), (7, 16), (1, 3), (1000, 1)])
def test_epochs_visit_each_image_once_per_pass(num_images, batch_size):
    count = -(-4 * num_images // batch_size)
    drawn = epochs(num_images, batch_size, seed=0)(0, count)
    assert drawn.shape == (count, batch_size) and drawn.dtype == np.int32
    assert_passes(drawn.ravel(), num_images)


@pytest.mark.parametrize("num_images, batch_size", [(50, 8), (7, 16)])
def test_epochs_do_not_depend_on_the_blocks(num_images, batch_size):
    block = epochs(num_images, batch_size, seed=0)
    pieces = [block(first, count) for first, count in ((0, 1), (1, 5), (6, 2), (8, 12))]
    np.testing.assert_array_equal(np.concatenate(pieces), block(0, 20))
    np.testing.assert_array_equal(epochs(num_images, batch_size, seed=0)(3, 4), block(0, 20)[3:7])
    assert not np.array_equal(epochs(num_images, batch_size, seed=1)(0, 20), block(0, 20))


def test_stream_of_each_protocol():
    config = configuration.resolve(configuration.make_config(), protocol="paper", seed=3)
    np.testing.assert_array_equal(make_stream(config, 50_000)(256, 128), epochs(50_000, 128, 3)(256, 128))
    config = configuration.resolve(configuration.make_config(), protocol="released", seed=3)
    np.testing.assert_array_equal(make_stream(config, 50_000)(256, 128), restarted(50_000, 128, 3, 1000)(256, 128))
