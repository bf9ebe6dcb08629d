"""Images of a task's format: files <-> arrays <-> tensors. Whatever would lose data is refused."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.image_decoding import MAX_PIXELS, Decoded, Pixels, decode, decode_pil, naming
from piggyback_gan.image_encoding import SUFFIXES, best_suffix, can_hold, encode, to_pil
from piggyback_gan.image_formats import FULL_RANGE, Depth, ImageFormat

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
    "stored_depth",
    "to_pil",
    "to_pixels",
    "to_tensor",
    "value_range",
]

_GIVE_CHANNELS = "--input-channels or --output-channels"


@dataclass(frozen=True, order=True)
class Source:
    """One image on disk: a file, or the left or right half of one."""

    path: Path
    half: Literal["left", "right"] | None = None

    def read(self, format: ImageFormat, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """The image as pixels (H, W, C) of the format.

        Raises:
            PiggybackError: as `read_image`, or an odd width, which has no halves.
        """
        decoded = decode(self.path, max_pixels=max_pixels)
        with naming(self.path):
            if self.half:
                decoded = _halves(decoded)[self.half == "right"]
            return _fitted(decoded, format)


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder, by name. Folders, hidden files and others are passed over.

    Raises:
        PiggybackError: the folder can't be read.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and path.name[0] != "." and not path.is_dir()
        )
    except OSError as error:
        raise PiggybackError(f"{folder} can't be read: {error.strerror}") from None


def read_image(path: Path, format: ImageFormat, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read an image file as pixels (H, W, C) of the format, exactly as it is stored.

    8-bit gray and RGB become each other as Pillow's "L" and "RGB" do; gray of any depth becomes three
    equal channels; alpha is left out where it is opaque. Of label maps C is 1: class indices.

    Raises:
        PiggybackError: the file can't be read, or does not fit the format: its depth, its channels,
            transparency that would be lost, values that are not finite, an index of no class.
    """
    return Source(path).read(format, max_pixels=max_pixels)


def read_halves(
    path: Path, left: ImageFormat, right: ImageFormat, *, max_pixels: int = MAX_PIXELS
) -> tuple[Pixels, Pixels]:
    """Both halves of a side-by-side file, each (H, W / 2, C) of its format.

    Raises:
        PiggybackError: as `read_image`, or an odd width.
    """
    decoded = decode(path, max_pixels=max_pixels)
    with naming(path):
        halves = _halves(decoded)
        return _fitted(halves[0], left), _fitted(halves[1], right)


def from_pil(image: Image.Image, format: ImageFormat) -> Pixels:
    """A PIL image (L, RGB, RGBA, I;16, F; also 1, P, LA) as pixels (H, W, C) of the format.

    Raises:
        PiggybackError: another mode, or one that does not fit the format, as in `read_image`.
    """
    return _fitted(decode_pil(image), format)


def normalize(stored: NDArray[np.generic], format: ImageFormat) -> Tensor:
    """Values of files (..., C, H, W) -> float32, what networks take: low..high become -1..1.

    Label maps (..., 1, H, W) become one-hot (..., classes, H, W) of -1 and 1.
    """
    if format.labels:
        classes = torch.arange(format.channels).view(-1, 1, 1)
        return (torch.from_numpy(stored.astype(np.int64)) == classes).float() * 2 - 1
    # 8 bits in float32 as ever: the same bits as before there were others.
    exact = np.float32 if format.depth == "uint8" else np.float64
    values = torch.from_numpy(stored.astype(exact))
    return ((values - format.low) / ((format.high - format.low) / 2) - 1).float()


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
    exact = torch.float32 if format.depth == "uint8" else torch.float64
    values = (image.to(exact) + 1) * ((format.high - format.low) / 2) + format.low
    if format.depth in FULL_RANGE:
        values = values.round().clamp(*FULL_RANGE[format.depth])
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


def display(pixels: Pixels, format: ImageFormat) -> NDArray[np.uint8]:
    """Any image as 8-bit RGB (H, W, 3) for a person to look at.

    Gray is repeated, RGBA lies on white, of two channels blue is missing, of more than four the first
    three are shown, classes have colours of their own; values go from black at low to white at high.
    """
    if format.labels:
        return _class_colors(format.channels)[pixels[:, :, 0]]
    full = format.depth == "uint8" and (format.low, format.high) == FULL_RANGE["uint8"]
    if full:
        shown = pixels
    else:
        scaled = (pixels.astype(np.float64) - format.low) / (format.high - format.low)
        shown = (scaled * 255).round().clip(0, 255).astype(np.uint8)
    channels = shown.shape[2]
    if channels == 1:
        return shown.repeat(3, axis=2)
    if channels == 2:
        return np.pad(shown, ((0, 0), (0, 0), (0, 1)))
    if channels == 4:
        alpha = shown[:, :, 3:].astype(np.float64) / 255
        over_white = shown[:, :, :3] * alpha + 255 * (1 - alpha)
        return np.asarray(over_white.round().astype(np.uint8))
    return np.ascontiguousarray(shown[:, :, :3])


