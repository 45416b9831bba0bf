"""A model for serving: a TensorFlow SavedModel that answers three queries without this package and without Keras.

For the whole model in Python there are `spvae_tf.load`, and Keras' `model.save` and `keras.models.load_model`.
"""

from pathlib import Path

import tensorflow as tf

from spvae_tf import files
from spvae_tf.errors import InputError, check_integer
from spvae_tf.ops.device import CPU_CODES, at_once_on_cpu
from spvae_tf.queries import masks
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

        def of_images(query):
            def answer(x, observed, seed):  # checks what `masks.check_images` checks
                same = tf.shape(x), tf.shape(observed), "x and observed must have the same shape"
                with tf.control_dependencies([tf.debugging.assert_equal(*same)]):
                    x = tf.where(observed, x, 0)
                x = masks.assert_images(model, x)
                return in_batches_of_a_graph(query, [x, observed], seed, batch_size, x.dtype)
            return tf.function(answer, input_signature=[images, observed, seed])

        def sample(n, seed):
            with tf.control_dependencies([tf.debugging.assert_non_negative(n, "n must not be negative")]):
                numbers = tf.range(n)
            return in_batches_of_a_graph(lambda _, seed: sample_batch(model, batch_size, True, seed), [numbers],
                                         seed, batch_size, model.variable_dtype)

        self.log_prob = of_images(lambda x, observed, seed: streamed_bound(
            model, x, observed, tf.constant(num_samples), seed, codes_per_chunk=codes).log_prob)
        self.inpaint = of_images(lambda x, observed, seed: posterior_mean(model, x, observed, num_samples, seed))
        self.sample = tf.function(sample, input_signature=[n, seed])


def export(model, path, num_samples=100, batch_size=10):
    """Writes a model as a SavedModel, a new folder, with three signatures; each returns {"output_0": its answer}.

    * log_prob(x, observed, seed): [batch], nats per image;
    * inpaint(x, observed, seed): [batch, pixels], the posterior mean;
    * sample(n, seed): [n, pixels], E[x | z] of n new images, an int32.

    `num_samples` is their k, and they answer `batch_size` images together. A seed is int32 [2] (`ops.noise.make_seed`).
    Observed pixels outside [0, 1] or, of a discrete model, between counts, x and observed of different shapes, and a
    negative n fail with InvalidArgumentError. Raises InputError when the folder exists, cannot be written or could not
    be read again, or a count is below 1.
    """
    check_integer("num_samples", num_samples)
    check_integer("batch_size", batch_size)
    path = Path(files.expand(path))
    if path.exists():
        raise InputError(f"{path} exists already; choose another path or delete it")
    if found := set(str(path.absolute())) & set("[*?\\"):
        raise InputError(f"{path.absolute()} has {min(found)!r}; TensorFlow takes paths with [, *, ? or \\ for "
                         "patterns and loads no model from them")
    served = Served(model, num_samples, batch_size)
    signatures = {name: getattr(served, name) for name in ("log_prob", "inpaint", "sample")}
    try:
        files.write_atomically(path, lambda temporary: tf.saved_model.save(served, str(temporary), signatures))
    except (UnicodeEncodeError, tf.errors.OpError) as error:
        raise InputError(f"cannot write {path}: {error}") from error
