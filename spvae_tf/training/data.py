"""Data sets, prepared as the authors prepared theirs: MNIST, SVHN, CIFAR-10, samples of two of them, one's own images.

Images are rows of pixels in [0, 1], float32 [n, height · width]. The discrete arrays of MNIST and CIFAR-10 are the
authors' bit for bit (docs/authors.md):

1. colour becomes grey by the ITU-R 601 luma, cut off to 8 bits (`luma`);
2. each image is scaled to [0, 1] by itself, MNIST excepted, which is divided by 255 (`min_max_scale`);
3. pixels are rounded to multiples of 1/255, SVHN excepted;
4. for a likelihood that is not of counts only, noise is added once (`perturb`), SVHN's test images excepted.

That is the preparation "authors". The preparation "raw" is step 1 and pixel / 255, nothing else.
"""

import dataclasses
import hashlib
import numbers
import os
import pathlib

import numpy as np
import tensorflow as tf

from spvae_tf import published
from spvae_tf.errors import InputError, check_choice, check_integer
from spvae_tf.files import check_file, read_npz
from spvae_tf.model.likelihoods import get_likelihood
from spvae_tf.queries.masks import ROUNDING, check_counts

DATASETS = ("mnist", "svhn_cropped", "cifar10", "mnist_sample", "cifar10_sample")
SPLITS = ("train", "validation", "test")
PREPARATIONS = ("authors", "raw")
BACKGROUNDS = {"black": 0, "white": 1}
EMBEDDED_DIR = pathlib.Path(__file__).parents[1] / "embedded"

OFFICIAL_SIZES = {  # images of the official files; a data set of other sizes is an error
    "mnist": {"train": 60_000, "test": 10_000}, "cifar10": {"train": 50_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131}}
SVHN_VALIDATION = 26_032  # the first images of `extra`


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Prepared images and their labels, None when there are none; a prefix of `train` is a smaller training set."""

    name: str  # of `dataset_name`
    image_shape: tuple[int, int]  # (height, width); pixels are in row-major order
    train: np.ndarray  # float32 [n, height * width] in [0, 1]
    validation: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None  # int64 [n]
    validation_labels: np.ndarray | None
    test_labels: np.ndarray | None
    num_constant: int = 0  # images of one grey level throughout


def load_dataset(name, likelihood, *, data_dir=None, seed=0, train_fraction=1.0, round_pixels=None,
                 preparation="authors"):
    """Loads a `Dataset` and prepares it for a likelihood; raises InputError when it is missing or damaged.

    Args:
      name: one of `DATASETS`, or the path of an .npz with x_train, x_validation, x_test (integers in 0..255 or floats
        in [0, 1]; uint16 are scaled by 65,535; shapes as in `check_images`) and optional labels y_train, … (integers
        [n]).
      likelihood: one of likelihoods.LIKELIHOODS.
      data_dir: folder, or parent of a folder tensorflow_datasets/, of prepared TFDS data sets. None: TFDS's own, which
        it fills on first use. Embedded samples and .npz files do not need it.
      seed: of the noise; and of the order of the training images, but for MNIST and CIFAR-10.
      train_fraction: in (0, 1], of the training images; the first are kept. Subsets of one seed are nested.
      round_pixels: whether step 3 is taken. None is what the authors did; of raw images it rounds none, and raises
        InputError where a discrete likelihood meets a pixel that is no multiple of 1/255.
      preparation: one of PREPARATIONS.
    """
    of_counts = get_likelihood(likelihood).of_counts
    check_choice("preparation", preparation, PREPARATIONS)
    if not isinstance(train_fraction, numbers.Real) or not 0 < train_fraction <= 1:
        raise InputError(f"train_fraction is {train_fraction!r}; allowed: 0 < train_fraction <= 1")
    splits = load_splits(name, data_dir=data_dir, seed=seed)
    images, labels = splits["train"]
    num_train = int(train_fraction * len(images))
    if num_train == 0:
        raise InputError(f"train_fraction {train_fraction!r} keeps none of {len(images)} training images")
    splits["train"] = images[:num_train], None if labels is None else labels[:num_train]
    arrays, num_constant = {}, 0
    for split, (images, labels) in splits.items():
        x = prepare(images, name, round_pixels, preparation)
        if of_counts:
            if images.dtype != np.uint8 and has_whole_counts(name, round_pixels, preparation):
                check_counts(x, remedy="--config.round_pixels")
        elif preparation == "authors" and (name, split) != ("svhn_cropped", "test"):  # as the authors' file is
            x = perturb(x, _rng(seed, split, "noise"))
        arrays |= {split: x, f"{split}_labels": labels}
        num_constant += count_constant(images)
    return Dataset(name=dataset_name(name), image_shape=images.shape[1:], num_constant=num_constant, **arrays)


def check_name(name):
    """Raises InputError unless `name` is one of `DATASETS` or the path of an .npz."""
    if name not in DATASETS and not str(name).endswith(".npz"):
        raise InputError(f"dataset is {name!r}; allowed: {', '.join(DATASETS)}, or the path of an .npz file")
    if name not in DATASETS:
        check_file(name)


def dataset_name(name):
    """The name of a data set in records and tables: of an .npz its stem, "npz_<stem>" where that is in `DATASETS`."""
    stem = pathlib.Path(name).stem
    return name if name in DATASETS else f"npz_{stem}" if stem in DATASETS else stem


def fingerprint(name):
    """The first 16 hexadecimal digits of an .npz's SHA-256; None for a name of `DATASETS` and for a missing file."""
    if name in DATASETS or not os.path.exists(name):
        return None
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{name}: not a readable .npz file ({error.strerror})") from error


