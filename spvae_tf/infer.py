"""A model's answers about images in files, as files: arrays (.npz), tables (.csv) and grids of pictures (.png)."""

from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError
from spvae_tf.files import read_npz, write_atomically, write_npz, write_table
from spvae_tf.training import data

HIDDEN_HALVES = ("left", "right", "top", "bottom")
GAP, SCALE = 2, 3  # of grids: white pixels between pictures, screen pixels per pixel
PICTURES = 16  # images that a grid shows


# --- in


def read_images(path, image_shape, likelihood, round_pixels=True, seed=0, mask=None):
    """A user's images, prepared like those that a model was trained on, and which of their pixels are observed.

    What stands at hidden pixels, NaN included, does not matter: images are scaled by what is observed of them.

    Args:
      path: a folder of .png files (8-bit grey or RGB), or an .npz with an array x (integers in 0..255 or floats in
        [0, 1]; [n, H, W], [n, H, W, 1] or [n, H, W, 3]).
      image_shape: (height, width) of the model.
      likelihood: "continuous" (noise is added) or "discrete".
      round_pixels: whether to round to multiples of 1/255.
      seed: of the noise.
      mask: as in `read_mask`; None: all pixels are observed.

    Returns:
      (float32 [n, pixels] in [0, 1]; the images' names, their files' or their numbers; observed, bool [n, pixels]).

    Raises:
      InputError: when the images or the mask are missing, damaged, or of another size.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.png"))
        if not files:
            raise InputError(f"{path} holds no .png files")
        read = [_read_png(file) for file in files]
        shapes = {image.shape: file for image, file in zip(read, files)}
        if len(shapes) > 1:
            raise InputError(f"{path} has images of several sizes, as {' and '.join(f.name for f in shapes.values())}")
        images, names = np.stack(read), [file.name for file in files]
    else:
        images = read_npz(path, ["x"])["x"]
        names = [str(number) for number in range(len(images))] if images.ndim else []
    if images.ndim >= 3 and images.shape[1:3] != tuple(image_shape):
        raise InputError(f"{path} has images of {images.shape[1]}×{images.shape[2]} pixels; "
                         f"the model takes {image_shape[0]}×{image_shape[1]}")
    observed = np.ones([len(names), *image_shape], bool)
    if mask is not None:
        observed = read_mask(mask, len(names), image_shape).reshape(observed.shape)
        if images.ndim in (3, 4):
            images = np.where(observed.reshape(*observed.shape, *[1] * (images.ndim - 3)), images, images.dtype.type(0))
    images = data.check_images(images, f"{path}: array 'x'")
    darkest = np.where(observed, images, 255 if images.dtype == np.uint8 else 1).min(axis=(1, 2), keepdims=True)
    images = np.where(observed, images, darkest.astype(images.dtype))
    x = data.preprocess(images, likelihood, round_pixels=round_pixels, rng=np.random.default_rng(seed))
    return x, names, observed.reshape(len(names), -1)


def _read_png(path):
    try:
        return tf.io.decode_png(path.read_bytes(), channels=3).numpy()
    except (tf.errors.InvalidArgumentError, OSError) as error:
        raise InputError(f"{path}: not a readable .png file") from error


def read_mask(mask, count, image_shape):
    """Which pixels of images are observed.

    Args:
      mask: the half that is hidden, one of HIDDEN_HALVES, or the path of an .npz with an array observed, bool [H, W]
        for all images alike or [n, H, W].
      count: number of images.
      image_shape: (height, width).

    Returns:
      bool [count, pixels].

    Raises:
      InputError: for another word, or an array of another shape or dtype.
    """
    height, width = image_shape
    observed = np.ones(image_shape, bool)
    if mask in HIDDEN_HALVES:
        half = {"left": np.s_[:, :width // 2], "right": np.s_[:, width // 2:],
                "top": np.s_[:height // 2], "bottom": np.s_[height // 2:]}[mask]
        observed[half] = False
    elif str(mask).endswith(".npz"):
        observed = read_npz(mask, ["observed"])["observed"]
        if observed.dtype != bool or observed.shape not in ((height, width), (count, height, width)):
            raise InputError(f"{mask}: array 'observed' is {observed.dtype} of shape {observed.shape}; it must be bool "
                             f"of shape {(height, width)} or {(count, height, width)}")
    else:
        raise InputError(f"mask is {mask!r}; it must be one of {', '.join(HIDDEN_HALVES)} or the path of an .npz")
    return np.broadcast_to(observed, (count, height, width)).reshape(count, -1)


# --- out


def write_grid(path, rows):
    """Writes pictures side by side as a PNG, atomically.

    Args:
      path: of the .png.
      rows: [rows, columns, H, W] grey or [rows, columns, H, W, 3] RGB, in [0, 1]; values outside are clipped.
    """
    rows = np.asarray(rows)
    rows = np.repeat(rows[..., None], 3, axis=-1) if rows.ndim == 4 else rows
    rows = np.pad(rows, [(0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=1)
    grid = np.concatenate(np.concatenate(rows, axis=1), axis=1)[:-GAP, :-GAP]  # [rows · H, columns · W, 3]
    pixels = np.rint(255 * np.clip(grid, 0, 1)).astype(np.uint8).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    png = tf.io.encode_png(pixels).numpy()
    write_atomically(path, lambda temporary: temporary.write_bytes(png))


def heat_colours(heat):
    """Heat as RGB [..., 3], from the 1st percentile of all of it to the 99th."""
    low, high = np.percentile(heat, [1, 99])
    return matplotlib.colormaps["inferno"]((np.asarray(heat) - low) / max(high - low, 1e-9))[..., :3]


# --- answers


def sample(model, out, n, mean=True, seed=0):
    """New images: sample.npz (x, float32 [n, H, W]) and sample.png.

    Args:
      model: SPVAE.
      out: folder.
      n: how many.
      mean: whether pixels are E[x | z] or drawn from p(x | z).
      seed: integer.

    Returns:
      The files.
    """
    x = model.sample(n, mean, seed).numpy().reshape(n, *model.image_shape)
    columns = int(np.ceil(np.sqrt(min(n, PICTURES**2))))
    shown = x[:PICTURES**2]
    blank = np.ones([-len(shown) % columns, *model.image_shape], x.dtype)  # white, to the end of the last row
    shown = np.concatenate([shown, blank]).reshape(-1, columns, *model.image_shape)
    return _write(out, "sample", dict(x=x), shown)


def inpaint(model, out, x, names, observed, num_draws, num_samples, seed=0):
    """Hidden pixels filled in: inpaint.npz (mean [n, H, W], draws [n, draws, H, W], observed, names), inpaint.png.

    Args:
      model: SPVAE.
      out: folder.
      x: [n, pixels].
      names: of the images.
      observed: bool [n, pixels].
      num_draws: draws per image.
      num_samples: k.
      seed: integer.

    Returns:
      The files.
    """
    shape = (-1, *model.image_shape)
    mean = model.inpaint(x, observed, num_samples=num_samples, seed=seed).numpy().reshape(shape)
    draws = model.inpaint(x, observed, num_draws, num_samples=num_samples, seed=seed).numpy()
    draws = draws.reshape(len(x), num_draws, *model.image_shape)
    visible = np.where(observed, x, 0.5).reshape(shape)
    rows = [x.reshape(shape), visible, mean, *np.moveaxis(draws, 1, 0)]
    return _write(out, "inpaint", dict(mean=mean, draws=draws, observed=observed.reshape(shape), names=names),
                  np.stack(rows)[:, :PICTURES])


def score(model, out, x, names, num_samples, seed=0):
    """How likely images are: score.csv, score.npz (heat [n, H, W], nats per pixel; names), score.png.

    The table has a row for each image: image, log_prob and standard_error (nats), num_samples (k), levelled_off (the
    k from which on the bound has changed little) and effective_sample_size (the least of the leaf VAEs that the image
    most probably uses; see `inference.Diagnostics`).

    Args:
      model, out, x, names, num_samples, seed: as in `inpaint`.

    Returns:
      The files.
    """
    shape = (-1, *model.image_shape)
    report = model.diagnose(x, num_samples, seed=seed)
    heat = model.outlier_score(x, num_samples, seed).heat.numpy().reshape(shape)
    columns = dict(image=names, log_prob=report.log_prob.numpy(), standard_error=report.standard_error.numpy(),
                   num_samples=np.full(len(x), num_samples), levelled_off=report.levelled_off.numpy(),
                   effective_sample_size=_least_effective(model, x, report, num_samples, seed))
    images = np.repeat(x.reshape(shape)[:PICTURES, ..., None], 3, axis=-1)
    pictures = np.stack([images, heat_colours(heat)[:PICTURES]])
    return _write(out, "score", dict(heat=heat, names=names), pictures, columns)


def _least_effective(model, x, report, num_samples, seed):
    """The least effective sample size among the leaves of each image's most probable tree, [n]."""
    leaves = model.most_probable_tree(x, num_samples, seed=seed).leaves.numpy() > 0
    return np.where(leaves, report.effective_sample_size, np.inf).min(axis=(1, 2))


