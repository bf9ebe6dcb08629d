"""Training callbacks, and how training ends early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piggyback_gan.errors import PiggybackError

if TYPE_CHECKING:
    from piggyback_gan.core.free_tasks import Factorized
    from piggyback_gan.training.plan import TaskPlan
    from piggyback_gan.training.starts import Start

REPORT_EVERY = 10


class Interrupted(Exception):
    """Training was stopped from outside; the bank is unchanged, and the run can be resumed."""

    def __init__(self, position: Position) -> None:
        super().__init__(
            f"stopped in epoch {position.epoch} of {position.epochs}, "
            f"after step {position.step} of {position.steps}"
        )
        self.position = position


class Diverged(PiggybackError):
    """A loss or a validation metric is not finite."""


class Callback:
    """Training callbacks; the base class ignores all events. Of several processes, the first calls them."""

    def planned(self, plan: TaskPlan) -> None:
        """Everything but the images is validated."""

    def checked(self, split: str, done: int, total: int) -> None:
        """`done` of `total` files or pairs of a split are read."""

    def resumed(self, position: Position, differences: Sequence[str]) -> None:
        """A checkpoint is loaded; `differences` name what may change the result by rounding."""

    def started(self, position: Position) -> None:
        """The first epoch begins, or the one in which training is resumed."""

    def start_chosen(self, generator: str, start: Start) -> None:
        """Training images chose the earlier task that a generator starts from, before the first epoch."""

    def epoch_started(self, epoch: int, epochs: int) -> None:
        """An epoch, counted from 1, begins or is resumed."""

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        """Called after the first and every `REPORT_EVERY` steps, with the mean losses of the last step."""

    def factorized(self, position: Position, found: Mapping[str, Factorized]) -> None:
        """Generators that were trained free are now mixed from the bank; the position is the last step before."""

    def epoch_ended(self, position: Position, records: Sequence[Mapping[str, Any]]) -> None:
        """Called after validation, with the generators in eval mode.

        Args:
            position: the last step.
            records: a record for each epoch so far: epoch, step, learning_rate, loss (name -> mean) and
                validation (name -> value; None where nothing is held out).
        """

    def collapsed(self, position: Position, generator: str) -> None:
        """Since this epoch a generator makes nearly the same image of all inputs; such epochs are not kept as the best."""

    def checkpoint(self, position: Position, state: Mapping[str, Any]) -> None:
        """Called after each epoch and before `Interrupted` is raised; training can resume from `state`."""

    def stopped_early(self, epoch: int, best: int) -> None:
        """Patience ran out after `epoch`; the weights of epoch `best` are kept."""


@dataclass(frozen=True)
class Position:
    """Progress of a training: `step` of `steps` in total, in `epoch` of `epochs`, both counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
