"""Pictures of a folder, of whatever kind: each is read at its full depth, or left out with a reason."""

import os
import warnings
from collections import defaultdict

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from spvae_tf.errors import InputError
from spvae_tf.training.data import check_images

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
UPRIGHT, SIDEWAYS = 1, (5, 6, 7, 8)  # of EXIF's orientations
PNG_DEPTH = slice(24, 25)  # where a .png says how many bits a channel has


def read_pictures(path, image_shape, background=None):
    """Reads a picture, or all pictures of a folder that have a (height, width).

    Pictures are .png, .jpg, .jpeg, .bmp, .gif and .webp in any capitals. Of several frames the first counts; a
    photograph stands as its camera stood. Hidden files, other files and pictures that cannot be read are left out.

    Returns:
      images: grey, [n, H, W], as of `check_images`.
      names: of their files, sorted. Bytes that are not UTF-8 are escaped.
      report: lines of text that account for every file.

    Raises:
      InputError: when no picture can be read.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    images, names, left_out, animated = [], [], defaultdict(list), []
    for file in files:
        name = os.fsencode(file.name).decode("utf-8", "backslashreplace")
        try:
            pixels, num_frames = _read(file, image_shape)
            images += list(check_images(pixels[None], "picture", background))
        except InputError as error:
            left_out[str(error)].append(name)
            continue
        names.append(name)
        animated += [name] * (num_frames > 1)
    lines = [f"not read, {reason}: {_listed(others)}" for reason, others in left_out.items()]
    if not images:
        raise InputError(f"{path} holds no picture that can be read{': ' if lines else ''}{'; '.join(lines)[:500]}")
    if len({image.dtype for image in images}) > 1:  # of several depths
        images = [image if image.dtype == np.float32 else image / np.float32(255) for image in images]
    if animated:
        lines.insert(0, f"of several frames, of which the first counts: {_listed(animated)}")
    return np.stack(images), names, [f"read {len(names)} of {len(files)} files in {path}", *lines]


def _listed(names):
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def _read(path, image_shape):
    """(pixels [H, W] or [H, W, channels], uint8 or uint16; the number of frames) of a picture, else InputError."""
    if path.name.startswith("."):
        raise InputError("hidden")
    if not path.is_file():  # nor a link to one
        raise InputError("not a file")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"none of {', '.join(FORMATS)}")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=sorted({*FORMATS.values()})) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
            height, width = image.size if orientation in SIDEWAYS else image.size[::-1]
            if (height, width) == tuple(image_shape):  # else it is not worth decoding, however large
                return _decode(path, image, orientation), getattr(image, "n_frames", 1)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("no picture by its content") from error
    except Exception as error:  # in as many ways as there are file formats
        raise InputError(f"damaged ({type(error).__name__})") from error
    raise InputError(f"{height}×{width} pixels where the model takes {image_shape[0]}×{image_shape[1]}")


def _decode(path, image, orientation):
    """The first frame of an open picture, upright."""
    if image.format == "PNG" and path.read_bytes()[PNG_DEPTH] == b"\x10":  # 16 bits, of which Pillow would keep 8
        if orientation != UPRIGHT:
            raise InputError("of 16 bits and not upright, by its EXIF orientation")
        return tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
