"""Plan of a part of an experiment: tasks in order, and their training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from piggyback_gan.experiments.settings import Experiment
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
        experiment: its settings.
        first: the folder of the shared first network, for a strategy that uses it.
        later_rate: the generator's learning rate for all tasks but the first.
        pictures: the folder for pictures of the held-out images; None for no pictures.
    """

    label: str
    strategy: Strategy
    seed: int
    folder: Path
    tasks: Sequence[Task]
    config: GeneratorConfig
    experiment: Experiment
    first: Path | None
    later_rate: float
    pictures: Path | None

    def config_of(self, which: str) -> GeneratorConfig:
        """The architecture of the forward or the backward generator."""
        if which == FORWARD:
            return self.config
        channels = self.config.input_channels, self.config.output_channels
        return replace(self.config, input_channels=channels[1], output_channels=channels[0])

    def rate(self, task: Task) -> float:
        """The forward generator's learning rate for a task."""
        is_first = task is self.tasks[0]
        return self.experiment.first_learning_rate if is_first else self.later_rate

    def options(self, task: Task) -> TrainingOptions:
        """A task's options with seed and learning rates; a network's first task has the first task's rate."""
        first_unpaired = next((t for t in self.tasks if t.options.mode == "unpaired"), None)
        rate = self.rate(task)
        backward = self.experiment.first_learning_rate if task is first_unpaired else rate
        return replace(
            task.options, seed=self.seed, learning_rate=rate, backward_learning_rate=backward
        )
