"""Pictures of a folder, each at its full depth, or left out with a reason."""

import re

import numpy as np
import odd_pictures
import pytest
from odd_pictures import BAR, DEEP, GREY, LEFT_OUT, READ, RGB, SHAPE
from PIL import Image

from spvae_tf.errors import InputError
from spvae_tf.training import data, picture_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return odd_pictures.write(tmp_path_factory.mktemp("odd") / "pictures")


def test_every_file_is_read_or_named_with_a_reason(folder):
    images, names, report = picture_files.read_pictures(folder, SHAPE)
    assert names == sorted(READ) and images.shape == (len(READ), *SHAPE)
    left_out = {name: reason for reason, names in LEFT_OUT.items() for name in names}
    assert report[0] == f"read {len(READ)} of {len(READ) + len(left_out)} files in {folder}"
    lines = [re.fullmatch("not read, (.*): (.*)", line).groups() for line in report if line.startswith("not read")]
    found = {name: reason for reason, listed in lines for name in listed.split(", ")}
    assert found.keys() == left_out.keys()
    assert all(reason in found[name] for name, reason in left_out.items()), found
    assert "of several frames, of which the first counts: animated.gif, animated.png, animated.webp" in report


def test_pixels_are_what_the_pictures_show(folder):
    images, names, _ = picture_files.read_pictures(folder, SHAPE)
    found = dict(zip(names, images))
    for name in ("a.png", "B.PNG", "d.bmp", "e.GIF", "png_as.jpg", "palette.png", "é.png", r"caf\xe9.png",
                 "animated.gif", "animated.png", "animated.webp"):
        np.testing.assert_array_equal(found[name], GREY / np.float32(255), err_msg=name)
    for name in ("c.jpg", "exif.jpg", "f.WebP"):  # their compression loses something
        assert np.abs(found[name] - GREY / 255).mean() < 0.1, name
    np.testing.assert_allclose(found["opaque.png"], data.luma(RGB) / 255, atol=1e-6)
    np.testing.assert_array_equal(found["bit.png"], GREY > 100)
    np.testing.assert_allclose(found["grey16.png"], DEEP[1][..., 0] / 65535, atol=1e-6)
    np.testing.assert_allclose(found["dark16.png"], DEEP[1][..., 0] % 256 / 65535, atol=1e-7)
    np.testing.assert_allclose(found["rgb16.png"], DEEP[3] @ [0.299, 0.587, 0.114] / 65535, atol=1e-6)


@pytest.mark.parametrize("background, bar", [("black", 0), ("white", 1)])
def test_transparent_pictures_lie_on_a_background(background, bar, folder):
    images, names, report = picture_files.read_pictures(folder, SHAPE, background)
    assert set(names) == {*READ, *LEFT_OUT["transparent"]} and "transparent" not in " ".join(report)
    found = dict(zip(names, images))
    np.testing.assert_array_equal(found["bar.png"], bar * (BAR[..., 3] == 0))
    grey, alpha = np.moveaxis(DEEP[2] / 65535, -1, 0)
    np.testing.assert_allclose(found["alpha16.png"], alpha * grey + (1 - alpha) * bar, atol=1e-6)
    assert found["trns.png"][0, 0] == bar


@pytest.mark.parametrize("orientation, turn", [
    (1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud), (5, np.transpose), (6, np.rot90),
    (7, lambda x: np.rot90(x, 2).T), (8, lambda x: np.rot90(x, -1)), (99, lambda x: x)])
def test_photographs_stand_as_their_camera_stood(orientation, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turn(GREY))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(picture_files.read_pictures(tmp_path, SHAPE)[0], GREY[None])


def test_pictures_of_8_bits_remain_counts(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert picture_files.read_pictures(tmp_path, SHAPE)[0].dtype == np.uint8


@pytest.mark.parametrize("files, message", [({}, "no picture that can be read$"),
                                            ({"a.png": b"text"}, "no picture that can be read: not read, no picture"),
                                            ({".a.png": b""}, "hidden: .a.png")])
def test_a_folder_without_pictures_is_refused(files, message, tmp_path):
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError, match=message) as caught:
        picture_files.read_pictures(tmp_path, SHAPE)
    assert "\n" not in str(caught.value)
