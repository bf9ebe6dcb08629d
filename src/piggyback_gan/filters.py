"""Filter algebra: a layer's weight as rows of filters, and their composition from a filter bank.

Shape suffixes: N filters of a layer (its output channels), D length of a filter, U unconstrained
filters, P piggyback filters (U + P = N), K filters in the bank that a task mixes from.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError

ConvLayer = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)


@dataclass(frozen=True)
class FilterLayout:
    """How the weight of one conv or deconv layer is laid out as filters.

    A filter makes one output channel. `Conv` weights are (C_out, C_in/groups, *k), `ConvTranspose`
    weights (C_in, C_out/groups, *k), where a filter is a slice along the output channel axis of its
    group.
    """

    weight_shape: tuple[int, ...]
    transposed: bool
    groups: int

    @classmethod
    def of(cls, layer: ConvLayer) -> "FilterLayout":
        """Read the layout off a layer that still has its weight."""
        return cls(tuple(layer.weight.shape), layer.transposed, layer.groups)

    @property
    def filters(self) -> int:
        """N, the number of filters: the layer's output channels."""
        return self.weight_shape[1] * self.groups if self.transposed else self.weight_shape[0]

    @property
    def length(self) -> int:
        """D, the number of values in one filter."""
        return math.prod(self.weight_shape) // self.filters

    def to_filters(self, weight: Tensor) -> Tensor:
        """Weight in the layer's own shape -> filters (N, D)."""
        if not self.transposed:
            return weight.reshape(self.filters, self.length)
        channels_in, channels_out, *kernel = self.weight_shape
        grouped = weight.reshape(self.groups, channels_in // self.groups, channels_out, *kernel)
        return grouped.transpose(1, 2).reshape(self.filters, self.length)

    def to_weight(self, filters_ND: Tensor) -> Tensor:
        """Filters (N, D) -> a weight in the layer's own shape. The inverse of `to_filters`."""
        if not self.transposed:
            return filters_ND.reshape(self.weight_shape)
        channels_in, channels_out, *kernel = self.weight_shape
        grouped = filters_ND.reshape(self.groups, channels_out, channels_in // self.groups, *kernel)
        return grouped.transpose(1, 2).reshape(self.weight_shape)


def unconstrained_count(share: float, filters: int) -> int:
    """ceil(share * filters), the number of unconstrained filters of a layer, without rounding faults.

    The share is taken as the decimal that it prints as: in binary arithmetic 0.07 * 100 is a little
    more than 7, and its ceiling 8.
    """
    return math.ceil(Fraction(repr(float(share))) * filters)


def compose_exactly(mixing_PK: Tensor, bank_KD: Tensor, segments: Sequence[int]) -> Tensor:
    """Piggyback filters `mixing @ bank` (P, D), with the same bits on every thread count and machine.

    Floating-point sums depend on their order, and so on threads, libraries and processors. Here both
    factors are cut into two slices of so few bits that every product and every partial sum of a
    matrix product is exact in float64, whatever the order; the slices' products are then added in
    a fixed order and rounded once. What is cut off of a product is below 2**-38 of the largest.

    Args:
        mixing_PK: mixing weights (P, K), float32 or narrower. With float64 the plain product is taken.
        bank_KD: bank filters (K, D).
        segments: how many rows of the bank each earlier task brought, in order; they sum to K. Each
            is multiplied by itself, so that weights of zero on later tasks' filters change nothing.

    Returns:
        (P, D) in the dtype of `bank_KD`, on its device; denormal values are zero, so that processors
        that flush them agree with those that do not.
    """
    if bank_KD.dtype == torch.float64:
        return mixing_PK @ bank_KD
    # MPS has no float64: the processor composes for it.
    device = torch.device("cpu") if bank_KD.device.type == "mps" else bank_KD.device
    composed = torch.zeros(len(mixing_PK), bank_KD.shape[1], dtype=torch.float64, device=device)
    start = 0
    for rows in segments:
        bank = bank_KD[start : start + rows].to(device, torch.float64)
        mixing = mixing_PK[:, start : start + rows].to(device, torch.float64)
        start += rows
        if rows == 0:
            continue
        bits = (53 - math.ceil(math.log2(rows))) // 2
        bank_high, bank_low = _slices(bank, bits, dim=0)
        mixing_high, mixing_low = _slices(mixing, bits, dim=1)
        product = mixing_high @ bank_high + (mixing_high @ bank_low + mixing_low @ bank_high)
        composed += torch.where(_one_hot_rows(mixing), bank[mixing.abs().argmax(1)], product)
    composed[composed.abs() < torch.finfo(bank_KD.dtype).tiny] = 0
    return composed.to(bank_KD.dtype).to(bank_KD.device)


def _one_hot_rows(mixing: Tensor) -> Tensor:
    """Which rows (P, 1) take one bank filter as it is: those are copied, bit for bit."""
    return ((mixing != 0).sum(1, keepdim=True) == 1) & (mixing.sum(1, keepdim=True) == 1)


def _slices(values: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor]:
    """Two float64 tensors of at most `bits` bits each, which sum to nearly `values`.

    The bits are counted from the power of two above the largest absolute value along `dim`.
    """
    _, exponent = torch.frexp(values.abs().amax(dim, keepdim=True))
    grid = _power_of_two(exponent - bits)
    high = torch.round(values / grid) * grid
    fine_grid = _power_of_two(exponent - 2 * bits)
    return high, torch.round((values - high) / fine_grid) * fine_grid


def _power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent in float64, written straight into the number's bits: `pow` may round."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """In which weights are made in full precision, whatever the layers compute in."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class _Compose(torch.autograd.Function):
    """F = [U; W @ B], differentiable in U and W.

    As B is frozen, the gradients need B alone. It is held outside the autograd graph's own store, so
    that several backward passes (gradient accumulation) can go through one composition.
    """

    @staticmethod
    def forward(
        ctx: Any,
        unconstrained_UD: Tensor,
        mixing_PK: Tensor,
        bank_KD: Tensor,
        segments: Sequence[int],
        exact: bool,
    ) -> Tensor:
        ctx.bank_KD = bank_KD
        ctx.unconstrained = len(unconstrained_UD)
        with without_autocast(bank_KD.device):
            if exact:
                piggyback_PD = compose_exactly(mixing_PK, bank_KD, segments)
            else:
                piggyback_PD = mixing_PK @ bank_KD
            return torch.cat([unconstrained_UD, piggyback_PD])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_ND,) = gradients
        with without_autocast(gradient_ND.device):
            mixing_gradient = gradient_ND[ctx.unconstrained :] @ ctx.bank_KD.T
        return gradient_ND[: ctx.unconstrained], mixing_gradient, None, None, None


def compose(
    unconstrained_UD: Tensor,
    mixing_PK: Tensor,
    bank_KD: Tensor,
    segments: Sequence[int],
    *,
    exact: bool,
) -> Tensor:
    """A layer's filters F = [U; W @ B] (N, D): ECCV 2020 paper, section 3.2.

    Args:
        unconstrained_UD: the task's unconstrained filters (U, D).
        mixing_PK: the task's mixing weights (P, K).
        bank_KD: the filters of all earlier tasks (K, D); never gets a gradient.
        segments: as in `compose_exactly`.
        exact: compose for use (`compose_exactly`) instead of by one quick matrix product. Both are
            differentiable in the first two arguments, and in full precision also under autocast.

    Returns:
        (N, D), the unconstrained filters first.

    Raises:
        PiggybackError: the shapes do not fit each other.
    """
    if mixing_PK.shape[1] != len(bank_KD) or unconstrained_UD.shape[1] != bank_KD.shape[1]:
        raise PiggybackError(
            f"filters do not fit their bank: unconstrained {tuple(unconstrained_UD.shape)}, "
            f"mixing weights {tuple(mixing_PK.shape)}, bank {tuple(bank_KD.shape)}"
        )
    filters: Tensor = _Compose.apply(  # type: ignore[no-untyped-call]
        unconstrained_UD, mixing_PK, bank_KD, segments, exact
    )
    return filters


def without_denormals(tensor: Tensor) -> Tensor:
    """A copy in which denormal values, which some processors flush, are zero."""
    if not tensor.is_floating_point():
        return tensor.clone()
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0, tensor)
