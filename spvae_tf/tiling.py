"""Images in parts, so that a convolution of small images skips most zeros of its written-out kernel.

Written out as a matrix [pixels, pixels], a 3×3 kernel on 7×7 pixels is 85 % zeros. But a quarter of the output, a tile,
sees no more of the input than its own rows and columns and one more of each: four products for four tiles make 43 % of
the multiplications. To copy the input of each tile together would cost what is saved. Therefore the layer before makes
its output in strips of columns, of which a tile sees two, and of these the upper or the lower rows, which lie side by
side in the strip: a piece.

    columns 0 1 2 | 3 4 | 5 6     the tile of rows 0–3 and columns 0–3 sees rows 0–4 of the first two strips

A rectangle is a pair of slices, of an image's rows and columns.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

WHOLE = slice(None), slice(None)
SMALLEST = 6  # pixels of a side that is cut in two; smaller products would be slower


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


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some rows of a strip.

    Attributes:
      rectangle: where it lies in the image.
      strip: the number of its strip.
      pixels: the slice of the strip's pixels that it is.
    """

    rectangle: tuple
    strip: int
    pixels: slice


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the input and the output of a convolution are cut.

    Attributes:
      strips: rectangles that make up the input.
      pieces: of the strips, which overlap.
      tiles: (rectangle, numbers of the pieces that it sees) each; they make up the output.
    """

    strips: tuple
    pieces: tuple
    tiles: tuple


UNCUT = Tiling((WHOLE,), (Piece(WHOLE, 0, slice(None)),), ((WHOLE, (0,)),))


@functools.lru_cache
def quarters(size):
    """The tiling for a 3×3 convolution of stride 1; sides of fewer than SMALLEST pixels stay whole.

    Args:
      size: (height, width) of its input and output.

    Returns:
      Tiling.
    """
    height, width = size
    rows, columns = [_halves(n) for n in size]
    bands = [slice(max(half.start - 1, 0), min(half.stop + 1, height)) for half in rows]
    cuts = [0, width] if len(columns) == 1 else [0, columns[1].start - 1, columns[1].start + 1, width]
    strips = [slice(*ends) for ends in itertools.pairwise(cuts)]
    pieces = [Piece((band, strip), number, slice(*((strip.stop - strip.start) * n for n in (band.start, band.stop))))
              for band in bands for number, strip in enumerate(strips)]
    tiles = []
    for (b, half), (c, other) in itertools.product(enumerate(rows), enumerate(columns)):
        first = b * len(strips) + c
        tiles.append(((half, other), (first,) if len(strips) == 1 else (first, first + 1)))
    return Tiling(tuple((slice(0, height), strip) for strip in strips), tuple(pieces), tuple(tiles))


def _halves(length):
    if length < SMALLEST:
        return [slice(0, length)]
    return [slice(0, -(-length // 2)), slice(-(-length // 2), length)]
