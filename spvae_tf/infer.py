"""A model's answers about images in files, as files: arrays (.npz), tables (.csv) and grids of pictures (.png).

An answer is a function of a model, a folder `out`, images `x` [n, pixels] with their `names`, k = `num_samples` and an
integer `seed`. It returns the files that it wrote. Files that cannot be read or written raise InputError.
"""

import math
import typing
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError
from spvae_tf.files import read_npz, write_atomically, write_npz, write_table
from spvae_tf.model.likelihoods import bits_per_dimension, get_likelihood
from spvae_tf.queries.masks import HIDDEN_HALVES, ROUNDING, check_counts, hide_half
from spvae_tf.training import data
from spvae_tf.training.picture_files import FORMATS, read_pictures

GAP, SCALE = 2, 3  # of grids: white pixels between pictures, screen pixels per pixel
PICTURES = 16  # at most, in a row of a grid
GAUSSIAN_REACH = 7  # outside [0, 1], that a Gaussian of deviation 1 may draw


class Images(typing.NamedTuple):
    """Images out of files, prepared."""
    x: np.ndarray  # float32 [n, pixels] in [0, 1]
    names: list  # of their files, or their numbers
    observed: np.ndarray  # bool [n, pixels], what a mask leaves
    report: list  # lines that account for every file, and say how images were prepared


def read_images(path, image_shape, likelihood, dataset, round_pixels=None, seed=0, mask=None, preparation="authors",
                background=None, clip=False):
    """The Images of a folder of pictures, or of an .npz with an array x; raises InputError where there are none.

    Pictures that cannot be read are left out and named in the report; an .npz is read as a whole or not at all.

    Args:
      path: of a folder or a picture (`picture_files.read_pictures`), or of an .npz whose array x is as in
        `data.check_images`.
      image_shape, likelihood: (height, width) and name, of the model.
      dataset, round_pixels, preparation: as in `data.prepare`: those of the run that trained the model.
      seed: of the noise that the authors' preparation adds for the "continuous" likelihood.
      mask: as in `read_mask`. Images are prepared by their observed pixels alone.
      background: black or white, on which transparent pixels lie.
      clip: whether values of floating point outside [0, 1] are cut off; they raise InputError otherwise.
    """
    path, where = Path(path), f"{path}: array 'x'"
    if path.is_dir() or path.suffix.lower() in FORMATS:
        images, names, report = read_pictures(path, image_shape, background)
    else:
        images = read_npz(path, ["x"])["x"]
        data.check_array(images, where)
        names = [str(number) for number in range(len(images))]
        report = [f"read {len(names)} image{'s' * (len(names) > 1)} in {path}"]
    if images.shape[1:3] != tuple(image_shape):
        raise InputError(f"{path} has images of {images.shape[1]}×{images.shape[2]} pixels; "
                         f"the model takes {image_shape[0]}×{image_shape[1]}")
    observed = read_mask(mask, len(names), image_shape).reshape(-1, *image_shape)
    images[~observed] = data.full_scale(images.dtype)  # opaque, too, where there is alpha
    if images.dtype.kind == "f":
        images, num_outside = _cut_off(images, where, likelihood, clip)
        report += [f"{num_outside} values outside [0, 1] cut off"] * clip
    images = data.check_images(images, where, background)
    darkest = np.where(observed, images, images.max()).min(axis=(1, 2), keepdims=True)
    images = np.where(observed, images, darkest)
    x, of_counts = data.prepare(images, dataset, round_pixels, preparation), get_likelihood(likelihood).of_counts
    if of_counts and data.has_whole_counts(dataset, round_pixels, preparation):
        check_counts(x, names, "--round_pixels")
    elif not of_counts and preparation == "authors":
        x = data.perturb(x, np.random.default_rng(seed))
    report.append(data.describe(data.count_constant(images), dataset, likelihood, round_pixels, preparation))
    return Images(x, names, observed.reshape(len(names), -1), report)


