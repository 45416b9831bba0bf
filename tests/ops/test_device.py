"""How much is computed at once, and functions that are compiled once for each object."""

import gc
import weakref

import pytest
import tensorflow as tf

from spvae_tf.ops.device import at_once_on_cpu, compiled


@pytest.mark.parametrize("num_pixels, wanted", [(64, 1000), (28 * 28, 1000), (32 * 32, 500), (64 * 64, 166),
                                                (10**6, 1)])
def test_no_more_memory_is_needed_for_larger_images(num_pixels, wanted):
    assert at_once_on_cpu(1000, num_pixels) == wanted and wanted * num_pixels <= max(1000 * 28 * 28, num_pixels)


@pytest.mark.parametrize("jit", [True, False])
def test_functions_are_compiled_once_per_object(jit):
    traced = []

    class Scale:
        def __init__(self, factor):
            self.factor = factor

        @compiled(jit)
        def times(self, x):
            traced.append(self.factor)
            return self.factor * x

    @compiled(jit)
    def times_twice(scale, x, count=2):
        for _ in tf.range(count):  # a loop of the graph
            x = scale.times(x)
        return x

    two, three = Scale(2.0), Scale(3.0)
    for _ in range(2):
        assert [s.times(tf.constant(5.0)).numpy() for s in (two, three)] == [10, 15]
        assert [times_twice(s, tf.constant(5.0)).numpy() for s in (two, three)] == [20, 45]
    assert sorted(traced) == [2, 3]
    gone = weakref.ref(two)
    del two
    gc.collect()
    assert gone() is None
