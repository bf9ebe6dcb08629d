"""Plan of a part of an experiment: tasks in order, and their training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from piggyback_gan.experiments.strategies import Strategy
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.names import FORWARD
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """Plan of a part.

    Attributes:
        label: the strategy's name in tables.
        strategy: with its options.
        seed: random seed.
        folder: of the part.
        tasks: in order.
        config: the forward generator of all tasks.
        first: the folder of the shared first network, for a strategy that uses it.
        first_rate, later_rate: the generator's learning rates.
        curve_images: number of held-out images to evaluate after each epoch.
        compare_images: number of outputs of each earlier task to compare before the last is learned;
            None: all.
        samples: number of outputs to keep as pictures.
        pictures: the folder for pictures of the held-out images; None for no pictures.
    """

    label: str
    strategy: Strategy
    seed: int
    folder: Path
    tasks: Sequence[Task]
    config: GeneratorConfig
    first: Path | None
    first_rate: float
    later_rate: float
    curve_images: int
    compare_images: int | None
    samples: int
    pictures: Path | None

    def config_of(self, which: str) -> GeneratorConfig:
        """The architecture of the forward or the backward generator."""
        if which == FORWARD:
            return self.config
        channels = self.config.input_channels, self.config.output_channels
        return replace(self.config, input_channels=channels[1], output_channels=channels[0])

    def rate(self, task: Task) -> float:
        """The forward generator's learning rate for a task."""
        return self.first_rate if task is self.tasks[0] else self.later_rate

    def options(self, task: Task) -> TrainingOptions:
        """A task's options with seed and learning rates; a network's first task has the first task's rate."""
        unpaired = [t for t in self.tasks if t.options.mode == "unpaired"]
        is_first_backward = bool(unpaired) and task is unpaired[0]
        return replace(
            task.options,
            seed=self.seed,
            learning_rate=self.rate(task),
            backward_learning_rate=self.first_rate if is_first_backward else self.rate(task),
        )