def _cut_off(images, where, likelihood, clip):
    """(images cut off at 0 and 1 if `clip`, the number of values outside); else InputError where a Gaussian draws."""
    outside = (images < 0) | (images > 1)
    if clip:
        return np.clip(images, 0, 1), np.count_nonzero(outside)
    beyond = np.abs(images - 0.5)[outside]
    if likelihood == "continuous" and ROUNDING < beyond.max(initial=0) - 0.5 < GAUSSIAN_REACH:
        raise InputError(f"{where} has values from {images.min()!s} to {images.max()!s}, as the draws of a Gaussian; "
                         "allowed: floats in [0, 1], to which --clip cuts them off")
    return images, 0


def read_mask(mask, count, image_shape):
    """Which pixels are observed, bool [count, pixels], of images of a (height, width).

    `mask` is the half that is hidden, one of HIDDEN_HALVES, or the path of an .npz with an array observed, bool [H, W]
    for all images alike or [n, H, W]. None hides nothing.
    """
    if mask is None:
        return np.ones([count, math.prod(image_shape)], bool)
    if mask in HIDDEN_HALVES:
        return hide_half(mask, count, image_shape)
    if not str(mask).endswith(".npz"):
        raise InputError(f"mask is {mask!r}; it must be one of {', '.join(HIDDEN_HALVES)} or the path of an .npz")
    observed = read_npz(mask, ["observed"])["observed"]
    allowed = tuple(image_shape), (count, *image_shape)
    if observed.dtype != bool or observed.shape not in allowed:
        raise InputError(f"{mask}: array 'observed' is {observed.dtype} of shape {observed.shape}; it must be bool "
                         f"of shape {allowed[0]} or {allowed[1]}")
    return np.broadcast_to(observed, allowed[1]).reshape(count, -1)


def sample(model, out, n, mean=True, seed=0):
    """New images: sample.npz (x, float32 [n, H, W]) and sample.png; `mean` as in the query."""
    x = model.sample(n, mean, seed).numpy().reshape(n, *model.image_shape)
    return _write(out, "sample", dict(x=x), tile(x[:PICTURES**2], min(math.isqrt(n - 1) + 1, PICTURES)))


def inpaint(model, out, x, names, observed, num_draws, num_samples, seed=0):
    """Hidden pixels filled in: inpaint.npz (mean [n, H, W], draws [n, draws, H, W], observed, names), inpaint.png."""
    def shaped(images):
        return np.reshape(images, (*np.shape(images)[:-1], *model.image_shape))

    mean = model.inpaint(x, observed, num_samples=num_samples, seed=seed)
    draws = shaped(model.inpaint(x, observed, num_draws, num_samples=num_samples, seed=seed))
    arrays = dict(mean=shaped(mean), draws=draws, observed=shaped(observed), names=names)
    rows = shaped(x), shaped(np.where(observed, x, 0.5)), shaped(mean), *np.moveaxis(draws, 1, 0)
    return _write(out, "inpaint", arrays, _tile_rows(*rows))


def score(model, out, x, names, num_samples, seed=0):
    """How likely images are: score.csv, score.npz (heat [n, H, W], nats per pixel; names), score.png.

    The columns are image and, of `density.Diagnostics`, log_prob, standard_error, num_samples, levelled_off and
    effective_sample_size (the least of the leaf VAEs that the image most probably uses). Where pixels are counts there
    is bits_per_dimension, too; else log_prob is of a density.
    """
    report = model.diagnose(x, num_samples, seed=seed)
    heat = model.outlier_score(x, num_samples, seed).heat.numpy().reshape(-1, *model.image_shape)
    used = model.most_probable_tree(x, num_samples, seed=seed).leaves.numpy() > 0
    sizes = np.where(used, report.effective_sample_size, np.inf).min(axis=(1, 2))
    table = dict(image=names, log_prob=report.log_prob.numpy(), standard_error=report.standard_error.numpy(),
                 num_samples=np.full(len(x), num_samples), levelled_off=report.levelled_off.numpy(),
                 effective_sample_size=sizes)
    if model.likelihood.of_counts:
        table["bits_per_dimension"] = bits_per_dimension(table["log_prob"], x.shape[1])
    low, high = np.percentile(heat, [1, 99])
    colours = matplotlib.colormaps["inferno"]((heat - low) / max(high - low, 1e-9))[..., :3]
    grey = np.repeat(x.reshape(*heat.shape, 1), 3, axis=-1)
    return _write(out, "score", dict(heat=heat, names=names), _tile_rows(grey, colours), table)


