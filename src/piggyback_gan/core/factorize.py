"""A finished network as a task of a bank: its filters by least squares, those that the bank explains worst free."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from piggyback_gan.core.allocation import Shares, resolve_shares
from piggyback_gan.core.filter_banks import STORED_TYPES
from piggyback_gan.core.filters import ConvLayer, unconstrained_count
from piggyback_gan.core.mixings import MIXING
from piggyback_gan.core.network import PiggybackNetwork
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
    """How well a layer's filters are made of the bank.

    Attributes:
        layer: its name.
        filters, unconstrained, bank: how many it has, of them free, and how many there were to mix.
        error: the root of the squared difference to the given filters, all together, as a share of
            theirs; 0 is exact.
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
) -> TaskState:
    """What a finished network is as the next task of another, to be added by `restore_task`.

    Each layer's filters are fitted to the filters of all earlier tasks by least squares. Those with the
    largest error become the task's unconstrained filters, the others keep their mixing weights. Where a
    mixed filter would take as many values as it has itself, the layer is free. A first task is taken over
    as it is, and so is a layer of other channels than the network's, as the task's own.

    Args:
        network: with the earlier tasks; it stays as it is.
        name: the task's name.
        module: a module like the one that `network` was made of, with float32 weights.
        unconstrained: lambda, the share of filters that are free, as for `PiggybackNetwork.add_task`.
        max_error: instead of it: in each layer as few free filters as keep the error (`LayerFit.error`) to
            this.
        storage: the type in which the filters and mixing weights are kept.

    Raises:
        PiggybackError: both or neither of `unconstrained` and `max_error`, values outside of [0, 1], or a
            module with other layers or tensors.
    """
    if (unconstrained is None) == (max_error is None):
        raise PiggybackError("give either a share of unconstrained filters or the largest error")
    if max_error is not None and not 0 <= max_error <= 1:
        raise PiggybackError(f"invalid max_error: found {max_error!r}, give a number from 0 to 1")
    layers = conv_weights(module)
    layouts = network.layouts
    if layers.keys() != layouts.keys():
        raise PiggybackError(f"task {name!r} does not fit the network: it has other layers")
    own = {key for key, layout in layouts.items() if layout.weight_shape != layers[key].shape}
    filters = {key: layout.filters for key, layout in layouts.items()}
    shares = resolve_shares(0.0 if unconstrained is None else unconstrained, filters)
    stored = STORED_TYPES[storage]
    taken: dict[str, float] = {}
    mixed = [key for key in layouts if key not in own]
    in_banks = {tensor_key(key, WEIGHT) for key in mixed}
    tensors = {
        key: tensor.detach().clone()
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
        if key not in in_banks
    }
    for key in mixed:
        rows = layouts[key].to_filters(layers[key])
        wanted = unconstrained_count(shares[key], len(rows)) if max_error is None else None
        found = _fit(rows, network.bank_filters(key), wanted, max_error or 0.0)
        taken[key] = _share(len(found.get(UNCONSTRAINED, ())), len(rows))
        tensors |= {
            tensor_key(key, n): t.to(stored) if t.is_floating_point() else t
            for n, t in found.items()
        }
    return TaskState(name, TaskFilters(taken, storage=storage), tensors)


@torch.no_grad()
def layer_fits(network: PiggybackNetwork, name: str, module: nn.Module) -> list[LayerFit]:
    """How close a task is to the network that it was made of, layer by layer; its own layers are left out.

    Args:
        network: with the task, in training or finished.
        name: the task.
        module: what it was made of.
    """
    made, given = conv_weights(network.fold(name)), conv_weights(module)
    return [
        LayerFit(plan.name, plan.filters, plan.unconstrained, plan.bank, error)
        for plan in network.plan_of(name)
        for error in [relative_error([made[plan.name]], [given[plan.name]])]
    ]


def relative_error(made: list[Tensor], given: list[Tensor]) -> float:
    """The root of the squared difference of tensors, all together, as a share of those given."""
    difference = sum(
        (a.double() - b.double()).square().sum().item() for a, b in zip(made, given, strict=True)
    )
    whole = sum(b.double().square().sum().item() for b in given)
    if not whole:
        return math.inf if difference else 0.0
    return math.sqrt(difference / whole)


def conv_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weight of every conv layer, by the layer's name."""
    return {n: m.weight.detach() for n, m in module.named_modules() if isinstance(m, ConvLayer)}


def _fit(
    rows_ND: Tensor, bank_KD: Tensor, unconstrained: int | None, max_error: float
) -> dict[str, Tensor]:
    """A layer's tensors as a task has them; of no more unconstrained filters than keep to `max_error` if None."""
    filters, length = rows_ND.shape
    if not 0 < len(bank_KD) < length:
        return {UNCONSTRAINED: rows_ND.clone()}
    weights_NK, errors_N = least_squares(rows_ND, bank_KD)
    order = errors_N.argsort(descending=True, stable=True)
    if unconstrained is None:
        # What is left once so many of the worst are free.
        left = errors_N[order].flip(0).cumsum(0).flip(0)
        allowed = max_error**2 * rows_ND.double().square().sum()
        unconstrained = int((left > allowed).sum())
    if unconstrained == filters:
        return {UNCONSTRAINED: rows_ND.clone()}
    places = order[:unconstrained].sort().values
    mixed = torch.ones(filters, dtype=torch.bool)
    mixed[places] = False
    tensors = {MIXING: weights_NK[mixed].to(rows_ND.dtype)}
    if unconstrained:
        tensors[UNCONSTRAINED] = rows_ND[places].clone()
        if int(places[-1]) != unconstrained - 1:
            tensors[PLACES] = places.to(torch.int32)
    return tensors


def least_squares(rows_ND: Tensor, bank_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Mixing weights (N, K) in float64 that make the rows of the bank, and the squared error of each row (N,)."""
    rows, bank = rows_ND.double(), bank_KD.double()
    powers, directions = torch.linalg.eigh(bank @ bank.T)
    kept = powers > _LEAST_POWER * powers[-1].clamp_min(torch.finfo(torch.float64).tiny)
    directions = directions[:, kept]
    weights = ((rows @ bank.T @ directions) / powers[kept]) @ directions.T
    return weights, (rows - weights @ bank).square().sum(1)


def _share(count: int, filters: int) -> float:
    """A share of which so many unconstrained filters come."""
    return math.floor(count / filters * 1e6) / 1e6
