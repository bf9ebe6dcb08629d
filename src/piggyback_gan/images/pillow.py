"""Pillow images -> arrays."""

import numpy as np
from PIL import Image, ImageFile, ImageOps

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.pixels import LARGE, Decoded, Pixels, check_size, is_large

_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "F")


def decode_pil(image: Image.Image, gray_bits: int = 8) -> Decoded:
    """Convert a PIL image.

    Args:
        image: of mode 1, L, P, RGB, LA, PA, RGBA, I;16 or F.
        gray_bits: bits per gray value in its file; Pillow scales 2 and 4 bits to 8, label maps need them as
            they were.

    Raises:
        PiggybackError: its mode is not supported.
    """
    mode = image.mode
    if mode in _DEEP_MODES:
        values = np.asarray(image)
        values = values.astype(np.float32 if mode == "F" else np.uint16, copy=False)[..., None]
        return Decoded(values, indices=None if mode == "F" else values)
    if mode not in _MODES:
        raise PiggybackError(f"mode {mode} is not supported: save it as gray, RGB or RGBA")
    indices = None
    if mode in ("1", "L", "P"):
        indices = _values(image).astype(np.uint8, copy=False)
        if mode == "L" and gray_bits in (2, 4):
            indices = indices // (255 // (2**gray_bits - 1))
    alpha = mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    gray = mode in ("1", "L", "LA")
    plain = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
    pixels = _values(image if image.mode == plain else image.convert(plain))
    return Decoded(pixels, alpha=alpha, indices=indices)


def decode_with_pillow(image: ImageFile.ImageFile, max_pixels: int, gray_bits: int = 8) -> Decoded:
    """Decode an image of at most 8 bits that one of Pillow's plugins opened.

    `Image.open` would apply its own limit of pixels.

    Raises:
        TooManyPixels: it has more than `max_pixels`.
        PiggybackError: its mode is not supported, or it has several frames.
    """
    check_size(image.width, image.height, len(image.getbands()), max_pixels)
    frames = getattr(image, "n_frames", 1)
    # An MPO is a phone's JPEG with previews or a gain map behind the photo.
    if image.format != "MPO" and frames > 1:
        raise PiggybackError(f"it has {frames} frames or pages: only one is supported")
    ImageOps.exif_transpose(image, in_place=True)
    return decode_pil(image, gray_bits)


def _values(image: Image.Image) -> Pixels:
    """Return a PIL image as (H, W, C); a large one in parts, as Pillow would hold three copies at once."""
    height, width = image.height, image.width
    if not is_large(width, height):
        return np.asarray(image).reshape(height, width, -1)
    bands, rows = len(image.getbands()), max(LARGE // width, 1)
    values = np.empty((height, width, bands), bool if image.mode == "1" else np.uint8)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        values[top : top + rows] = np.asarray(part).reshape(-1, width, bands)
    return values
