"""What goes into a query: checks of images and masks, seeds, and batches of bounded size."""

import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError


def check_image_array(x, num_pixels):
    """Refuses what has not the shape of a batch of images.

    Args:
      x: [batch, pixels].
      num_pixels: of the model.

    Returns:
      x as NumPy.

    Raises:
      InputError: on a wrong shape.
    """
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise InputError(f"images are no array: {error}") from error
    if x.ndim != 2 or x.shape[1] != num_pixels:
        raise InputError(f"images have shape {x.shape}; the model takes [batch, {num_pixels}]")
    return x


def check_images(x, num_pixels, observed=None, dtype="float32"):
    """Refuses what is not a batch of images.

    Args:
      x: [batch, pixels], floating point in [0, 1].
      num_pixels: of the model.
      observed: bool [batch, pixels] or None.
      dtype: of the model's variables.

    Returns:
      (x as NumPy of that dtype with unobserved pixels set to 0, observed as NumPy or None).

    Raises:
      InputError: on a wrong shape or dtype, or on an observed pixel that is NaN or outside [0, 1].
    """
    x = check_image_array(x, num_pixels)
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"images are {x.dtype}; they must be floating point in [0, 1]")
    x = x.astype(dtype)
    if observed is not None:
        observed = check_mask("observed", observed, x.shape)
        x = np.where(observed, x, x.dtype.type(0))
    if np.isnan(x).any():
        image, pixel = np.argwhere(np.isnan(x))[0]
        raise InputError(f"image {image} is NaN at pixel {pixel}; pixels must lie in [0, 1]")
    if x.size and (x.min() < 0 or x.max() > 1):
        raise InputError(f"pixels reach from {x.min():g} to {x.max():g}; they must lie in [0, 1]")
    return x, observed


def check_mask(name, mask, shape):
    """Refuses what is no mask of pixels.

    Args:
      name: of the argument, for the message.
      mask: bool [batch, pixels].
      shape: (batch, pixels).

    Returns:
      The mask as NumPy.

    Raises:
      InputError: on a wrong shape or dtype.
    """
    try:
        mask = np.asarray(mask)
    except ValueError as error:
        raise InputError(f"{name} is no array: {error}") from error
    if mask.dtype != bool or mask.shape != shape:
        raise InputError(f"{name} is {mask.dtype} of shape {mask.shape}; it must be bool of shape {shape}")
    return mask


def in_batches(query, rows, seed, size, progress=None):
    """Answers a query a batch of rows at a time, so that memory stays bounded.

    Args:
      query: function of a batch of each of `rows` and a seed, int32 [2]; returns a structure of tensors [batch, …].
      rows: a tuple of NumPy arrays [n, …], or None in place of one.
      seed: int32 [2]; every batch gets its own.
      size: rows in a batch; the last one is filled up, so that all have the shape of the first. Fewer rows make one
        batch of the next power of two: a query is compiled for few sizes. The seed decides the noise of a row together
        with its place and the size of its batch.
      progress: called with (rows done, the first tensor of the results so far) after every batch.

    Returns:
      The structure with tensors [n, …]; n may be 0.
    """
    n = len(rows[0])
    size = min(size, 1 << max(n - 1, 0).bit_length())
    parts = []
    for number in range(max(1, -(-n // size))):
        chosen = np.arange(number * size, (number + 1) * size)
        batch = [None if a is None else
                 tf.constant(a[np.minimum(chosen, n - 1)] if n else np.zeros([size, *a.shape[1:]], a.dtype))
                 for a in rows]
        answer = query(*batch, tf.random.experimental.stateless_fold_in(seed, number))
        parts.append(tf.nest.map_structure(lambda t: t.numpy()[:np.sum(chosen < n)], answer))  # noqa: B023
        if progress:
            progress(min(n, chosen[-1] + 1), np.concatenate([tf.nest.flatten(part)[0] for part in parts]))
    return tf.nest.map_structure(lambda *arrays: tf.constant(np.concatenate(arrays)), *parts)
