"""The data sets: grey, scaling, noise, splits, the embedded samples, and what a wrong file is told."""

import fractions
import hashlib
import importlib.util
import os
import pathlib

import numpy as np
import pytest

from spvae_tf import published
from spvae_tf.errors import InputError
from spvae_tf.training import data

ROOT = pathlib.Path(__file__).parents[2]
SAMPLES = ("mnist_sample", "cifar10_sample")


@pytest.fixture
def real_data_dir():
    if "SPVAE_DATA_DIR" not in os.environ:
        pytest.skip("SPVAE_DATA_DIR is not set")
    return os.environ["SPVAE_DATA_DIR"]


def write_npz(folder, **changes):
    """Writes images.npz with 20 / 6 / 5 random images of 4×6 pixels; a change to None drops an array."""
    rng = np.random.default_rng(0)
    counts = {"train": 20, "validation": 6, "test": 5}
    arrays = {f"x_{split}": rng.integers(0, 256, (count, 4, 6), np.uint8) for split, count in counts.items()}
    arrays = {key: array for key, array in (arrays | changes).items() if array is not None}
    np.savez(folder / "images.npz", **arrays)
    return folder / "images.npz"


def refusal(*args, **kwargs):
    """Returns the one line with which load_dataset refuses its arguments."""
    with pytest.raises(InputError) as error:
        data.load_dataset(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- grey, scaling, rounding, noise


def test_luma_is_cut_off():
    """As Pillow had it in 2019; to the nearest would be 29 for blue and 2 for the last."""
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7], [1, 2, 3]], np.uint8)
    grey = [(r * 19595 + g * 38470 + b * 7471) >> 16 for r, g, b in rgb.tolist()]
    assert data.luma(rgb).tolist() == grey == [76, 149, 29, 255, 7, 1]
    assert data.luma(rgb).dtype == np.uint8


def test_luma_of_floats():
    grey = data.luma(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 1]]))
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, [0.299, 0.587, 0.114, 0.1495 + 0.14675 + 0.114], rtol=1e-6)


def test_min_max_scale():
    x = np.array([[2, 4, 6], [5, 5, 5], [0, 255, 51]], np.float32)
    np.testing.assert_array_equal(data.min_max_scale(x), np.float32([[0, 0.5, 1], [0, 0, 0], [0, 1, 0.2]]))


def test_rounding_is_exact_for_every_8_bit_pixel():
    """rint(255 a / r) for all pixels a of all brightness ranges r, ties to even, in rational arithmetic."""
    for r in range(1, 256):
        image = np.arange(r + 1, dtype=np.uint8).reshape(1, 1, -1)
        expected = [round(fractions.Fraction(255 * a, r)) for a in range(r + 1)]
        np.testing.assert_array_equal(data.prepare(image, "cifar10")[0], np.float32(expected) / 255)


def test_mnist_is_divided_by_255_and_nothing_more():
    image = np.array([[[3, 7], [9, 250]]], np.uint8)
    for name in ("mnist", "mnist_sample"):
        np.testing.assert_array_equal(data.prepare(image, name), np.float32([[3, 7, 9, 250]]) * np.float32(1 / 255))
    np.testing.assert_array_equal(data.prepare(np.float32(image / 255), "mnist"), np.float32([[3, 7, 9, 250]]) / 255)


def test_noise_is_added_reflected_and_rescaled():
    """Against the definition, pixel by pixel; many pixels near 0 and 1 leave [0, 1] and are reflected."""
    images = np.array([[[0, 2], [253, 255]], [[0, 128], [1, 255]]] * 50, np.uint8)
    noise = np.random.default_rng(3).standard_normal((100, 4), np.float32)
    below = above = 0
    noisy = data.perturb(data.prepare(images, "cifar10"), np.random.default_rng(3))
    for x, image, e in zip(noisy, images, noise):
        values = []
        for pixel, n in zip(image.ravel().tolist(), e.tolist()):
            value = pixel / 255 + n / 255
            below, above = below + (value < 0), above + (value > 1)
            values.append(-value if value < 0 else 2 - value if value > 1 else value)
        expected = [(v - min(values)) / (max(values) - min(values)) for v in values]
        np.testing.assert_allclose(x, expected, atol=1e-6)
    assert below > 40 and above > 40


