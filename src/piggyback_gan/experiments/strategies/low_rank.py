"""LoRA: later tasks learn low-rank updates of task 1's weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from piggyback_gan.core.filters import ConvLayer, FilterLayout
from piggyback_gan.core.products import compose_exactly, without_autocast
from piggyback_gan.experiments.strategies.base import Kept, KeptStrategy, Learner, count, values_of
from piggyback_gan.experiments.strategies.piggyback import Piggyback, layer_parameters
from piggyback_gan.experiments.strategies.weights import (
    fill,
    parametrize_shared,
    parts,
    private_values,
    shared_count,
    shared_layers,
)
from piggyback_gan.names import DEFAULT_UNCONSTRAINED
from piggyback_gan.system.checks import check_positive


class _LowRank(nn.Module):
    """F = F_1 + up (N, r) @ down (r, D), which is F_1 at the start."""

    def __init__(self, layer: ConvLayer, rank: int) -> None:
        super().__init__()
        self._layout = FilterLayout.of(layer)
        layer.weight.requires_grad_(False)
        length = self._layout.length
        self.up = nn.Parameter(layer.weight.new_zeros(self._layout.filters, rank))
        self.down = nn.Parameter(torch.randn(rank, length).to(layer.weight) / math.sqrt(length))

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            return weight + self._layout.to_weight(self.up @ self.down)


@dataclass(frozen=True, kw_only=True)
class LowRank(KeptStrategy):
    """Later tasks train a low-rank update for each shared layer, and all other tensors.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, with a layer's
    filters (N, D) as its matrix.

    Attributes:
        unconstrained: lambda. The ranks are such that a task has as many parameters as piggyback with
            this lambda adds for the task of the same order, and never more; layers share in them as
            they do with an even lambda.
        rank: the rank in every layer instead.
    """

    unconstrained: float = DEFAULT_UNCONSTRAINED
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None:
            check_positive("rank", self.rank)

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        if kept.tasks:
            fresh.load_state_dict(kept.first)
            ranks = self._ranks(fresh, len(kept.tasks))
            parametrize_shared(fresh, lambda name, layer: _LowRank(layer, ranks[name]))
        return Learner(fresh)

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        if not kept.tasks:
            return kept.with_task(task, values_of(learner.module))
        values = private_values(learner.module)
        for part in ("up", "down"):
            found = parts(learner.module, f"0.{part}")
            values |= {f"{name}.{part}": tensor for name, tensor in found.items()}
        return kept.with_task(task, values)

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        values, weights = kept.tasks[task], {}
        for name, layer in shared_layers(fresh).items():
            weights[name] = kept.first[f"{name}.weight"]
            if f"{name}.up" in values:
                up, down = values[f"{name}.up"], values[f"{name}.down"]
                # Bit-identical on every machine and thread count.
                update = compose_exactly(up, down, [len(down)])
                weights[name] = weights[name] + FilterLayout.of(layer).to_weight(update)
        return fill(fresh, kept, task, weights)

    def predicted(self, network: nn.Module, order: int) -> float:
        if order == 0:
            return count(network)
        costs, ranks = _costs(network), self._ranks(network, order)
        updates = sum(costs[name] * ranks[name] for name in costs)
        return count(network) - shared_count(network) + updates

    def _ranks(self, network: nn.Module, order: int) -> dict[str, int]:
        """Layer -> rank: each layer's parameters are nearly those of piggyback, and so is their sum."""
        costs = _costs(network)
        if self.rank is not None:
            return dict.fromkeys(costs, self.rank)
        even = Piggyback(unconstrained=self.unconstrained, allocation="even")
        evenly = layer_parameters(network, even.with_filter_defaults(), order)
        unshared = sum(evenly[name] for name in evenly if name not in costs)
        budget = Piggyback(unconstrained=self.unconstrained).added(network, order) - unshared
        scale = budget / sum(evenly[name] for name in costs)
        wished = {name: scale * evenly[name] / cost for name, cost in costs.items()}
        ranks = {name: math.floor(rank) for name, rank in wished.items()}
        left = budget - sum(costs[name] * rank for name, rank in ranks.items())
        while fitting := [name for name in costs if costs[name] <= left]:
            neediest = max(fitting, key=lambda name: wished[name] - ranks[name])
            ranks[neediest] += 1
            left -= costs[neediest]
        return ranks


def _costs(network: nn.Module) -> dict[str, int]:
    """Shared layer -> parameters per rank: N + D."""
    layouts = {name: FilterLayout.of(layer) for name, layer in shared_layers(network).items()}
    return {name: layout.filters + layout.length for name, layout in layouts.items()}
