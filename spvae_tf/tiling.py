"""Images in parts, so that the convolution of a small image skips most zeros of its written-out kernel.

Written out as a matrix [pixels, pixels], a 3×3 kernel on 7×7 pixels is 85 % zeros. But a quarter of the output, a tile,
sees no more of the input than its own rows and columns and one more of each, which is 43 % of the multiplications for
all four. To copy each tile's input together would cost what is saved. Therefore the layer before makes it in strips of
columns, two of which a tile sees, and of these the upper or the lower rows, which lie side by side: a piece. The pieces
overlap by two rows, for which softplus is computed twice.

    columns 0 1 2 | 3 4 | 5 6     the tile of rows 0–3 and columns 0–3 sees rows 0–4 of the first two strips

A rectangle is a pair of slices, of an image's rows and columns.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

WHOLE = slice(None), slice(None)
SMALLEST = 5  # pixels of a side that is cut in two, at least 4; with shorter ones nothing is gained


def places(rectangle, size, channels=1):
    """Where a rectangle's features lie among those of an image, which are ordered (row, column, channel).

    Args:
      rectangle: a pair of slices.
      size: (height, width) of the image.
      channels: per pixel.

    Returns:
      int array [features of the rectangle].
    """
    return np.arange(math.prod(size) * channels).reshape(*size, channels)[rectangle].ravel()


def grown(part, length):
    """What a part of a side sees through a kernel of 3, or is seen by: one pixel more at each end.

    Args:
      part: slice; the whole side grows no more.
      length: pixels of the side.

    Returns:
      slice with both ends given.
    """
    return slice(max((part.start or 0) - 1, 0), min((part.stop or length) + 1, length))


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some rows of a strip.

    Attributes:
      rectangle: where it lies in the image.
      strip: number of its strip.
      pixels: slice of the strip's pixels.
    """

    rectangle: tuple
    strip: int
    pixels: slice


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the input and the output of a convolution are cut.

    Attributes:
      strips: rectangles that make up the input.
      pieces: of the strips; they overlap.
      tiles: (rectangle, numbers of the pieces that it sees) each; they make up the output, row by row.
    """

    strips: tuple
    pieces: tuple
    tiles: tuple


UNCUT = Tiling((WHOLE,), (Piece(WHOLE, 0, slice(None)),), ((WHOLE, (0,)),))


@functools.lru_cache
def quarters(size):
    """The tiling for a 3×3 convolution of stride 1; sides of fewer than SMALLEST pixels are not cut.

    Args:
      size: (height, width) of its input and of its output.

    Returns:
      Tiling.
    """
    height, width = size
    rows, columns = map(_halves, size)
    seams = [end for half in columns[1:] for end in (half.start - 1, half.start + 1)]
    strips = [slice(*ends) for ends in itertools.pairwise([0, *seams, width])]
    pieces = []
    for half in rows:
        seen = grown(half, height)
        for number, strip in enumerate(strips):
            side = strip.stop - strip.start
            pieces.append(Piece((seen, strip), number, slice(side * seen.start, side * seen.stop)))
    tiles = []
    for (i, above), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        nearest = i * len(strips) + j  # and the next one, where there is a seam
        tiles.append(((above, left), tuple(range(nearest, nearest + len(columns)))))
    return Tiling(tuple((slice(0, height), strip) for strip in strips), tuple(pieces), tuple(tiles))


def _halves(length):
    if length < SMALLEST:
        return [slice(0, length)]
    return [slice(0, -(-length // 2)), slice(-(-length // 2), length)]
