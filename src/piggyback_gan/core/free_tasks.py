"""Factorization of a task that was trained free onto the bank, by the outputs of its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.core.allocation import SMALLEST_SHARED_LAYER, Need, allot_by_need
from piggyback_gan.core.factorize import factorize, moments_of, shared_rows, task_of
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.mixings import (
    MIXING,
    MIXING_DOWN,
    MIXING_UP,
    FullMixing,
    LowRankMixing,
    Mixing,
    mixing_from_card,
)
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.output_fits import Moments, filter_moments, output_changes
from piggyback_gan.core.task import UNCONSTRAINED, TaskFilters, TaskState, resolve_start
from piggyback_gan.errors import PiggybackError

# Images of the last batch on which each layer is replaced in turn.
_JUDGED = 4


@dataclass(frozen=True)
class Factorized:
    """How a task that was trained free was factorized.

    Attributes:
        change: of its outputs on samples: the mean absolute difference divided by their standard deviation.
        budget: that was taken; None for a share of new filters.
        accepted: whether it was accepted; False if not even the largest budget was.
        figures: metric -> its values on held-out images before and after, where a quality is to be kept.
    """

    change: float
    budget: float | None
    accepted: bool = True
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@torch.no_grad()
def pull_to_bank(
    network: PiggybackNetwork,
    samples: Sequence[Tensor],
    left: float,
    made: TaskFilters | None = None,
) -> TaskFilters:
    """Pull the filters of the task in training, which is trained free, towards those that `factorize_task` would make.

    Pulled step by step while it is trained, a network learns to do with what the bank can give it, and loses less by
    factorization than if that is done at once.

    Args:
        network, samples: as for `factorize_task`.
        left: share of each filter's distance that is left to it: 1 changes nothing, 0 as much as factorization.
        made: what an earlier call returned: by a budget, the same layers mix, with the same ranks. None: as
            `factorize_task` decides.

    Returns:
        How the filters are made that it pulls to.

    Raises:
        PiggybackError: as `factorize_task`, `left` is not in [0, 1], or the budget is auto.
    """
    options, name = _of_free(network, samples)
    if len(options.budgets) > 1:
        raise PiggybackError(
            "budgets are compared with a network that nothing pulled: give a number as the budget"
        )
    module = network.fold(name)
    ((_, state),) = _factorizations(network, name, module, options, samples, made)
    network.pull_filters(network.mixed_filters(state), left)
    return state.filters


@torch.no_grad()
def factorize_task(
    network: PiggybackNetwork,
    samples: Sequence[Tensor],
    accept: Callable[[], bool] = lambda: True,
    made: TaskFilters | None = None,
) -> Factorized:
    """Factorize the task in training, which was trained free (`FilterOptions.learn`), to train it on in the bank.

    Each layer's filters become new filters of the task, or mixed ones that give nearly the same outputs on the samples.
    With a budget, new filters and the rank of the mixing are where they change the network's outputs least; with a share
    lambda, those filters are new whose outputs can be mixed least well. The network's parameters are replaced: make a new
    optimizer.

    Args:
        network: the network; its module must map a tensor to a tensor.
        samples: batches of training inputs, on the network's device; each layer's outputs should have several places
            for each filter of its bank. Filters are fitted to all batches but the last, on which changes of the
            outputs are measured; a single batch serves for both.
        accept: with a `quality`, called with each budget's filters in the network, from the smallest on, until it
            returns True.
        made: what `pull_to_bank` returned, if it was called.

    Raises:
        PiggybackError: the task in training is not trained free, there is none, or there are no samples.
    """
    options, name = _of_free(network, samples)
    module, was_training = network.fold(name), network.training
    unseen, budget, accepted = samples[-1:], None, False
    for taken, state in _factorizations(network, name, module, options, samples, made):
        network.discard_task()
        network.train_task(state, replace(options, budget=taken))
        network.train(was_training)
        budget, accepted = taken, options.quality is None or accept()
        if accepted:
            break
    factorized = network.fold(name)
    before, after = (torch.cat([m(batch) for batch in unseen]) for m in (module, factorized))
    change = (after - before).abs().mean() / before.std().clamp_min(1e-12)
    return Factorized(float(change), budget, accepted)


def made_as_card(made: TaskFilters) -> dict[str, Any]:
    """How a task's filters are made, as plain values for a checkpoint."""
    return {
        "shares": dict(made.shares),
        "mixing": made.mixing.as_card(),
        "start": made.start,
        "storage": made.storage,
    }


