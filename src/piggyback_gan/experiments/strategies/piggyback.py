"""Piggyback GAN itself, in a bank on disk; lambda 0 is pure factorization."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from piggyback_gan.bank import BACKWARD, FORWARD, Bank, open_or_new
from piggyback_gan.config import check_choice
from piggyback_gan.experiments.strategies.base import (
    Lesson,
    Size,
    Strategy,
    bytes_of,
    conv_layers,
    count,
    count_values,
)
from piggyback_gan.filters import FilterLayout, unconstrained_count
from piggyback_gan.names import ALLOCATIONS, STANDALONE, Allocation
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.tasks import (
    DEFAULT_UNCONSTRAINED,
    Shares,
    allocated_shares,
    resolve_shares,
    resolve_start,
)


def layer_parameters(
    network: nn.Module, unconstrained: Shares, order: int, allocation: Allocation = "even"
) -> dict[str, int]:
    """Conv layer -> how many unconstrained values and mixing weights a task adds, by the paper's section 3.

    Args:
        network: a plain one of the architecture.
        unconstrained: lambda, the same for all tasks.
        order: how many tasks the bank has before.
        allocation: where new filters are.
    """
    layouts = {name: FilterLayout.of(layer) for name, layer in conv_layers(network).items()}
    spread = allocated_shares(unconstrained, allocation, layouts)
    shares = resolve_shares(spread, {name: at.filters for name, at in layouts.items()})
    added = {}
    for name, layout in layouts.items():
        free = unconstrained_count(shares[name], layout.filters) if order else layout.filters
        bank = layout.filters + (order - 1) * free if order else 0
        added[name] = free * layout.length + (layout.filters - free) * bank
    return added


@dataclass(frozen=True, kw_only=True)
class Piggyback(Strategy):
    """A new task's filters are combinations of all earlier ones and a share of new ones.

    Source: Zhai et al., "Piggyback GAN", ECCV 2020.
    """

    unconstrained: float | dict[str, float] = DEFAULT_UNCONSTRAINED
    allocation: Allocation = "last"
    init: str | None = None

    def __post_init__(self) -> None:
        check_choice("allocation", self.allocation, ALLOCATIONS)

    def tasks(self, folder: Path) -> tuple[str, ...]:
        bank = _bank(folder)
        return () if bank is None else bank.tasks

    def begin(self, folder: Path, lesson: Lesson) -> dict[str, nn.Module]:
        bank = _bank(folder)
        learners: dict[str, nn.Module] = {}
        for which, fresh in lesson.networks.items():
            network = PiggybackNetwork(fresh)
            if bank is not None:
                for state in bank.states(which):
                    network.restore_task(state)
            shares = network.allocated_shares(self.unconstrained, self.allocation)
            network.add_task(lesson.task, shares, self.init if network.tasks else None)
            learners[which] = network
        return learners

    def finish(self, folder: Path, lesson: Lesson, learners: Mapping[str, nn.Module]) -> None:
        states, counts = {}, []
        for which, network in learners.items():
            assert isinstance(network, PiggybackNetwork)
            network.finish_task()
            states[which] = network.task_state(lesson.task)
            counts.append(network.parameter_count(lesson.task))
        # What the experiment's options, which all strategies share, can't say.
        start = resolve_start(self.init, self.tasks(folder)) or STANDALONE
        own = {
            "unconstrained": self.unconstrained,
            "allocation": self.allocation,
            "init": start if self.tasks(folder) else None,
        }
        card = {
            **lesson.card,
            "options": {**lesson.card["options"], **own},
            "parameters": sum(counts[1:], counts[0]).as_card(),
        }
        bank = open_or_new(folder / _BANK, lesson.config)
        with bank.writing("an experiment"):
            bank.add(states[FORWARD], card, states.get(BACKWARD))

    def generator(self, folder: Path, task: str, which: str, fresh: nn.Module) -> nn.Module:
        bank = Bank.open(folder / _BANK)
        direction = bank.directions(task)[which == BACKWARD]
        return bank.generator(task, direction=direction)

    def size(self, folder: Path) -> Size:
        bank = Bank.open(folder / _BANK)
        parameters = sum(
            count_values(state.tensors)
            for which in (FORWARD, BACKWARD)
            for state in bank.states(which)
        )
        return Size(parameters, bytes_of(folder / _BANK / "tasks"))

    def added(self, network: nn.Module, order: int) -> int:
        """How many unconstrained values and mixing weights the task of this order adds."""
        added = layer_parameters(network, self.unconstrained, order, self.allocation)
        return sum(added.values())

    def predicted(self, network: nn.Module, order: int) -> float:
        weights = sum(layer.weight.numel() for layer in conv_layers(network).values())
        return count(network) - weights + self.added(network, order)


@dataclass(frozen=True, kw_only=True)
class Factorization(Piggyback):
    """Piggyback without new filters: lambda 0, but for layers of fewer than 8, which stay free."""

    unconstrained: float | dict[str, float] = field(default=0.0, init=False)
    allocation: Allocation = field(default="even", init=False)


_BANK = "bank"


def _bank(folder: Path) -> Bank | None:
    path = folder / _BANK
    return Bank.open(path) if (path / "bank.json").exists() else None
