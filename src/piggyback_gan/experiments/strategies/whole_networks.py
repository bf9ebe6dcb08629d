"""Whole networks: one per task, or one that is fine-tuned on all tasks."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from piggyback_gan.experiments.strategies.base import Kept, KeptStrategy, Learner, count, values_of


@dataclass(frozen=True, kw_only=True)
class Standalone(KeptStrategy):
    """A separate network for each task, from random weights: nothing is shared or forgotten."""

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        return Learner(fresh)

    def predicted(self, network: nn.Module, order: int) -> float:
        return count(network)


@dataclass(frozen=True, kw_only=True)
class Finetune(KeptStrategy):
    """One network, fine-tuned on each task: its earlier weights are lost."""

    forgets: ClassVar[bool] = True

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        if kept.shared:
            fresh.load_state_dict(kept.shared)
        return Learner(fresh)

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        return kept.with_task(task, {}, values_of(learner.module))

    def predicted(self, network: nn.Module, order: int) -> float:
        return 0 if order else count(network)
