"""Translating images of any size with a task's generator: tensors, and files of a folder."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from piggyback_gan.config import GeneratorConfig
from piggyback_gan.errors import PiggybackError
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.images import (
    SUFFIXES,
    Pixels,
    encode,
    list_images,
    read_image,
    to_pixels,
    to_tensor,
)
from piggyback_gan.manifest import atomic_write


@dataclass(frozen=True)
class Outcome:
    """What became of one input file; `problem` is None where the output was written."""

    source: Path
    output: Path
    problem: str | None = None


def translate_batch(generator: nn.Module, config: GeneratorConfig, images: Tensor) -> Tensor:
    """Translate images of one size, padded to what the network needs and cropped back.

    Args:
        generator: a folded task.
        config: its architecture.
        images: (B, C, H, W) in [-1, 1], any H and W from 1 on.

    Returns:
        (B, output channels, H, W) on the CPU, in [-1, 1].

    Raises:
        PiggybackError: other channels than the network's, no pixels, or no float values.
    """
    fits = images.dim() == 4 and images.shape[1] == config.input_channels and images.numel() > 0
    if not fits or not images.is_floating_point():
        raise PiggybackError(
            f"expected float images (B, {config.input_channels}, H, W) in [-1, 1], found "
            f"{images.dtype} {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    top, bottom = _padding(height, config)
    left, right = _padding(width, config)
    rows = _mirrored(height, top, bottom)
    columns = _mirrored(width, left, right)
    device = next(generator.parameters()).device
    with torch.inference_mode():
        padded = images[:, :, rows][:, :, :, columns].to(device, torch.float32)
        output: Tensor = generator(padded)[:, :, top : top + height, left : left + width]
        return output.cpu().clone()


def plan_outputs(
    inputs: Sequence[Path], out: Path, *, same_format: bool, overwrite: bool
) -> list[Outcome]:
    """Which file becomes which, checked before anything is translated.

    Args:
        inputs: image files and folders of them.
        out: the folder for the outputs. They keep their names, with the suffix .png.
        same_format: keep the suffixes too.
        overwrite: replace files that are there.

    Raises:
        PiggybackError: an input is missing, no image, or a folder without any; two inputs would have one
            output; or an output exists or is an input.
    """
    sources: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = list_images(path)
            if not found:
                raise PiggybackError(f"{path}: there are no images in this folder")
            sources += found
        elif not path.exists():
            raise PiggybackError(f"{path}: no such file or folder")
        elif path.suffix.lower() not in SUFFIXES:
            raise PiggybackError(f"{path}: not an image; known are {', '.join(SUFFIXES)}")
        else:
            sources.append(path)
    planned: dict[Path, Path] = {}
    for source in dict.fromkeys(sources):
        suffix = source.suffix if same_format else ".png"
        output = out / f"{source.stem}{suffix}"
        if output in planned:
            raise PiggybackError(
                f"{planned[output]} and {source} would both become {output}: "
                "give --format same, or translate them apart"
            )
        planned[output] = source
    inside = {source.resolve() for source in sources}
    if replaced := [output for output in planned if output.resolve() in inside]:
        raise PiggybackError(f"{replaced[0]} is an input: give another --out")
    existing = [output for output in planned if output.exists()]
    if existing and not overwrite:
        raise PiggybackError(
            f"{len(existing)} outputs exist, the first is {existing[0]}: give --overwrite or another --out"
        )
    return [Outcome(source, output) for output, source in planned.items()]


def translate_files(
    generator: nn.Module,
    config: GeneratorConfig,
    planned: Sequence[Outcome],
    *,
    batch_size: int,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Outcome]:
    """Translate files one batch of equal sizes after another; what fails is said, the others are done.

    Raises:
        PiggybackError: an output can't be written (full disk, read-only folder).
    """
    source = ImageFormat(channels=config.input_channels)
    target = ImageFormat(channels=config.output_channels)
    outcomes: list[Outcome] = []
    for batch in _batches(_readable(planned, config, outcomes), batch_size):
        images = torch.stack([to_tensor(pixels, source) for _, pixels in batch])
        for (outcome, _), image in zip(
            batch, translate_batch(generator, config, images), strict=True
        ):
            pixels = to_pixels(image, target)
            atomic_write(outcome.output, encode(pixels, outcome.output.suffix.lower()))
            outcomes.append(outcome)
        on_done(len(outcomes))
    on_done(len(outcomes))
    return outcomes


def _readable(
    planned: Sequence[Outcome], config: GeneratorConfig, failed: list[Outcome]
) -> Iterator[tuple[Outcome, Pixels]]:
    """The files that can be read, with their pixels; the others go to `failed`."""
    for outcome in planned:
        try:
            yield outcome, read_image(outcome.source, ImageFormat(channels=config.input_channels))
        except PiggybackError as error:
            failed.append(Outcome(outcome.source, outcome.output, str(error)))


def _batches(
    items: Iterable[tuple[Outcome, Pixels]], batch_size: int
) -> Iterator[list[tuple[Outcome, Pixels]]]:
    """Neighbours of one size, at most `batch_size` together."""
    batch: list[tuple[Outcome, Pixels]] = []
    for item in items:
        if batch and (len(batch) == batch_size or item[1].shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _padding(length: int, config: GeneratorConfig) -> tuple[int, int]:
    """How many pixels to add before and after."""
    needed = max(
        math.ceil(length / config.size_multiple) * config.size_multiple, config.minimum_size
    )
    before = (needed - length) // 2
    return before, needed - length - before


def _mirrored(length: int, before: int, after: int) -> Tensor:
    """Indices that pad a line by mirroring it, as often as it takes: it may be a single pixel."""
    return torch.from_numpy(np.pad(np.arange(length), (before, after), mode="symmetric"))