def test_noise_has_standard_deviation_one_255th():
    """Of equal pixels within an image; the second scaling stretches it by less than 1 %."""
    images = np.full((200, 30, 30), 128, np.uint8)
    images[:, 0, 0], images[:, -1, -1] = 0, 255
    noisy = data.perturb(data.prepare(images, "cifar10"), np.random.default_rng(0))
    assert noisy[:, 1:-1].std(axis=1).mean() * 255 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", SAMPLES)
def test_embedded_sample(name):
    sizes = {"mnist_sample": ((6000, 1000, 1000), (28, 28)), "cifar10_sample": ((2400, 500, 500), (32, 32))}
    counts, shape = sizes[name]
    discrete, continuous = (data.load_dataset(name, likelihood) for likelihood in ("discrete", "continuous"))
    for dataset in (discrete, continuous):
        assert (dataset.name, dataset.image_shape) == (name, shape)
        for split, count in zip(data.SPLITS, counts):
            x, y = getattr(dataset, split), getattr(dataset, f"{split}_labels")
            assert x.shape == (count, shape[0] * shape[1]) and x.dtype == np.float32
            assert (x.min(axis=1) == 0).all() and (x.max(axis=1) > 0.7).all() and x.max() == 1
            if name != "mnist_sample" or dataset is continuous:  # discrete MNIST is not scaled by image
                assert (x.max(axis=1) == 1).all()
            assert y.shape == (count,) and y.dtype == np.int64 and set(y) == set(range(10))
    for split in data.SPLITS:
        x, noisy = getattr(discrete, split), getattr(continuous, split)
        np.testing.assert_allclose(x, np.rint(x * 255) / 255, atol=1e-7)
        assert len(np.unique(noisy[:, 300])) > 0.98 * len(noisy)  # no pixel value repeats across images
        assert 0 < np.abs(noisy - x).max() < 12 / 255
    rows = np.concatenate([discrete.train, discrete.validation, discrete.test])
    assert len(np.unique(rows, axis=0)) == len(rows)  # no image twice, none in two splits


def test_embedded_files_are_small():
    assert sum((data.EMBEDDED_DIR / f"{name}.npz").stat().st_size for name in SAMPLES) <= 5_000_000