def luma(rgb):
    """Step 1, 0.299 R + 0.587 G + 0.114 B: [..., 3] -> [...]; of uint8 it is uint8, as Pillow had it in 2019."""
    if np.issubdtype(rgb.dtype, np.floating):
        red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
        return 0.299 * red + 0.587 * green + 0.114 * blue
    red, green, blue = np.moveaxis(rgb, -1, 0).astype(np.uint32)
    return ((19595 * red + 38470 * green + 7471 * blue) >> 16).astype(np.uint8)


def min_max_scale(x):
    """(x − min) / (max − min) of each row of float32 [n, pixels]; a constant image becomes black, all zeros."""
    low = x.min(axis=1, keepdims=True)
    span = x.max(axis=1, keepdims=True) - low
    return (x - low) / np.where(span > 0, span, np.float32(1))


def prepare(images, name, round_pixels=None, preparation="authors"):
    """Steps 2 and 3, as of data set `name`, of grey images, uint8 in 0..255 or float32 in [0, 1], [n, H, W]."""
    x = images.reshape(len(images), -1).astype(np.float32)
    if preparation == "raw" or name in ("mnist", "mnist_sample"):
        if images.dtype == np.uint8:
            x = x / np.float32(255) if preparation == "raw" else x * np.float32(1 / 255)  # which differ in the last bit
        rounded = round_pixels
    else:
        x, rounded = min_max_scale(x), has_whole_counts(name, round_pixels, preparation)
    return np.rint(x * 255) / np.float32(255) if rounded else x


def has_whole_counts(name, round_pixels, preparation):
    """Whether prepared pixels are to be multiples of 1/255: all but SVHN's, and those that `round_pixels` leaves."""
    return preparation == "raw" or name != "svhn_cropped" if round_pixels is None else round_pixels


def count_constant(images):
    """How many of grey images [n, H, W] have the same value everywhere."""
    return int((images.min(axis=(1, 2)) == images.max(axis=(1, 2))).sum())


def describe(num_constant, name, likelihood, round_pixels, preparation):
    """How images are prepared, and what becomes of those that are constant, in a few words."""
    if preparation == "raw" or name in ("mnist", "mnist_sample"):
        steps, fate = ["pixel / 255"], ""
    else:
        steps, fate = ["each image scaled to [0, 1] by itself"], ", black now"
    if round_pixels or fate and has_whole_counts(name, round_pixels, preparation):
        steps.append("rounded to 1/255")
    if not get_likelihood(likelihood).of_counts and preparation == "authors":
        steps, fate = [*steps, "noise added", "scaled again"], ", noise over the whole of [0, 1] now"
    constant = f"; {num_constant} constant{fate}" if num_constant else ""
    return f"prepared as {preparation!r}: {', '.join(steps)}{constant}"


def perturb(x, rng):
    """Step 4: N(0, (1/255)²) noise is added, values are reflected at 0 and 1, and each image is scaled again.

    A constant image becomes noise over the whole of [0, 1]. A NumPy Generator draws row by row, so the noise of a row
    of float32 [n, pixels] does not depend on how many follow.
    """
    x = x + rng.standard_normal(x.shape, np.float32) / 255
    return min_max_scale(np.where(x < 0, -x, np.where(x > 1, 2 - x, x)))


