"""Factorization of a finished network as a task, by least squares on the bank's filters."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.core.allocation import (
    SMALLEST_SHARED_LAYER,
    Need,
    Shares,
    allot_by_need,
    resolve_shares,
)
from piggyback_gan.core.filter_banks import STORED_TYPES
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.filters import ConvLayer, unconstrained_count
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
from piggyback_gan.core.output_fits import Moments, filter_moments, output_changes, output_moments
from piggyback_gan.core.task import (
    PLACES,
    UNCONSTRAINED,
    WEIGHT,
    TaskFilters,
    TaskState,
    resolve_start,
    tensor_key,
)
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import AUTO, Storage

_FEW = 2  # batches of samples on which each layer's effect is measured
# Directions in which the bank has less than this share of its largest power are left out: weights along
# them would be huge and cancel each other.
_LEAST_POWER = 1e-10


@dataclass(frozen=True)
class LayerFit:
    """How well the bank reproduces a layer's filters.

    Attributes:
        layer: its name.
        filters, unconstrained, bank: numbers of filters, of unconstrained ones, and of bank filters.
        error: relative error, the norm of the difference to the given filters divided by their norm.
    """

    layer: str
    filters: int
    unconstrained: int
    bank: int
    error: float


@torch.no_grad()
def factorize(
    network: PiggybackNetwork,
    name: str,
    module: nn.Module,
    *,
    unconstrained: Shares | None = None,
    max_error: float | None = None,
    storage: Storage = "fp32",
    samples: Sequence[Tensor] = (),
) -> TaskState:
    """Factorize a finished network as the next task of another, for `restore_task`.

    Each layer's filters are fitted to the filters of all earlier tasks by least squares. Those with the
    largest error become unconstrained filters, the others are replaced by their mixing weights. A layer
    whose bank has at least as many filters as a filter has values is unconstrained. A first task is copied
    exactly, and so is a layer of other channels than the network's, as the task's own layer.

    Args:
        network: the network with the earlier tasks; it is not changed.
        name: the task's name.
        module: a module of the wrapped class, with float32 weights.
        unconstrained: lambda, the share of unconstrained filters, as in `FilterOptions`.
        max_error: instead of it, the largest relative error of each layer (`LayerFit.error`); each has the
            fewest unconstrained filters that keep to it.
        storage: storage dtype of filters and mixing weights.
        samples: batches of inputs. With them the layers' outputs on these are fitted, which changes the network's
            outputs far less, and errors are relative to outputs. Layers with groups, and subclasses of torch's layers,
            are fitted by filters all the same.

    Raises:
        PiggybackError: both or neither of `unconstrained` and `max_error`, values outside of [0, 1], or a
            module with other layers or tensors.
    """
    if (unconstrained is None) == (max_error is None):
        raise PiggybackError("give either a share of unconstrained filters or the largest error")
    if max_error is not None and not 0 <= max_error <= 1:
        raise PiggybackError(f"invalid max_error: found {max_error!r}, give a number from 0 to 1")
    rows = _shared_rows(network, name, module)
    shares = resolve_shares(
        0.0 if unconstrained is None else unconstrained,
        {key: layout.filters for key, layout in network.layouts.items()},
    )
    moments = _output_moments(network, module, rows, samples)
    taken, filters = {}, {}
    for key, rows_ND in rows.items():
        wanted = unconstrained_count(shares[key], len(rows_ND)) if max_error is None else None
        bank_KD, found = network.bank_filters(key).cpu(), {UNCONSTRAINED: rows_ND.clone()}
        if 0 < len(bank_KD) < rows_ND.shape[1]:
            fit = moments[key].weights() if key in moments else least_squares(rows_ND, bank_KD)
            powers = moments[key].own_N if key in moments else rows_ND.double().square().sum(1)
            found = _mixed(rows_ND, *fit, wanted, (max_error or 0.0) ** 2 * powers.sum())
        taken[key] = _share(len(found.get(UNCONSTRAINED, ())), len(rows_ND))
        filters[key] = found
    return _state(name, module, TaskFilters(taken, storage=storage), filters)


@dataclass(frozen=True)
class Factorized:
    """How a task that was trained free was factorized.

    Attributes:
        change: of its outputs on the samples: the mean absolute difference divided by their standard deviation.
        budget: that was taken; None for a share of new filters.
        accepted: whether it was accepted; False if not even the largest budget was.
    """

    change: float
    budget: float | None
    accepted: bool = True


@torch.no_grad()
def factorize_task(
    network: PiggybackNetwork,
    samples: Sequence[Tensor],
    accept: Callable[[], bool] = lambda: True,
) -> Factorized:
    """Factorize the task in training, which was trained free (`FilterOptions.learn`), to train it on in the bank.

    Each layer's filters become new filters of the task, or mixed ones that give nearly the same outputs on the samples.
    With a budget, new filters and the rank of the mixing are where they change the network's outputs least; with a share
    lambda, those filters are new whose outputs can be mixed least well. The network's parameters are replaced: make a new
    optimizer.

    Args:
        network: the network; its module must map a tensor to a tensor.
        samples: batches of training inputs, on the network's device; some ten thousand places of each layer's outputs
            are enough.
        accept: with `budget="auto"`, called with each budget's filters in the network, from the smallest on, until it
            returns True.

    Raises:
        PiggybackError: the task in training is not trained free, or there is none.
    """
    options, name = network.to_factorize, network.task_in_training
    if options is None or name is None:
        raise PiggybackError(
            "no task is trained free (FilterOptions.learn): there is nothing to factorize"
        )
    module, was_training = network.fold(name), network.training
    states: Iterable[tuple[float | None, TaskState]]
    if options.budgets:
        states = _by_need(network, name, module, options, samples)
    else:
        shares = {plan.name: plan.share for plan in network.plan_of(name)}
        state = factorize(
            network, name, module, unconstrained=shares, storage=options.storage, samples=samples
        )
        states = [(None, state)]
    budget, accepted = None, False
    for taken, state in states:
        network.discard_task()
        network.train_task(state)
        network.train(was_training)
        budget, accepted = taken, options.budget != AUTO or accept()
        if accepted:
            break
    made = network.fold(name)
    given_outputs, outputs = (torch.cat([m(batch) for batch in samples]) for m in (module, made))
    change = (outputs - given_outputs).abs().mean() / given_outputs.std().clamp_min(1e-12)
    return Factorized(float(change), budget, accepted)


def factorized_as(network: PiggybackNetwork) -> dict[str, Any]:
    """How the filters of a factorized task in training are made, as plain values for a checkpoint."""
    made = network.made
    return {
        "shares": dict(made.shares),
        "mixing": made.mixing.as_card(),
        "start": made.start,
        "storage": made.storage,
    }


def restore_factorized(
    network: PiggybackNetwork, made: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Continue with a factorized task in place of the free one in training.

    Args:
        network: with the task in training, not factorized yet.
        made: what `factorized_as` returned.
        tensors: `module_state` of the network's module.
    """
    name = network.task_in_training
    assert name is not None
    filters = TaskFilters(
        made["shares"], mixing_from_card(made["mixing"]), made["start"], made["storage"]
    )
    network.discard_task()
    network.train_task(TaskState(name, filters, dict(tensors)))


