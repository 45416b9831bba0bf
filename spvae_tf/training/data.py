"""Data sets, prepared as the authors prepared theirs: MNIST, SVHN, CIFAR-10, samples of two of them, one's own images.

Images are rows of pixels in [0, 1], float32 [n, height · width]. What the authors did to each data set, and how well
that is known, is in docs/authors.md. The discrete arrays of MNIST and CIFAR-10 are theirs bit for bit:

1. colour becomes grey by the ITU-R 601 luma, cut off to 8 bits (`luma`);
2. each image is scaled to [0, 1] by itself, MNIST excepted, which is divided by 255 (`min_max_scale`);
3. pixels are rounded to multiples of 1/255, SVHN excepted;
4. for a continuous likelihood only, noise is added once (`perturb`), SVHN's test images excepted.

TensorFlow Datasets (TFDS) is imported only when a data set is read through it.
"""

import dataclasses
import functools
import hashlib
import numbers
import os
import pathlib

import numpy as np

from spvae_tf import published
from spvae_tf.errors import InputError, check_integer
from spvae_tf.files import read_npz
from spvae_tf.model.likelihoods import get_likelihood

DATASETS = ("mnist", "svhn_cropped", "cifar10", "mnist_sample", "cifar10_sample")
SPLITS = ("train", "validation", "test")
EMBEDDED_DIR = pathlib.Path(__file__).parents[1] / "embedded"