def _rng(seed, split, purpose):
    """The generator of one random decision, independent across seeds, splits and purposes."""
    return np.random.default_rng([seed, SPLITS.index(split), ("order", "noise").index(purpose)])


def load_splits(name, *, data_dir=None, seed=0):
    """Loads and divides a data set: dict from SPLITS to (grey images, not prepared [n, height, width]; labels [n]).

    The authors' own lists divide and order the training images of MNIST and CIFAR-10. SVHN's validation set is the
    first 26,032 images of its `extra` file. A seed orders all other training sets, so that a prefix is a random subset.
    """
    check_name(name)
    check_integer("seed", seed, low=0)
    path = EMBEDDED_DIR / f"{name}.npz" if name in DATASETS else name
    splits = _load_tfds(name, data_dir) if name in OFFICIAL_SIZES else _load_npz(path)
    images, labels = splits["train"]
    if name in published.SPLIT_DATASETS:
        for split, rows in published.authors_splits(name).items():
            splits[split] = images[rows], labels[rows]
    else:
        order = _rng(seed, "train", "order").permutation(len(images))
        splits["train"] = images[order], None if labels is None else labels[order]
    return {split: splits[split] for split in SPLITS}


def _load_tfds(name, data_dir):
    """The official files, in their order, as `load_splits`: "train", "test" and, of SVHN, "validation"."""
    prepared = None if data_dir is None else _find_prepared(name, data_dir)
    import tensorflow_datasets as tfds  # here, since embedded samples and .npz files do without

    try:
        # One file after another, for the same order everywhere; undecoded, since most of SVHN's `extra` is not used.
        datasets, info = tfds.load(
            name, data_dir=prepared, download=prepared is None, with_info=True,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False))
        splits = {}
        for split, official in OFFICIAL_SIZES[name].items():
            found = info.splits[split].num_examples if split in info.splits else 0
            if found != official:
                raise InputError(f"data set {name!r}: split {split!r} has {found} images, officially {official}")
            key, count = ("validation", SVHN_VALIDATION) if split == "extra" else (split, official)
            examples = first_in_file_order(datasets[split], split, count)
            splits[key] = _decode(examples, info.features["image"])
        return splits
    except InputError:
        raise
    except Exception as error:  # TFDS raises whatever its network, file and proto libraries raise
        reason = " ".join(str(error).split())
        raise InputError(f"data set {name!r} cannot be loaded by TFDS: {reason or repr(error)}") from error


def _find_prepared(name, data_dir):
    """The folder, `data_dir` or tensorflow_datasets/ in it, that holds the prepared data set."""
    data_dir = pathlib.Path(data_dir).expanduser()
    for folder in (data_dir, data_dir / "tensorflow_datasets"):
        if any(folder.glob(f"{name}/*/dataset_info.json")):
            return folder
    raise InputError(f"data_dir {str(data_dir)!r} holds no prepared TFDS data set {name!r}")


def first_in_file_order(examples, split, count):
    """The first `count` examples of the official file, out of a whole split in TFDS's order, which is that of a hash.

    An example's `id` ("extra_000123") tells its position in the file. MNIST has no ids; its hash is of the position.
    """
    from tensorflow_datasets.core import hashing

    by_hash = tf.constant(sorted(range(count), key=hashing.Hasher(split).hash_key), tf.int64)

    def with_position(n, example):
        if "id" not in example:
            return by_hash[n], example
        return tf.strings.to_number(tf.strings.regex_replace(example["id"], f"^{split}_", ""), tf.int64), example

    kept = examples.enumerate().map(with_position).filter(lambda position, example: position < count)
    positions, columns = next(kept.batch(count + 1).as_numpy_iterator())
    order = np.argsort(positions)
    if not np.array_equal(positions[order], np.arange(count)):
        raise InputError(f"the ids of split {split!r} do not count its images from 0; prepare the data again")
    return tf.data.Dataset.from_tensor_slices({key: column[order] for key, column in columns.items()})


def _decode(examples, image_feature):
    """TFDS examples, undecoded, as grey images [n, height, width] and labels [n]."""
    decoded = examples.map(lambda example: (image_feature.decode_example(example["image"]), example["label"]),
                           num_parallel_calls=tf.data.AUTOTUNE)
    images, labels = next(decoded.batch(len(examples)).as_numpy_iterator())
    return _grey(images), labels.astype(np.int64)


def _grey(images):
    """[n, H, W], [n, H, W, 1] or [n, H, W, 3] as grey [n, H, W]."""
    if images.ndim == 3:
        return images
    return luma(images) if images.shape[-1] == 3 else images[..., 0]