def test_mnist_sample_shows_digits():
    """Nearest class mean is a weak classifier of real digits and useless on anything else."""
    dataset = data.load_dataset("mnist_sample", "discrete")
    means = np.stack([dataset.train[dataset.train_labels == k].mean(axis=0) for k in range(10)])
    nearest = ((dataset.test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == dataset.test_labels).mean() > 0.75


# --- seeds and subsets


def test_seed_decides_order_and_noise():
    first, again, other = (data.load_dataset("cifar10_sample", "continuous", seed=seed) for seed in (0, 0, 1))
    for split in data.SPLITS:
        np.testing.assert_array_equal(getattr(first, split), getattr(again, split))
        assert not np.array_equal(getattr(first, split), getattr(other, split))
    np.testing.assert_array_equal(first.test_labels, other.test_labels)
    assert not np.array_equal(first.train_labels, other.train_labels)
    np.testing.assert_array_equal(np.sort(first.train_labels), np.sort(other.train_labels))


def test_noise_of_the_splits_is_independent(tmp_path):
    image = np.arange(24, dtype=np.uint8).reshape(1, 4, 6).repeat(2, axis=0)
    path = write_npz(tmp_path, x_train=image, x_validation=image, x_test=image)
    dataset = data.load_dataset(path, "continuous")
    rows = np.concatenate([dataset.train, dataset.validation, dataset.test])
    assert len(np.unique(rows, axis=0)) == 6


@pytest.mark.parametrize("likelihood", ["continuous", "discrete"])
def test_training_subsets_are_nested(likelihood):
    whole = data.load_dataset("cifar10_sample", likelihood)
    for fraction, count in ((0.005, 12), (0.1, 240), (0.99999, 2399)):  # cut off, as the released code
        part = data.load_dataset("cifar10_sample", likelihood, train_fraction=fraction)
        np.testing.assert_array_equal(part.train, whole.train[:count])
        np.testing.assert_array_equal(part.train_labels, whole.train_labels[:count])
        np.testing.assert_array_equal(part.test, whole.test)


def test_training_order_is_not_the_files(tmp_path):
    """A file sorted by class still gives random subsets, and images keep their labels."""
    images = np.arange(200, dtype=np.uint8).reshape(-1, 1, 1) * np.uint8([[[0, 1]]])
    images = np.concatenate([images, np.full_like(images, 255)], axis=2)
    path = write_npz(tmp_path, x_train=images, y_train=np.arange(200), x_validation=images, x_test=images)
    dataset = data.load_dataset(path, "discrete", round_pixels=True)
    np.testing.assert_allclose(dataset.train[:, 1] * 255, dataset.train_labels, atol=1e-4)
    assert 60 < dataset.train_labels[:50].mean() < 140 and sorted(dataset.train_labels) == list(range(200))
    np.testing.assert_allclose(dataset.test[:, 1] * 255, np.arange(200), atol=1e-4)


# --- a user's .npz


def test_npz_of_a_rectangle_without_labels(tmp_path):
    path = write_npz(tmp_path)
    dataset = data.load_dataset(str(path), "discrete")
    assert (dataset.name, dataset.image_shape) == ("images", (4, 6))
    assert [len(getattr(dataset, split)) for split in data.SPLITS] == [20, 6, 5]
    assert dataset.train_labels is dataset.validation_labels is dataset.test_labels is None
    expected = data.prepare(np.load(path)["x_test"], "images.npz")
    np.testing.assert_array_equal(dataset.test, expected)


def test_npz_layouts_agree(tmp_path):
    """Grey as [n, H, W], [n, H, W, 1] and three equal channels, as integers of any width and as floats."""
    grey = np.random.default_rng(0).integers(0, 256, (5, 4, 6))
    expected = data.prepare(grey.astype(np.uint8), "images.npz")
    for images in (grey[..., None], grey[..., None].repeat(3, axis=3), grey.astype(np.int16)):
        dataset = data.load_dataset(write_npz(tmp_path, x_test=images), "discrete")
        np.testing.assert_array_equal(dataset.test, expected)
    for dtype in (np.float32, np.float64):
        floats = (grey / 255).astype(dtype)
        for images in (floats, floats[..., None], floats[..., None].repeat(3, axis=3)):
            dataset = data.load_dataset(write_npz(tmp_path, x_test=images), "discrete", round_pixels=False)
            np.testing.assert_allclose(dataset.test, data.min_max_scale(grey.reshape(5, -1) / 255), atol=1e-6)


def test_round_pixels(tmp_path):
    path = write_npz(tmp_path)
    rounded, exact = (data.load_dataset(path, "discrete", round_pixels=r) for r in (None, False))
    grey = np.load(path)["x_test"].reshape(5, -1).astype(np.float32)
    np.testing.assert_array_equal(exact.test, data.min_max_scale(grey))
    assert not np.array_equal(exact.test, rounded.test)
    np.testing.assert_allclose(exact.test, rounded.test, atol=0.5 / 255 + 1e-6)


RANDOM = np.random.default_rng(1).random((5, 4, 6))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_validation": None}, ["'x_validation' is missing", "x_test"]),
        ({"x_test": np.zeros((5, 24), np.uint8)}, ["'x_test'", "(5, 24)"]),
        ({"x_test": np.zeros((5, 4, 6, 5), np.uint8)}, ["'x_test'", "(5, 4, 6, 5)"]),
        ({"x_test": np.zeros((5, 6, 4), np.uint8)}, ["'x_test'", "(6, 4)", "(4, 6)"]),
        ({"x_train": np.zeros((0, 4, 6), np.uint8)}, ["'x_train'", "empty", "(0, 4, 6)"]),
        ({"x_test": np.where(RANDOM > 0.9, np.nan, RANDOM)}, ["'x_test'", "NaN"]),
        ({"x_test": np.where(RANDOM > 0.9, np.inf, RANDOM)}, ["'x_test'", "infinite"]),
        ({"x_test": np.where(RANDOM > 0.9, 1.5, 0.25)}, ["'x_test'", "from 0.25 to 1.5", "[0, 1]"]),
        ({"x_test": np.where(RANDOM > 0.9, -0.5, 0.25)}, ["'x_test'", "from -0.5 to 0.25", "[0, 1]"]),
        ({"x_test": np.where(RANDOM > 0.9, 256, 3)}, ["'x_test'", "from 3 to 256", "0..255"]),
        ({"x_test": np.where(RANDOM > 0.9, -1, 3)}, ["'x_test'", "from -1 to 3", "0..255"]),
        ({"x_test": RANDOM > 0.5}, ["'x_test'", "bool"]),
        ({"x_test": np.full((5, 4, 6), None)}, ["'x_test'", "allow_pickle"]),
        ({"y_train": np.arange(19)}, ["'y_train'", "(19,)", "(20,)"]),
        ({"y_test": np.zeros((5, 10), int)}, ["'y_test'", "(5, 10)", "(5,)"]),
        ({"y_test": np.zeros(5)}, ["'y_test'", "float64"]),
    ],
)
def test_npz_refused(tmp_path, changes, words):
    message = refusal(write_npz(tmp_path, **changes), "discrete")
    assert "images.npz" in message
    for word in words:
        assert word in message


