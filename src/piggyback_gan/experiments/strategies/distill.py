"""Distillation: one network trained on all tasks, with a penalty for changed outputs of earlier ones."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import (
    Kept,
    KeptStrategy,
    Learner,
    conv_layers,
    count,
    values_of,
)
from piggyback_gan.system.checks import is_number


class _DistillLearner(Learner):
    """A network with an output layer for each earlier task, and a frozen copy of it.

    Args:
        module: with the new task's output layer.
        output: the name of that layer.
        heads: the earlier tasks' output layers.
        weight: of the penalty.
    """

    def __init__(
        self, module: nn.Module, output: str, heads: Sequence[nn.Module], weight: float
    ) -> None:
        super().__init__(module)
        self.heads = nn.ModuleList(heads)
        self._teacher = copy.deepcopy(module).requires_grad_(False).eval()
        self._teacher_heads = copy.deepcopy(self.heads).requires_grad_(False)
        self._output = output
        self._weight = weight
        self._next = 0

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self._teacher.eval()
        return self

    def penalty(self, images: Tensor) -> Tensor | None:
        if not len(self.heads):
            return None
        # One earlier task per step, in turn: estimates the mean over all at the cost of one.
        task = self._next % len(self.heads)
        self._next += 1
        with torch.no_grad():
            before = self._through(self._teacher, self._teacher_heads[task], images)
        now = self._through(self.module, self.heads[task], images)
        return self._weight * (now.float() - before.float()).abs().mean()

    def _through(self, network: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
        """Run a network with another output layer."""
        named = head.named_parameters()
        values: dict[str, Tensor] = {f"{self._output}.{key}": value for key, value in named}
        translated: Tensor = functional_call(network, values, (images,))
        return translated


@dataclass(frozen=True, kw_only=True)
class Distill(KeptStrategy):
    """All layers but the last are shared and trained; changed outputs of earlier tasks are penalized.

    Source: after Zhai et al., "Lifelong GAN: Continual Learning for Conditional Image Generation",
    ICCV 2019, with Li and Hoiem, "Learning without Forgetting", ECCV 2016, for the output layers.
    On the new task's inputs, the mean absolute difference of an earlier task's output from what it
    was before is a penalty. A new output layer starts as the last task's.

    Attributes:
        weight: of the penalty. 100 as for the L1 loss of a paired task: it is the same measure, of the
            same range of values.
    """

    forgets: ClassVar[bool] = True

    weight: float = 100.0

    def __post_init__(self) -> None:
        if not is_number(self.weight) or not 0 <= self.weight < math.inf:
            raise PiggybackError(f"invalid weight: found {self.weight!r}, give a number from 0 on")

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        output, layer = _output_layer(fresh)
        heads = []
        for task in kept.tasks:
            # The last one loaded is the start of the new task's.
            self.rebuild(kept, task, fresh)
            heads.append(copy.deepcopy(layer))
        return _DistillLearner(fresh, output, heads, self.weight)

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        assert isinstance(learner, _DistillLearner)
        values = values_of(learner.module)
        output, layer = _output_layer(learner.module)
        own = {f"{output}.{key}" for key in layer.state_dict()}
        shared = {key: value for key, value in values.items() if key not in own}
        tasks = {
            earlier: {f"{output}.{key}": value for key, value in values_of(head).items()}
            for earlier, head in zip(kept.tasks, learner.heads, strict=True)
        }
        return Kept(shared, {**tasks, task: {key: values[key] for key in own}})

    def predicted(self, network: nn.Module, order: int) -> float:
        return count(_output_layer(network)[1]) if order else count(network)


def _output_layer(network: nn.Module) -> tuple[str, ConvLayer]:
    """The name of the last conv layer, and the layer."""
    return list(conv_layers(network).items())[-1]