# Images of the official files; a data set of other sizes is an error.
OFFICIAL_SIZES = {
    "mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}
SVHN_VALIDATION = 26_032  # the first images of `extra`


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Prepared images, one row each, in training, validation and test set; a prefix of `train` is a smaller one."""

    name: str  # as `dataset_name` tells it
    image_shape: tuple[int, int]  # (height, width); pixels are in row-major order
    train: np.ndarray  # float32 [n, height * width] in [0, 1]
    validation: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None  # int64 [n]; None when the data have no labels
    validation_labels: np.ndarray | None
    test_labels: np.ndarray | None


def load_dataset(name, likelihood, *, data_dir=None, seed=0, train_fraction=1.0, round_pixels=None):
    """Loads a data set and prepares it for a likelihood.

    Args:
      name: one of `DATASETS`, or the path of an .npz with x_train, x_validation, x_test (integers in 0..255 or floats
        in [0, 1]; [n, H, W] or [n, H, W, 1] grey, [n, H, W, 3] RGB) and optional labels y_train, y_validation, y_test
        (integers [n]).
      likelihood: "continuous" (noise is added) or "discrete" (none is).
      data_dir: folder of prepared TFDS data sets, or the parent of a folder tensorflow_datasets/ of them. None: TFDS's
        own folder, which TFDS fills on first use. Embedded samples and .npz files do not need it.
      seed: non-negative int, of the noise; and of the order of the training images, but for MNIST and CIFAR-10.
      train_fraction: in (0, 1]; the first int(train_fraction * num_train) training images are kept, as the released
        code does. Subsets of one seed are nested: same images, same noise.
      round_pixels: whether step 3 is taken; None is what the authors did.

    Returns:
      A `Dataset`.

    Raises:
      InputError: an argument is not allowed, or the data are missing or not what they should be.
    """
    get_likelihood(likelihood)
    if not isinstance(train_fraction, numbers.Real) or not 0 < train_fraction <= 1:
        raise InputError(f"train_fraction is {train_fraction!r}; allowed: 0 < train_fraction <= 1")
    splits = load_splits(name, data_dir=data_dir, seed=seed)
    images, labels = splits["train"]
    num_train = int(train_fraction * len(images))
    if num_train == 0:
        raise InputError(f"train_fraction {train_fraction!r} keeps none of {len(images)} training images")
    splits["train"] = images[:num_train], None if labels is None else labels[:num_train]

    arrays = {}
    for split, (images, labels) in splits.items():
        x = prepare(images, name, round_pixels)
        if likelihood == "continuous" and (name, split) != ("svhn_cropped", "test"):  # as the authors' file is
            x = perturb(x, _rng(seed, split, "noise"))
        arrays |= {split: x, f"{split}_labels": labels}
    return Dataset(name=dataset_name(name), image_shape=images.shape[1:], **arrays)


def check_name(name):
    """Raises InputError unless `name` is one of `DATASETS` or the path of an .npz."""
    if name not in DATASETS and not str(name).endswith(".npz"):
        raise InputError(f"dataset is {name!r}; allowed: {', '.join(DATASETS)}, or the path of an .npz file")


def dataset_name(name):
    """The name of a data set in records and tables: of an .npz its stem, "npz_<stem>" where that is in `DATASETS`."""
    stem = pathlib.Path(name).stem
    return name if name in DATASETS else f"npz_{stem}" if stem in DATASETS else stem


def fingerprint(name):
    """The first 16 hexadecimal digits of an .npz's SHA-256; None for a name of `DATASETS` and for a missing file."""
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


# --- preparation ------------------------------------------------------------------------------------------------------

def luma(rgb):
    """Step 1, 0.299 R + 0.587 G + 0.114 B: [..., 3] -> [...]; of uint8 it is uint8, as Pillow had it in 2019."""
    if np.issubdtype(rgb.dtype, np.floating):
        red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
        return 0.299 * red + 0.587 * green + 0.114 * blue
    red, green, blue = np.moveaxis(rgb, -1, 0).astype(np.uint32)
    return ((19595 * red + 38470 * green + 7471 * blue) >> 16).astype(np.uint8)


def min_max_scale(x):
    """(x − min) / (max − min) of each row of float32 [n, pixels]; a constant image becomes all zeros."""
    low = x.min(axis=1, keepdims=True)
    span = x.max(axis=1, keepdims=True) - low
    return (x - low) / np.where(span > 0, span, np.float32(1))


def prepare(images, name, round_pixels=None):
    """Steps 2 and 3, as of data set `name`, of grey images, uint8 in 0..255 or float32 in [0, 1], [n, H, W]."""
    x = images.reshape(len(images), -1).astype(np.float32)
    if name in ("mnist", "mnist_sample"):
        return x * np.float32(1 / 255) if images.dtype == np.uint8 else x
    x = min_max_scale(x)
    rounded = name != "svhn_cropped" if round_pixels is None else round_pixels
    return np.rint(x * 255) / np.float32(255) if rounded else x


def perturb(x, rng):
    """Step 4: N(0, (1/255)²) noise is added, values are reflected at 0 and 1, and each image is scaled again.

    A NumPy Generator draws row by row, so the noise of a row of float32 [n, pixels] does not depend on how many follow.
    """
    x = x + rng.standard_normal(x.shape, np.float32) / 255
    return min_max_scale(np.where(x < 0, -x, np.where(x > 1, 2 - x, x)))


def _rng(seed, split, purpose):
    """The generator of one random decision, independent across seeds, splits and purposes."""
    return np.random.default_rng([seed, SPLITS.index(split), ("order", "noise").index(purpose)])


# --- splits -----------------------------------------------------------------------------------------------------------

def load_splits(name, *, data_dir=None, seed=0):
    """Loads and divides a data set, in grey but not prepared.

    The authors' own lists divide and order the training images of MNIST and CIFAR-10. SVHN's validation set is the
    first 26,032 images of its `extra` file. A seed orders all other training sets, so that a prefix is a random subset.

    Returns:
      A dict from "train", "validation" and "test" to (images, labels): images uint8 [n, height, width] in 0..255 or
      float32 in [0, 1]; labels int64 [n], or None.
    """
    check_name(name)
    check_integer("seed", seed, low=0)
    if name in OFFICIAL_SIZES:
        splits = _load_tfds(name, data_dir)
    else:
        splits = _load_npz(EMBEDDED_DIR / f"{name}.npz" if name in DATASETS else name)
    images, labels = splits["train"]
    if name in published.SPLIT_DATASETS:
        for split, rows in published.authors_splits(name).items():
            splits[split] = images[rows], labels[rows]
    else:
        order = _rng(seed, "train", "order").permutation(len(images))
        splits["train"] = images[order], None if labels is None else labels[order]
    return {split: splits[split] for split in SPLITS}


# --- TensorFlow Datasets ----------------------------------------------------------------------------------------------

def _load_tfds(name, data_dir):
    """The official files, in their order, as `load_splits`: "train", "test" and, of SVHN, "validation"."""
    prepared = None if data_dir is None else _find_prepared(name, data_dir)
    import tensorflow_datasets as tfds

    try:
        # One file after another, for the same order everywhere; undecoded, since most of SVHN's `extra` is not used.
        datasets, info = tfds.load(
            name, data_dir=prepared, download=prepared is None, with_info=True,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False))
        sizes = OFFICIAL_SIZES[name]
        for split, official in sizes.items():
            found = info.splits[split].num_examples if split in info.splits else 0
            if found != official:
                raise InputError(f"data set {name!r}: split {split!r} has {found} images, officially {official}")
        splits = {split: first_in_file_order(datasets[split], split, sizes[split]) for split in ("train", "test")}
        if "extra" in sizes:
            splits["validation"] = first_in_file_order(datasets["extra"], "extra", SVHN_VALIDATION)
        return {split: _decode(examples, info.features["image"]) for split, examples in splits.items()}
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
    """The first images of the official file, out of a split that TFDS wrote in the order of a hash.

    An example's `id` ("extra_000123") tells its position in the file. MNIST has no ids; its hash is of the position.
    Takes a `tf.data.Dataset` of the whole split and returns one of `count` examples.
    """
    import tensorflow as tf
    from tensorflow_datasets.core import hashing

    by_hash = np.array(sorted(range(count), key=hashing.Hasher(split).hash_key))
    kept, positions, read = [], [], 0
    for batch in examples.batch(4096).as_numpy_iterator():
        size = len(batch["label"])
        position = by_hash[read:read + size] if "id" not in batch else np.array(
            [int(name.decode().removeprefix(f"{split}_")) for name in batch["id"]])
        read += size
        wanted = position < count
        positions.append(position[wanted])
        kept.append({key: column[wanted] for key, column in batch.items()})
    positions = np.concatenate(positions)
    order = np.argsort(positions)
    if not np.array_equal(positions[order], np.arange(count)):
        raise InputError(f"the ids of split {split!r} do not count its images from 0; prepare the data again")
    return tf.data.Dataset.from_tensor_slices(
        {key: np.concatenate([batch[key] for batch in kept])[order] for key in kept[0]})