PICTURE = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize("x, words", [
    (PICTURE, ["(32, 32, 3), which looks like one picture, [H, W, 3]", "(1, 32, 32, 3)", "(32, 32, 3, 1)"]),
    (PICTURE[..., :1], ["one picture, [H, W, 1]"]), (np.zeros((9, 8, 4)), ["one picture, [H, W, 4]"]),
    (np.zeros((5, 3, 8, 6)), ["(5, 3, 8, 6)", "channels come last"]),
    (PICTURE[..., 0], ["(32, 32)", "[n, H, W]"]), (np.zeros((5, 8, 8, 5)), ["(5, 8, 8, 5)"]),
    (np.full((5, 8, 8), 1.00001), ["from 1.00001 to 1.00001"]), (np.full((5, 8, 8), 70_000), ["uint16 in 0..65535"]),
    (np.zeros((5, 8, 8, 4), np.uint8), ["transparent pixels", "--background=black or white"])])
def test_arrays_that_are_no_images_are_refused(x, words, tmp_path):
    message = refusal(write_npz(tmp_path, x_train=x), "discrete")
    for word in ("'x_train'", *words):
        assert word in message


def test_arrays_at_full_depth(tmp_path):
    """uint16 as 16 bits, whatever its byte order; an opaque alpha does not count; float32 may be rounded."""
    deep = np.random.default_rng(1).integers(0, 65536, (5, 4, 6)).astype(np.uint16)
    opaque = np.stack([deep, np.full_like(deep, 65535)], axis=-1)
    for x in (deep, deep.astype(">u2"), opaque, deep % 256):
        path = write_npz(tmp_path, x_test=x)
        found = data.load_dataset(path, "continuous", preparation="raw").test.reshape(5, 4, 6)
        np.testing.assert_array_equal(found, np.float32((x if x.ndim == 3 else deep) / 65535))
    path = write_npz(tmp_path, x_test=np.full((5, 4, 6), [-1e-7, 0, 0.2, 0.4, 1, 1.0000001]))
    test = data.load_dataset(path, "discrete", preparation="raw").test
    np.testing.assert_array_equal(test[0, :6], np.float32([0, 0, 0.2, 0.4, 1, 1]))


@pytest.mark.parametrize("background, white", [("black", 0), ("white", 1)])
def test_alpha_is_laid_on_a_background(background, white):
    for full, dtype in ((255, np.uint8), (65535, np.uint16), (1, np.float32)):
        x = np.array([[[[0.4, 1], [0.4, 0.5]]]])
        x = np.rint(x * full).astype(dtype) if full > 1 else x.astype(dtype)
        expected = [[[0.4, 0.2 + 0.5 * white]]]
        for images in (x, x[..., [0, 0, 0, 1]]):
            found = data.check_images(images, "x", background)
            np.testing.assert_allclose(found / (255 if found.dtype == np.uint8 else 1), expected, atol=0.006)


