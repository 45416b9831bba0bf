"""Where a mask enters: queries check images and masks here, once. The code below trusts what passed.

Only a served model makes the same check inside its graph (`serving`). Images `x` are floating point [batch, pixels] in
[0, 1]. A mask `observed` is bool [batch, pixels], True where a pixel is observed. What happens to an unobserved pixel,
whatever stands there, NaN included:

* `check_images` sets it to 0;
* the encoder sees 0 there at first, then four times a guess of the decoder (`Mixture.encode`);
* it drops out of p(x_l | z_l) (`Mixture.log_likelihood`) and of the base measure (`Mixture.log_base`);
* a leaf that sees no pixel is exactly log 1 (`density._finish`), and its code has the prior (`leaves.propose`).
"""

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import NUM_TRIALS

ROUNDING = 1e-6  # by which float32 may leave [0, 1]
COUNT_ROUNDING = 1e-3  # by which 255 times a float32 may miss an integer
HIDDEN_HALVES = ("left", "right", "top", "bottom")


def hide_half(half, count, image_shape):
    """The mask, bool [count, pixels], that hides one of HIDDEN_HALVES of images of a (height, width)."""
    (height, width), (row, column) = image_shape, np.indices(image_shape)
    observed = {"left": column >= width // 2, "right": column < width // 2,
                "top": row >= height // 2, "bottom": row < height // 2}[half]
    return np.tile(observed.ravel(), (count, 1))


def check_images(model, x, observed=None):
    """(x as NumPy of the model's dtype with unobserved pixels set to 0, observed as NumPy or None).

    Raises InputError unless x are images, at least where they are observed, and `observed` is None or their mask.
    """
    x = check_shape(model, x)
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"images are {x.dtype}; they must be floating point in [0, 1]")
    with np.errstate(over="ignore"):
        x = x.astype(model.variable_dtype)
    if observed is not None:
        observed = check_mask("observed", observed, x.shape)
        x = np.where(observed, x, x.dtype.type(0))
    if np.isnan(x).any():
        image, pixel = np.argwhere(np.isnan(x))[0]
        raise InputError(f"image {image} is NaN at pixel {pixel}; pixels must lie in [0, 1]")
    if x.size and (x.min() < -ROUNDING or x.max() > 1 + ROUNDING):
        reason = "" if model.likelihood.of_counts else "; a Gaussian's draws do not: np.clip(x, 0, 1) cuts them off"
        raise InputError(f"pixels reach from {x.min()!s} to {x.max()!s}; they must lie in [0, 1]{reason}")
    if model.takes_counts:
        check_counts(x)
    return np.clip(x, 0, 1), observed


def check_counts(x, names=None, remedy="np.rint(255 * x) / 255"):
    """Raises InputError, naming the first, unless all pixels, [batch, pixels], are multiples of 1/255."""
    counts = NUM_TRIALS * x
    broken = np.abs(counts - np.rint(counts)) > COUNT_ROUNDING
    if broken.any():
        image, pixel = np.argwhere(broken)[0]
        raise InputError(f"image {image if names is None else names[image]} is {counts[image, pixel]:.6g}/255 at pixel "
                         f"{pixel}; a discrete model takes multiples of 1/255: {remedy} rounds to them")


def assert_images(model, x):
    """x cut off at 0 and 1, for graphs: images that `check_images` would refuse fail with InvalidArgumentError."""
    x = tf.ensure_shape(x, [None, model.graph.num_variables])
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    inside = (low >= -ROUNDING) & (high <= 1 + ROUNDING) | (tf.size(x) == 0)
    tf.debugging.Assert(inside, ["observed pixels must lie in [0, 1]; they reach from", low, "to", high])
    if model.takes_counts:
        counts = NUM_TRIALS * x
        whole = tf.reduce_all(tf.abs(counts - tf.round(counts)) <= COUNT_ROUNDING)
        tf.debugging.Assert(whole, ["observed pixels of a discrete model must be multiples of 1/255"])
    return tf.clip_by_value(x, 0, 1)


def check_call(model, x):
    """Raises InputError unless x are images that the model can be called with; only the shape of a symbolic tensor."""
    if not (keras.backend.is_keras_tensor(x) or tf.is_tensor(x) and tf.is_symbolic_tensor(x)):
        check_images(model, x)
    elif not tf.TensorShape(x.shape).is_compatible_with([None, model.graph.num_variables]):
        raise _wrong_shape(model, x)


def check_shape(model, x):
    """x as NumPy; raises InputError unless it is [batch, pixels]."""
    x = as_array("images", x)
    if x.ndim != 2 or x.shape[1] != model.graph.num_variables:
        raise _wrong_shape(model, x)
    return x


def _wrong_shape(model, x):
    pixels, hint = model.graph.num_variables, ""
    if tuple(x.shape) == (pixels,):
        hint = "; one image is x[None]"
    elif tuple(x.shape[1:3]) == model.image_shape:
        hint = f"; x.reshape(-1, {pixels}) has it"
    return InputError(f"images have shape {tuple(x.shape)}; the model takes [batch, {pixels}]{hint}")


def check_mask(name, mask, shape):
    """The mask as NumPy; raises InputError, with the argument's name, unless it is bool of that shape."""
    mask = as_array(name, mask)
    if mask.dtype != bool or mask.shape != shape:
        raise InputError(f"{name} is {mask.dtype} of shape {mask.shape}; it must be bool of shape {shape}")
    return mask


def as_array(name, values):
    """Values as NumPy; raises InputError, with the argument's name, for what has none or rows of different length."""
    if isinstance(values, tf.data.Dataset) or tf.is_tensor(values) and tf.is_symbolic_tensor(values):
        raise InputError(f"{name} {'are' if name == 'images' else 'is'} a {type(values).__name__}; a query such as "
                         "log_prob takes arrays: batch by batch, or model.predict(dataset), model(tensor) with k = 5")
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name}: a masked array; a query takes its data, and observed=~mask")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: cannot be made an array ({error})") from error
    if array.dtype == object:
        raise InputError(f"{name}: a {type(values).__name__} is no array of numbers")
    return array
