"""Data sets of a task: training, held-out and sample images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from piggyback_gan.data.folders import Pair, PairedFolder, UnpairedFolder
from piggyback_gan.data.loading import Checked, Dataset, held_out_sides, load_sides
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source
from piggyback_gan.training.options import TrainingOptions

_Sides = Sequence[Sequence[Pair] | Sequence[Source]]


@dataclass(frozen=True)
class TaskData:
    """The data sets of a run.

    Attributes:
        train: resized to the load size, for random crops.
        held_out: without crops; None if there are no such images.
        shown: without crops, for sample pictures: held-out images, or else some training images.
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
    """Decode and check all images of a task; `checked` is called with the progress.

    Raises:
        PiggybackError: names all files of all splits that can't be used.
    """
    assert options.load_size is not None
    sizes = {"train": options.load_size}

    def load(split: str, sides: _Sides) -> Dataset:
        total, size = sum(map(len, sides)), sizes.get(split, options.image_size)
        return load_sides(
            sides, options.direction, formats, size, lambda done: checked(split, done, total)
        )

    sides: _Sides
    if isinstance(folder, PairedFolder):
        sides, partners = (folder.train,), False
    else:
        sides, partners = (folder.train_a, folder.train_b), bool(folder.paired_held_out)
    name = folder.held_out_name or "held-out"
    train, held_out = _all_or_faults(
        lambda: load("train", sides), lambda: load(name, _held_out(folder))
    )
    if not len(held_out):
        shown = load("samples", [side[: options.samples] for side in sides])
        return TaskData(train, None, shown)
    return TaskData(train, held_out, held_out, partners)


def load_held_out_of(
    folder: PairedFolder | UnpairedFolder,
    formats: tuple[ImageFormat, ImageFormat],
    options: TrainingOptions,
    count: int | None = None,
) -> Dataset:
    """Load the held-out images of a folder, or the first `count` of each side.

    Raises:
        PiggybackError: names all files that can't be used.
    """
    some = [side[:count] for side in _held_out(folder)]
    return load_sides(some, options.direction, formats, options.image_size, lambda done: None)


def _held_out(folder: PairedFolder | UnpairedFolder) -> _Sides:
    return (folder.held_out,) if isinstance(folder, PairedFolder) else held_out_sides(folder)


def _all_or_faults(*loaders: Callable[[], Dataset]) -> list[Dataset]:
    """Load all, and raise one PiggybackError for the faults of all of them."""
    loaded, faults = [], []
    for load in loaders:
        try:
            loaded.append(load())
        except PiggybackError as error:
            faults.append(str(error))
    if faults:
        raise PiggybackError("; ".join(faults))
    return loaded