def grid(rows: Iterable[Iterable[Pixels]], gap: int = 2) -> Pixels:
    """8-bit images of one size as one RGB picture: a list of rows, with white gaps of `gap` pixels."""
    lines = []
    for row in rows:
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in row]
        lines.append(
            [np.pad(image, ((0, gap), (0, gap), (0, 0)), constant_values=255) for image in images]
        )
    return np.concatenate([np.concatenate(line, axis=1) for line in lines], axis=0)[:-gap, :-gap]


def stored_depth(path: Path) -> Depth:
    """The type of a file's values: "uint8", "uint16" or "float32".

    Raises:
        PiggybackError: the file can't be read.
    """
    return _depth(decode(path))


def detect_format(
    path: Path,
    *,
    channels: int | None,
    labels: int | None,
    value_range: tuple[float, float] | None,
) -> ImageFormat:
    """The format of a task's images, from one of them.

    Args:
        path: any of the files.
        channels: how many to read; by default 3 of 8-bit gray and RGB files, all that there are of others.
        labels: the number of classes, where the files are label maps.
        value_range: what becomes -1 and 1; by default all that the integers can hold.

    Raises:
        PiggybackError: the file can't be read so, has transparency and `channels` is not given, or is
            float32 and `value_range` is not given.
    """
    decoded = decode(path)
    depth = _depth(decoded)
    with naming(path):
        if labels is not None:
            format = ImageFormat(channels=labels, depth=depth, labels=True)
        else:
            if value_range is None and depth == "float32":
                raise PiggybackError("its values are float32: say which become -1 and 1")
            low, high = value_range or FULL_RANGE[depth]
            found = decoded.pixels.shape[2]
            if channels is None:
                plain = depth == "uint8" and decoded.color
                channels = 3 if plain else found
            format = ImageFormat(channels=channels, depth=depth, low=low, high=high)
        _fitted(decoded, format)
    return format


def value_range(sources: Iterable[Path | Source]) -> tuple[float, float]:
    """The least and the largest value in all files.

    Raises:
        PiggybackError: a file can't be read, has values that are not finite, or there is one value only.
    """
    low, high = np.inf, -np.inf
    for source in sources:
        source = Source(source) if isinstance(source, Path) else source
        decoded = decode(source.path)
        with naming(source.path):
            if source.half:
                decoded = _halves(decoded)[source.half == "right"]
            _refuse_not_finite(decoded.pixels)
        low, high = min(low, decoded.pixels.min()), max(high, decoded.pixels.max())
    if not low < high:
        raise PiggybackError(f"the images have no range of values: all are {low}")
    return float(low), float(high)


def _depth(decoded: Decoded) -> Depth:
    return cast(Depth, decoded.pixels.dtype.name)


def _halves(decoded: Decoded) -> tuple[Decoded, Decoded]:
    width = decoded.pixels.shape[1]
    if width % 2:
        raise PiggybackError(f"odd width {width}: it can't hold two halves")
    return decoded.cut(0, width // 2), decoded.cut(width // 2, width)


def _fitted(decoded: Decoded, format: ImageFormat) -> Pixels:
    """What was decoded as (H, W, C) of the format, if nothing is lost by it."""
    if format.labels:
        return _fitted_labels(decoded, format)
    pixels, wanted = decoded.pixels, format.channels
    if pixels.dtype != format.depth:
        raise PiggybackError(f"its values are {pixels.dtype}, the task takes {format.depth}")
    _refuse_not_finite(pixels)
    found = pixels.shape[2]
    if found == wanted:
        return np.ascontiguousarray(pixels)
    if decoded.alpha:
        if not decoded.opaque:
            raise PiggybackError(
                f"it has transparency, which would be lost: flatten it, or give {_GIVE_CHANNELS} {found}"
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
            "it is no label map: expected one channel of class indices, gray or palette, not JPEG"
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


def _class_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3): black for class 0, then hues as far from each other as the golden ratio puts them."""
    colors = [(0.0, 0.0, 0.0)]
    for i in range(1, count):
        colors.append(
            colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.9 - 0.3 * (i % 3 == 0), 1 - 0.2 * (i % 2))
        )
    return np.array([[round(255 * c) for c in color] for color in colors], dtype=np.uint8)
