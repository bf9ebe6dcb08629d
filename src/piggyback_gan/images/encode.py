"""Arrays -> image files, and which kinds of files can hold them without loss."""

import io
from typing import Any

import numpy as np
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

TIFF_SUFFIXES = (".tif", ".tiff")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_ALPHA_SUFFIXES = (".png", ".webp")
_LARGEST_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}


def best_suffix(format: ImageFormat) -> str:
    """Return ".png" if PNG can hold images of the format, else ".tif"."""
    return ".png" if fits(".png", format.depth, format.stored_channels) else ".tif"


def can_hold(suffix: str, format: ImageFormat) -> bool:
    """Return whether files with the suffix (".png") can hold images of the format; JPEG is lossy."""
    suffix = suffix.lower()
    is_lossy = suffix in _JPEG_SUFFIXES
    return fits(suffix, format.depth, format.stored_channels) and not (format.labels and is_lossy)


def to_pil(pixels: Pixels) -> Image.Image:
    """Convert pixels (H, W, C) to a PIL image of mode L, RGB, RGBA, I;16 or F.

    Raises:
        PiggybackError: PIL has no mode for such an array.
    """
    channels = pixels.shape[2]
    if channels == 1 or (pixels.dtype == np.uint8 and channels in (3, 4)):
        return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    raise PiggybackError(
        f"PIL has no images with {channels} channels of {pixels.dtype}: use the array or a tensor"
    )


def encode(pixels: Pixels, suffix: str) -> bytes:
    """Encode pixels as an image file; all kinds but JPEG are lossless.

    Args:
        pixels: (H, W, C), uint8, uint16 or float32.
        suffix: kind of file: ".png".

    Raises:
        PiggybackError: files of this kind can't hold such an array; the message names one that can.
    """
    suffix = suffix.lower()
    height, width, channels = pixels.shape
    check_fits((height, width, channels), pixels.dtype.name, suffix)
    buffer = io.BytesIO()
    plain = pixels[:, :, 0] if channels == 1 else pixels
    if suffix in TIFF_SUFFIXES and (pixels.dtype != np.uint8 or channels not in (1, 3)):
        import tifffile

        plain = np.ascontiguousarray(plain)
        tifffile.imwrite(buffer, plain, metadata=None, software=False, **tiff_options(channels))
        return buffer.getvalue()
    if pixels.dtype == np.uint16:
        import imagecodecs

        # Level 1 is three times as fast as the default, and compresses noisy images as well.
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(plain), level=1))
    options: dict[str, Any] = {"quality": 95} if suffix in _JPEG_SUFFIXES else {}
    if suffix == ".webp":
        # exact: keep the colours of fully transparent pixels.
        options = {"lossless": True, "exact": True}
    to_pil(pixels).save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def check_fits(shape: tuple[int, int, int], depth: str, suffix: str) -> None:
    """Raise PiggybackError, which names a better suffix, if files with this one (".png") can't hold an image.

    The image has the shape (H, W, C), and values of the dtype `depth`.
    """
    suffix = suffix.lower()
    height, width, channels = shape
    too_large = max(height, width) > _LARGEST_SIDE.get(suffix, max(shape))
    if too_large or not fits(suffix, depth, channels):
        hint = ".png or .tif" if fits(".png", depth, channels) else ".tif"
        raise PiggybackError(
            f"{suffix} files can't hold {width}x{height} pixels with {channels} channels of "
            f"{depth}: {hint} can"
        )


def fits(suffix: str, depth: str, channels: int) -> bool:
    """Return whether files of this kind can hold arrays (H, W, `channels`) of dtype `depth`."""
    if suffix in TIFF_SUFFIXES:
        return depth in ("uint8", "uint16", "float32")
    known = {"uint8": SUFFIXES, "uint16": (".png",)}.get(depth, ())
    return suffix in known and channels in ((1, 3, 4) if suffix in _ALPHA_SUFFIXES else (1, 3))


def tiff_options(channels: int) -> dict[str, Any]:
    """Return tifffile's options for a page of interleaved channels: 3 are RGB, 4 are RGBA."""
    options: dict[str, Any] = {"photometric": "minisblack"}
    if channels > 1:
        options["planarconfig"] = "contig"
    if channels in (3, 4):
        options["photometric"] = "rgb"
    if channels == 4:
        options["extrasamples"] = ["unassalpha"]
    return options
