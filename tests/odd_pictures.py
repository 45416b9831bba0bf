"""A folder of odd files: pictures of many kinds, damaged ones, hidden ones, odd names, and files of other kinds."""

import os
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = SHAPE = 12, 8
RNG = np.random.default_rng(0)
GREY, RGB = RNG.integers(0, 256, SHAPE, np.uint8), RNG.integers(0, 256, [*SHAPE, 3], np.uint8)
DEEP = {channels: RNG.integers(0, 65536, [*SHAPE, channels]).astype(np.uint16) for channels in (1, 2, 3)}
BAR = np.zeros([*SHAPE, 4], np.uint8)  # black on nothing, in alpha alone
BAR[:, 2:4, 3] = 255

READ = ["a.png", "B.PNG", "c.jpg", "C.JPEG", "d.bmp", "e.GIF", "f.WebP", "bit.png", "palette.png", "opaque.png",
        "dark16.png", "grey16.png", "rgb16.png", "cmyk.jpg", "exif.jpg", "png_as.jpg", "constant.png", "animated.gif",
        "animated.webp", "animated.png", "é.png", "two\nlines.png", '"quote", comma.png', r"caf\xe9.png"]
LEFT_OUT = {  # by a part of the reason
    "hidden": [".DS_Store", "._a.png", ".hidden.png"], "none of .png": ["Thumbs.db", "tiff.tif", "no_suffix"],
    "not a file": ["d.png", "broken_link.png", "fifo.png"], "4000×4000 pixels": ["large.png"],
    "1×1 pixels": ["one.png"], "8×12 pixels": ["turned.png"],
    "transparent": ["bar.png", "grey_alpha.png", "alpha16.png", "trns.png"],
    "no picture": ["text.png", "empty.png", "tiff.png"],
    "damaged": ["checksum.png", "bomb.png", "cut.png", "cut.jpg", "cut.bmp", "cut.gif", "cut.webp"]}


def _chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, size=None):
    """A .png of pixels [H, W, channels], uint8 or uint16, as Pillow does not write all; `size` is a false one."""
    (height, width), channels = size or pixels.shape[:2], pixels.shape[2]
    depth, kind = 8 * pixels.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
            + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b""))


def write(folder):
    """Writes READ and LEFT_OUT into a new folder, which is returned."""
    folder.mkdir()

    def save(name, pixels, **options):
        Image.fromarray(pixels).save(folder / name, **options)

    for name in ("a.png", "B.PNG", "c.jpg", "d.bmp", "e.GIF", "f.WebP", ".hidden.png", "é.png", "two\nlines.png",
                 '"quote", comma.png'):
        save(name, GREY)
    save("no_suffix", GREY, format="PNG")
    save("C.JPEG", RGB)
    save("bit.png", GREY > 100)
    save("constant.png", np.full(SHAPE, 128, np.uint8))
    save("one.png", GREY[:1, :1])
    save("large.png", np.zeros([4000, 4000], np.uint8))
    save("turned.png", np.ascontiguousarray(GREY.T))
    save("trns.png", RGB, transparency=tuple(map(int, RGB[0, 0])))
    Image.fromarray(GREY).convert("P").save(folder / "palette.png")
    for name in ("cmyk.jpg", "tiff.tif"):
        Image.fromarray(RGB).convert("CMYK").save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90°
    save("exif.jpg", np.ascontiguousarray(np.rot90(GREY)), exif=exif, quality=100)
    others = [Image.fromarray(np.roll(GREY, n, axis=1)) for n in (1, 2)]
    for name, options in (("animated.gif", {}), ("animated.webp", dict(lossless=True)), ("animated.png", {})):
        save(name, GREY, save_all=True, append_images=others, **options)
    whole = {name: (folder / name).read_bytes() for name in ("a.png", "c.jpg", "d.bmp", "e.GIF", "f.WebP", "tiff.tif")}
    contents = {f"cut{name[name.index('.'):].lower()}": data[:-30] for name, data in whole.items()}
    del contents["cut.tif"]
    contents |= {"png_as.jpg": whole["a.png"], "tiff.png": whole["tiff.tif"], "text.png": b"text", "empty.png": b"",
                 "checksum.png": whole["a.png"][:60] + b"x" + whole["a.png"][61:], "Thumbs.db": b"x", ".DS_Store": b"x",
                 "._a.png": b"\0\5\x16\7", "dark16.png": png(DEEP[1] % 256), "grey16.png": png(DEEP[1]),
                 "rgb16.png": png(DEEP[3]), "alpha16.png": png(DEEP[2]), "bar.png": png(BAR),
                 "opaque.png": png(np.dstack([RGB, np.full(SHAPE, 255, np.uint8)])),
                 "grey_alpha.png": png(np.dstack([GREY, GREY[::-1]])),
                 "bomb.png": png(BAR, (10**5, 10**5))}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:  # no UTF-8
        file.write(whole["a.png"])
    (folder / "d.png").mkdir()
    (folder / "broken_link.png").symlink_to("nowhere")
    os.mkfifo(folder / "fifo.png")
    return folder
