"""Load a split of a folder as a data set."""

from collections.abc import Callable, Iterable, Sequence

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import Pair, UnpairedFolder
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source

Dataset = PairedDataset | UnpairedDataset
Checked = Callable[[str, int, int], None]
"""Called with the split's name, the number of images read so far, and the number of all."""


def sides_of_pairs(pairs: Iterable[Pair]) -> tuple[Sequence[Source], Sequence[Source]]:
    """Return the sources of A and of B, in the order of the pairs."""
    a, b = zip(*(pair.sources for pair in pairs), strict=True)
    return a, b


def held_out_sides(folder: UnpairedFolder) -> tuple[Sequence[Source], Sequence[Source]]:
    """Return the held-out images of A and B, in matching order if they are pairs."""
    if not folder.paired_held_out:
        return folder.held_out_a, folder.held_out_b
    return sides_of_pairs(folder.paired_held_out)


def load_sides(
    sides: Sequence[Sequence[Pair] | Sequence[Source]],
    direction: str,
    formats: tuple[ImageFormat, ImageFormat],
    size: int,
    on_progress: Callable[[int], None],
) -> Dataset:
    """Decode and check a split.

    Args:
        sides: the pairs of a paired split, or the sources of A and of B of an unpaired one.
        direction: "AtoB" or "BtoA".
        formats: of the input and of the output.
        size: all images are resized to (size, size).
        on_progress: called with the number of pairs or images checked so far.

    Raises:
        PiggybackError: names all files that can't be used.
    """
    if len(sides) == 1:
        return PairedDataset(
            [pair for pair in sides[0] if isinstance(pair, Pair)],
            direction=direction,
            formats=formats,
            size=size,
            on_progress=on_progress,
        )
    a, b = ([source for source in side if isinstance(source, Source)] for side in sides)
    first, second = (a, b) if direction == "AtoB" else (b, a)
    return UnpairedDataset(first, second, formats=formats, size=size, on_progress=on_progress)
