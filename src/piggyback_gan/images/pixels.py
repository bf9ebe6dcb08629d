"""Decoded pixels, size limits, and errors that name the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.errors import PiggybackError

Pixels = NDArray[Any]
"""(H, W, C) of a file's own type: uint8, uint16 or float32."""


MAX_PIXELS = 178_956_970
"""Where Pillow sees a decompression bomb: 13,377 x 13,377 pixels."""


LARGE = 2**24  # pixels


@dataclass(frozen=True, eq=False)
class Decoded:
    """What an image file holds, turned upright, before it is fitted to what a task takes.

    Attributes:
        pixels: (H, W, C), uint8, uint16 or float32.
        alpha: the last channel is transparency.
        color: the channels before are gray or RGB, not any other quantities.
        indices: (H, W, 1), what the file itself stores, where that is one channel of integers: palette
            indices rather than colours, 0 and 1 rather than 0 and 255.
    """

    pixels: Pixels
    alpha: bool = False
    color: bool = True
    indices: Pixels | None = None

    @property
    def opaque(self) -> bool:
        """No pixel is transparent, even a little."""
        if not self.alpha:
            return True
        full = 1 if self.pixels.dtype == np.float32 else np.iinfo(self.pixels.dtype).max
        return bool((self.pixels[..., -1] == full).all())

    def cut(self, left: int, right: int) -> Decoded:
        """The columns from left to right."""
        indices = None if self.indices is None else self.indices[:, left:right]
        return replace(self, pixels=self.pixels[:, left:right], indices=indices)

    def turned(self, orientation: int) -> Decoded:
        """Upright, of a file that says it lies so (EXIF orientation 1 to 8)."""
        indices = None if self.indices is None else _turned(self.indices, orientation)
        return replace(self, pixels=_turned(self.pixels, orientation), indices=indices)


class TooManyPixels(PiggybackError):
    """An image is larger than is allowed.

    Attributes:
        found: its size, in words.
    """

    def __init__(self, message: str, found: str) -> None:
        super().__init__(message)
        self.found = found


def check_size(width: int, height: int, channels: int, max_pixels: int) -> None:
    """Refuse what would fill the memory; of more than four channels each four count as a pixel.

    Raises:
        TooManyPixels: more than allowed.
        PiggybackError: there are none.
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
    """Whether an image is so large that Pillow should not hold a copy of it, where that can be helped."""
    return width * height > LARGE


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """What ImageOps.exif_transpose does, for arrays."""
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
