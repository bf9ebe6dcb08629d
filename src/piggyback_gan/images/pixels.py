"""Pixel arrays as decoded from a file, and limits of their size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.errors import PiggybackError

Pixels = NDArray[Any]
"""(H, W, C) array of a file's own dtype: uint8, uint16 or float32."""
MAX_PIXELS = 178_956_970
"""Pillow's limit for decompression bombs: 13,377 x 13,377 pixels."""
LARGE = 2**24  # pixels


@dataclass(frozen=True, eq=False)
class Decoded:
    """Content of an image file, upright, before conversion to a task's format.

    Attributes:
        pixels: (H, W, C), uint8, uint16 or float32.
        alpha: whether the last channel is transparency.
        color: whether the other channels are gray or RGB rather than other quantities.
        indices: (H, W, 1), the stored integers of files with one channel: palette indices rather than
            colours, 0 and 1 rather than 0 and 255. None for all other files.
    """

    pixels: Pixels
    alpha: bool = False
    color: bool = True
    indices: Pixels | None = None

    @property
    def opaque(self) -> bool:
        """Whether every pixel is fully opaque."""
        if not self.alpha:
            return True
        full = 1 if self.pixels.dtype == np.float32 else np.iinfo(self.pixels.dtype).max
        return bool((self.pixels[..., -1] == full).all())

    def cut(self, left: int, right: int) -> Decoded:
        """Return the columns from `left` up to `right`."""
        indices = None if self.indices is None else self.indices[:, left:right]
        return replace(self, pixels=self.pixels[:, left:right], indices=indices)

    def turned(self, orientation: int) -> Decoded:
        """Return the image turned upright, given its EXIF orientation (1 to 8)."""
        indices = None if self.indices is None else _turned(self.indices, orientation)
        return replace(self, pixels=_turned(self.pixels, orientation), indices=indices)


class TooManyPixels(PiggybackError):
    """An image has more pixels than the limit.

    Attributes:
        found: its size: "20000x20000 with 3 channels".
    """

    def __init__(self, message: str, found: str) -> None:
        super().__init__(message)
        self.found = found


def check_size(width: int, height: int, channels: int, max_pixels: int) -> None:
    """Check the size of an image before it is decoded; each four channels count as a pixel.

    Raises:
        TooManyPixels: it has more than `max_pixels`.
        PiggybackError: it has no pixels.
    """
    if width < 1 or height < 1:
        raise PiggybackError(f"can't be read: {width}x{height} pixels")
    pixels = width * height * -(-channels // 4)
    if pixels > max_pixels:
        found = f"{width}x{height} with {channels} channels"
        raise TooManyPixels(
            f"too many pixels: {found}, the limit is {max_pixels}: if you trust the file, give "
            f"--max-pixels {pixels}",
            found,
        )


def is_large(width: int, height: int) -> bool:
    """Return whether an image is so large that copies in Pillow are to be avoided."""
    return width * height > LARGE


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """Do what ImageOps.exif_transpose does, for arrays."""
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
