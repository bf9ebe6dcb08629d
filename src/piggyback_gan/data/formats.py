"""Detect the image format of each side of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from piggyback_gan.data.folders import PairedFolder, UnpairedFolder
from piggyback_gan.images.decode import decode, naming_file
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Decoded
from piggyback_gan.images.read import Source, detect_format, value_ranges

Range = tuple[float, float]


def find_formats(
    folder: PairedFolder | UnpairedFolder,
    direction: str,
    *,
    channels: tuple[int | None, int | None] = (None, None),
    ranges: tuple[Range | None, Range | None] = (None, None),
    labels: int | None = None,
    bank_channels: tuple[int | None, int | None] = (None, None),
) -> tuple[ImageFormat, ImageFormat]:
    """Detect the formats of inputs and outputs from the first file of each side.

    Of float32 files whose range is not given, all files are read.

    Args:
        folder: the images.
        direction: "AtoB" or "BtoA".
        channels: of input and output; None is detected.
        ranges: the values that become -1 and 1; None is all that integers can hold, or that the files have.
        labels: the number of classes, if the inputs are label maps.
        bank_channels: of the bank's network, if the bank has tasks.

    Raises:
        PiggybackError: a file can't be read, or does not fit what is given.
    """
    sides: tuple[Sequence[Source], ...]
    if isinstance(folder, PairedFolder):
        pairs = [pair.sources for pair in folder.train + folder.held_out]
        sides = tuple(zip(*pairs, strict=True))
    else:
        sides = (folder.train_a + folder.held_out_a, folder.train_b + folder.held_out_b)
    if direction == "BtoA":
        sides = sides[::-1]
    paths = [side[0].path for side in sides]
    decoded = {path: decode(path) for path in dict.fromkeys(paths)}
    known = list(ranges)
    unknown = [
        index
        for index, path in enumerate(paths)
        if decoded[path].pixels.dtype == "float32"
        and known[index] is None
        and (index == 1 or labels is None)
    ]
    found = value_ranges([sides[index] for index in unknown], decoded)
    for index, value_range in zip(unknown, found, strict=True):
        known[index] = value_range
    first, second = (
        _format(
            paths[i], decoded[paths[i]], channels[i], known[i], (labels, None)[i], bank_channels[i]
        )
        for i in (0, 1)
    )
    return first, second


def _format(
    path: Path,
    decoded: Decoded,
    channels: int | None,
    value_range: Range | None,
    labels: int | None,
    bank_channels: int | None,
) -> ImageFormat:
    with naming_file(path):
        found = detect_format(decoded, channels=channels, labels=labels, value_range=value_range)
    # In a bank of gray images RGB files are read as gray, as for its first task.
    is_plain = found.depth == "uint8" and found.channels == 3 and labels is None
    if channels is None and bank_channels == 1 and is_plain:
        return replace(found, channels=1)
    return found