def _by_need(
    network: PiggybackNetwork,
    name: str,
    module: nn.Module,
    options: FilterOptions,
    samples: Sequence[Tensor],
) -> list[tuple[float | None, TaskState]]:
    """Factorize by each budget that the task may get, with new filters and ranks where the network needs them.

    Mixed filters are added to those of the start, or to nothing where that changes the outputs less.
    """
    rows = _shared_rows(network, name, module)
    sizes = {key: size for key, size in network.layer_sizes().items() if key in rows}
    start = resolve_start(options.init, network.tasks[:-1])
    fits = [
        _Fit.of(network, name, module, rows, samples, each) for each in dict.fromkeys((start, None))
    ]
    states: list[tuple[float | None, TaskState]] = []
    for budget in options.budgets:
        of_budget, found = replace(options, budget=budget, quality=None), []
        try:
            for fit in fits:
                private = network.private_count(name)
                found.append((*allot_by_need(of_budget, sizes, private, fit.needs), fit))
        except (
            PiggybackError
        ):  # too small for what is never mixed; the largest one was planned with
            continue
        shares, mixing, _, best = min(found, key=lambda each: each[2])
        filters = {
            key: {UNCONSTRAINED: rows[key].clone()} if share else best.mixed(key, mixing)
            for key, share in shares.items()
        }
        made = TaskFilters(shares, mixing, best.start, options.storage)
        states.append((budget, _state(name, module, made, filters)))
    return states


