"""Images of every format, files written without a library, and the error of a file that can't be read."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import data_sets
from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import read_image

DEPTHS = ("uint8", "uint16", "float32")

# What each EXIF orientation does to an image as it is stored.
TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def form(channels: int = 3, depth: Any = "uint8", **settings: Any) -> ImageFormat:
    low, high = FULL_RANGE.get(depth, (0.0, 1.0))
    return ImageFormat(
        **{"channels": channels, "depth": depth, "low": low, "high": high} | settings
    )


def classes(count: int, depth: Any = "uint8") -> ImageFormat:
    return ImageFormat(channels=count, labels=True, depth=depth)


def read(path: Path, channels: int = 3, depth: str = "uint8") -> Pixels:
    return read_image(path, form(channels, depth))


def noise(
    height: int = 24, width: int = 30, channels: int = 3, seed: int = 0, depth: str = "uint8"
) -> Pixels:
    random = np.random.default_rng(seed)
    if depth == "float32":
        return random.standard_normal((height, width, channels)).astype(np.float32)
    top = np.iinfo(depth).max + 1
    return random.integers(0, top, (height, width, channels), dtype=depth)


def smooth(height: int = 24, width: int = 30) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 5, 100 + rows + columns], axis=2).astype(np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """ITU-R 601 gray, in Pillow's fixed-point form."""
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return gray.astype(np.uint8)[..., None]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png_by_hand(
    path: Path, pixels: Pixels, color_type: int, *chunks: bytes, interlaced: bool = False
) -> None:
    """Write a PNG without a library: no filters, `chunks` before the pixels, Adam7 if interlaced."""
    height, width, _ = pixels.shape
    bits = pixels.dtype.itemsize * 8
    steps = [(0, 0, 1, 1)]
    if interlaced:
        steps = [
            (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]  # fmt: skip
    lines = b""
    for top, left, down, across in steps:
        part = pixels[top::down, left::across].astype(f">u{pixels.dtype.itemsize}")
        lines += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    inside = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(lines))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(inside) + png_chunk(b"IEND", b""))


def refusal(path: Path, format: ImageFormat | int = 3, **settings: Any) -> str:
    """Return the error of reading a file, without the file's name that it begins with; it is one line."""
    format = form(format) if isinstance(format, int) else format
    message = data_sets.refusal(lambda: read_image(path, format, **settings))
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")
