"""Fits of layers to their filter banks by outputs: what counts is what a layer computes, not its filters' norms.

Inputs of a layer vary in few directions, so that mixed filters can give nearly the same outputs as filters
that are far from them. Shapes as in `filters.py`, and R a rank.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from piggyback_gan.core.filters import ConvLayer, FilterLayout
from piggyback_gan.core.task import BIAS
from piggyback_gan.errors import PiggybackError

# Weights along directions in which bank outputs have less than this share of their mean power are damped:
# they would be huge and cancel each other.
_RIDGE = 1e-4
# Of an image's outputs: neighbours are alike, and products of all of them take long.
_MOST_PLACES = 8192
# A layer is measured at so many places for each filter that its outputs are fitted to, where samples have them,
# and on so many images.
_PLACES_FOR_A_FILTER = 24
_FEWEST_IMAGES = 8


class NotFinite(PiggybackError):
    """A layer's outputs on samples are not finite, so that nothing can be fitted to them.

    Attributes:
        layer: its name.
    """

    def __init__(self, layer: str) -> None:
        super().__init__(f"outputs of layer {layer!r} on the samples are not finite")
        self.layer = layer


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's outputs on sample inputs, float64, summed over images and places.

    Attributes:
        bank_KK: of the outputs that the bank's filters give in this layer.
        both_NK: of the outputs to fit with those of the bank.
        fitted_N: of the outputs to fit.
        own_N: of the layer's own outputs: those to fit, plus those of the start, if there is one.
    """

    bank_KK: Tensor
    both_NK: Tensor
    fitted_N: Tensor
    own_N: Tensor

    def beyond(self, start_NK: Tensor) -> "Moments":
        """The moments of what is left to fit beyond the outputs of a start, given as mixing weights (N, K)."""
        start = start_NK.to(self.bank_KK)
        theirs = start @ self.bank_KK
        left = self.fitted_N - (start * (2 * self.both_NK - theirs)).sum(1)
        return Moments(self.bank_KK, self.both_NK - theirs, left.clamp_min(0), self.own_N)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Fit the outputs by least squares: mixing weights (N, K), squared errors (N,)."""
        return self._weights_NK, self._errors(self._weights_NK)

    def factors(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fit the outputs by mixing weights of a rank (reduced rank regression): (N, R), (R, K), squared errors (N,).

        Errors count relative to each output's own power, as a norm layer sees them.
        """
        scale = self._scale_N[:, None]
        directions = torch.linalg.eigh(self._powers_NN).eigenvectors[:, -rank:]
        up, down = directions / scale, directions.T @ (scale * self._weights_NK)
        # Inner filters of the scale of bank filters, as `LowRankMixing.begin` has them.
        norm = down.norm(dim=1).clamp_min(_TINY)
        up, down = up * norm, down / norm[:, None]
        return up, down, self._errors(up @ down)

    def errors_by_rank(self) -> Tensor:
        """Sum of the outputs' relative squared errors for mixing weights of each rank from 0 to N, (N + 1,)."""
        _, errors = self.weights()
        # Ascending: what the ranks from N down to 0 leave out, one more each time.
        left_out = torch.linalg.eigvalsh(self._powers_NN).clamp_min(0).cumsum(0).flip(0)
        least = (errors * self._scale_N.square()).sum()
        return least + torch.cat([left_out, left_out.new_zeros(1)])

    # Solved once: every fit of a layer begins with these.

    @cached_property
    def _weights_NK(self) -> Tensor:
        ridge = _RIDGE * self.bank_KK.diagonal().mean().clamp_min(_TINY)
        damped = self.bank_KK + ridge * torch.eye(len(self.bank_KK)).to(self.bank_KK)
        weights: Tensor = torch.linalg.solve(damped, self.both_NK.T).T
        return weights

    @cached_property
    def _scale_N(self) -> Tensor:
        least = max(_LEAST_OWN * self.own_N.mean().item(), _TINY)
        return self.own_N.clamp_min(least).rsqrt()

    @cached_property
    def _powers_NN(self) -> Tensor:
        """Moments of the fitted outputs, each relative to its own power."""
        weights, scale = self._weights_NK, self._scale_N
        return scale[:, None] * (weights @ self.bank_KK @ weights.T) * scale

    def _errors(self, weights: Tensor) -> Tensor:
        explained = 2 * (weights * self.both_NK).sum(1) - ((weights @ self.bank_KK) * weights).sum(
            1
        )
        return (self.fitted_N - explained).clamp_min(0)


# Of powers: less is nothing.
_TINY = 1e-30
# An output of less power than this share of the mean counts as one that has it.
_LEAST_OWN = 1e-6


