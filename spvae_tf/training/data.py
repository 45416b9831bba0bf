"""Data sets, prepared as the authors did: MNIST, SVHN, CIFAR-10, samples of two of them, a user's own images.

Every image goes through the same steps (section 4 and the authors' released code):

1. to 8-bit grey, by the ITU-R 601 luma (`luma`);
2. min-max scaled by itself to [0, 1] (`min_max_scale`);
3. rounded to multiples of 1/255, SVHN excepted;
4. for a continuous likelihood only: N(0, (1/255)^2) noise is added once, values are reflected at 0 and 1, and
   the image is min-max scaled again.

TensorFlow and TensorFlow Datasets are imported only when a data set is read through them.
"""

import dataclasses
import functools
import hashlib
import numbers
import os
import pathlib

import numpy as np

from spvae_tf.errors import InputError
from spvae_tf.files import read_npz

DATASETS = ("mnist", "svhn_cropped", "cifar10", "mnist_sample", "cifar10_sample")
LIKELIHOODS = ("continuous", "discrete")
SPLITS = ("train", "validation", "test")
EMBEDDED_DIR = pathlib.Path(__file__).parents[1] / "embedded"

# Sizes of the published splits; a data set with any other size is refused.
OFFICIAL_SIZES = {
    "mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}
# Validation: taken out of `train` for MNIST and CIFAR-10, the first images of `extra` for SVHN.
NUM_VALIDATION = {"mnist": 10_000, "cifar10": 10_000, "svhn_cropped": 26_032}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Preprocessed images, one row each, divided into training, validation and test set.

    Attributes:
        name: as `dataset_name` tells it.
        image_shape: (height, width) in pixels; pixels are in row-major order.
        train: float32 [num_train, height * width] in [0, 1], in random order: a prefix is a random subset.
        validation: float32 [num_validation, height * width] in [0, 1].
        test: float32 [num_test, height * width] in [0, 1].
        train_labels: int64 [num_train], or None when the data have no labels.
        validation_labels: int64 [num_validation], or None.
        test_labels: int64 [num_test], or None.
    """

    name: str
    image_shape: tuple[int, int]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None
    validation_labels: np.ndarray | None
    test_labels: np.ndarray | None


def load_dataset(name, likelihood, *, data_dir=None, seed=0, train_fraction=1.0, round_pixels=None):
    """Loads a data set and preprocesses it for a likelihood.

    Args:
        name: one of `DATASETS`, or the path of a .npz file with x_train, x_validation, x_test (integers in
            0..255 or floats in [0, 1]; [n, H, W] or [n, H, W, 1] grey, [n, H, W, 3] RGB) and optional labels
            y_train, y_validation, y_test (integers [n]).
        likelihood: "continuous" (noise is added) or "discrete" (it is not).
        data_dir: folder of prepared TFDS data sets, or the parent of a folder tensorflow_datasets/ of them;
            nothing is downloaded then. None: TFDS's own folder, downloading on first use. Not used for the
            embedded samples and .npz files.
        seed: non-negative int; decides the order of the training set, which images are held out for
            validation (MNIST, CIFAR-10), and the noise.
        train_fraction: in (0, 1]; the first round(train_fraction * num_train) training images are kept.
            Subsets of one seed are nested: same images, same noise.
        round_pixels: whether to round to multiples of 1/255; None does as the authors: all but svhn_cropped.

    Returns:
        A `Dataset`.

    Raises:
        InputError: an argument is not allowed, the data are missing, or they are not what they should be.
    """
    if likelihood not in LIKELIHOODS:
        raise InputError(f"likelihood is {likelihood!r}; allowed: {', '.join(LIKELIHOODS)}")
    if not isinstance(train_fraction, numbers.Real) or not 0 < train_fraction <= 1:
        raise InputError(f"train_fraction is {train_fraction!r}; allowed: 0 < train_fraction <= 1")
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if round_pixels is None:
        round_pixels = name != "svhn_cropped"

    splits = load_splits(name, data_dir=data_dir, seed=seed)
    images, labels = splits["train"]
    num_train = round(train_fraction * len(images))
    if num_train == 0:
        raise InputError(f"train_fraction {train_fraction!r} keeps none of {len(images)} training images")
    splits["train"] = images[:num_train], None if labels is None else labels[:num_train]

    arrays = {}
    for split, (images, labels) in splits.items():
        # Drawn row by row, so the noise of a training image does not depend on how many rows follow it.
        noise_rng = _rng(seed, split, "noise")
        arrays[split] = preprocess(images, likelihood, round_pixels=round_pixels, rng=noise_rng)
        arrays[f"{split}_labels"] = labels
    return Dataset(name=dataset_name(name), image_shape=images.shape[1:], **arrays)


def dataset_name(name):
    """The name of a data set in records, tables and pictures.

    Args:
        name: as in `load_dataset`.

    Returns:
        One of `DATASETS`, or the stem of a user's .npz file; "npz_<stem>" where that is one of `DATASETS`.
    """
    stem = pathlib.Path(name).stem
    return name if name in DATASETS else f"npz_{stem}" if stem in DATASETS else stem


def fingerprint(name):
    """What tells a user's file from another of the same name, and from what it was before.

    Args:
        name: as in `load_dataset`.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of a .npz file; None for a name of `DATASETS`, and where there
        is no such file, as when the images themselves are at hand.

    Raises:
        InputError: the file cannot be read.
    """
    if name in DATASETS:
        return None
    try:
        status = os.stat(name)
        return _sha256(os.fspath(name), status.st_mtime_ns, status.st_size)[:16]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{name}: not a readable .npz file ({error.strerror})") from error


@functools.lru_cache
def _sha256(path, mtime_ns, size):
    """Of the file at `path` as it was when it had this time and size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_splits(name, *, data_dir=None, seed=0):
    """Loads and divides a data set, in grey but not preprocessed.

    MNIST's 60,000 training images are divided by a seeded permutation into 50,000 / 10,000, CIFAR-10's
    50,000 into 40,000 / 10,000; SVHN's validation set is the first 26,032 images of its `extra` split in the
    order of SVHN's own file. Every training set is in the order of a seeded permutation.

    Args:
        name: as in `load_dataset`.
        data_dir: as in `load_dataset`.
        seed: non-negative int.

    Returns:
        A dict from "train", "validation" and "test" to (images, labels): images uint8 [n, height, width] in
        0..255 or float32 in [0, 1]; labels int64 [n], or None.

    Raises:
        InputError: as in `load_dataset`.
    """
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"seed is {seed!r}; allowed: integers >= 0")
    if name in OFFICIAL_SIZES:
        splits = _load_tfds(name, data_dir)
    elif name in DATASETS:
        splits = _load_npz(EMBEDDED_DIR / f"{name}.npz")
    elif isinstance(name, (str, os.PathLike)) and os.fspath(name).endswith(".npz"):
        splits = _load_npz(pathlib.Path(name))
    else:
        raise InputError(f"data set is {name!r}; allowed: {', '.join(DATASETS)}, or the path of a .npz file")

    images, labels = splits["train"]
    order = _rng(seed, "train", "order").permutation(len(images))
    if "validation" not in splits:
        order, held_out = np.split(order, [-NUM_VALIDATION[name]])
        splits["validation"] = images[held_out], labels[held_out]
    splits["train"] = images[order], None if labels is None else labels[order]
    return {split: splits[split] for split in SPLITS}


