"""Image files -> arrays of a task's format; anything that would lose data is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode, naming_file
from piggyback_gan.images.encode import SUFFIXES, to_pil
from piggyback_gan.images.format import FULL_RANGE, Depth, ImageFormat
from piggyback_gan.images.pillow import decode_pil
from piggyback_gan.images.pixels import MAX_PIXELS, Decoded, Pixels

_READING_THREADS = 4
_GIVE_CHANNELS = "--input-channels or --output-channels"


@dataclass(frozen=True, order=True)
class Source:
    """Image on disk: a file, or the left or right half of one."""

    path: Path
    half: Literal["left", "right"] | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    def read(self, format: ImageFormat, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Read the image as pixels (H, W, C) of the format.

        Raises:
            PiggybackError: as `read_image`, or a half is wanted of an odd width.
        """
        return self.fit(decode(self.path, max_pixels=max_pixels), format)

    def fit(self, decoded: Decoded, format: ImageFormat) -> Pixels:
        """Convert this image of a decoded file to pixels (H, W, C) of the format; errors as `read`."""
        with naming_file(self.path):
            return fitted(self.part_of(decoded), format)

    def part_of(self, decoded: Decoded) -> Decoded:
        """Return this image from its decoded file.

        Raises:
            PiggybackError: the image is a half, and the file's width is odd.
        """
        if self.half is None:
            return decoded
        width = decoded.pixels.shape[1]
        if width % 2:
            raise PiggybackError(f"odd width {width}: it can't hold two halves")
        start = 0 if self.half == "left" else width // 2
        return decoded.cut(start, start + width // 2)


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """List the image files in a folder, sorted; hidden files and folders are skipped.

    Args:
        folder: where to look.
        recursive: look in subfolders too; a folder that links lead to again is not listed twice.

    Raises:
        PiggybackError: a folder can't be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise error

    try:
        for current, folders, names in os.walk(folder, onerror=fail, followlinks=True):
            status = os.stat(current)
            is_new = (status.st_dev, status.st_ino) not in seen
            seen.add((status.st_dev, status.st_ino))
            # By name, so that of several links to one folder always the same is followed.
            below = sorted(name for name in folders if name[0] != ".")
            folders[:] = below if recursive and is_new else []
            paths = [Path(current, name) for name in names if is_new and name[0] != "."]
            images = (path for path in paths if path.suffix.lower() in SUFFIXES)
            # Reading a broken link raises an error that names it; reading a pipe or socket would block.
            found += [p for p in images if os.path.isfile(p) or not os.path.exists(p)]
    except OSError as error:
        where = error.filename or folder
        raise PiggybackError(f"{where} can't be read: {error.strerror}") from None
    return sorted(found)


def read_image(path: Path, format: ImageFormat, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read an image file as pixels (H, W, C) of the format, with the stored values.

    8-bit gray and RGB are converted to each other as Pillow's "L" and "RGB"; gray of any depth is repeated to
    three channels; opaque alpha is dropped. For label maps C is 1: class indices.

    Raises:
        PiggybackError: the file can't be read, or does not fit the format: other depth or channels,
            transparency that would be lost, values that are not finite, a class index out of range.
    """
    return Source(path).read(format, max_pixels=max_pixels)


def from_pil(image: Image.Image, format: ImageFormat) -> Pixels:
    """Convert a PIL image (L, RGB, RGBA, I;16, F; also 1, P, LA) to pixels (H, W, C) of the format.

    Raises:
        PiggybackError: its mode is not supported, or does not fit the format, as in `read_image`.
    """
    return fitted(decode_pil(image), format)


def detect_format(
    decoded: Decoded,
    *,
    channels: int | None,
    labels: int | None,
    value_range: tuple[float, float] | None,
) -> ImageFormat:
    """Detect the format of a task's images from one of them.

    Args:
        decoded: any of the files.
        channels: channels to read; by default 3 for 8-bit gray and RGB, else all channels of the file.
        labels: number of classes, if the files are label maps.
        value_range: values that become -1 and 1; by default the full range of the integer type.

    Raises:
        PiggybackError: the file can't be read in this format, has transparency and `channels` is not given, or is
            float32 and `value_range` is not given; the message names no file.
    """
    depth = cast(Depth, decoded.pixels.dtype.name)
    if labels is not None:
        format = ImageFormat(channels=labels, depth=depth, labels=True)
    else:
        if value_range is None and depth == "float32":
            raise PiggybackError("its values are float32: say which become -1 and 1")
        low, high = value_range or FULL_RANGE[depth]
        if channels is None:
            plain = depth == "uint8" and decoded.color
            channels = 3 if plain else decoded.pixels.shape[2]
        format = ImageFormat(channels=channels, depth=depth, low=low, high=high)
    fitted(decoded, format)
    return format


def value_ranges(
    sides: Sequence[Sequence[Source]], decoded: Mapping[Path, Decoded] | None = None
) -> list[tuple[float, float]]:
    """Return the smallest and the largest value of each side. A file of several sides is decoded once.

    Args:
        sides: of one or more images each.
        decoded: files that are decoded already.

    Raises:
        PiggybackError: a file can't be read, has values that are not finite, or all values of a side are equal.
    """
    by_path: dict[Path, list[tuple[int, Source]]] = {}
    for side, sources in enumerate(sides):
        for source in sources:
            by_path.setdefault(source.path, []).append((side, source))

    def extents(path: Path) -> list[tuple[int, float, float]]:
        whole, found = (decoded or {}).get(path) or decode(path), []
        with naming_file(path):
            for side, source in by_path[path]:
                pixels = source.part_of(whole).pixels
                _refuse_not_finite(pixels)
                found.append((side, float(pixels.min()), float(pixels.max())))
        return found

    ranges = [(np.inf, -np.inf)] * len(sides)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        for found in pool.map(extents, by_path):
            for side, low, high in found:
                ranges[side] = min(ranges[side][0], low), max(ranges[side][1], high)
    for low, high in ranges:
        if not low < high:
            raise PiggybackError(f"the images have no range of values: all values are {low}")
    return ranges


def fitted(decoded: Decoded, format: ImageFormat) -> Pixels:
    """Convert decoded pixels to (H, W, C) of the format, if that loses nothing.

    Raises:
        PiggybackError: they do not fit the format, as in `read_image`; the message names no file.
    """
    if format.labels:
        return _fitted_labels(decoded, format)
    pixels, wanted = decoded.pixels, format.channels
    if pixels.dtype != format.depth:
        raise PiggybackError(f"its values are {pixels.dtype}, the task takes {format.depth}")
    _refuse_not_finite(pixels)
    found = pixels.shape[2]
    if decoded.alpha and found != wanted:
        if not decoded.opaque:
            raise PiggybackError(
                f"it has transparency, which would be lost: flatten it, or give {_GIVE_CHANNELS} {found} "
                "to a new task"
            )
        pixels = pixels[:, :, :-1]
    base = pixels.shape[2]
    if base == wanted:
        return np.ascontiguousarray(pixels)
    if base == 1 and wanted == 3:
        return pixels.repeat(3, axis=2)
    if format.depth == "uint8" and decoded.color:
        if wanted == 1:
            return np.asarray(to_pil(np.ascontiguousarray(pixels)).convert("L"))[..., None]
        if wanted == 4:
            color = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            return np.pad(color, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    raise PiggybackError(
        f"it has {found} channel{'s' * (found > 1)} of {pixels.dtype}, the task takes {wanted}: "
        f"convert it, or give {_GIVE_CHANNELS} {found} to a new task"
    )


def _fitted_labels(decoded: Decoded, format: ImageFormat) -> Pixels:
    if decoded.indices is None:
        raise PiggybackError(
            "it is not a label map: expected one channel of class indices, gray or palette, stored without "
            f"loss; found {decoded.pixels.shape[2]} of {decoded.pixels.dtype}"
        )
    largest = int(decoded.indices.max())
    if largest >= format.channels:
        raise PiggybackError(
            f"it has class index {largest}, but there are {format.channels} classes: 0 to "
            f"{format.channels - 1}"
        )
    return np.ascontiguousarray(decoded.indices.astype(format.depth, copy=False))


def _refuse_not_finite(pixels: Pixels) -> None:
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise PiggybackError(f"{count} of its values are NaN or infinite: replace them first")
