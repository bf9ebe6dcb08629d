"""Images of a task's format: files <-> arrays <-> tensors. Whatever would lose data is refused."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from piggyback_gan.images.display import display, grid
from piggyback_gan.images.encode import SUFFIXES, best_suffix, can_hold, encode, to_pil
from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.images.pixels import MAX_PIXELS, Pixels
from piggyback_gan.images.read import (
    Source,
    detect_format,
    from_pil,
    list_images,
    read_halves,
    read_image,
    value_ranges,
)

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Pixels",
    "Source",
    "best_suffix",
    "can_hold",
    "detect_format",
    "display",
    "encode",
    "from_pil",
    "grid",
    "list_images",
    "normalize",
    "read_halves",
    "read_image",
    "resize",
    "to_pil",
    "to_pixels",
    "to_tensor",
    "value_ranges",
]


def normalize(stored: NDArray[np.generic], format: ImageFormat) -> Tensor:
    """Values of files (..., C, H, W) -> float32, what networks take: low..high become -1..1.

    Label maps (..., 1, H, W) become one-hot (..., classes, H, W) of -1 and 1.
    """
    if format.labels:
        classes = torch.arange(format.channels).view(-1, 1, 1)
        return (torch.from_numpy(stored.astype(np.int64)) == classes).float() * 2 - 1
    values = torch.from_numpy(stored.astype(np.float32))
    return values.sub_(format.low).div_((format.high - format.low) / 2).sub_(1)


def to_tensor(pixels: Pixels, format: ImageFormat) -> Tensor:
    """Pixels (H, W, C) of a format -> float32 (format.channels, H, W), as `normalize` does."""
    return normalize(np.ascontiguousarray(pixels.transpose(2, 0, 1)), format)


def to_pixels(image: Tensor, format: ImageFormat) -> Pixels:
    """A network's output (C, H, W) -> pixels (H, W, C) of the format.

    Integers are rounded, and clipped to what their type can hold. Of label maps: the index of the
    largest channel, (H, W, 1).
    """
    image = image.detach().cpu()
    if format.labels:
        return np.asarray(image.argmax(0)[..., None].numpy().astype(format.depth))
    values = image.float() + 1
    values = values.mul_((format.high - format.low) / 2).add_(format.low)
    if format.depth in FULL_RANGE:
        values = values.round_().clamp_(*FULL_RANGE[format.depth])
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy().astype(format.depth))


def resize(pixels: Pixels, size: int, *, labels: bool = False) -> Pixels:
    """Resize to (size, size): bicubic, as pix2pix does; label maps to the nearest index."""
    if pixels.shape[:2] == (size, size):
        return pixels
    channels = pixels.shape[2]
    if labels:
        rows, columns = ((np.arange(size) + 0.5) * side / size for side in pixels.shape[:2])
        return np.asarray(pixels[rows.astype(int)[:, None], columns.astype(int)])
    if pixels.dtype == np.uint8 and channels in (1, 3):
        resized = np.asarray(to_pil(pixels).resize((size, size), Image.Resampling.BICUBIC))
        return resized.reshape(size, size, channels)
    planes = [
        np.asarray(
            Image.fromarray(pixels[:, :, i].astype(np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC
            )
        )
        for i in range(channels)
    ]
    values = np.stack(planes, axis=2)
    if pixels.dtype.name in FULL_RANGE:
        values = values.round().clip(*FULL_RANGE[pixels.dtype.name])
    return np.asarray(values.astype(pixels.dtype))