def luma(rgb):
    """Converts RGB to grey by the ITU-R 601 luma, L = 0.299 R + 0.587 G + 0.114 B.

    Args:
        rgb: [..., 3]; uint8, or floating point in [0, 1].

    Returns:
        [...]; of uint8, uint8 with Pillow's fixed-point weights, (19595 R + 38470 G + 7471 B + 2^15) >> 16,
        exactly as `PIL.Image.convert("L")`; of floats, float32.
    """
    if np.issubdtype(rgb.dtype, np.floating):
        red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
        return 0.299 * red + 0.587 * green + 0.114 * blue
    grey = np.full(rgb.shape[:-1], 1 << 15, np.uint32)
    for channel, weight in enumerate((19595, 38470, 7471)):
        grey += rgb[..., channel].astype(np.uint32) * weight
    return (grey >> 16).astype(np.uint8)


def min_max_scale(x):
    """Scales every image linearly, so that its darkest pixel is 0 and its brightest 1.

    Args:
        x: float32 [n, pixels].

    Returns:
        float32 [n, pixels], (x - min) / (max - min) per row; a constant image becomes all zeros.
    """
    low = x.min(axis=1, keepdims=True)
    span = x.max(axis=1, keepdims=True) - low
    return (x - low) / np.where(span > 0, span, np.float32(1))


