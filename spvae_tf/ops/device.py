"""What the device here prefers: how much to compute at once, and one compiled function per object."""

import functools
import types

import tensorflow as tf

# images times samples, in one chunk of an evaluation: what a CPU's cache holds; what keeps a GPU busy
CPU_CODES, GPU_CODES = 1_000, 20_000
CPU_VALIDATION_BATCH, GPU_VALIDATION_BATCH = 200, 2_000  # images; the same, for five samples
PIXELS = 28 * 28  # of the images that these numbers are for


def on_gpu():
    """Whether TensorFlow has a GPU to compute on."""
    return bool(tf.config.list_physical_devices("GPU"))


def at_once_on_cpu(count, num_pixels):
    """`count` images, or a half, a third, … of them if they are larger than 28×28.

    So a convolution's scratch space (55 MB for 1,000 images of 28×28) stays below the 64 MiB above which the C library
    has the system map and clear it afresh for each chunk.
    """
    return max(1, count // -(-num_pixels // PIXELS))


def codes_at_once(num_pixels):
    """Images times samples in one chunk of an evaluation here, which bounds the memory whatever k is."""
    return GPU_CODES if on_gpu() else at_once_on_cpu(CPU_CODES, num_pixels)


def validation_batch(num_pixels):
    """Images that are validated at once here."""
    return GPU_VALIDATION_BATCH if on_gpu() else at_once_on_cpu(CPU_VALIDATION_BATCH, num_pixels)


def compiled(jit=True):
    """Decorator of a method, or of a function whose first argument is a model: one tf.function for each object.

    The object keeps its tf.functions itself, so that they end with it. One for all objects would be traced again for
    each, warn, and keep the objects alive. `jit` says whether XLA compiles it.
    """
    def decorate(function):
        @functools.wraps(function)
        def call(owner, *args, **kwargs):
            kept = vars(owner).setdefault("_tf_functions", {})  # not by setattr, by which Keras would track them
            if function not in kept:
                kept[function] = tf.function(types.MethodType(function, owner), jit_compile=jit)
            return kept[function](*args, **kwargs)
        return tf.autograph.experimental.do_not_convert(call)
    return decorate
