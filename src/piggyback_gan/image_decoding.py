"""Image files -> arrays, upright and with every value that they hold; or one line that says why not."""

from __future__ import annotations

import io
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from piggyback_gan.errors import PiggybackError

Pixels = NDArray[Any]
"""(H, W, C) of a file's own type: uint8, uint16 or float32."""

MAX_PIXELS = 178_956_970
"""Where Pillow sees a decompression bomb: 13,377 x 13,377 pixels."""

_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "F")
_EXIF_ORIENTATION = 274
_LARGE = 2**24  # pixels
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode a jpg, png, webp, bmp or tiff file by its content, whatever its suffix.

    Raises:
        PiggybackError: unreadable, damaged, larger than `max_pixels`, or of a kind that can't be read
            without loss (other depths than 8-bit, 16-bit and float32; CMYK, LAB, several frames).
    """
    with naming(path), path.open("rb") as file:
        return _decode(file, max_pixels)


def decode_content(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode what an image file holds, as `decode` does.

    Raises:
        TooManyPixels: it is larger than `max_pixels`.
        PiggybackError: as `decode`; the message names no file.
    """
    with _in_one_line():
        return _decode(io.BytesIO(content), max_pixels)


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    start = file.read(32)
    file.seek(0)
    if not start:
        raise PiggybackError("can't be read: the file is empty")
    if start[:4] in _TIFF:
        from piggyback_gan.image_tiff import decode_tiff

        return decode_tiff(file, max_pixels)
    if start.startswith(_PNG):
        if start[24:25] == b"\x10" or _is_large_plain_png(start):
            return _decode_with_imagecodecs(file, max_pixels)
        image: ImageFile.ImageFile = PngImagePlugin.PngImageFile(file, "")
        return decode_with_pillow(image, max_pixels, start[24])
    if start.startswith(b"\xff\xd8\xff"):
        image = JpegImagePlugin.jpeg_factory(file, "")
        # A JPEG's values are not what was stored: no label map.
        return replace(decode_with_pillow(image, max_pixels), indices=None)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return decode_with_pillow(WebPImagePlugin.WebPImageFile(file, ""), max_pixels)
    if start.startswith(b"BM"):
        return decode_with_pillow(BmpImagePlugin.BmpImageFile(file, ""), max_pixels)
    raise PiggybackError("can't be read: not an image")


def decode_pil(image: Image.Image, gray_bits: int = 8) -> Decoded:
    """What a PIL image holds; `gray_bits` is what its file had, for the values of label maps.

    Raises:
        PiggybackError: a mode that is not supported.
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
    return width * height > _LARGE


@contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Whatever goes wrong inside becomes one line that begins with the file."""
    try:
        with _in_one_line():
            yield
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}") from None


@contextmanager
def _in_one_line() -> Generator[None, None, None]:
    """Whatever goes wrong inside becomes a line for the person who gave the file."""
    try:
        yield
    except PiggybackError:
        raise
    except FileNotFoundError:
        raise PiggybackError("no such file") from None
    except MemoryError:
        raise PiggybackError("can't be read: not enough memory") from None
    except Exception as error:  # noqa: BLE001 - a damaged file may lead its decoder to any
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        why = "not an image" if isinstance(error, SyntaxError) else " ".join(why.split())
        raise PiggybackError(f"can't be read: {why}") from None


def decode_with_pillow(image: ImageFile.ImageFile, max_pixels: int, gray_bits: int = 8) -> Decoded:
    """An image of at most 8 bits, opened by Pillow's plugin: `Image.open` has one limit for all."""
    check_size(image.width, image.height, len(image.getbands()), max_pixels)
    frames = getattr(image, "n_frames", 1)
    # An MPO is a phone's JPEG with previews or a gain map behind the photo.
    if image.format != "MPO" and frames > 1:
        raise PiggybackError(f"it has {frames} frames or pages: only one is supported")
    ImageOps.exif_transpose(image, in_place=True)
    return decode_pil(image, gray_bits)


def _values(image: Image.Image) -> Pixels:
    """A PIL image as (H, W, C); a large one in parts: at once, Pillow would hold it three times over."""
    height, width = image.height, image.width
    if not is_large(width, height):
        return np.asarray(image).reshape(height, width, -1)
    rows = max(_LARGE // width, 1)
    values: Pixels | None = None
    for top in range(0, height, rows):
        part = np.asarray(image.crop((0, top, width, min(top + rows, height))))
        if values is None:
            values = np.empty((height, *part.shape[1:]), part.dtype)
        values[top : top + rows] = part
    assert values is not None
    return values.reshape(height, width, -1)


def _is_large_plain_png(start: bytes) -> bool:
    """Whether a PNG's first bytes tell of 8-bit gray, RGB or RGBA of many pixels."""
    if len(start) < 26:
        return False
    width, height, bits, color_type = struct.unpack(">IIBB", start[16:26])
    return bits == 8 and color_type in (0, 2, 6) and is_large(width, height)


def _decode_with_imagecodecs(file: BinaryIO, max_pixels: int) -> Decoded:
    """A PNG of 16 bits a channel, which Pillow would give as 8 bits where it is RGB; or a large one.

    Pillow holds RGB as 4 bytes a pixel beside the array.
    """
    import imagecodecs

    content = file.read()
    width, height = struct.unpack(">II", content[16:24])
    color_type = content[25]
    check_size(width, height, 4, max_pixels)
    chunks = _png_chunks(content)
    if b"acTL" in chunks:
        raise PiggybackError("it has several frames: only one is supported")
    if b"tRNS" in chunks and content[24] == 8:
        file.seek(0)
        return decode_with_pillow(PngImagePlugin.PngImageFile(file, ""), max_pixels)
    pixels = imagecodecs.png_decode(content).reshape(height, width, -1)
    exif = Image.Exif()
    exif.load(chunks.get(b"eXIf", b""))
    alpha = color_type in (4, 6) or b"tRNS" in chunks  # the decoder made a channel of it
    indices = pixels if color_type == 0 and not alpha else None
    decoded = Decoded(pixels, alpha=alpha, indices=indices)
    return decoded.turned(exif.get(_EXIF_ORIENTATION, 1))


def _png_chunks(content: bytes) -> dict[bytes, bytes]:
    """A PNG's chunks but the pixels themselves, by kind."""
    chunks: dict[bytes, bytes] = {}
    start = len(_PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        if kind != b"IDAT":
            chunks[kind] = content[start + 8 : start + 8 + length]
        start += 12 + length
    return chunks


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """What ImageOps.exif_transpose does, for arrays."""
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
