"""Answers one batch after the other, in bounded memory: a query takes a batch of each array and a seed, int32 [2].

An image's noise depends on the seed, its position, and the batch size.
"""

import numpy as np
import tensorflow as tf

from spvae_tf.ops.noise import fold_in


def in_batches(query, arrays, seed, size, progress=None, skip=0):
    """What a query, which returns a structure of tensors [size, …], says of arrays [n, …], or None: [n − skip, …].

    The last batch is filled up, and fewer than `size` elements to the next power of two, so a query sees few shapes.
    After every batch `progress` is called with (number of elements done, the first tensor of the answers so far).
    `skip` is the number of leading elements already done: whole batches, and not all.
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
