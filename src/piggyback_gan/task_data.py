"""The data sets of a task: training images, held-out ones, and those that sample pictures show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.bank import Bank
from piggyback_gan.data import PairedDataset, UnpairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.folders import (
    Pair,
    PairedFolder,
    UnpairedFolder,
    find_pairs,
    find_unpaired,
)
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
        total, size = sum(map(len, sides)), sizes.get(split, options.image_size)
        return _load(
            sides, options.direction, formats, size, lambda done: checked(split, done, total)
        )

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


def load_held_out_of(
    folder: PairedFolder | UnpairedFolder,
    formats: tuple[ImageFormat, ImageFormat],
    options: TrainingOptions,
    count: int | None = None,
) -> Dataset:
    """The held-out images of a folder, or of each side the first so many.

    Raises:
        PiggybackError: names all files that can't be used.
    """
    sides: tuple[Sequence[Pair] | Sequence[Source], ...]
    sides = (folder.held_out,) if isinstance(folder, PairedFolder) else _held_out_sides(folder)
    some = [side[:count] for side in sides]
    return _load(some, options.direction, formats, options.image_size, lambda done: None)


def load_held_out(
    bank: Bank, task: str, root: Path, checked: Checked, *, split_free: bool = False
) -> tuple[Dataset, bool]:
    """Decode and check the held-out images of a finished task, or of other data for it.

    Held out is `val/`, else `test/`, else what the task's training held out of `train/` (`val_fraction`).

    Args:
        bank: where the task is.
        task: its name; direction, formats and size are its own.
        root: the folder of images.
        checked: told how many images were read.
        split_free: all images in the folder, those in `train/` too: for data that the task never saw.

    Returns:
        The images, whole and without crop or flip, and whether the sides of an unpaired task are pairs,
        in order.

    Raises:
        PiggybackError: there is no such task, nothing is held out, or files can't be used.
    """
    card = bank.card(task)
    paired = card["mode"] == "paired"
    folder = find_pairs(root) if paired else find_unpaired(root)
    options = card["options"]
    if folder.held_out_name is None and options.get("val_fraction") and not split_free:
        folder = folder.with_held_out(options["val_fraction"], options["seed"])
    sides: tuple[Sequence[Pair] | Sequence[Source], ...]
    if isinstance(folder, PairedFolder):
        sides = ((*folder.train, *folder.held_out) if split_free else folder.held_out,)
        partners = True
    elif split_free:
        pairs = _all_pairs(root)
        sides = (folder.train_a + folder.held_out_a, folder.train_b + folder.held_out_b)
        sides = _sources(pairs) if pairs else sides
        partners = bool(pairs)
    else:
        sides, partners = _held_out_sides(folder), bool(folder.paired_held_out)
    name = "all" if split_free else folder.held_out_name or "held-out"
    total = sum(map(len, sides))
    if not total:
        raise PiggybackError(
            f"{root}: no images are held out, in val/ or test/: hold some out; or give --split-free, if "
            f"{task!r} was not trained on these images"
        )
    size = card["image"]["size"]
    dataset = _load(
        sides,
        bank.directions(task)[0],
        bank.formats(task),
        size,
        lambda done: checked(name, done, total),
    )
    return dataset, partners


def _all_pairs(root: Path) -> tuple[Pair, ...]:
    """The images of an unpaired folder as pairs, if each has a partner; else none."""
    try:
        folder = find_pairs(root)
    except PiggybackError:
        return ()
    return folder.train + folder.held_out


def _sources(pairs: Iterable[Pair]) -> tuple[Sequence[Source], Sequence[Source]]:
    """A and B of pairs, in order."""
    a, b = zip(*(pair.sources for pair in pairs), strict=True)
    return a, b


def _held_out_sides(folder: UnpairedFolder) -> tuple[Sequence[Source], Sequence[Source]]:
    """The held-out images of A and B; in the same order where they are pairs."""
    if not folder.paired_held_out:
        return folder.held_out_a, folder.held_out_b
    return _sources(folder.paired_held_out)


def _load(
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
