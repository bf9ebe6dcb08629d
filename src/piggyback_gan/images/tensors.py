"""Arrays of a task's format <-> tensors in [-1, 1], and resizing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from piggyback_gan.images.encode import to_pil
from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.images.pixels import Pixels


def normalize(stored: NDArray[np.generic], format: ImageFormat) -> Tensor:
    """Map stored values (..., C, H, W) to float32, linearly from low..high to -1..1.

    Label maps (..., 1, H, W) become one-hot (..., classes, H, W) of -1 and 1.
    """
    if format.labels:
        classes = torch.arange(format.channels).view(-1, 1, 1)
        return (torch.from_numpy(stored.astype(np.int64)) == classes).float() * 2 - 1
    values = torch.from_numpy(stored.astype(np.float32))
    return values.sub_(format.low).div_((format.high - format.low) / 2).sub_(1)


def to_tensor(pixels: Pixels, format: ImageFormat) -> Tensor:
    """Convert pixels (H, W, C) of a format to float32 (format.channels, H, W), as `normalize` does."""
    return normalize(np.ascontiguousarray(pixels.transpose(2, 0, 1)), format)


def to_pixels(image: Tensor, format: ImageFormat) -> Pixels:
    """Convert a network's output (C, H, W) to pixels (H, W, C) of the format.

    Integers are rounded, and clipped to the range of their dtype. Label maps are the index of the largest
    channel, (H, W, 1).
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
    """Resize pixels (H, W, C) to (size, size, C): bicubic, as in pix2pix; label maps by nearest neighbour."""
    if pixels.shape[:2] == (size, size):
        return pixels
    channels = pixels.shape[2]
    if labels:
        rows, columns = ((np.arange(size) + 0.5) * side / size for side in pixels.shape[:2])
        return np.asarray(pixels[rows.astype(int)[:, None], columns.astype(int)])
    if pixels.dtype == np.uint8 and channels in (1, 3):
        image = to_pil(pixels).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(size, size, channels)
    planes = (Image.fromarray(pixels[:, :, i].astype(np.float32)) for i in range(channels))
    resized = [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in planes]
    values = np.stack(resized, axis=2)
    if pixels.dtype.name in FULL_RANGE:
        values = values.round().clip(*FULL_RANGE[pixels.dtype.name])
    return np.asarray(values.astype(pixels.dtype))
