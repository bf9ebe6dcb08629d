"""The data sets of a task: training images, held-out ones, and those that sample pictures show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from piggyback_gan.data import PairedDataset, UnpairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.folders import Pair, PairedFolder, UnpairedFolder
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.image_reading import Source
from piggyback_gan.options import TrainingOptions

Dataset = PairedDataset | UnpairedDataset

Checked = Callable[[str, int, int], None]
"""Called with a split's name, how many of its images were read, and how many there are."""


@dataclass(frozen=True)
class TaskData:
    """What a run reads.

    Attributes:
        train: resized to the load size, for random crops.
        held_out: whole; None where nothing is held out.
        shown: whole; some training images where nothing is held out.
        partners: whether the held-out sides of an unpaired task are pairs, in order.
    """

    train: Dataset
    held_out: Dataset | None
    shown: Dataset
    partners: bool = False


def load_task_data(
    folder: PairedFolder | UnpairedFolder,
    formats: tuple[ImageFormat, ImageFormat],
    options: TrainingOptions,
    checked: Checked,
) -> TaskData:
    """Decode and check all images of a task.

    Args:
        folder: where they are.
        formats: of input and output.
        options: resolved.
        checked: told how far it is.

    Raises:
        PiggybackError: names all files of all splits that can't be used.
    """
    assert options.load_size is not None
    name = folder.held_out_name or "held-out"
    sizes = {"train": options.load_size}
    some = slice(options.samples)

    def load(split: str, *sides: Sequence[Pair] | Sequence[Source]) -> Dataset:
        size = sizes.get(split, options.image_size)
        total = sum(map(len, sides))

        def on_progress(done: int) -> None:
            checked(split, done, total)

        if options.mode == "paired":
            return PairedDataset(
                [pair for pair in sides[0] if isinstance(pair, Pair)],
                direction=options.direction,
                formats=formats,
                size=size,
                on_progress=on_progress,
            )
        a, b = ([source for source in side if isinstance(source, Source)] for side in sides)
        first, second = (a, b) if options.direction == "AtoB" else (b, a)
        return UnpairedDataset(first, second, formats=formats, size=size, on_progress=on_progress)

    if isinstance(folder, PairedFolder):
        train, held_out = _all_or_faults(
            lambda: load("train", folder.train), lambda: load(name, folder.held_out)
        )
        shown = held_out if len(held_out) else load("samples", folder.train[some])
    else:
        a, b = folder.train_a, folder.train_b
        out = _held_out_sides(folder)
        train, held_out = _all_or_faults(lambda: load("train", a, b), lambda: load(name, *out))
        shown = held_out if len(held_out) else load("samples", a[some], b[some])
    partners = isinstance(folder, UnpairedFolder) and bool(folder.paired_held_out)
    return TaskData(train, held_out if len(held_out) else None, shown, partners)


def _held_out_sides(folder: UnpairedFolder) -> tuple[Sequence[Source], Sequence[Source]]:
    """The held-out images of A and B; in the same order where they are pairs."""
    if not folder.paired_held_out:
        return folder.held_out_a, folder.held_out_b
    a, b = zip(*(pair.sources for pair in folder.paired_held_out), strict=True)
    return a, b


def _all_or_faults(*loaders: Callable[[], Dataset]) -> list[Dataset]:
    """Load all, and name what can't be used in any of them at once."""
    loaded, faults = [], []
    for load in loaders:
        try:
            loaded.append(load())
        except PiggybackError as error:
            faults.append(str(error))
    if faults:
        raise PiggybackError("; ".join(faults))
    return loaded