# --- the preparation "raw"


@pytest.mark.parametrize("likelihood", ["continuous", "discrete"])
@pytest.mark.parametrize("name", [*SAMPLES, "own"])
def test_raw_images_are_pixels_over_255(name, likelihood, tmp_path):
    """Of data sets and of one's own: neither scaled nor rounded nor noisy."""
    path = data.EMBEDDED_DIR / f"{name}.npz" if name in SAMPLES else write_npz(tmp_path)
    dataset = data.load_dataset(name if name in SAMPLES else path, likelihood, preparation="raw")
    with np.load(path) as arrays:
        grey = data.check_images(arrays["x_test"], "x")
    np.testing.assert_array_equal(dataset.test, np.float32(grey.reshape(len(grey), -1) / 255))


def test_constant_images_are_counted(tmp_path):
    levels = np.uint8([0, 128, 255, 7, 7]).reshape(-1, 1, 1) + np.zeros((5, 4, 6), np.uint8)
    levels[3, 0, 0] += 1
    path = write_npz(tmp_path, x_test=levels)
    raw = data.load_dataset(path, "discrete", preparation="raw")
    np.testing.assert_array_equal(raw.test[:3, 5], np.float32([0, 128 / 255, 1]))
    for likelihood, fate in (("discrete", "4 constant, black now"), ("continuous", "4 constant, noise over the whole")):
        dataset = data.load_dataset(path, likelihood)
        assert dataset.num_constant == raw.num_constant == 4
        assert dataset.test[:3].max() == (likelihood == "continuous")
        assert fate in data.describe(4, str(path), likelihood, None, "authors")
    assert data.describe(4, str(path), "discrete", None, "raw") == "prepared as 'raw': pixel / 255; 4 constant"


def test_pixels_between_counts_are_refused_or_rounded(tmp_path):
    x = np.full((5, 4, 6), 0.2)
    x[3, 1, 2] = 0.5 / 255
    path = write_npz(tmp_path, x_test=x)
    message = refusal(path, "discrete", preparation="raw")
    assert "image 3 is 0.5/255 at pixel 8" in message and "--config.round_pixels rounds" in message
    data.load_dataset(path, "continuous", preparation="raw")
    rounded = data.load_dataset(path, "discrete", preparation="raw", round_pixels=True)
    np.testing.assert_array_equal(rounded.test, np.float32(np.rint(x * 255) / 255).reshape(5, -1))
    data.load_dataset(path, "discrete", preparation="raw", round_pixels=False)  # as they are, by request


def test_unknown_preparation_is_refused():
    assert "preparation is 'mine'" in refusal("mnist_sample", "discrete", preparation="mine")


def test_npz_unreadable(tmp_path):
    path = write_npz(tmp_path)
    whole = path.read_bytes()
    assert "no such file" in refusal(tmp_path / "none.npz", "discrete")
    assert "images.npz" in refusal(tmp_path / "images.npz" / "inner.npz", "discrete")
    for contents in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(contents)
        assert "images.npz" in refusal(path, "discrete")
    damaged = bytearray(whole)
    damaged[200] ^= 255  # inside x_train: the archive opens, its checksum fails
    path.write_bytes(damaged)
    assert "'x_train' cannot be read" in refusal(path, "discrete")
    with open(path, "wb") as file:
        np.save(file, np.zeros((5, 4, 6)))
    assert "single array" in refusal(path, "discrete")


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), float("inf"), "0.5", None])
def test_bad_train_fraction(fraction):
    assert f"train_fraction is {fraction!r}" in refusal("mnist_sample", "discrete", train_fraction=fraction)