def embed(model, out, x, names, num_samples, seed=0):
    """Latent embeddings: embed.npz (features [n, features], as `latent.embed` lays them out; names)."""
    return _write(out, "embed", dict(features=model.embed(x, num_samples, seed), names=names))


def posterior(model, out, x, names, num_samples, seed=0):
    """The SPN's latent states: posterior.csv, posterior.npz and posterior.png.

    The table has the columns image and leaf_r_c, P(leaf VAE | x) of leaf region r and component c. The .npz has the
    parts of `latent.Posterior`, sums_0 and children_0 those of the lowest level, and of the most probable tree
    tree_log_prob, tree_leaves and tree_reconstruction; the picture shows images above the latter.
    """
    states = model.posterior(x, num_samples, seed=seed)
    tree = model.most_probable_tree(x, num_samples, seed=seed)
    x, reconstruction = (np.reshape(images, (-1, *model.image_shape)) for images in (x, tree.reconstruction))
    arrays = dict(names=names, leaves=states.leaves, partitions=states.partitions, tree_log_prob=tree.log_prob,
                  tree_leaves=tree.leaves, tree_reconstruction=reconstruction)
    for height, (children, sums) in enumerate(zip(states.children, states.sums)):
        arrays |= {f"children_{height}": children, f"sums_{height}": sums}
    leaves = states.leaves.numpy()
    table = dict(image=names) | {f"leaf_{r}_{c}": leaves[:, r, c] for r, c in np.ndindex(leaves.shape[1:])}
    return _write(out, "posterior", arrays, _tile_rows(x, reconstruction), table)


def _write(out, name, arrays, picture=None, table=None):
    """Writes the .npz of an answer, the .png and the .csv where there are any; returns their paths."""
    files = [Path(out) / f"{name}.npz"]
    write_npz(files[0], **arrays)
    if picture is not None:  # [H, W] grey or [H, W, 3] RGB, enlarged SCALE times
        files.append(Path(out) / f"{name}.png")
        colours = picture if picture.ndim == 3 else np.dstack([picture] * 3)
        pixels = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        png = tf.io.encode_png(pixels).numpy()
        write_atomically(files[-1], lambda temporary: temporary.write_bytes(png))
    if table:
        files.append(Path(out) / f"{name}.csv")
        write_table(files[-1], [dict(zip(table, values)) for values in zip(*table.values())], list(table))
    return files


def tile(images, columns, margin=GAP, background=1.0):
    """Images [n, H, W] grey or [n, H, W, 3] RGB in rows of `columns`, `margin` pixels of the background apart."""
    count, height, width, *channels = images.shape
    rows, high, wide = -(-count // columns), height + margin, width + margin
    tiles = np.full([rows * columns, high, wide, *channels], background, images.dtype)
    tiles[:count, :height, :width] = images
    grid = tiles.reshape(rows, columns, high, wide, *channels).swapaxes(1, 2)
    return grid.reshape(rows * high, columns * wide, *channels)[:rows * high - margin, :columns * wide - margin]


def _tile_rows(*rows):
    """The first images of each row below those of the row before."""
    return tile(np.concatenate([row[:PICTURES] for row in rows]), min(PICTURES, len(rows[0])))