def embed(model, out, x, names, num_samples, seed=0):
    """Latent embeddings: embed.npz (features [n, features], as `SPVAE.embed` lays them out; names).

    Args:
      model, out, x, names, num_samples, seed: as in `inpaint`.

    Returns:
      The files.
    """
    return _write(out, "embed", dict(features=model.embed(x, num_samples, seed), names=names))


def posterior(model, out, x, names, num_samples, seed=0):
    """The SPN's latent states: posterior.csv, posterior.npz and posterior.png.

    The table has a row for each image: image, and P(leaf VAE | x) of every leaf region r and component c as leaf_r_c.
    The .npz has leaves, partitions, children_0, sums_0, children_1, … of `inference.Posterior`, and of the most
    probable tree tree_log_prob, tree_leaves and tree_reconstruction; the picture shows images above the latter.

    Args:
      model, out, x, names, num_samples, seed: as in `inpaint`.

    Returns:
      The files.
    """
    shape = (-1, *model.image_shape)
    states = model.posterior(x, num_samples, seed=seed)
    tree = model.most_probable_tree(x, num_samples, seed=seed)
    arrays = dict(names=names, leaves=states.leaves, partitions=states.partitions, tree_log_prob=tree.log_prob,
                  tree_leaves=tree.leaves, tree_reconstruction=tree.reconstruction.numpy().reshape(shape))
    for height, (children, sums) in enumerate(zip(states.children, states.sums)):
        arrays |= {f"children_{height}": children, f"sums_{height}": sums}
    leaves = states.leaves.numpy()
    columns = dict(image=names) | {f"leaf_{r}_{c}": leaves[:, r, c] for r, c in np.ndindex(leaves.shape[1:])}
    pictures = np.stack([x.reshape(shape), arrays["tree_reconstruction"]])[:, :PICTURES]
    return _write(out, "posterior", arrays, pictures, columns)


def _write(out, name, arrays, pictures=None, columns=None):
    files = [Path(out) / f"{name}.npz"]
    write_npz(files[0], **arrays)
    if pictures is not None:
        files.append(Path(out) / f"{name}.png")
        write_grid(files[-1], pictures)
    if columns is not None:
        files.append(Path(out) / f"{name}.csv")
        write_table(files[-1], [dict(zip(columns, row)) for row in zip(*columns.values())], list(columns))
    return files
