"""Exact and memory-saving matrix products; rounding to a storage dtype."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def compose_exactly(mixing_PK: Tensor, bank_KD: Tensor, segments: Sequence[int]) -> Tensor:
    """Piggyback filters `mixing @ bank` (P, D), with the same bits on every thread count and machine.

    Floating-point sums depend on their order, and so on threads, libraries and processors. Here both
    factors are cut into two slices of so few bits that every product and every partial sum of a
    matrix product is exact in float64, whatever the order; the slices' products are then added in
    a fixed order and rounded once. The truncation error of a product is below 2**-38 of the largest.

    Args:
        mixing_PK: mixing weights (P, K), float32 or narrower. In float64 it is the plain product.
        bank_KD: bank filters (K, D).
        segments: numbers of bank rows by earlier task, in order; they sum to K. Each
            is multiplied separately, so that weights of zero on later tasks' filters change nothing.

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
    """Mask (P,) of rows that equal one bank filter: those are copied, bit for bit."""
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
    """Context that disables autocast, so that weights are composed in full precision."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def without_denormals(tensor: Tensor) -> Tensor:
    """Copy a tensor with denormal values set to zero, as some processors flush them."""
    # The small values of float16 are normal numbers in what composes them.
    if not tensor.is_floating_point() or tensor.dtype == torch.float16:
        return tensor.clone()
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0, tensor)


class _Round(torch.autograd.Function):
    """Rounds to a narrower dtype and back, with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, stored: torch.dtype) -> Tensor:
        return values.to(stored).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def rounded(values: Tensor, stored: torch.dtype) -> Tensor:
    """Round float32 values to a storage dtype; other values are returned unchanged.

    The gradient is straight-through, so that small steps accumulate.
    """
    if values.dtype != torch.float32 or stored == torch.float32:
        return values
    result: Tensor = _Round.apply(values, stored)  # type: ignore[no-untyped-call]
    return result


class _Product(torch.autograd.Function):
    """left @ right in full precision, also under autocast; differentiable in both.

    The factors are not kept as saved tensors, so that several backward passes (gradient accumulation)
    can go through one composition.
    """

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, segments: Sequence[int], exact: bool
    ) -> Tensor:
        ctx.factors = left.detach(), right.detach()
        with without_autocast(right.device):
            return compose_exactly(left, right, segments) if exact else left @ right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (left, right) = gradients, ctx.factors
        with without_autocast(gradient.device):
            of_left = gradient @ right.T if ctx.needs_input_grad[0] else None
            of_right = left.T @ gradient if ctx.needs_input_grad[1] else None
        return of_left, of_right, None, None


def product(left: Tensor, right: Tensor, segments: Sequence[int], *, exact: bool) -> Tensor:
    """left @ right, differentiable in both; exact as `compose_exactly`."""
    product: Tensor = _Product.apply(left, right, segments, exact)  # type: ignore[no-untyped-call]
    return product
