"""PackNet: each task keeps a share of the weights that earlier tasks left free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import (
    Kept,
    KeptStrategy,
    Learner,
    check_share,
    count,
)
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


class _Packed(nn.Module):
    """Trained values where a task may have its own, the values of earlier tasks, or 0, elsewhere."""

    own: Tensor
    earlier: Tensor

    def __init__(self, own: Tensor, earlier: Tensor, kept: float) -> None:
        super().__init__()
        self._most = unconstrained_count(kept, int(own.sum()))
        self.register_buffer("own", own)
        self.register_buffer("earlier", earlier)

    def forward(self, trained: Tensor) -> Tensor:
        return torch.where(self.own, trained, self.earlier)

    def prune(self, trained: Tensor) -> None:
        """Set all but the task's share of its largest values to 0. Calling it again changes nothing."""
        own = self.own.flatten().nonzero().squeeze(1)
        magnitudes = trained.detach().abs().flatten()[own]
        largest = own[magnitudes.topk(self._most).indices]
        flat = torch.zeros_like(self.own).flatten()
        flat[largest] = True
        self.own.copy_(flat.view_as(self.own))


class _PackLearner(Learner):
    """A network that prunes itself before its last epochs."""

    def __init__(self, module: nn.Module, packed: Mapping[str, _Packed], retrain: float) -> None:
        super().__init__(module)
        self._packed = packed
        self._retrain = retrain

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        last = min(math.ceil(self._retrain * epochs), epochs - 1)
        if epoch > epochs - last:
            self.prune()

    def prune(self) -> None:
        for name, values in parts(self.module, "original").items():
            self._packed[name].prune(values)


@dataclass(frozen=True, kw_only=True)
class PackNet(KeptStrategy):
    """One set of weights. A task trains all free weights, prunes the smallest, and trains the rest.

    Source: Mallya and Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by Iterative
    Pruning", CVPR 2018. Weights that a task gives up are 0 for it, and the next task's free weights
    start there. Small output layers, biases, norms and buffers are each task's own.

    Attributes:
        kept: share of a layer's free weights that a task keeps: those of largest magnitude.
        retrain: share of the epochs after pruning. With a single epoch there is none: pruning
            ends the task.
    """

    shares_first_task: ClassVar[bool] = False

    kept: float = 0.5
    retrain: float = 0.25

    def __post_init__(self) -> None:
        check_share("kept", self.kept)
        if self.kept == 1:
            raise PiggybackError("invalid kept: found 1, which leaves nothing for a second task")
        check_share("retrain", self.retrain)

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        packed = {}
        for name, layer in shared_layers(fresh).items():
            shape = layer.weight.shape
            own, earlier = torch.ones(shape, dtype=torch.bool), torch.zeros(shape)
            for tensors in kept.tasks.values():
                own &= ~unpack(tensors[f"{name}.own"], shape)
            if kept.tasks:
                earlier = kept.shared[f"{name}.weight"]
            if not own.any():
                raise PiggybackError(
                    f"layer {name!r} has no free weights left after {len(kept.tasks)} tasks: "
                    f"give a share below kept = {self.kept}"
                )
            packed[name] = _Packed(own, earlier, self.kept)
        if kept.tasks:
            first = next(iter(kept.tasks))
            fill(fresh, kept, first, {name: packed[name].earlier for name in packed})
        parametrize_shared(fresh, lambda name, _: packed[name])
        return _PackLearner(fresh, packed, self.retrain)

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        assert isinstance(learner, _PackLearner)
        learner.prune()
        network = learner.module
        shared = {f"{name}.weight": layer.weight for name, layer in shared_layers(network).items()}
        own = {f"{name}.own": pack(mask) for name, mask in parts(network, "0.own").items()}
        return kept.with_task(task, private_values(network) | own, shared)

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        weights = {}
        for name in shared_layers(fresh):
            weight = kept.shared[f"{name}.weight"]
            used = torch.zeros(weight.shape, dtype=torch.bool)
            for earlier, tensors in kept.tasks.items():
                used |= unpack(tensors[f"{name}.own"], weight.shape)
                if earlier == task:
                    break
            weights[name] = torch.where(used, weight, 0)
        return fill(fresh, kept, task, weights)

    def predicted(self, network: nn.Module, order: int) -> float:
        weights = shared_count(network)
        return count(network) - (weights if order else 0) + packed_count(network)
