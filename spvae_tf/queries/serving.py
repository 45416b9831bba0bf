"""A model for serving: a TensorFlow SavedModel that answers queries without this package and without Keras.

A SavedModel is three queries, compiled. For the whole model in Python there are `spvae_tf.load` and Keras' own
`model.save("model.keras")` and `keras.models.load_model`.
"""

import os
import shutil
from pathlib import Path

import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.ops.device import CPU_CODES, at_once_on_cpu
from spvae_tf.queries.batches import in_batches_of_a_graph
from spvae_tf.queries.density import streamed_bound
from spvae_tf.queries.images import posterior_mean, sample_batch


class Served(tf.Module):
    """Queries of a model as functions of tensors, for any number of images; arguments as in `export`."""

    def __init__(self, model, num_samples, batch_size):
        super().__init__(name="spvae")
        self.weights = [variable.value for variable in model.variables]  # a SavedModel keeps what it finds here
        codes = at_once_on_cpu(CPU_CODES, model.graph.num_variables)  # whatever it is exported on: it may run anywhere
        images = tf.TensorSpec([None, model.graph.num_variables], model.variable_dtype, name="x")
        observed = tf.TensorSpec(images.shape, tf.bool, name="observed")
        n, seed = tf.TensorSpec([], tf.int32, name="n"), tf.TensorSpec([2], tf.int32, name="seed")

        def log_prob(x, observed, seed):
            return streamed_bound(model, x, observed, tf.constant(num_samples), seed, codes=codes).log_prob

        def inpaint(x, observed, seed):
            return posterior_mean(model, x, observed, num_samples, seed)

        def of_images(query):
            def answer(x, observed, seed):
                return in_batches_of_a_graph(query, _checked_images(x, observed), seed, batch_size, x.dtype)
            return tf.function(answer, input_signature=[images, observed, seed])

        def sample(n, seed):
            with tf.control_dependencies([tf.debugging.assert_non_negative(n, "n must not be negative")]):
                numbers = tf.range(n)
            return in_batches_of_a_graph(lambda _, seed: sample_batch(model, batch_size, True, seed), [numbers],
                                         seed, batch_size, model.variable_dtype)

        self.log_prob, self.inpaint = of_images(log_prob), of_images(inpaint)
        self.sample = tf.function(sample, input_signature=[n, seed])


def _checked_images(x, observed):
    """[x with unobserved pixels set to 0, observed], once their shapes and the observed pixels are checked."""
    same = tf.debugging.assert_equal(tf.shape(x), tf.shape(observed), "x and observed must have the same shape")
    with tf.control_dependencies([same]):  # else what follows may fail first, with another message
        x = tf.identity(x)
    inside = tf.reduce_all(tf.where(observed, (x >= 0) & (x <= 1), True))
    tf.debugging.Assert(inside, ["observed pixels must lie in [0, 1]"])
    return [tf.where(observed, x, 0), observed]


def export(model, path, num_samples=100, batch_size=10):
    """Writes a model as a TensorFlow SavedModel with three signatures; each returns {"output_0": its answer}.

    * log_prob(x, observed, seed): [batch], nats per image;
    * inpaint(x, observed, seed): [batch, pixels], the posterior mean;
    * sample(n, seed): [n, pixels], E[x | z] of n new images, an int32.

    A seed is int32 [2], as `ops.noise.make_seed` gives it. Observed pixels outside [0, 1], x and observed of different
    shapes, and a negative n fail with InvalidArgumentError.

    Args:
      path: of the folder to make.
      num_samples: k of log_prob and inpaint.
      batch_size: images answered together; bounds the memory.

    Raises:
      InputError: when the folder exists or cannot be written, or a count is below 1.
    """
    check_integer("num_samples", num_samples)
    check_integer("batch_size", batch_size)
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already; choose another path or delete it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        served = Served(model, num_samples, batch_size)
        tf.saved_model.save(served, str(temporary), signatures={
            name: getattr(served, name) for name in ("log_prob", "inpaint", "sample")})
        os.replace(temporary, path)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