def test_bad_arguments(tmp_path):
    assert "keeps none of 20" in refusal(write_npz(tmp_path), "discrete", train_fraction=0.04)
    assert "likelihood is 'binary'" in refusal("mnist_sample", "binary")
    assert "dataset is 'minst'" in refusal("minst", "discrete")
    assert "dataset is None" in refusal(None, "discrete")
    for seed in (-1, 0.5, None):
        assert f"seed is {seed!r}" in refusal("mnist_sample", "discrete", seed=seed)
    for name in data.OFFICIAL_SIZES:
        message = refusal(name, "discrete", data_dir=tmp_path)
        assert str(tmp_path) in message and repr(name) in message


# --- TensorFlow Datasets


SVHN_SIZES = {"train": 30, "test": 15, "extra": 200}


@pytest.fixture(params=[1, 4])
def svhn(request, tmp_path, monkeypatch):
    """Small .mat files, made a TFDS data set of 1 or 4 files per split by TFDS's own builder and writer."""
    scipy_io = pytest.importorskip("scipy.io")
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder

    rng = np.random.default_rng(0)
    mats = {}
    for split, count in SVHN_SIZES.items():
        mats[split] = {
            "X": rng.integers(0, 256, (32, 32, 3, count), np.uint8),
            "y": rng.integers(1, 11, (count, 1), np.uint8),
        }
        scipy_io.savemat(tmp_path / f"{split}.mat", mats[split])
    builder = svhn_cropped_dataset_builder.Builder(data_dir=tmp_path / "tensorflow_datasets")
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download", lambda self, urls: {s: tmp_path / f"{s}.mat" for s in urls}
    )
    config = tfds.download.DownloadConfig(num_shards=request.param, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    monkeypatch.setitem(data.OFFICIAL_SIZES, "svhn_cropped", SVHN_SIZES)
    monkeypatch.setattr(data, "SVHN_VALIDATION", 50)
    return tmp_path, mats


def test_svhn_through_tfds(svhn):
    """Validation is the first images of extra_32x32.mat in that file's order; nothing is rounded."""
    folder, mats = svhn
    exact = {}
    for split, mat in mats.items():
        grey = data.luma(np.moveaxis(mat["X"], -1, 0)).reshape(-1, 1024).astype(np.float32)
        exact[split] = data.min_max_scale(grey), mat["y"][:, 0] % 10

    dataset = data.load_dataset("svhn_cropped", "discrete", data_dir=folder)
    assert (dataset.name, dataset.image_shape) == ("svhn_cropped", (32, 32))
    np.testing.assert_array_equal(dataset.validation, exact["extra"][0][:50])
    np.testing.assert_array_equal(dataset.validation_labels, exact["extra"][1][:50])
    for split in ("train", "test"):
        images, labels = getattr(dataset, split), getattr(dataset, f"{split}_labels")
        expected = {row.tobytes(): label for row, label in zip(*exact[split])}
        assert {row.tobytes(): label for row, label in zip(images, labels)} == expected

    prepared = folder / "tensorflow_datasets"
    half = data.load_dataset("svhn_cropped", "discrete", data_dir=prepared, train_fraction=0.5)
    np.testing.assert_array_equal(half.train, dataset.train[:15])
    noisy = data.load_dataset("svhn_cropped", "continuous", data_dir=folder)  # but for the test images, as the authors'
    np.testing.assert_array_equal(noisy.test, dataset.test)
    assert (noisy.train != dataset.train).mean() > 0.9 < (noisy.validation != dataset.validation).mean()
    rounded = data.load_dataset("svhn_cropped", "discrete", data_dir=folder, round_pixels=True)
    np.testing.assert_array_equal(rounded.test, np.rint(dataset.test * 255) / np.float32(255))


def test_svhn_refused(svhn, monkeypatch):
    folder, _ = svhn
    monkeypatch.setattr(data, "OFFICIAL_SIZES", {"svhn_cropped": SVHN_SIZES | {"extra": 531_131}})
    message = refusal("svhn_cropped", "discrete", data_dir=folder)
    for word in ("'svhn_cropped'", "'extra'", "200", "531131"):
        assert word in message
    monkeypatch.setattr(data, "OFFICIAL_SIZES", {"svhn_cropped": SVHN_SIZES | {"other": 7}})
    assert "'other' has 0 images" in refusal("svhn_cropped", "discrete", data_dir=folder)
    monkeypatch.setattr(data, "OFFICIAL_SIZES", {"svhn_cropped": SVHN_SIZES})
    for file in (folder / "tensorflow_datasets").glob("*/*/svhn_cropped-extra*"):
        file.write_bytes(file.read_bytes()[:1000])
    assert "'svhn_cropped' cannot be loaded by TFDS" in refusal("svhn_cropped", "discrete", data_dir=folder)


def test_first_in_file_order_goes_by_id():
    tf = pytest.importorskip("tensorflow")
    places = np.random.default_rng(0).permutation(20)
    examples = tf.data.Dataset.from_tensor_slices({"id": [f"extra_{i:06d}" for i in places], "value": places,
                                                   "label": places})
    first = list(data.first_in_file_order(examples, "extra", 5).as_numpy_iterator())
    assert [example["value"] for example in first] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="do not count"):
        data.first_in_file_order(examples.filter(lambda example: example["value"] != 3), "extra", 5)


