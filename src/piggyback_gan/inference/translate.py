"""Translate images of any size with a task's generator: tensors, arrays and files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import naming_file
from piggyback_gan.images.encode import check_fits, encode
from piggyback_gan.images.format import Formats, ImageFormat
from piggyback_gan.images.pixels import MAX_PIXELS, Pixels
from piggyback_gan.images.read import read_image
from piggyback_gan.images.strips import write_strips
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.outputs import Outcome
from piggyback_gan.inference.tiled import translated_strips
from piggyback_gan.inference.tiling import Tiling, lay_tiles
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.device import device_of
from piggyback_gan.system.files import atomic_write


def translate_batch(
    generator: nn.Module, config: Architecture, images: Tensor, tiling: Tiling | None = None
) -> Tensor:
    """Translate images of one size, padded to what the network needs and cropped back.

    Args:
        generator: a folded task.
        config: its architecture, with the task's channels.
        images: (B, C, H, W) in [-1, 1], any H and W from 1 on.
        tiling: translate each image in overlapping tiles.

    Returns:
        (B, output channels, H, W) float32 on the CPU, in [-1, 1].

    Raises:
        PiggybackError: the images have other channels than the network, no pixels or no float values, or the
            network does not take tiles of this size.
    """
    channels = config.input_channels
    fits = images.dim() == 4 and images.shape[1] == channels and images.numel() > 0
    if not fits or not images.is_floating_point():
        raise PiggybackError(
            f"expected float images (B, {channels}, H, W) in [-1, 1], found "
            f"{images.dtype} {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    if tiling is not None:
        return torch.stack([_translate_tiled(generator, config, image, tiling) for image in images])
    with torch.inference_mode():
        fitted, (top, left) = padded(images, config)
        output: Tensor = generator(fitted.to(device_of(generator), torch.float32))
        return output[:, :, top : top + height, left : left + width].cpu().clone()


def padded(images: Tensor, config: Architecture) -> tuple[Tensor, tuple[int, int]]:
    """Pad images (B, C, H, W) of any H and W from 1 on by reflection to a size that a network takes.

    Returns:
        The padded images, and the numbers of rows and columns that were added before theirs.
    """
    rows, columns = (lay_tiles(side, config) for side in images.shape[2:])
    images = images[:, :, torch.from_numpy(rows.indices)]
    images = images[:, :, :, torch.from_numpy(columns.indices)]
    return images, (rows.before, columns.before)


def translate_files(
    generator: nn.Module,
    config: Architecture,
    planned: Sequence[Outcome],
    formats: Formats,
    *,
    batch_size: int = 1,
    tiling: Tiling | None = None,
    max_pixels: int = MAX_PIXELS,
    on_done: Callable[[float], None] = lambda count: None,
) -> list[Outcome]:
    """Translate files; one that can't be translated does not stop the others.

    Args:
        generator: a folded task.
        config: its architecture, with the task's channels.
        planned: inputs and outputs, from `plan_outputs`.
        formats: formats of the task's inputs and outputs.
        batch_size: neighbouring images of one size that are translated as a batch; without tiling only.
        tiling: translate each image in overlapping tiles, in bounded memory besides the image.
        max_pixels: limit of an image's size.
        on_done: called with the number of images done; with tiling, also with fractions.

    Returns:
        An outcome for every file, with a `problem` for those that failed.

    Raises:
        PiggybackError: an output can't be written (full disk, read-only folder), or the network does not take
            tiles of this size.
    """
    outcomes: list[Outcome] = []
    readable = _readable(planned, formats, max_pixels, outcomes)
    if tiling is not None:
        tiling.check(config)
        for outcome, pixels in readable:
            strips = _reported(
                translate_strips(generator, config, pixels, formats, tiling),
                len(pixels),
                lambda part: on_done(len(outcomes) + part),
            )
            write_strips(outcome.output, strips, output_shape(pixels, formats[1]), formats[1].depth)
            outcomes.append(outcome)
            # Free the memory before the next image is read.
            del pixels, strips
    else:
        for batch in _batches(readable, batch_size):
            images = [pixels for _, pixels in batch]
            translated = translate_pixels(generator, config, images, formats)
            for (outcome, _), made in zip(batch, translated, strict=True):
                atomic_write(outcome.output, encode(made, outcome.output.suffix))
                outcomes.append(outcome)
            on_done(len(outcomes))
    on_done(len(outcomes))
    return outcomes


def _translate_tiled(
    generator: nn.Module, config: Architecture, image: Tensor, tiling: Tiling
) -> Tensor:
    """Translate one image (C, H, W) to (output channels, H, W)."""
    strips = translated_strips(
        generator,
        config,
        (image.shape[1], image.shape[2]),
        lambda rows, columns: image[:, torch.from_numpy(rows)[:, None], torch.from_numpy(columns)],
        tiling,
    )
    return torch.cat(list(strips), dim=1)


def translate_pixels(
    generator: nn.Module, config: Architecture, images: Sequence[Pixels], formats: Formats
) -> list[Pixels]:
    """Translate images (H, W, C) of one size and the task's input format to pixels of its output format."""
    batch = torch.stack([to_tensor(pixels, formats[0]) for pixels in images])
    return [to_pixels(image, formats[1]) for image in translate_batch(generator, config, batch)]


def translate_strips(
    generator: nn.Module,
    config: Architecture,
    pixels: Pixels,
    formats: Formats,
    tiling: Tiling,
    on_tile: Callable[[], None] = lambda: None,
) -> Iterator[Pixels]:
    """Translate an image (H, W, C) of the task's input format in tiles; call `on_tile` before each is read.

    Yields:
        Strips (rows, W, C) of the task's output format, from top to bottom.

    Raises:
        PiggybackError: the network does not take tiles of this size.
    """

    def read(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Tensor:
        on_tile()
        return to_tensor(pixels[rows[:, None], columns], formats[0])

    height, width = pixels.shape[:2]
    for strip in translated_strips(generator, config, (height, width), read, tiling):
        yield to_pixels(strip, formats[1])


def _reported(
    strips: Iterable[Pixels], height: int, on_part: Callable[[float], None]
) -> Iterator[Pixels]:
    """Yield an image's strips, and call `on_part` with the fraction done after each."""
    done = 0
    for strip in strips:
        done += len(strip)
        yield strip
        on_part(done / height)


def _readable(
    planned: Sequence[Outcome], formats: Formats, max_pixels: int, failed: list[Outcome]
) -> Iterator[tuple[Outcome, Pixels]]:
    """Yield files that can be read and whose outputs can be encoded, with their pixels; append the others."""
    for outcome in planned:
        try:
            pixels = read_image(outcome.source, formats[0], max_pixels=max_pixels)
            with naming_file(outcome.source):
                check_fits(
                    output_shape(pixels, formats[1]), formats[1].depth, outcome.output.suffix
                )
        except PiggybackError as error:
            failed.append(replace(outcome, problem=str(error)))
            continue
        yield outcome, pixels
        del pixels


def _batches(
    items: Iterable[tuple[Outcome, Pixels]], batch_size: int
) -> Iterator[list[tuple[Outcome, Pixels]]]:
    """Group neighbours of one size, at most `batch_size` together."""
    batch: list[tuple[Outcome, Pixels]] = []
    for item in items:
        if batch and (len(batch) == batch_size or item[1].shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def output_shape(pixels: Pixels, format: ImageFormat) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of an image's output in a format."""
    return pixels.shape[0], pixels.shape[1], format.stored_channels