def _decode(examples, image_feature):
    """TFDS examples, undecoded, as grey images [n, height, width] and labels [n]."""
    import tensorflow as tf

    decoded = examples.map(lambda example: (image_feature.decode_example(example["image"]), example["label"]),
                           num_parallel_calls=tf.data.AUTOTUNE)
    images, labels = next(decoded.batch(int(examples.cardinality())).as_numpy_iterator())
    return _grey(images), labels.astype(np.int64)


def _grey(images):
    """[n, H, W], [n, H, W, 1] or [n, H, W, 3] as grey [n, H, W]."""
    if images.ndim == 3:
        return images
    return luma(images) if images.shape[-1] == 3 else images[..., 0]


# --- .npz files -------------------------------------------------------------------------------------------------------

def _load_npz(path):
    """An .npz of images, checked, as `load_splits`."""
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
        if images.shape[1:] != splits["train"][0].shape[1:]:
            raise InputError(f"{path}: array 'x_{split}' has images of {images.shape[1:]} pixels; those of 'x_train' "
                             f"have {splits['train'][0].shape[1:]}, and all have to be of one shape")
    return splits


def check_images(images, where):
    """Grey images, uint8 or float32 [n, H, W]; raises InputError, which begins with `where`, for other arrays."""
    if images.ndim not in (3, 4) or images.ndim == 4 and images.shape[-1] not in (1, 3):
        raise InputError(f"{where} has shape {images.shape}; allowed: [n, H, W], [n, H, W, 1], [n, H, W, 3]")
    if images.size == 0:
        raise InputError(f"{where} is empty: its shape is {images.shape}")
    if images.dtype.kind not in "uif":
        raise InputError(f"{where} has dtype {images.dtype}; allowed: integers in 0..255, floats in [0, 1]")
    if not np.isfinite(images).all():
        raise InputError(f"{where} has {np.count_nonzero(~np.isfinite(images))} NaN or infinite values")
    floating = images.dtype.kind == "f"
    if images.min() < 0 or images.max() > (1 if floating else 255):
        kind = "floats in [0, 1]" if floating else "integers in 0..255"
        raise InputError(f"{where} has values from {images.min()} to {images.max()}; allowed: {kind}")
    return _grey(images.astype(np.float32 if floating else np.uint8))