class _Watch:
    """A forward hook that sums the moments of a layer."""

    def __init__(self, layout: FilterLayout, bank_KD: Tensor, *, centred: bool) -> None:
        self.layout = layout
        self.bank_KD = bank_KD
        # A bank of more filters than a filter has values is measured by way of these.
        long = len(bank_KD) > layout.length
        self.basis = torch.eye(layout.length).to(bank_KD) if long else bank_KD
        self.centred = centred
        self.images = self.places = 0
        self.measures = True
        self.sums: list[Tensor] = []

    @property
    def has_enough(self) -> bool:
        """Whether more images would change the moments little."""
        return self.images >= _FEWEST_IMAGES and self.places >= _PLACES_FOR_A_FILTER * len(
            self.basis
        )

    def __call__(
        self, layer: ConvLayer, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        if not self.measures:
            return
        own_ND = self.layout.to_filters(layer.weight)
        rows = torch.cat([self.basis.to(own_ND), own_ND])
        probe = copy.copy(layer)
        probe._parameters = {BIAS: None}
        probe.out_channels = len(rows)
        probe.weight = self.layout.of_filters(len(rows)).to_weight(rows)
        # One at a time: a bank may have many times the filters of a layer.
        inputs, *others = (*args, *([kwargs["input"]] if "input" in kwargs else []))
        others_named = {name: value for name, value in kwargs.items() if name != "input"}
        for image in inputs.split(1):
            # Without this hook.
            self._add(probe.forward(image, *others, **others_named).detach()[0].flatten(1))

    def moments(self) -> Moments:
        bank_KK, both_NK, own_N = self.sums
        if self.basis is not self.bank_KD:
            bank = self.bank_KD.double()
            bank_KK, both_NK = bank @ bank_KK @ bank.T, both_NK @ bank.T
        return Moments(bank_KK, both_NK, own_N, own_N)

    def _add(self, outputs: Tensor) -> None:
        """Add an image's outputs (K + N, places)."""
        if self.centred:
            outputs = outputs - outputs.mean(1, keepdim=True)
        # On the CPU: not every device has float64.
        # An odd step meets both phases of a transposed convolution.
        step = outputs.shape[1] // _MOST_PLACES // 2 * 2 + 1
        flat = outputs[:, ::step].cpu().double()
        self.images, self.places = self.images + 1, self.places + flat.shape[1]
        bank, own = flat[: len(self.basis)], flat[len(self.basis) :]
        found = [step * sums for sums in (bank @ bank.T, own @ bank.T, own.square().sum(1))]
        self.sums = [a + b for a, b in zip(self.sums, found, strict=True)] if self.sums else found


@torch.no_grad()
def output_moments(
    module: nn.Module,
    layouts: Mapping[str, FilterLayout],
    banks: Mapping[str, Tensor],
    samples: Sequence[Tensor],
) -> dict[str, Moments]:
    """Measure the moments of layers' outputs on sample inputs, in one pass over as many of them as are needed.

    The means of an image's outputs are left out where an instance norm follows, which removes them.

    Args:
        module: the network, in eval mode.
        layouts: layer -> its layout.
        banks: layer -> its filter bank (K, D), of the layers to measure; these must be plain and without groups.
        samples: batches of inputs, on the module's device.

    Raises:
        NotFinite: a layer's outputs are not.
    """
    layers, normed = dict(module.named_modules()), _instance_normed(module)
    watches, handles = {}, []
    for name, bank_KD in banks.items():
        layer = layers[name]
        watches[name] = _Watch(layouts[name], bank_KD, centred=id(layer) in normed)
        handles.append(layer.register_forward_hook(watches[name], with_kwargs=True))
    try:
        for batch in samples:
            # A layer may be called several times in a batch: all of its calls count, or none.
            for watch in watches.values():
                watch.measures = not watch.has_enough
            if not any(watch.measures for watch in watches.values()):
                break
            module(batch)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: watch.moments() for name, watch in watches.items() if watch.sums}
    for name, moments in found.items():
        if not (moments.bank_KK.isfinite().all() and moments.own_N.isfinite().all()):
            raise NotFinite(name)
    return found


def filter_moments(rows_ND: Tensor, bank_KD: Tensor) -> Moments:
    """The moments of filters themselves, for layers whose outputs can't be measured."""
    rows, bank = rows_ND.double(), bank_KD.double()
    powers = rows.square().sum(1)
    return Moments(bank @ bank.T, rows @ bank.T, powers, powers)


@torch.no_grad()
def output_changes(
    module: nn.Module, weights: Mapping[str, Tensor], samples: Sequence[Tensor]
) -> dict[str, float]:
    """Measure how much the module's outputs change if the weight of one layer is replaced: layer -> mean squared change.

    Args:
        module: the network, in eval mode; it is left as it was.
        weights: layer -> another weight.
        samples: batches of inputs, on the module's device.
    """
    given = [module(batch) for batch in samples]
    layers, changes = dict(module.named_modules()), {}
    for name, weight in weights.items():
        parameter = layers[name].get_parameter("weight")
        kept = parameter.detach().clone()
        parameter.copy_(weight)
        made = [module(batch) for batch in samples]
        parameter.copy_(kept)
        squares = [(a - b).square().mean().item() for a, b in zip(made, given, strict=True)]
        changes[name] = sum(squares) / len(squares)
    return changes


def _instance_normed(module: nn.Module) -> set[int]:
    """Ids of the layers that an instance norm follows in a Sequential."""
    sequences = [list(m) for m in module.modules() if isinstance(m, nn.Sequential)]
    return {id(a) for s in sequences for a, b in pairwise(s) if _removes_means(b)}


def _removes_means(layer: nn.Module) -> bool:
    """Whether a layer removes the mean of an image's inputs in eval mode."""
    return isinstance(layer, _InstanceNorm) and not layer.track_running_stats
