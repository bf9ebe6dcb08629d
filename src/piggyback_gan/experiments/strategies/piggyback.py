"""Piggyback GAN, in a bank on disk; lambda 0 is pure factorization."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from torch import nn

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.core.allocation import LayerSize, allot, resolve_shares
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.filters import FilterLayout, unconstrained_count
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.experiments.strategies.base import (
    Size,
    Strategy,
    TaskSpec,
    bytes_of,
    conv_layers,
    count,
    count_values,
)
from piggyback_gan.names import (
    AUTO,
    BACKWARD,
    FORWARD,
    PREVIOUS,
    STANDALONE,
    Allocation,
)


def layer_parameters(network: nn.Module, options: FilterOptions, order: int) -> dict[str, int]:
    """Compute the unconstrained values and mixing weights that a task adds: conv layer -> number.

    Args:
        network: a plain one of the architecture.
        options: of this task and all before it, with their defaults.
        order: number of earlier tasks in the bank.
    """
    layouts = {name: FilterLayout.of(layer) for name, layer in conv_layers(network).items()}
    filters = {name: layout.filters for name, layout in layouts.items()}
    values = {name: layout.filters * layout.length for name, layout in layouts.items()}
    if order == 0:
        return values
    private = round(count(network)) - sum(values.values())
    bank = dict(filters)
    while True:
        sizes = {n: LayerSize(at.filters, at.length, bank[n]) for n, at in layouts.items()}
        unconstrained, mixing = allot(options, sizes, private)
        shares = resolve_shares(unconstrained, filters)
        free = {name: unconstrained_count(shares[name], filters[name]) for name in filters}
        order -= 1
        if order == 0:
            return {n: size.cost(free[n], mixing) for n, size in sizes.items()}
        bank = {name: bank[name] + free[name] for name in bank}


@dataclass(frozen=True, kw_only=True)
class Piggyback(FilterOptions, Strategy):
    """A new task's filters are combinations of all earlier ones and a share of new ones.

    Source: Zhai et al., "Piggyback GAN", ECCV 2020.
    """

    def tasks(self, folder: Path) -> tuple[str, ...]:
        bank = _bank(folder)
        return () if bank is None else bank.tasks

    def begin(self, folder: Path, spec: TaskSpec) -> dict[str, nn.Module]:
        bank = _bank(folder)
        learners: dict[str, nn.Module] = {}
        for which, fresh in spec.networks.items():
            network = PiggybackNetwork(fresh, factored=True)
            if bank is not None:
                for state in bank.states(which):
                    network.restore_task(state)
            # The shared first network is stored unchanged.
            # The first task of a direction may come later than the first of all.
            known = (STANDALONE, PREVIOUS, *network.tasks)
            options = replace(self, init=self.init if self.init in known else AUTO)
            if not network.tasks:
                options = replace(self, init=None, storage="fp32")
            network.add_task(spec.task, options.with_filter_defaults(factorizes=True))
            learners[which] = network
        return learners

    def finish(self, folder: Path, spec: TaskSpec, learners: Mapping[str, nn.Module]) -> None:
        states, counts = {}, []
        options: FilterOptions = self.with_filter_defaults(factorizes=True)
        for which, network in learners.items():
            assert isinstance(network, PiggybackNetwork)
            if which == FORWARD:
                options = network.options or options
            network.finish_task()
            states[which] = network.task_state(spec.task)
            counts.append(network.parameter_count(spec.task))
        # Not in the experiment's options, which all strategies share.
        own = {field.name: getattr(options, field.name) for field in fields(FilterOptions)}
        if not self.tasks(folder):
            own["init"] = None
        card = spec.card(sum(counts[1:], counts[0]))
        card = replace(card, options={**card.options, **own})
        bank = open_or_new(folder / _BANK, spec.config)
        with bank.writing("an experiment"):
            bank.add(states[FORWARD], card.to_json(), states.get(BACKWARD))

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
        """Compute the unconstrained values and mixing weights that the task of this order adds.

        Of a task that is trained free with a budget, they are the most that it may add.
        """
        options = self.with_filter_defaults(factorizes=True)
        planned = sum(layer_parameters(network, options, order).values())
        if order == 0 or options.learn == "mixed" or not options.budgets:
            return planned
        return int(options.budgets[-1] * count(network)) - self._private(network)

    def predicted(self, network: nn.Module, order: int) -> float:
        bits = 32 if order == 0 or self.storage == "fp32" else 16
        return self._private(network) + self.added(network, order) * bits / 32

    def _private(self, network: nn.Module) -> int:
        """Count the parameters beside the filters of conv layers."""
        filters = sum(layer.weight.numel() for layer in conv_layers(network).values())
        return round(count(network)) - filters


@dataclass(frozen=True, kw_only=True)
class Factorization(Piggyback):
    """Piggyback without new filters: lambda 0, but for layers of fewer than 8, which stay free."""

    budget: None = field(default=None, init=False)
    unconstrained: float | dict[str, float] | None = field(default=0.0, init=False)
    allocation: Allocation = field(default="even", init=False)


_BANK = "bank"


def _bank(folder: Path) -> Bank | None:
    path = folder / _BANK
    return Bank.open(path) if (path / "bank.json").exists() else None
