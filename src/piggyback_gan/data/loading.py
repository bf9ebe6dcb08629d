"""Load the sides of a split as a data set."""

from collections.abc import Callable, Iterable, Sequence

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import Pair, UnpairedFolder
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source

Dataset = PairedDataset | UnpairedDataset


Checked = Callable[[str, int, int], None]
"""Called with a split's name, how many of its images were read, and how many there are."""


def sides_of_pairs(pairs: Iterable[Pair]) -> tuple[Sequence[Source], Sequence[Source]]:
    """A and B of pairs, in order."""
    a, b = zip(*(pair.sources for pair in pairs), strict=True)
    return a, b


def held_out_sides(folder: UnpairedFolder) -> tuple[Sequence[Source], Sequence[Source]]:
    """The held-out images of A and B; in the same order where they are pairs."""
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
    """A data set of pairs, if there is one side, or of A and B."""
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
