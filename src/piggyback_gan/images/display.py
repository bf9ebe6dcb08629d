"""Arrays of any format -> 8-bit RGB, to look at."""

import colorsys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.images.pixels import Pixels


def display(pixels: Pixels, format: ImageFormat) -> NDArray[np.uint8]:
    """Convert pixels (H, W, C) of a format to 8-bit RGB (H, W, 3).

    The range from `low` to `high` becomes 0 to 255. Gray is repeated; RGBA is blended with white; two channels
    become red and green; of more than four the first three are shown; each class has a colour.
    """
    if format.labels:
        return _class_colors(format.channels)[pixels[:, :, 0]]
    full = format.depth == "uint8" and (format.low, format.high) == FULL_RANGE["uint8"]
    if full:
        shown = pixels
    else:
        scaled = (pixels.astype(np.float64) - format.low) / (format.high - format.low)
        shown = (scaled * 255).round().clip(0, 255).astype(np.uint8)
    channels = shown.shape[2]
    if channels == 1:
        return shown.repeat(3, axis=2)
    if channels == 2:
        return np.pad(shown, ((0, 0), (0, 0), (0, 1)))
    if channels == 4:
        alpha = shown[:, :, 3:].astype(np.float64) / 255
        over_white = shown[:, :, :3] * alpha + 255 * (1 - alpha)
        return np.asarray(over_white.round().astype(np.uint8))
    return np.ascontiguousarray(shown[:, :, :3])


def grid(rows: Iterable[Iterable[Pixels]], gap: int = 2) -> Pixels:
    """Arrange rows of uint8 images (H, W, 1 or 3) of one size in an RGB image, with white gaps of `gap` pixels."""
    lines = []
    for row in rows:
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in row]
        lines.append(
            [np.pad(image, ((0, gap), (0, gap), (0, 0)), constant_values=255) for image in images]
        )
    return np.concatenate([np.concatenate(line, axis=1) for line in lines], axis=0)[:-gap, :-gap]


def _class_colors(count: int) -> NDArray[np.uint8]:
    """Return (count, 3): black for class 0, then hues spaced by the golden ratio."""
    hues = [
        colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.9 - 0.3 * (i % 3 == 0), 1 - 0.2 * (i % 2))
        for i in range(1, count)
    ]
    colors = np.array([(0.0, 0.0, 0.0), *hues])
    return np.asarray((255 * colors).round(), dtype=np.uint8)
