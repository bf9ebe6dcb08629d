"""Factorization of a finished network as a task, by least squares on the bank's filters."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from piggyback_gan.core.allocation import Shares, resolve_shares
from piggyback_gan.core.filter_banks import STORED_TYPES
from piggyback_gan.core.filters import ConvLayer, unconstrained_count
from piggyback_gan.core.mixings import MIXING
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.output_fits import Moments, output_moments
from piggyback_gan.core.task import (
    PLACES,
    UNCONSTRAINED,
    WEIGHT,
    TaskFilters,
    TaskState,
    tensor_key,
)
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Storage

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
    rows = shared_rows(network, name, module)
    shares = resolve_shares(
        0.0 if unconstrained is None else unconstrained,
        {key: layout.filters for key, layout in network.layouts.items()},
    )
    banks = {key: network.bank_filters(key).cpu() for key in rows}
    mixable = [key for key, bank in banks.items() if 0 < len(bank) < rows[key].shape[1]]
    moments = moments_of(network, module, mixable, samples)
    taken, filters = {}, {}
    for key, rows_ND in rows.items():
        wanted = unconstrained_count(shares[key], len(rows_ND)) if max_error is None else None
        bank_KD, found = banks[key], {UNCONSTRAINED: rows_ND.clone()}
        if key in mixable:
            fit = moments[key].weights() if key in moments else least_squares(rows_ND, bank_KD)
            powers = moments[key].own_N if key in moments else rows_ND.double().square().sum(1)
            found = _mixed(rows_ND, *fit, wanted, (max_error or 0.0) ** 2 * powers.sum())
        taken[key] = _share(len(found.get(UNCONSTRAINED, ())), len(rows_ND))
        filters[key] = found
    return task_of(name, module, TaskFilters(taken, storage=storage), filters)


def shared_rows(network: PiggybackNetwork, name: str, module: nn.Module) -> dict[str, Tensor]:
    """Filters (N, D) of a module's layers, without those of other channels than the network's."""
    layers, layouts = conv_weights(module), network.layouts
    if layers.keys() != layouts.keys():
        raise PiggybackError(f"task {name!r} does not fit the network: its layers differ")
    same = {k: x for k, x in layouts.items() if x.weight_shape == layers[k].shape}
    return {key: layout.to_filters(layers[key]).cpu() for key, layout in same.items()}


def moments_of(
    network: PiggybackNetwork,
    module: nn.Module,
    layers: Iterable[str],
    samples: Sequence[Tensor],
) -> dict[str, Moments]:
    """Measure the moments of these layers' outputs, of those that can be measured; none without samples."""
    if not samples:
        return {}
    banks = {key: network.bank_filters(key).cpu() for key in layers if network.mixes_linearly(key)}
    return output_moments(module, network.layouts, banks, samples)


def task_of(
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