@dataclass(frozen=True)
class _Fit:
    """Fits of a network's layers to their banks, with mixed filters that are added to the same start.

    Attributes:
        network: that has the bank.
        moments: of the layers that can mix.
        start: the task to whose filters mixed ones are added; None: to nothing.
        starts: layer -> these filters.
        needs: of the layers that can mix.
    """

    network: PiggybackNetwork
    moments: Mapping[str, Moments]
    start: str | None
    starts: Mapping[str, Tensor]
    needs: Mapping[str, Need] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: PiggybackNetwork,
        name: str,
        module: nn.Module,
        rows: Mapping[str, Tensor],
        samples: Sequence[Tensor],
        start: str | None,
    ) -> "_Fit":
        """Measure the fits and what the network's outputs lose by them."""
        banks = {key: network.bank_filters(key).cpu() for key in rows}
        mixes = [k for k, bank in banks.items() if 0 < len(bank) < rows[k].shape[1]]
        starts = {} if start is None else {k: network.start_filters(k, start).cpu() for k in mixes}
        moments = _output_moments(network, module, rows, samples, starts)
        for key in mixes:
            if key not in moments:
                moments[key] = filter_moments(rows[key], banks[key], starts.get(key))
        moments = {k: m for k, m in moments.items() if len(rows[k]) >= SMALLEST_SHARED_LAYER}
        fit = cls(network, moments, start, starts)
        plan = network.plan_of(name)
        rules = (layer.rule for layer in plan if isinstance(layer.rule, LowRankMixing))
        planned = next(rules, FullMixing())
        weights, ranks = {}, {}
        for key in moments:
            tensors, rule = (
                fit.mixed(key, planned),
                planned.of_layer(len(rows[key]), len(banks[key])),
            )
            filters = rule.mix(tensors, banks[key], [len(banks[key])], exact=False)
            ranks[key] = getattr(rule, "rank", len(rows[key]))
            if rule.adds and key in starts:
                filters = filters + starts[key]
            weights[key] = network.layouts[key].to_weight(filters)
        changes = output_changes(module, weights, samples[:_FEW])
        needs = {
            k: Need(changes[k], found.errors_by_rank().tolist(), ranks[k])
            for k, found in moments.items()
        }
        return replace(fit, needs=needs)

    def mixed(self, key: str, mixing: Mixing) -> dict[str, Tensor]:
        """Tensors of a layer that mixes all of its filters."""
        layout, bank_KD = self.network.layouts[key], self.network.bank_filters(key).cpu()
        rule = mixing.of_layer(layout.filters, len(bank_KD))
        if isinstance(rule, LowRankMixing):
            up, down, _ = self.moments[key].factors(rule.rank)
            return {MIXING_UP: up.to(bank_KD), MIXING_DOWN: down.to(bank_KD)}
        weights, _ = self.moments[key].weights()
        if key in self.starts:
            weights = weights + self.network.start_weights(key, str(self.start)).cpu()
        return {MIXING: weights.to(bank_KD)}


def _shared_rows(network: PiggybackNetwork, name: str, module: nn.Module) -> dict[str, Tensor]:
    """Filters (N, D) of a module's layers, without those of other channels than the network's."""
    layers, layouts = conv_weights(module), network.layouts
    if layers.keys() != layouts.keys():
        raise PiggybackError(f"task {name!r} does not fit the network: its layers differ")
    same = {k: x for k, x in layouts.items() if x.weight_shape == layers[k].shape}
    return {key: layout.to_filters(layers[key]).cpu() for key, layout in same.items()}


def _output_moments(
    network: PiggybackNetwork,
    module: nn.Module,
    rows: Mapping[str, Tensor],
    samples: Sequence[Tensor],
    starts: Mapping[str, Tensor] | None = None,
) -> dict[str, Moments]:
    """Measure the moments of all layers that can mix by outputs; none without samples."""
    if not samples:
        return {}
    banks = {key: network.bank_filters(key).cpu() for key in rows if network.mixes_linearly(key)}
    banks = {k: bank for k, bank in banks.items() if 0 < len(bank) < rows[k].shape[1]}
    return output_moments(module, network.layouts, banks, samples, starts)


