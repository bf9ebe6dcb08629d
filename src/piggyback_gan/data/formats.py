"""Detect the image format of each side of a data set."""

from dataclasses import replace

from piggyback_gan.data.folders import PairedFolder, UnpairedFolder, sides_of_pairs
from piggyback_gan.images.decode import decode, naming_file
from piggyback_gan.images.format import Formats
from piggyback_gan.images.read import detect_format, value_ranges

Range = tuple[float, float]


def find_formats(
    folder: PairedFolder | UnpairedFolder,
    direction: str,
    *,
    channels: tuple[int | None, int | None] = (None, None),
    ranges: tuple[Range | None, Range | None] = (None, None),
    labels: int | None = None,
    bank_channels: tuple[int | None, int | None] = (None, None),
) -> Formats:
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
    if isinstance(folder, PairedFolder):
        sides = sides_of_pairs(folder.train + folder.held_out)
    else:
        sides = folder.train_a + folder.held_out_a, folder.train_b + folder.held_out_b
    if direction == "BtoA":
        sides = sides[::-1]
    paths = [side[0].path for side in sides]
    decoded = {path: decode(path) for path in dict.fromkeys(paths)}
    known, classes = list(ranges), (labels, None)
    unknown = [
        index
        for index, path in enumerate(paths)
        if decoded[path].pixels.dtype == "float32"
        and known[index] is None
        and classes[index] is None
    ]
    found = value_ranges([sides[index] for index in unknown], decoded)
    for index, value_range in zip(unknown, found, strict=True):
        known[index] = value_range
    formats = []
    for i, path in enumerate(paths):
        with naming_file(path):
            format = detect_format(
                decoded[path], channels=channels[i], labels=classes[i], value_range=known[i]
            )
        # In a bank of gray images RGB files are read as gray, as for its first task.
        is_plain = format.depth == "uint8" and format.channels == 3 and classes[i] is None
        is_gray = channels[i] is None and bank_channels[i] == 1 and is_plain
        formats.append(replace(format, channels=1) if is_gray else format)
    return formats[0], formats[1]
