"""TIFF files -> arrays: 16-bit and float values and any number of channels, which Pillow can't read."""

import logging
import math
import os
import struct
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import ImageFile, TiffImagePlugin

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import DEPTHS
from piggyback_gan.images.pillow import decode_with_pillow
from piggyback_gan.images.pixels import Decoded, Pixels, check_size

# tifffile logs faults of damaged files; here they are errors, or the file is readable.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_COLORS = {
    3: "a palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "LAB",
    32803: "a camera's raw mosaic",
}
_JPEG = (6, 7)
_LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
_ASSOCIATED, _UNASSOCIATED = 1, 2
_REDUCED = 1
_LAYOUT_TAGS = range(256, 340)
_ORIENTATION = 274


def decode_tiff(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decode the image of a TIFF or BigTIFF file.

    Raises:
        TooManyPixels: it has more than `max_pixels`.
        PiggybackError: it has several pages, a depth, colour space or compression that is not supported, or
            parts are missing.
    """
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        assert isinstance(page, tifffile.TiffPage)
        _refuse_unread_tags(tiff, page, file)
        values = page.samplesperpixel * page.imagedepth
        # Tiles are decoded whole, even where they reach beyond the image.
        width = max(page.imagewidth, page.tilewidth if page.is_tiled else 0)
        length = max(page.imagelength, page.tilelength if page.is_tiled else 0)
        check_size(width, length, values, max_pixels)
        _refuse_pages(tiff)
        depth = "none" if page.dtype is None else page.dtype.name
        if _is_for_pillow(page, depth):
            file.seek(0)
            image: ImageFile.ImageFile = TiffImagePlugin.TiffImageFile(file, "")
            decoded = decode_with_pillow(image, max_pixels, page.bitspersample)
            exact = page.photometric in (_BLACK_IS_ZERO, _PALETTE) and page.compression not in _JPEG
            return decoded if exact else replace(decoded, indices=None)
        if depth not in DEPTHS or page.bitspersample != np.dtype(depth).itemsize * 8:
            raise PiggybackError(
                f"its values are {depth} of {page.bitspersample} bits: 8-bit, 16-bit (unsigned) and "
                "float32 are supported"
            )
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            name = _COLORS.get(int(page.photometric), f"of kind {int(page.photometric)}")
            raise PiggybackError(f"its colours are {name}: save it as gray or RGB")
        _refuse_missing_parts(page, file)
        orientation = int(page.tags.valueof(_ORIENTATION, 1))
        decoded = _described(page, _contiguous(page)).turned(orientation)
        # Label maps need the stored values, so no lossy compression.
        exact = page.compression in _LOSSLESS
        return decoded if exact else replace(decoded, indices=None)


def _is_for_pillow(page: tifffile.TiffPage, depth: str) -> bool:
    """Return whether Pillow decodes it: palettes, fewer than 8 bits, white as zero, YCbCr and JPEG."""
    special = (
        page.bitspersample < 8
        or (page.samplesperpixel == 1 and page.photometric != _BLACK_IS_ZERO)
        or page.photometric == _YCBCR
        or page.compression in _JPEG
    )
    return special and page.bitspersample <= 8 and depth in ("uint8", "bool")


def _refuse_unread_tags(tiff: tifffile.TiffFile, page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Raise PiggybackError if tifffile skipped a tag it can't read: it may describe how to read the values."""
    kind = tiff.tiff
    file.seek(page.offset)
    (count,) = struct.unpack(kind.tagnoformat, file.read(kind.tagnosize))
    entries = file.read(count * kind.tagsize)
    codes = {
        struct.unpack_from(kind.byteorder + "H", entries, start)[0]
        for start in range(0, len(entries) - 1, kind.tagsize)
    }
    if unread := sorted(code for code in codes if code in _LAYOUT_TAGS and code not in page.tags):
        raise PiggybackError(f"can't be read: the file is truncated or damaged (tag {unread[0]})")


def _refuse_pages(tiff: tifffile.TiffFile) -> None:
    """Raise PiggybackError for several pages; reduced copies, as in geographic TIFFs, do not count."""
    pages = 1 + sum(not int(page.aspage().subfiletype) & _REDUCED for page in tiff.pages[1:])
    if tiff.imagej_metadata:
        pages = max(pages, int(tiff.imagej_metadata.get("images", 1)))
    if pages > 1:
        raise PiggybackError(
            f"it has {pages} frames or pages: only one is supported; put all channels in one page"
        )


def _refuse_missing_parts(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Raise PiggybackError if strips or tiles are missing: tifffile would read them as zeros."""
    size = file.seek(0, os.SEEK_END)
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = len(parts) >= math.prod(page.chunked) and all(
        length > 0 and offset + length <= size for offset, length in parts
    )
    if not whole:
        raise PiggybackError("can't be read: the file is truncated, or parts are missing")


def _contiguous(page: tifffile.TiffPage) -> Pixels:
    """Return the page's values as (H, W, C) in native byte order."""
    values = page.asarray()
    if page.axes == "YX":
        values = values[..., None]
    elif page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes != "YXS":
        raise PiggybackError(f"its axes are {page.axes}: only images of one plane are supported")
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _described(page: tifffile.TiffPage, pixels: Pixels) -> Decoded:
    channels = pixels.shape[2]
    if page.photometric == _WHITE_IS_ZERO:
        if pixels.dtype == np.float32 or channels > 1:
            raise PiggybackError("its zero is white: save it with black as zero")
        # No indices: a label map may mean the values or their inverse.
        return Decoded(np.iinfo(pixels.dtype).max - pixels)
    named = 3 if page.photometric == _RGB else 1
    alpha = channels == named + 1 and page.extrasamples in ((_ASSOCIATED,), (_UNASSOCIATED,))
    decoded = Decoded(
        pixels,
        alpha=alpha,
        color=alpha or channels == named,
        indices=pixels if channels == 1 and pixels.dtype != np.float32 else None,
    )
    if alpha and page.extrasamples == (_ASSOCIATED,) and not decoded.opaque:
        raise PiggybackError("its colours are multiplied by its alpha: save it with straight alpha")
    return decoded
