"""Answers a batch at a time, so that memory stays bounded, each batch with a seed of its own.

A query takes a batch of each array and a seed, int32 [2]. The seed, an image's place in its batch and the size of the
batch decide the noise of the image.
"""

import numpy as np
import tensorflow as tf

from spvae_tf.ops.noise import fold_in


def in_batches(query, arrays, seed, size, progress=None, skip=0):
    """Asks a query, which returns a structure of tensors [size, …], of one batch after the other: [n − skip, …].

    Args:
      arrays: NumPy arrays [n, …], or None in place of one; n may be 0.
      size: of a batch; the last is filled up, so that all have one shape. Fewer than `size` make one batch of the next
        power of two: a query is compiled for few sizes.
      progress: called with (number done, the first tensor of the answers so far) after every batch.
      skip: elements at the beginning that are not asked about, whole batches of them and not all.
    """
    n = len(arrays[0])
    size = min(size, 1 << max(n - 1, 0).bit_length())
    parts = []
    for first in range(skip, max(n, 1), size):
        chosen = np.minimum(np.arange(first, first + size), n - 1)
        batch = [None if a is None else tf.constant(a[chosen] if n else np.zeros([size, *a.shape[1:]], a.dtype))
                 for a in arrays]
        answer = query(*batch, fold_in(seed, first // size))
        parts.append([part.numpy()[:n - first] for part in tf.nest.flatten(answer)])
        if progress:
            progress(min(n, first + size), np.concatenate([part[0] for part in parts]))
    return tf.nest.pack_sequence_as(answer, [tf.constant(np.concatenate(tensors)) for tensors in zip(*parts)])


def in_batches_of_a_graph(query, tensors, seed, size, dtype):
    """`in_batches` inside a graph, where n is known only when it runs; `query` returns one tensor of that dtype."""
    n = tf.shape(tensors[0])[0]
    count = -(-n // size)
    chosen = tf.minimum(tf.range(count * size), n - 1)
    batches = [tf.reshape(tf.gather(a, chosen), [count, size, *a.shape[1:]]) for a in tensors]
    answers = tf.map_fn(lambda batch: query(*batch[1:], fold_in(seed, batch[0])), (tf.range(count), *batches),
                        fn_output_signature=dtype, parallel_iterations=1)
    return tf.reshape(answers, [count * size, *answers.shape[2:]])[:n]
