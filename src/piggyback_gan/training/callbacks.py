"""Who is told how a training run goes, and how it ends before its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piggyback_gan.training.plan import TaskPlan

REPORT_EVERY = 10


class Interrupted(Exception):
    """Training was stopped from outside; the bank is as it was, and the run can be resumed."""

    def __init__(self, position: Position) -> None:
        super().__init__(
            f"stopped in epoch {position.epoch} of {position.epochs}, "
            f"after step {position.step} of {position.steps}"
        )
        self.position = position


class Reporter:
    """Who is told how a run goes. This one listens and says nothing; others override what they tell."""

    def planned(self, plan: TaskPlan) -> None:
        """Everything is checked but the images."""

    def checked(self, split: str, done: int, total: int) -> None:
        """So many files or pairs of a split were read."""

    def resumed(self, position: Position, differences: Sequence[str]) -> None:
        """An earlier run goes on from here; `differences` may make its bytes others than uninterrupted."""

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        """Every `REPORT_EVERY` steps, with the losses of the last one."""

    def validated(self, position: Position, metrics: Mapping[str, float] | None) -> None:
        """At the end of each epoch; None where nothing is held out."""

    def stopped_early(self, epoch: int, best: int) -> None:
        """Patience came to its end in `epoch`; `best` is the one that is kept."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` of `steps` in all, in `epoch` of `epochs`, both counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
