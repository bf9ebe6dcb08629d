"""Load a split of a folder as a data set."""

from collections.abc import Callable

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import Sides
from piggyback_gan.images.format import Formats

Dataset = PairedDataset | UnpairedDataset
Checked = Callable[[str, int, int], None]
"""Called with the split's name, the number of images read so far, and the number of all."""


def load_sides(
    sides: Sides,
    direction: str,
    formats: Formats,
    size: int,
    split: str = "held-out",
    checked: Checked = lambda split, done, total: None,
    count: int | None = None,
) -> Dataset:
    """Decode and check a split, or its first `count` pairs or images of each side.

    Args:
        sides: the pairs, or the images of A and of B.
        direction: "AtoB" or "BtoA".
        formats: of the input and of the output.
        size: all images are resized to (size, size).
        split: name of the split, for `checked`.
        checked: called with the progress.
        count: maximum number per side.

    Raises:
        PiggybackError: names all files that can't be used.
    """
    total = sum(len(side[:count]) for side in sides)

    def on_progress(done: int) -> None:
        checked(split, done, total)

    if len(sides) == 1:
        pairs = sides[0][:count]
        return PairedDataset(
            pairs, direction=direction, formats=formats, size=size, on_progress=on_progress
        )
    a, b = (side[:count] for side in sides)
    first, second = (a, b) if direction == "AtoB" else (b, a)
    return UnpairedDataset(first, second, formats=formats, size=size, on_progress=on_progress)
