"""Detect the image format of each side of a data set."""

from collections.abc import Sequence
from dataclasses import replace

from piggyback_gan.data.folders import PairedFolder, UnpairedFolder
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source, detect_format, stored_depth, value_range
from piggyback_gan.networks.config import Architecture
from piggyback_gan.training.options import TrainingOptions


def find_formats(
    folder: PairedFolder | UnpairedFolder, options: TrainingOptions, config: Architecture | None
) -> tuple[ImageFormat, ImageFormat]:
    """Return the formats of input and output: from the options, else from the first file of each side."""
    sides: tuple[Sequence[Source], ...]
    if isinstance(folder, PairedFolder):
        pairs = [pair.sources for pair in folder.train + folder.held_out]
        sides = tuple(zip(*pairs, strict=True))
    else:
        sides = (folder.train_a + folder.held_out_a, folder.train_b + folder.held_out_b)
    first, second = sides if options.direction == "AtoB" else sides[::-1]
    bank = (None, None) if config is None else (config.input_channels, config.output_channels)
    return (
        _format(first, options.input_channels, bank[0], options.input_range, options.input_labels),
        _format(second, options.output_channels, bank[1], options.output_range, None),
    )


def _format(
    sources: Sequence[Source],
    channels: int | None,
    bank_channels: int | None,
    given_range: tuple[float, float] | None,
    labels: int | None,
) -> ImageFormat:
    path = sources[0].path
    if given_range is None and labels is None and stored_depth(path) == "float32":
        given_range = value_range(sources)
    found = detect_format(path, channels=channels, labels=labels, value_range=given_range)
    # In a bank of gray images RGB files are read as gray, as for its first task.
    is_plain = found.depth == "uint8" and found.channels == 3 and labels is None
    if channels is None and bank_channels == 1 and is_plain:
        return replace(found, channels=1)
    return found