def preprocess(images, likelihood, *, round_pixels=True, rng=None):
    """Applies steps 2 to 4 of the module's docstring.

    Args:
        images: uint8 in 0..255 or float32 in [0, 1], [n, height, width], grey.
        likelihood: "continuous" or "discrete".
        round_pixels: whether to round to multiples of 1/255.
        rng: `np.random.Generator` of the noise; needed for "continuous" only.

    Returns:
        float32 [n, height * width] in [0, 1]; every image that is not constant has minimum 0 and maximum 1.
    """
    x = min_max_scale(images.reshape(len(images), -1).astype(np.float32))
    if round_pixels:
        x = np.rint(x * 255) / 255
    if likelihood == "continuous":
        x = x + rng.standard_normal(x.shape, np.float32) / 255
        x = np.where(x < 0, -x, np.where(x > 1, 2 - x, x))
        x = min_max_scale(x)
    return x


def _rng(seed, split, purpose):
    """Returns the generator of one random decision, independent across seeds, splits and purposes."""
    return np.random.default_rng([seed, SPLITS.index(split), ("order", "noise").index(purpose)])


# --- TensorFlow Datasets


def _load_tfds(name, data_dir):
    """Reads the official splits as `load_splits` returns them: "train", "test" and, of SVHN, "validation"."""
    prepared = None if data_dir is None else _find_prepared(name, data_dir)
    import tensorflow_datasets as tfds

    try:
        # One file after another, for the same order everywhere; undecoded, so that the half million images of
        # SVHN's `extra` that are not used never are.
        datasets, info = tfds.load(
            name,
            data_dir=prepared,
            download=prepared is None,
            with_info=True,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        _check_sizes(name, info.splits)
        image_feature = info.features["image"]
        splits = {split: _read_examples(datasets[split], image_feature) for split in ("train", "test")}
        if "extra" in OFFICIAL_SIZES[name]:
            first = first_in_file_order(datasets["extra"], "extra", NUM_VALIDATION[name])
            splits["validation"] = _read_examples(first, image_feature)
    except InputError:
        raise
    except Exception as error:  # TFDS raises whatever its network, file and proto libraries raise
        reason = " ".join(str(error).split())
        raise InputError(f"data set {name!r} cannot be loaded by TFDS: {reason or repr(error)}") from error
    return splits


def _find_prepared(name, data_dir):
    """Returns the folder, `data_dir` or tensorflow_datasets/ in it, that holds the prepared data set."""
    data_dir = pathlib.Path(data_dir).expanduser()
    for folder in (data_dir, data_dir / "tensorflow_datasets"):
        if any(folder.glob(f"{name}/*/dataset_info.json")):
            return folder
    raise InputError(f"data_dir {str(data_dir)!r} holds no prepared TFDS data set {name!r}")


def _check_sizes(name, tfds_splits):
    for split, official in OFFICIAL_SIZES[name].items():
        found = tfds_splits[split].num_examples if split in tfds_splits else 0
        if found != official:
            raise InputError(f"data set {name!r}: split {split!r} has {found} images, officially {official}")


def first_in_file_order(examples, split, count):
    """Picks the first images of the data set's own file out of a split written by TFDS.

    TFDS writes examples in the order of a hash; the `id` of svhn_cropped ("extra_000123") tells the position of an
    image in its .mat file.

    Args:
        examples: `tf.data.Dataset` of the whole split.
        split: the split's name.
        count: number of images wanted.

    Returns:
        `tf.data.Dataset` of `count` examples, in file order.

    Raises:
        InputError: the ids are not the positions 0, 1, 2, ...
    """
    import tensorflow as tf

    kept, positions = [], []
    for batch in examples.batch(4096).as_numpy_iterator():
        position = np.array([int(name.decode().removeprefix(f"{split}_")) for name in batch["id"]])
        wanted = position < count
        positions.append(position[wanted])
        kept.append({key: column[wanted] for key, column in batch.items()})
    positions = np.concatenate(positions)
    order = np.argsort(positions)
    if not np.array_equal(positions[order], np.arange(count)):
        raise InputError(
            f"the ids of split {split!r} do not count its images from {split}_000000; prepare the data again")
    return tf.data.Dataset.from_tensor_slices(
        {key: np.concatenate([batch[key] for batch in kept])[order] for key in kept[0]})


def _read_examples(examples, image_feature):
    """Decodes a `tf.data.Dataset` of TFDS examples into grey images [n, height, width] and labels [n]."""
    import tensorflow as tf

    decoded = examples.map(
        lambda example: (image_feature.decode_example(example["image"]), example["label"]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    images, labels = next(decoded.batch(int(examples.cardinality())).as_numpy_iterator())
    return _grey(images), labels.astype(np.int64)


def _grey(images):
    """Reduces [n, H, W], [n, H, W, 1] or [n, H, W, 3] to grey [n, H, W]."""
    if images.ndim == 3:
        return images
    return luma(images) if images.shape[-1] == 3 else images[..., 0]


# --- .npz files


def _load_npz(path):
    """Reads and checks a .npz file of images, as `load_splits`."""
    arrays = read_npz(path, [f"x_{split}" for split in SPLITS], [f"y_{split}" for split in SPLITS])
    splits = {}
    for split in SPLITS:
        images = check_images(arrays[f"x_{split}"], f"{path}: array 'x_{split}'")
        labels = arrays.get(f"y_{split}")
        if labels is not None:
            labels = _check_labels(labels, len(images), f"{path}: array 'y_{split}'")
        splits[split] = images, labels
        if images.shape[1:] != splits["train"][0].shape[1:]:
            raise InputError(
                f"{path}: array 'x_{split}' has images of {images.shape[1:]} pixels; those of 'x_train' have "
                f"{splits['train'][0].shape[1:]}, and all have to be of one shape"
            )
    return splits


def check_images(images, where):
    """Reduces images to grey, or refuses what are none.

    Args:
        images: integers in 0..255 or floats in [0, 1]; [n, H, W], [n, H, W, 1] or [n, H, W, 3].
        where: where they come from, for the message.

    Returns:
        uint8 or float32 [n, H, W].

    Raises:
        InputError: on another shape, dtype or range, on NaN, or when there is no image.
    """
    if images.ndim not in (3, 4) or images.ndim == 4 and images.shape[-1] not in (1, 3):
        raise InputError(f"{where} has shape {images.shape}; allowed: [n, H, W], [n, H, W, 1], [n, H, W, 3]")
    if images.size == 0:
        raise InputError(f"{where} is empty: its shape is {images.shape}")
    if images.dtype.kind not in "uif":
        raise InputError(f"{where} has dtype {images.dtype}; allowed: integers in 0..255, floats in [0, 1]")
    if not np.isfinite(images).all():
        raise InputError(f"{where} has {np.count_nonzero(~np.isfinite(images))} NaN or infinite values")
    floating = images.dtype.kind == "f"
    highest = 1 if floating else 255
    if images.min() < 0 or images.max() > highest:
        kind = "floats in [0, 1]" if floating else "integers in 0..255"
        raise InputError(f"{where} has values from {images.min()} to {images.max()}; allowed: {kind}")
    return _grey(images.astype(np.float32 if floating else np.uint8))


def _check_labels(labels, num_images, where):
    """Returns labels as int64 [n], or refuses."""
    if labels.shape != (num_images,) or labels.dtype.kind not in "ui":
        raise InputError(f"{where} is {labels.dtype} {labels.shape}; allowed: integers ({num_images},)")
    return labels.astype(np.int64)