def made_from_card(card: Mapping[str, Any]) -> TaskFilters:
    """The inverse of `made_as_card`."""
    mixing = mixing_from_card(card["mixing"])
    return TaskFilters(card["shares"], mixing, card["start"], card["storage"])


def restore_factorized(
    network: PiggybackNetwork, made: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Continue with a factorized task in place of the free one in training.

    Args:
        network: with the task in training, not factorized yet.
        made: how its filters are made, by `made_as_card`.
        tensors: `module_state` of the network's module.
    """
    name = network.task_in_training
    assert name is not None
    network.discard_task()
    network.train_task(TaskState(name, made_from_card(made), dict(tensors)))


def _of_free(network: PiggybackNetwork, samples: Sequence[Tensor]) -> tuple[FilterOptions, str]:
    """Options and name of the task that is trained free."""
    options, name = network.to_factorize, network.task_in_training
    if options is None or name is None:
        raise PiggybackError(
            "no task is trained free (FilterOptions.learn): there is nothing to factorize"
        )
    if not samples:
        raise PiggybackError("give samples of training inputs: layers are fitted to their outputs")
    return options, name


def _factorizations(
    network: PiggybackNetwork,
    name: str,
    module: nn.Module,
    options: FilterOptions,
    samples: Sequence[Tensor],
    made: TaskFilters | None,
) -> Iterator[tuple[float | None, TaskState]]:
    """Factorize as it was decided before, or by each budget that the task may get."""
    fitted = samples[:-1] or samples
    if not options.budgets:
        shares = {plan.name: plan.share for plan in network.plan_of(name)}
        state = factorize(
            network, name, module, unconstrained=shares, storage=options.storage, samples=fitted
        )
        yield None, state
    elif made is not None:
        rows = shared_rows(network, name, module)
        mixed = {key: row for key, row in rows.items() if not made.shares[key]}
        fit = _Fit.measured(network, module, mixed, fitted).beyond(made.start)
        yield options.budgets[-1], fit.task(name, module, made, rows)
    else:
        yield from _by_need(network, name, module, options, fitted, [samples[-1][:_JUDGED]])


def _by_need(
    network: PiggybackNetwork,
    name: str,
    module: nn.Module,
    options: FilterOptions,
    fitted: Sequence[Tensor],
    unseen: Sequence[Tensor],
) -> Iterator[tuple[float | None, TaskState]]:
    """Factorize by each budget that the task may get, with new filters and ranks where the network needs them.

    Mixed filters are added to those of the start, or to nothing where that changes the outputs less. Of several
    budgets, those are left out that are too small for what is mixed and for what never is.
    """
    rows, private = shared_rows(network, name, module), network.private_count(name)
    sizes = {key: size for key, size in network.layer_sizes().items() if key in rows}
    rules = (layer.rule for layer in network.plan_of(name))
    planned = next((rule for rule in rules if isinstance(rule, LowRankMixing)), FullMixing())
    plain, fits = _Fit.measured(network, module, rows, fitted), []
    for start in dict.fromkeys((resolve_start(options.init, network.tasks[:-1]), None)):
        fit = plain.beyond(start)
        fits.append((fit, fit.needs(name, module, rows, planned, unseen)))
    for budget in options.budgets:
        asked = replace(options, budget=budget, quality=None)
        try:
            found = [(*allot_by_need(asked, sizes, private, needs), fit) for fit, needs in fits]
        except PiggybackError:
            if budget == options.budgets[-1]:
                raise
            continue
        shares, mixing, _, best = min(found, key=lambda each: each[2])
        made = TaskFilters(shares, mixing, best.start, options.storage)
        yield budget, best.task(name, module, made, rows)


@dataclass(frozen=True)
class _Fit:
    """Fits of a network's layers to their banks, with mixed filters that are added to the same start.

    Attributes:
        network: that has the bank.
        moments: of the layers that can mix.
        start: the task to whose filters mixed ones are added; None: to nothing.
        starts: layer -> these filters as mixing weights.
    """

    network: PiggybackNetwork
    moments: Mapping[str, Moments]
    start: str | None = None
    starts: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def measured(
        cls,
        network: PiggybackNetwork,
        module: nn.Module,
        rows: Mapping[str, Tensor],
        samples: Sequence[Tensor],
    ) -> "_Fit":
        """Fits of mixed filters that are added to nothing."""
        banks = {key: network.bank_filters(key).cpu() for key in rows}
        mixes = [
            k for k, row in rows.items() if len(banks[k]) and len(row) >= SMALLEST_SHARED_LAYER
        ]
        moments = moments_of(network, module, mixes, samples)
        for key in mixes:
            if key not in moments:
                moments[key] = filter_moments(rows[key], banks[key])
        return cls(network, moments)

    def beyond(self, start: str | None) -> "_Fit":
        """The fits of mixed filters that are added to a task's."""
        if start is None:
            return self
        starts = {key: self.network.start_weights(key, start).cpu() for key in self.moments}
        moments = {key: found.beyond(starts[key]) for key, found in self.moments.items()}
        return replace(self, moments=moments, start=start, starts=starts)

    def needs(
        self,
        name: str,
        module: nn.Module,
        rows: Mapping[str, Tensor],
        planned: Mixing,
        samples: Sequence[Tensor],
    ) -> dict[str, Need]:
        """Measure what the module's outputs on samples lose if a layer is replaced by its fit, one at a time."""
        shares = {key: float(key not in self.moments) for key in rows}
        state = self.task(name, module, TaskFilters(shares, planned, self.start), rows)
        layouts = self.network.layouts
        weights = {
            key: layouts[key].to_weight(filters)
            for key, filters in self.network.mixed_filters(state).items()
        }
        changes = output_changes(module, weights, samples)
        needs = {}
        for key, found in self.moments.items():
            rule = planned.of_layer(len(rows[key]), len(found.bank_KK), key)
            rank = getattr(rule, "rank", len(rows[key]))
            needs[key] = Need(changes[key], found.errors_by_rank().tolist(), rank)
        return needs

    def mixed(self, key: str, mixing: Mixing) -> dict[str, Tensor]:
        """Tensors of a layer that mixes all of its filters."""
        layout, bank_KD = self.network.layouts[key], self.network.bank_filters(key).cpu()
        rule = mixing.of_layer(layout.filters, len(bank_KD), key)
        if isinstance(rule, LowRankMixing):
            up, down, _ = self.moments[key].factors(rule.rank)
            return {MIXING_UP: up.to(bank_KD), MIXING_DOWN: down.to(bank_KD)}
        weights, _ = self.moments[key].weights()
        if key in self.starts:
            weights = weights + self.starts[key]
        return {MIXING: weights.to(bank_KD)}

    def task(
        self, name: str, module: nn.Module, made: TaskFilters, rows: Mapping[str, Tensor]
    ) -> TaskState:
        """The task whose filters are made so, each layer wholly new or wholly mixed."""
        filters = {
            key: {UNCONSTRAINED: rows[key].clone()} if share else self.mixed(key, made.mixing)
            for key, share in made.shares.items()
        }
        return task_of(name, module, made, filters)
