"""Tasks of an experiment: images, formats, and options with all defaults."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from piggyback_gan.data.folders import PairedFolder, UnpairedFolder, find_folder
from piggyback_gan.data.formats import find_formats
from piggyback_gan.data.loading import Dataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.settings import Experiment, TaskSettings
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import BACKWARD, FORWARD, Device
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.plan import check_size
from piggyback_gan.training.task_data import TaskData, load_held_out_of, load_task_data


@dataclass(frozen=True)
class Task:
    """A task of an experiment, found on disk.

    Attributes:
        name: of the task.
        folder: its images; in a search, a part of the training images is held out.
        formats: of input and output.
        options: with defaults except learning rates and seeds, which depend on the strategy.
        epoch_steps: steps in an epoch.
    """

    name: str
    folder: PairedFolder | UnpairedFolder
    formats: tuple[ImageFormat, ImageFormat]
    options: TrainingOptions
    epoch_steps: int

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.options.epochs * self.epoch_steps

    @property
    def train_images(self) -> int:
        """Number of training images, pairs, or images of the larger side."""
        return max(map(len, self.folder.train_sides))

    @property
    def held_out_images(self) -> int:
        """Number of held-out pairs, or images of both sides."""
        return sum(map(len, self.folder.held_out_sides))

    def load(self) -> TaskData:
        """Decode and check all images.

        Raises:
            PiggybackError: names all files that can't be used.
        """
        return load_task_data(self.folder, self.formats, self.options, lambda *progress: None)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that learn it."""
        return (FORWARD,) if self.options.mode == "paired" else (FORWARD, BACKWARD)

    @property
    def partners(self) -> bool:
        """Whether every held-out input has a target."""
        return isinstance(self.folder, PairedFolder) or bool(self.folder.paired_held_out)

    def held_out(self, count: int | None = None) -> Dataset:
        """Load the held-out images, or the first `count` of each side.

        Raises:
            PiggybackError: names all files that can't be used.
        """
        return load_held_out_of(self.folder, self.formats, self.options, count)


def find_tasks(experiment: Experiment, device: Device) -> tuple[Task, ...]:
    """Find the images of all tasks, for a device as returned by `choose_device`.

    Raises:
        PiggybackError: a folder is not of the task's layout, or has no held-out images.
    """
    own = experiment.val_fraction
    return tuple(_find(task, device, task.steps, own) for task in experiment.tasks)


def find_search_tasks(experiment: Experiment, device: Device) -> tuple[Task, ...]:
    """Find the first task and those of the learning rate search, with training images held out."""
    search, own, (first, *later) = experiment.search, experiment.val_fraction, experiment.tasks
    found = [_find(first, device, first.steps, own)]
    for task in later[: search.tasks]:
        found.append(_find(task, device, search.steps or task.steps, own, search.val_fraction))
    return tuple(found)


def architecture(experiment: Experiment, tasks: Sequence[Task]) -> GeneratorConfig:
    """The generator's architecture, in the trained direction, shared by all tasks.

    Raises:
        PiggybackError: the architecture is not valid, or tasks differ in channels or sizes.
    """
    channels = tuple(format.channels for format in tasks[0].formats)
    for task in tasks:
        found = tuple(format.channels for format in task.formats)
        if found != channels:
            raise PiggybackError(
                f"task {task.name!r} has {found[0]} channels in and {found[1]} out, the first task "
                f"{channels[0]} and {channels[1]}: an experiment compares networks of one "
                "architecture; set input_channels and output_channels"
            )
    size = tasks[0].options.image_size
    config = experiment.generator.for_new_bank(size, (channels[0], channels[1]))
    if not isinstance(config, GeneratorConfig):
        raise PiggybackError(
            f"an experiment compares strategies on built-in networks, not on {config.name}: choose another "
            "generator"
        )
    for task in tasks:
        check_size(config, task.options)
    return config


def _find(
    settings: TaskSettings, device: Device, steps: int | None, *val_fractions: float | None
) -> Task:
    """Find a task's images.

    Args:
        settings: of the task.
        device: as returned by `choose_device`.
        steps: minimum number; None: the options' epochs.
        val_fractions: hold out these shares of the training images, one after the other; the last one's
            take the place of the held-out ones, the others are left out.
    """
    options = settings.options
    try:
        folder = find_folder(settings.data, options.mode)
    except PiggybackError as error:
        raise PiggybackError(
            f"task {settings.name!r}: {error}; its folder is looked for beside the experiment's file, or "
            "where --data says"
        ) from None
    for fraction in val_fractions:
        if fraction is not None:
            folder = _without_held_out(folder).with_held_out(fraction, seed=0)
    if not folder.held_out_sides[0]:
        raise PiggybackError(
            f"task {settings.name!r}: {settings.data} has no val or test images to evaluate on: add some, or set "
            "val_fraction for all tasks"
        )
    formats = find_formats(
        folder,
        options.direction,
        channels=(options.input_channels, options.output_channels),
        ranges=(options.input_range, options.output_range),
        labels=options.input_labels,
    )
    epoch_steps = -(-max(map(len, folder.train_sides)) // (options.batch_size * options.accumulate))
    if steps is not None:
        options = replace(options, epochs=-(-steps // epoch_steps))
    options = options.resolved(
        earlier=(),
        device=device,
        train_images=min(map(len, folder.train_sides)),
        equal_channels=formats[0].channels == formats[1].channels,
    )
    return Task(settings.name, folder, formats, options, epoch_steps)


def _without_held_out(folder: PairedFolder | UnpairedFolder) -> PairedFolder | UnpairedFolder:
    if isinstance(folder, PairedFolder):
        return replace(folder, held_out=(), held_out_name=None)
    return replace(folder, held_out_a=(), held_out_b=(), paired_held_out=(), held_out_name=None)
