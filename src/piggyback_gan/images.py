"""Image files <-> arrays <-> tensors. Whatever would lose data on the way is refused."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from piggyback_gan.errors import PiggybackError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

Pixels = NDArray[np.uint8]
"""(H, W, C), 8 bits a channel."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_PNG_BIT_DEPTH_AT = 24


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


def open_image(path: Path) -> Image.Image:
    """Open and decode an 8-bit image, turned upright as its EXIF data says.

    Args:
        path: jpg, png, webp, bmp or tiff.

    Raises:
        PiggybackError: unreadable, truncated, or of a kind that can't be read without loss (more than
            8 bits, transparency, CMYK, several frames).
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_lossy(path, image)
            return _plain(ImageOps.exif_transpose(image))
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise PiggybackError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise PiggybackError(f"{path}: too many pixels") from None
    except Exception as error:  # noqa: BLE001 - a damaged file may lead Pillow to any
        why = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise PiggybackError(f"{path}: can't be read: {why or type(error).__name__}") from None


def read_image(path: Path, channels: int) -> Pixels:
    """Read an 8-bit image file as pixels (H, W, channels).

    Raises:
        PiggybackError: as `open_image` and `from_pil`.
    """
    return from_pil(open_image(path), channels)


def from_pil(image: Image.Image, channels: int) -> Pixels:
    """A PIL image as pixels (H, W, channels); 1 channel is gray, 3 are RGB.

    Raises:
        PiggybackError: a mode that can't be converted without loss, or another number of channels.
    """
    if channels not in (1, 3):
        raise PiggybackError(f"images are read with 1 or 3 channels, not {channels}")
    converted = _plain(image).convert("L" if channels == 1 else "RGB")
    return np.asarray(converted, dtype=np.uint8).reshape(image.height, image.width, channels)


def to_pil(pixels: Pixels) -> Image.Image:
    """Pixels (H, W, 1 or 3) as a PIL image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode(pixels: Pixels, suffix: str) -> bytes:
    """Pixels as the bytes of an image file of the kind that `suffix` (".png") names."""
    buffer = io.BytesIO()
    options = {"quality": 95} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".webp":
        options = {"lossless": True}
    to_pil(pixels).save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def resize(pixels: Pixels, size: int) -> Pixels:
    """Resize to (size, size), bicubic, as pix2pix does."""
    if pixels.shape[:2] == (size, size):
        return pixels
    resized = np.asarray(to_pil(pixels).resize((size, size), Image.Resampling.BICUBIC))
    return resized.reshape(size, size, pixels.shape[2])


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels (H, W, C), 0 to 255 -> uint8 tensor (C, H, W)."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def normalize(images: Tensor) -> Tensor:
    """uint8 (..., C, H, W) -> float32 in [-1, 1], what networks take and give."""
    return images.float() / 127.5 - 1


def to_pixels(image: Tensor) -> Pixels:
    """A network's output (C, H, W) in [-1, 1] -> pixels (H, W, C), rounded and clipped to 0 to 255."""
    scaled = (image.detach().float().cpu() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def grid(rows: Iterable[Iterable[Pixels]], gap: int = 2) -> Pixels:
    """Images of one size as one RGB picture: a list of rows, with white gaps of `gap` pixels."""
    lines = []
    for row in rows:
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in row]
        lines.append(
            [np.pad(image, ((0, gap), (0, gap), (0, 0)), constant_values=255) for image in images]
        )
    return np.concatenate([np.concatenate(line, axis=1) for line in lines], axis=0)[:-gap, :-gap]


def _plain(image: Image.Image) -> Image.Image:
    """The same image in the mode, L or RGB, that holds all that it does."""
    if image.mode not in _MODES:
        raise PiggybackError(
            f"mode {image.mode} is not supported: only 8-bit gray and RGB images are"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise PiggybackError("it has transparency, which would be lost: flatten it first")
        # A palette's alpha can't be dropped in one step without a warning from Pillow.
        return with_alpha.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _refuse_lossy(path: Path, image: Image.Image) -> None:
    """Refuse what Pillow would open with less than the file holds, without saying so."""
    # An MPO is a phone's JPEG with previews or a gain map behind the photo.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PiggybackError(
            f"it has {getattr(image, 'n_frames', 1)} frames or pages: only one is supported"
        )
    if image.format == "PNG":
        with path.open("rb") as file:
            bits: int = file.read(_PNG_BIT_DEPTH_AT + 1)[_PNG_BIT_DEPTH_AT]
    else:
        found = getattr(image, "tag_v2", {}).get(258, 8)
        bits = max(found) if isinstance(found, tuple) else found
    if bits > 8:
        raise PiggybackError(f"it has {bits} bits a channel: only 8-bit images are supported")
