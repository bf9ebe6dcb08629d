"""Data sets of a task: training, held-out and sample images."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from piggyback_gan.data.folders import PairedFolder, Sides, UnpairedFolder
from piggyback_gan.data.loading import Checked, Dataset, load_sides
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.training.options import TrainingOptions

_BATCH = 8


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

    def some(self, options: TrainingOptions, images: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return training images of both sides as they are trained on, the same in each call and each process.

        Args:
            options: resolved.
            images: how many of each side, rounded up to whole batches; all if there are fewer.

        Returns:
            For each side, batches of at most 8 images in [-1, 1], on the options' device.
        """
        size = min(_BATCH, images)
        batches = self.train.epoch(
            1,
            batch_size=size,
            crop=options.image_size,
            flip=options.flip,
            seed=options.seed,
            start=0,
            part=(0, 1),
        )
        with closing(batches):
            pairs = list(islice(batches, -(-min(images, len(self.train)) // size)))
        device = torch.device(options.device)
        return [a.to(device) for a, _ in pairs], [b.to(device) for _, b in pairs]


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
    name, size = folder.held_out_name or "held-out", options.image_size
    load_size = options.load_size

    def load(split: str, sides: Sides, size: int = size, count: int | None = None) -> Dataset:
        return load_sides(sides, options.direction, formats, size, split, checked, count)

    train, held_out = _all_or_faults(
        lambda: load("train", folder.train_sides, load_size),
        lambda: load(name, folder.held_out_sides),
    )
    shown = held_out
    if not len(held_out):
        shown = load("samples", folder.train_sides, count=options.samples)
    partners = isinstance(folder, UnpairedFolder) and bool(folder.paired_held_out)
    return TaskData(train, held_out if len(held_out) else None, shown, partners)


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
    return load_sides(
        folder.held_out_sides, options.direction, formats, options.image_size, count=count
    )


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
