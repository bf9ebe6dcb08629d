"""Image files -> arrays, upright and with every stored value; errors are one line."""

from __future__ import annotations

import io
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.pillow import decode_with_pillow
from piggyback_gan.images.pixels import MAX_PIXELS, Decoded, check_size, is_large

_EXIF_ORIENTATION = 274
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode a JPEG, PNG, WebP, BMP or TIFF file; its kind is found from its content, not its suffix.

    Raises:
        PiggybackError: the file is unreadable, damaged, larger than `max_pixels`, or can't be read without
            loss (other depths than 8-bit, 16-bit and float32; CMYK, LAB, several frames).
    """
    with naming_file(path), path.open("rb") as file:
        return _decode(file, max_pixels)


def decode_content(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode the content of an image file, as `decode` does.

    Raises:
        TooManyPixels: it has more than `max_pixels`.
        PiggybackError: as `decode`; the message names no file.
    """
    with _in_one_line():
        return _decode(io.BytesIO(content), max_pixels)


@contextmanager
def naming_file(path: Path) -> Generator[None, None, None]:
    """Turn every error of the block into a PiggybackError of one line that begins with the file."""
    try:
        with _in_one_line():
            yield
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}") from None


@contextmanager
def _in_one_line() -> Generator[None, None, None]:
    """Turn every error of the block into a PiggybackError of one line."""
    try:
        yield
    except PiggybackError:
        raise
    except FileNotFoundError:
        raise PiggybackError("no such file") from None
    except MemoryError:
        raise PiggybackError("can't be read: not enough memory") from None
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything on a damaged file
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        why = "not an image" if isinstance(error, SyntaxError) else " ".join(why.split())
        raise PiggybackError(f"can't be read: {why}") from None


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    start = file.read(32)
    file.seek(0)
    if not start:
        raise PiggybackError("can't be read: the file is empty")
    if start[:4] in _TIFF:
        from piggyback_gan.images.tiff import decode_tiff

        return decode_tiff(file, max_pixels)
    if start.startswith(_PNG):
        width, height, bits, color_type = struct.unpack(">IIBB", start[16:26].ljust(10, b"\0"))
        large_plain = bits == 8 and color_type in (0, 2, 6) and is_large(width, height)
        if bits == 16 or large_plain:
            return _decode_with_imagecodecs(file, max_pixels)
        image: ImageFile.ImageFile = PngImagePlugin.PngImageFile(file, "")
        return decode_with_pillow(image, max_pixels, bits)
    if start.startswith(b"\xff\xd8\xff"):
        image = JpegImagePlugin.jpeg_factory(file, "")
        # A JPEG is lossy, so it can't be a label map.
        return replace(decode_with_pillow(image, max_pixels), indices=None)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return decode_with_pillow(WebPImagePlugin.WebPImageFile(file, ""), max_pixels)
    if start.startswith(b"BM"):
        return decode_with_pillow(BmpImagePlugin.BmpImageFile(file, ""), max_pixels)
    raise PiggybackError("can't be read: not an image")


def _decode_with_imagecodecs(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decode a PNG of 16 bits, which Pillow reduces to 8 in RGB, or a large one.

    Pillow holds 4 bytes per pixel of RGB besides the array.
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
    alpha = color_type in (4, 6) or b"tRNS" in chunks  # the decoder turns tRNS into a channel
    indices = pixels if color_type == 0 and not alpha else None
    decoded = Decoded(pixels, alpha=alpha, indices=indices)
    return decoded.turned(exif.get(_EXIF_ORIENTATION, 1))


def _png_chunks(content: bytes) -> dict[bytes, bytes]:
    """Return the content of a PNG's chunks by kind, without the pixels (IDAT)."""
    chunks: dict[bytes, bytes] = {}
    start = len(_PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        if kind != b"IDAT":
            chunks[kind] = content[start + 8 : start + 8 + length]
        start += 12 + length
    return chunks