def _state(
    name: str, module: nn.Module, made: TaskFilters, filters: Mapping[str, Mapping[str, Tensor]]
) -> TaskState:
    """A task of filter tensors by layer, with all other tensors of a module."""
    stored = STORED_TYPES[made.storage]
    in_banks = {tensor_key(key, WEIGHT) for key in filters}
    named = (*module.named_parameters(), *module.named_buffers())
    tensors = {key: t.detach().clone() for key, t in named if key not in in_banks}
    for layer, found in filters.items():
        for tensor_name, tensor in found.items():
            stores = tensor.to(stored) if tensor.is_floating_point() else tensor
            tensors[tensor_key(layer, tensor_name)] = stores
    return TaskState(name, made, tensors)


@torch.no_grad()
def layer_fits(network: PiggybackNetwork, name: str, module: nn.Module) -> list[LayerFit]:
    """Measure how well each layer of a task reproduces a network; own layers are left out.

    Args:
        network: the network with the task, in training or finished.
        name: the task.
        module: the network that it was factorized from.
    """
    made, given = conv_weights(network.fold(name)), conv_weights(module)
    return [
        LayerFit(plan.name, plan.filters, plan.unconstrained, plan.bank, error)
        for plan in network.plan_of(name)
        for error in [relative_error([made[plan.name]], [given[plan.name]])]
    ]


def relative_error(made: list[Tensor], given: list[Tensor]) -> float:
    """Norm of the difference of all tensors together, divided by the norm of those given."""
    difference = sum(
        (a.double() - b.double()).square().sum().item() for a, b in zip(made, given, strict=True)
    )
    whole = sum(b.double().square().sum().item() for b in given)
    if not whole:
        return math.inf if difference else 0.0
    return math.sqrt(difference / whole)


def conv_weights(module: nn.Module) -> dict[str, Tensor]:
    """Weights of all conv layers by layer name."""
    return {n: m.weight.detach() for n, m in module.named_modules() if isinstance(m, ConvLayer)}


def _mixed(
    rows_ND: Tensor,
    weights_NK: Tensor,
    errors_N: Tensor,
    unconstrained: int | None,
    allowed: Tensor,
) -> dict[str, Tensor]:
    """Tensors of a layer that is mixed by these weights, except for the filters with the largest errors.

    `unconstrained` is their number; None: the fewest with which the sum of the other errors is `allowed`.
    """
    order = errors_N.argsort(descending=True, stable=True)
    if unconstrained is None:
        # The squared error that remains if the first n of the worst filters are unconstrained.
        left = errors_N[order].flip(0).cumsum(0).flip(0)
        unconstrained = int((left > allowed).sum())
    if unconstrained == len(rows_ND):
        return {UNCONSTRAINED: rows_ND.clone()}
    places = order[:unconstrained].sort().values
    mixed = torch.ones(len(rows_ND), dtype=torch.bool, device=rows_ND.device)
    mixed[places] = False
    tensors = {MIXING: weights_NK[mixed].to(rows_ND.dtype)}
    if unconstrained:
        tensors[UNCONSTRAINED] = rows_ND[places].clone()
        if int(places[-1]) != unconstrained - 1:
            tensors[PLACES] = places.to(torch.int32)
    return tensors


def least_squares(rows_ND: Tensor, bank_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Fit rows (N, D) to a bank (K, D): mixing weights (N, K) in float64, squared errors of rows (N,)."""
    rows, bank = rows_ND.double(), bank_KD.double()
    powers, directions = torch.linalg.eigh(bank @ bank.T)
    kept = powers > _LEAST_POWER * powers[-1].clamp_min(torch.finfo(torch.float64).tiny)
    directions = directions[:, kept]
    weights = ((rows @ bank.T @ directions) / powers[kept]) @ directions.T
    return weights, (rows - weights @ bank).square().sum(1)


def _share(count: int, filters: int) -> float:
    """A share that gives this number of unconstrained filters."""
    return math.floor(count / filters * 1e6) / 1e6
