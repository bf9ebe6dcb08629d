"""Piggyback masks: later tasks learn which of task 1's weights to use."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import Kept, KeptStrategy, Learner, count, values_of
from piggyback_gan.experiments.strategies.weights import (
    fill,
    pack,
    packed_count,
    parametrize_shared,
    parts,
    private_values,
    shared_count,
    shared_layers,
    unpack,
)
from piggyback_gan.system.checks import is_number

_START = 1e-2
_THRESHOLD = 5e-3


class _Binary(torch.autograd.Function):
    """1 above the threshold, else 0; the gradient goes straight through to the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores > _THRESHOLD).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _Masked(nn.Module):
    """A frozen weight times a binary mask of the same shape, computed from real scores.

    What is trained are the scores over `rate`: an optimizer whose steps do not depend on a gradient's
    scale, such as Adam, moves the scores themselves by that share of its learning rate.
    """

    def __init__(self, layer: ConvLayer, rate: float) -> None:
        super().__init__()
        layer.weight.requires_grad_(False)
        self._rate = rate
        self.scores = nn.Parameter(torch.full_like(layer.weight, _START / rate))

    def forward(self, weight: Tensor) -> Tensor:
        mask: Tensor = _Binary.apply(self.scores * self._rate)  # type: ignore[no-untyped-call]
        return weight * mask


@dataclass(frozen=True, kw_only=True)
class Mask(KeptStrategy):
    """Later tasks train a binary mask of task 1's shared weights, and all other tensors.

    Source: Mallya, Davis, Lazebnik, "Piggyback: Adapting a Single Network to Multiple Tasks by Learning
    to Mask Weights", ECCV 2018: scores start at 1e-2, the threshold is 5e-3, all weights are used at
    the start. (Related to Piggyback GAN in name only.)

    Attributes:
        score_rate: the scores' learning rate, relative to that of other parameters. The authors'
            code has two rates as well.
    """

    score_rate: float = 0.1

    def __post_init__(self) -> None:
        rate = self.score_rate
        if not is_number(rate) or not 0 < rate < math.inf:
            raise PiggybackError(f"invalid score_rate: found {rate!r}, give a number above 0")

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        if kept.tasks:
            fresh.load_state_dict(kept.first)
            parametrize_shared(fresh, lambda _, layer: _Masked(layer, self.score_rate))
        return Learner(fresh)

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        if not kept.tasks:
            return kept.with_task(task, values_of(learner.module))
        scores = parts(learner.module, "0.scores")
        masks = {f"{n}.mask": pack(s * self.score_rate > _THRESHOLD) for n, s in scores.items()}
        return kept.with_task(task, private_values(learner.module) | masks)

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        weights = {}
        for name in shared_layers(fresh):
            weight = kept.first[f"{name}.weight"]
            bits = kept.tasks[task].get(f"{name}.mask")
            weights[name] = weight if bits is None else weight * unpack(bits, weight.shape)
        return fill(fresh, kept, task, weights)

    def predicted(self, network: nn.Module, order: int) -> float:
        if order == 0:
            return count(network)
        return count(network) - shared_count(network) + packed_count(network)
