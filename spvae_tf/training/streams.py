"""Which images each batch has: shuffled passes (protocol `paper`), or a stream that starts over (protocol `released`).

A stream is a function (first batch, number of batches) -> int32 indices [batches, batch_size] of training images. They
follow from its seed and the batches' numbers alone.
"""

import numpy as np


def make_stream(config, num_images):
    """The stream that a configuration asks for, of `num_images` training images."""
    if config.stream == "restarted":
        return restarted(num_images, config.batch_size, config.seed, config.shuffle_buffer)
    return epochs(num_images, config.batch_size, config.seed)


def epochs(num_images, batch_size, seed):
    """Shuffled passes over the whole training set; batches run on from one pass into the next (the paper's text)."""
    def block(first, count):
        positions = np.arange(first * batch_size, (first + count) * batch_size)
        passes, offsets = np.divmod(positions, num_images)
        orders = {e: np.random.default_rng([seed, e]).permutation(num_images) for e in np.unique(passes)}
        indices = np.concatenate([orders[e][offsets[passes == e]] for e in np.unique(passes)])
        return indices.astype(np.int32).reshape(count, batch_size)
    return block


def restarted(num_images, batch_size, seed, shuffle_buffer):
    """The released code's stream: it starts over before every block and shuffles through a buffer of images.

    The i-th image drawn in a block stands within the first i + buffer of the training set. 128 batches of 128 with a
    buffer of 1,000 therefore never reach past image 17,384.
    """
    def block(first, count):
        rng, wanted, drawn = np.random.default_rng([seed, first]), count * batch_size, []
        while len(drawn) < wanted:
            drawn += _shuffled(num_images, shuffle_buffer, wanted - len(drawn), rng)
        return np.reshape(drawn, [count, batch_size]).astype(np.int32)
    return block


def _shuffled(num_images, shuffle_buffer, wanted, rng):
    """The first `wanted` of 0 … num_images − 1, in their order but for a shuffle buffer, as tf.data does it."""
    size, drawn = min(shuffle_buffer, num_images), []
    buffer = list(range(size))
    for following, place in enumerate(rng.random(min(wanted, num_images)), size):
        slot = int(place * len(buffer))
        drawn.append(buffer[slot])
        buffer[slot] = following if following < num_images else buffer[-1]
        if following >= num_images:
            buffer.pop()
    return drawn
