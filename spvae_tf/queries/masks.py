"""Where a mask enters: queries check images and masks here, once. The code below trusts what passed.

Only a served model makes the same check inside its graph (`serving`). Images `x` are floating point [batch, pixels] in
[0, 1]. A mask `observed` is bool [batch, pixels], True where a pixel is observed. What happens to an unobserved pixel,
whatever stands there, NaN included:

* `check_images` sets it to 0;
* the encoder sees 0 there at first, then four times a guess of the decoder (`Mixture.encode`);
* it drops out of p(x_l | z_l) (`Mixture.log_likelihood`) and of the base measure (`Mixture.log_base`);
* a leaf that sees no pixel is exactly log 1 (`density._finish`), and its code has the prior (`leaves.propose`).
"""

import numpy as np

from spvae_tf.errors import InputError

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
    x = x.astype(model.variable_dtype)
    if observed is not None:
        observed = check_mask("observed", observed, x.shape)
        x = np.where(observed, x, x.dtype.type(0))
    if np.isnan(x).any():
        image, pixel = np.argwhere(np.isnan(x))[0]
        raise InputError(f"image {image} is NaN at pixel {pixel}; pixels must lie in [0, 1]")
    if x.size and (x.min() < 0 or x.max() > 1):
        raise InputError(f"pixels reach from {x.min():g} to {x.max():g}; they must lie in [0, 1]")
    return x, observed


def check_shape(model, x):
    """x as NumPy; raises InputError unless it is [batch, pixels]."""
    x = as_array("images", x)
    if x.ndim != 2 or x.shape[1] != model.graph.num_variables:
        raise InputError(f"images have shape {x.shape}; the model takes [batch, {model.graph.num_variables}]")
    return x


def check_mask(name, mask, shape):
    """The mask as NumPy; raises InputError, with the argument's name, unless it is bool of that shape."""
    mask = as_array(name, mask)
    if mask.dtype != bool or mask.shape != shape:
        raise InputError(f"{name} is {mask.dtype} of shape {mask.shape}; it must be bool of shape {shape}")
    return mask


def as_array(name, values):
    """Values as NumPy; raises InputError, with the argument's name, where their rows differ in length."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: cannot be made an array ({error})") from error