def _load_npz(path):
    """The images and labels of an .npz, checked, in its order; as `load_splits`."""
    arrays = read_npz(path, [f"x_{split}" for split in SPLITS], [f"y_{split}" for split in SPLITS])
    splits = {}
    for split in SPLITS:
        images = check_images(arrays[f"x_{split}"], f"{path}: array 'x_{split}'")
        labels = arrays.get(f"y_{split}")
        if labels is not None:
            if labels.shape != (len(images),) or labels.dtype.kind not in "ui":
                raise InputError(f"{path}: array 'y_{split}' is {labels.dtype} {labels.shape}; "
                                 f"allowed: integers ({len(images)},)")
            labels = labels.astype(np.int64)
        splits[split] = images, labels
        shape = splits["train"][0].shape[1:]
        if images.shape[1:] != shape:
            raise InputError(f"{path}: array 'x_{split}' has images of {images.shape[1:]} pixels; allowed: {shape}, as "
                             "in 'x_train'")
    return splits


def check_array(images, where):
    """Raises InputError, which begins with `where`, unless an array has the shape and dtype that images may have."""
    shape, ndim = images.shape, images.ndim
    if ndim == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= 8:
        raise InputError(f"{where} has shape {shape}, which looks like one picture, [H, W, {shape[2]}]; reshape it "
                         f"to {(1, *shape)} if it is, to {(*shape, 1)} if it is {shape[0]} grey images of "
                         f"{shape[1]}×{shape[2]} pixels")
    if ndim not in (3, 4) or ndim == 4 and shape[-1] not in (1, 2, 3, 4):
        hint = "; channels come last" if ndim == 4 and shape[1] in (1, 2, 3, 4) else ""
        raise InputError(f"{where} has shape {shape}; allowed: [n, H, W], [n, H, W, 1], [n, H, W, 3] (RGB), and with "
                         f"alpha [n, H, W, 2] and [n, H, W, 4]{hint}")
    if images.size == 0:
        raise InputError(f"{where} is empty: its shape is {shape}")
    if images.dtype.kind not in "uif" or images.dtype == np.int8:
        raise InputError(f"{where} has dtype {images.dtype}; allowed: integers in 0..255, uint16, floats in [0, 1]")


def check_images(images, where, background=None):
    """Grey images, uint8 or float32 in [0, 1], [n, H, W]; raises InputError, which begins with `where`, for others.

    Args:
      images: [n, H, W] grey or [n, H, W, channels] with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels:
        integers in 0..255, uint16 in 0..65535, or floats in [0, 1].
      where: what the message calls the array.
      background: of BACKGROUNDS, on which transparent pixels lie; None raises InputError where there are any.
    """
    check_array(images, where)
    if not np.isfinite(images).all():
        raise InputError(f"{where} has {np.count_nonzero(~np.isfinite(images))} NaN or infinite values")
    high, margin = full_scale(images.dtype), ROUNDING if images.dtype.kind == "f" else 0
    if images.min() < -margin or images.max() > high + margin:
        allowed = "floats in [0, 1]" if images.dtype.kind == "f" else "integers in 0..255, or as uint16 in 0..65535"
        raise InputError(f"{where} has values from {images.min()!s} to {images.max()!s}; allowed: {allowed}")
    if high == 255:
        images = images.astype(np.uint8)
    else:
        images = np.clip(images / high, 0, 1).astype(np.float32)
    if images.ndim == 4 and images.shape[-1] in (2, 4):
        images = _without_alpha(images, where, background)
    return _grey(images)


def full_scale(dtype):
    """The value of white in an array of images: 1 of floats, 65,535 of uint16, 255 of other integers."""
    return 1 if dtype.kind == "f" else 65_535 if dtype.kind == "u" and dtype.itemsize == 2 else 255


def _without_alpha(images, where, background):
    """Images [n, H, W, channels], uint8 or float32, whose last channel is alpha, laid on a background."""
    colour, alpha = images[..., :-1], images[..., -1:] / np.float32(full_scale(images.dtype))
    if (alpha == 1).all():
        return colour
    if background is None:
        raise InputError(f"{where} has transparent pixels; lay them on a background first (infer.py: "
                         "--background=black or white)")
    light = BACKGROUNDS[background] * full_scale(images.dtype)
    laid = alpha * colour + (1 - alpha) * np.float32(light)
    return np.rint(laid).astype(np.uint8) if images.dtype == np.uint8 else laid