# SHA-256 of the authors' discrete arrays, NumPy files of format 1.0 with 80 bytes of header (their repository's names)
AUTHORS_FILES = {
    ("mnist", "train"): "edf45dac013108dc1ef28051f9fc576ed7718ad1d9658502ce5f8ac59e5b13f7",
    ("mnist", "validation"): "4873dd307bdf49814af6d9f42ea74621c870504186c813efcb8d305ab5ecb421",
    ("mnist", "test"): "650ab7f09ed8495b429f9f91d22126657122c9117845c7dbb75116447688a360",
    ("cifar10", "train"): "24c599f67784280b0174fcbb37215fc0e3a000bd6d125c5db3f51dc56bbc693e",
    ("cifar10", "validation"): "41150583043480c63d60257dea532089d753abbd395b576cd9c418cc26778466",
    ("cifar10", "test"): "75edfb5d778dc0d4a98d6976c3c9c2676c0e221bf8b343951f132dfa3562e50f",
}


def sha256_as_npy(x):
    """SHA-256 of float32 rows as NumPy 1.14 wrote them to a file."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {x.shape}, }}".ljust(69) + "\n"
    prefix = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little")
    return hashlib.sha256(prefix + head.encode() + x.astype("<f4").tobytes()).hexdigest()


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_images_are_the_authors_bit_for_bit(name, real_data_dir):
    dataset = data.load_dataset(name, "discrete", data_dir=real_data_dir)
    for split in data.SPLITS:
        x = getattr(dataset, split)
        assert x.dtype == np.float32 and sha256_as_npy(x) == AUTHORS_FILES[name, split]
        x[17, 300] = np.nextafter(x[17, 300], np.float32(2))
        assert sha256_as_npy(x) != AUTHORS_FILES[name, split]
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949] if name == "mnist" else [5000] * 10
    assert np.bincount(labels).tolist() == counts


def test_the_authors_splits_divide_the_official_images():
    for name, num_validation in (("mnist", 10_000), ("cifar10", 10_000)):
        splits = published.authors_splits(name)
        assert len(splits["validation"]) == num_validation
        rows = np.concatenate([splits["train"], splits["validation"]])
        np.testing.assert_array_equal(np.sort(rows), np.arange(data.OFFICIAL_SIZES[name]["train"]))
    assert published.authors_splits("mnist")["train"][:3].tolist() == [40960, 50469, 11645]
    assert (np.diff(published.authors_splits("cifar10")["train"]) > 0).all()


@pytest.mark.realdata
def test_embedded_samples_are_rebuilt(real_data_dir, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    path = ROOT / "scripts" / "build_embedded_sample.py"
    spec = importlib.util.spec_from_file_location("build_embedded_sample", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in script.COUNTS:
        built = script.sample(name, real_data_dir)
        with np.load(data.EMBEDDED_DIR / f"{name}_sample.npz") as shipped:
            assert sorted(shipped) == sorted(built)
            for key, array in built.items():
                assert array.dtype == shipped[key].dtype == np.uint8
                np.testing.assert_array_equal(array, shipped[key])
