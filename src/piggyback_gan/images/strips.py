"""Write PNG and TIFF files strip by strip, without the whole image in memory."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.images.encode import TIFF_SUFFIXES, encode, fits, tiff_options
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.system.files import atomic_file

_COLOR_TYPES = {1: 0, 3: 2, 4: 6}
_ROWS_AT_ONCE = 64
_LARGEST_PLAIN_TIFF = 2**32 - 2**25


def write_strips(
    path: Path, strips: Iterable[Pixels], shape: tuple[int, int, int], depth: str
) -> None:
    """Write an image from strips; the file appears when it is complete.

    .png, .tif and .tiff need the memory of one strip; for other kinds the image is assembled first.

    Args:
        path: the file; its suffix is its kind.
        strips: (rows, W, C) each, from top to bottom.
        shape: (H, W, C) of the image.
        depth: dtype of the values: "uint8", "uint16" or "float32".

    Raises:
        PiggybackError: the file can't be written, or files of this kind can't hold such an image.
    """
    suffix = path.suffix.lower()
    with atomic_file(path) as file:
        if suffix in TIFF_SUFFIXES:
            _write_tiff(file, strips, shape, depth)
        elif suffix == ".png" and fits(suffix, depth, shape[2]):
            _write_png(file, strips, shape, depth)
        else:
            whole, top = np.empty(shape, depth), 0
            for strip in strips:
                whole[top : top + len(strip)] = strip
                top += len(strip)
            file.write(encode(whole, suffix))


def _write_tiff(
    file: IO[bytes], strips: Iterable[Pixels], shape: tuple[int, int, int], depth: str
) -> None:
    """Write a header with room for the values, then the values, not compressed."""
    import tifffile

    height, width, channels = shape
    size = height * width * channels * np.dtype(depth).itemsize
    written = tifffile.imwrite(
        file,
        shape=(height, width) if channels == 1 else shape,
        dtype=depth,
        bigtiff=size > _LARGEST_PLAIN_TIFF,
        metadata=None,
        software=False,
        returnoffset=True,
        **tiff_options(channels),
    )
    assert written is not None
    file.seek(written[0])
    for strip in strips:
        file.write(np.ascontiguousarray(strip).data)


def _write_png(
    file: IO[bytes], strips: Iterable[Pixels], shape: tuple[int, int, int], depth: str
) -> None:
    """Write a PNG (W3C specification, third edition) with the row filters that the specification advises."""
    height, width, channels = shape
    bits = np.dtype(depth).itemsize * 8
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOR_TYPES[channels], 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
    compressor = zlib.compressobj(6)
    for rows in _filtered_rows(strips, width * channels * bits // 8, channels * bits // 8):
        if compressed := compressor.compress(rows):
            file.write(_chunk(b"IDAT", compressed))
    file.write(_chunk(b"IDAT", compressor.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _filtered_rows(strips: Iterable[Pixels], length: int, step: int) -> Iterator[bytes]:
    """Yield filtered rows, each preceded by its filter type; `length` bytes per row, `step` per pixel."""
    above = np.zeros((1, length), np.uint8)
    for strip in strips:
        for top in range(0, len(strip), _ROWS_AT_ONCE):
            part = strip[top : top + _ROWS_AT_ONCE]
            big_endian = np.ascontiguousarray(part, part.dtype.newbyteorder(">"))
            rows = big_endian.view(np.uint8).reshape(len(part), length)
            yield _filtered(rows, np.concatenate([above, rows[:-1]]), step).tobytes()
            above = rows[-1:]


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Filter each row by the filter with the smallest sum of absolute differences: (rows, 1 + bytes)."""
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], above[:, :-step]
    candidates = {1: rows - left, 2: rows - above, 4: rows - _paeth(left, above, corner)}
    costs = [np.abs(made.view(np.int8).astype(np.int16)).sum(1) for made in candidates.values()]
    best = np.argmin(costs, axis=0)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    for i, (kind, made) in enumerate(candidates.items()):
        filtered[best == i, 0] = kind
        filtered[best == i, 1:] = made[best == i]
    return filtered


def _paeth(
    left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the neighbour that is nearest to left + above - corner."""
    a, b, c = (values.astype(np.int16) for values in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, above)
    return np.where((to_above > to_corner) & (to_left > to_corner), corner, nearest)
