"""Filter algebra: a layer's weight as rows of filters, and their exact composition from a filter bank.

Shape suffixes: N filters of a layer (its output channels), D length of a filter, U unconstrained
filters, P piggyback filters (U + P = N), K filters in the bank that a task mixes from.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

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

    def of_filters(self, filters: int) -> "FilterLayout":
        """The same with another number of filters; for a layer without groups."""
        assert self.groups == 1
        shape = list(self.weight_shape)
        shape[int(self.transposed)] = filters
        return replace(self, weight_shape=tuple(shape))

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
        # By way of one dimension: where some are 1, strides could stay that are not a plain weight's, and
        # by these a convolution's kernel is chosen.
        return grouped.transpose(1, 2).flatten().reshape(self.weight_shape)


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
        product = mixing_high @ bank_high
        product += (mixing_high @ bank_low).add_(mixing_low @ bank_high)
        copies = _one_hot_rows(mixing)
        if not copies.is_meta and copies.any():
            product[copies] = bank[mixing[copies].abs().argmax(1)]
        composed += product
    composed[composed.abs() < torch.finfo(bank_KD.dtype).tiny] = 0
    return composed.to(bank_KD.dtype).to(bank_KD.device)


def _one_hot_rows(mixing: Tensor) -> Tensor:
    """Which rows (P,) take one bank filter as it is: those are copied, bit for bit."""
    return ((mixing != 0).sum(1) == 1) & (mixing.sum(1) == 1)


def _slices(values: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor]:
    """Two float64 tensors of at most `bits` bits each, which sum to nearly `values`.

    The bits are counted from the power of two above the largest absolute value along `dim`.
    """
    _, exponent = torch.frexp(values.abs().amax(dim, keepdim=True))
    high = _rounded_to(values, exponent - bits)
    return high, _rounded_to(values - high, exponent - 2 * bits)


def _rounded_to(values: Tensor, exponent: Tensor) -> Tensor:
    """The nearest multiples of 2**exponent."""
    return (values * _power_of_two(-exponent)).round_().mul_(_power_of_two(exponent))


def _power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent in float64, written straight into the number's bits: `pow` may round."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """In which weights are made in full precision, whatever the layers compute in."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def without_denormals(tensor: Tensor) -> Tensor:
    """A copy in which denormal values, which some processors flush, are zero."""
    # The small values of float16 are normal numbers in what composes them.
    if not tensor.is_floating_point() or tensor.dtype == torch.float16:
        return tensor.clone()
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0, tensor)


class _Round(torch.autograd.Function):
    """Rounded to a narrower type and back; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, stored: torch.dtype) -> Tensor:
        return values.to(stored).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def rounded(values: Tensor, stored: torch.dtype) -> Tensor:
    """Float32 values as they are after they were stored in a narrower type; others as they are.

    The gradient passes straight through the rounding, so that small steps add up.
    """
    if values.dtype != torch.float32 or stored == torch.float32:
        return values
    result: Tensor = _Round.apply(values, stored)  # type: ignore[no-untyped-call]
    return result
