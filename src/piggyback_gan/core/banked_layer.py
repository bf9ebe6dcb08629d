"""BankedLayer: a conv layer without its weight, and its filter bank."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor, nn

from piggyback_gan.core.filters import ConvLayer, FilterLayout, unconstrained_count
from piggyback_gan.core.mixings import MIXING, FullMixing, Mixing
from piggyback_gan.core.task import (
    BIAS,
    TRAINED,
    UNCONSTRAINED,
    WEIGHT,
    LayerPlan,
    TaskFilters,
    tensor_key,
)
from piggyback_gan.errors import PiggybackError

_NORMS = (
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.GroupNorm, nn.LayerNorm),
)


@dataclass
class OwnLayer:
    """Weight and bias of a task's own layer, with other channels than the network's."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, *, trains: bool) -> "OwnLayer":
        """Copy these tensors."""
        copies = [
            None if t is None else nn.Parameter(t.detach().clone().to(weight), trains)
            for t in (weight, bias)
        ]
        assert copies[0] is not None
        return cls(copies[0], copies[1])

    def tensors(self, layer: str) -> dict[str, Tensor]:
        """Tensors by their names in a network."""
        both = {WEIGHT: self.weight, BIAS: self.bias}
        return {tensor_key(layer, k): t.detach() for k, t in both.items() if t is not None}

    def parameter_count(self) -> int:
        """Number of values."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move them as `nn.Module._apply` does: the parameters stay the same objects, for optimizers."""
        holder = nn.ParameterList(p for p in (self.weight, self.bias) if p is not None)
        holder._apply(fn)  # type: ignore[no-untyped-call]
        self.weight = holder[0]
        self.bias = holder[1] if len(holder) > 1 else None


@dataclass
class BankedLayer:
    """One conv layer and its filter bank.

    Attributes:
        module: the layer. While a task is in training it has that task's `unconstrained_filters` (U, D) and
            mixing tensors, unless empty: floats as parameters, integers as buffers.
        layout: layout of its weight as filters.
        given_ND: the given module's weight, as filters, until the first task is finished.
        scale: root mean square of that weight.
        pieces: unconstrained filters of finished tasks, in order; one empty tensor if there are none.
        trainable: whether the given weight required a gradient.
        shared_bias: the parameter for the biases of tasks without an own layer here.
        linear: whether the layer is known to be linear in its filters, without groups.
        outputs_stay: whether the next layer is known not to change its input in place.
        count: number of filters in the bank.
    """

    module: ConvLayer
    layout: FilterLayout
    given_ND: Tensor
    scale: float
    pieces: list[Tensor]
    trainable: bool
    shared_bias: nn.Parameter | None
    linear: bool
    outputs_stay: bool
    count: int = 0

    def append(self, filters_UD: Tensor) -> None:
        """Append copies of a finished task's unconstrained filters to the bank."""
        if len(filters_UD):
            kept = filters_UD.to(self.pieces[0], copy=True)
            if not self.count:
                self.pieces.clear()
            self.pieces.append(kept)
            self.count += len(kept)

    @property
    def bank_KD(self) -> Tensor:
        """Filter bank (K, D): the unconstrained filters of all finished tasks."""
        # Concatenated on demand: doing so for each added task would copy the bank once per task.
        if len(self.pieces) > 1:
            self.pieces = [torch.cat(self.pieces)]
        return self.pieces[0]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows of the bank; rows of the newest piece alone do not need the concatenation."""
        newest = self.count - len(self.pieces[-1])
        if start >= newest:
            return self.pieces[-1][start - newest : stop - newest]
        return self.bank_KD[start:stop]

    def begin_task(self, tensors: Mapping[str, Tensor]) -> None:
        """Register a task's filters and mixing tensors on the layer."""
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self.module.register_parameter(name, nn.Parameter(tensor, self.trainable))
            else:
                self.module.register_buffer(name, tensor)

    def end_task(self) -> None:
        """Remove them from the layer."""
        for name in TRAINED:
            self.module._parameters.pop(name, None)
            self.module._buffers.pop(name, None)

    def trained(self) -> dict[str, Tensor]:
        """Tensors of the task in training in this layer, by name."""
        hung = {**self.module._parameters, **self.module._buffers}
        return {name: t for name in TRAINED if (t := hung.get(name)) is not None}

    def put_own(self, own: OwnLayer | None) -> None:
        """Give the layer a task's own weight and bias; None makes it a layer of the bank again.

        No composed weight may be installed.
        """
        parameters = self.module._parameters
        parameters.pop(WEIGHT, None)
        if own is not None:
            parameters[WEIGHT] = own.weight
        parameters[BIAS] = self.shared_bias if own is None else own.bias
        _set_channels(self.module, self.layout.weight_shape if own is None else own.weight.shape)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the tensors that are not parameters of the module, after the module was moved."""
        self.pieces, self.given_ND = [fn(piece) for piece in self.pieces], fn(self.given_ND)
        self.shared_bias = self.module._parameters[BIAS]

    def check_own(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        """Validate the weight and bias of an own layer: all but the channels must agree.

        Raises:
            PiggybackError: they do not fit.
        """
        expected, found = self.layout.weight_shape, tuple(weight.shape)
        if len(found) != len(expected) or found[2:] != expected[2:] or self.module.groups > 1:
            raise PiggybackError(
                f"a task's own layer {name!r} must be like the network's except for its channels: "
                f"expected a weight like {tuple(expected)}, found {found}"
            )
        filters = FilterLayout(found, self.module.transposed, groups=1).filters
        room = None if self.shared_bias is None else filters
        if room != (None if bias is None else len(bias)):
            raise PiggybackError(
                f"the bias of a task's own layer {name!r} does not fit: expected {room or 'no'} values, "
                f"found {'none' if bias is None else len(bias)}"
            )

    def fold_onto(self, module: nn.Module, weight: Tensor) -> None:
        """Turn a copy of this layer into a plain one, with a bias of as many values."""
        filters = FilterLayout(
            tuple(weight.shape), self.module.transposed, self.module.groups
        ).filters
        bias = self.shared_bias
        if bias is not None:
            bias = nn.Parameter(bias.detach().new_empty(filters), requires_grad=False)
        for name in TRAINED:
            module._buffers.pop(name, None)
        own = (*TRAINED, WEIGHT, BIAS)
        others = {key: p for key, p in module._parameters.items() if key not in own}
        plain = nn.Parameter(weight.detach().clone(), self.trainable)
        module._parameters = {WEIGHT: plain, BIAS: bias, **others}
        _set_channels(module, weight.shape)

    def random_start(self, unconstrained: int) -> dict[str, Tensor]:
        """Random filters (U, D) and mixing weights (P, K), both giving filters of the given weight's scale.

        Mixing weights of a fixed small scale would make piggyback filters many times smaller than others.
        """
        bank, layout = self.bank_KD, self.layout
        free = (
            torch.randn(unconstrained, layout.length, dtype=bank.dtype).to(bank.device) * self.scale
        )
        mixing = FullMixing().begin(layout.filters - unconstrained, bank)[MIXING]
        mixed = (mixing @ bank).square().mean().sqrt()
        mixing = mixing * (self.scale / mixed) if mixed > 0 else mixing
        return _filled({UNCONSTRAINED: free, MIXING: mixing})

    def noisy(self, filters_ND: Tensor, noise: float) -> Tensor:
        """Replace a share of the filters' power with that of random filters; norms are kept up to chance."""
        random_ND = torch.randn(filters_ND.shape, dtype=filters_ND.dtype).to(filters_ND.device)
        scale = filters_ND.norm(dim=1, keepdim=True) / random_ND.norm(dim=1, keepdim=True)
        noisy: Tensor = math.sqrt(1 - noise) * filters_ND + math.sqrt(noise) * scale * random_ND
        return noisy

    def warm_start(self, filters_ND: Tensor, unconstrained: int, rule: Mixing) -> dict[str, Tensor]:
        """Initial tensors of a task whose mixing adds to an earlier task's filters.

        Args:
            filters_ND: the earlier task's filters, composed exactly.
            unconstrained: U.
            rule: the mixing of the other filters.
        """
        tensors = {UNCONSTRAINED: filters_ND[:unconstrained].clone()}
        if unconstrained < len(filters_ND):
            tensors |= rule.begin(len(filters_ND) - unconstrained, self.bank_KD)
        return _filled(tensors)

    def mixed_start(
        self, filters_ND: Tensor, unconstrained: int, coefficients_NK: Tensor
    ) -> dict[str, Tensor]:
        """Initial tensors with full mixing; `coefficients_NK` are the filters as weights of the whole bank."""
        free = filters_ND[:unconstrained].clone()
        return _filled({UNCONSTRAINED: free, MIXING: coefficients_NK[unconstrained:].clone()})


def _filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if len(tensor)}


def plan_layers(
    layers: Mapping[str, BankedLayer], made: TaskFilters, banks: Mapping[str, int]
) -> list[LayerPlan]:
    """What a task takes of each layer that it shares.

    Args:
        layers: all layers by name.
        made: how the task's filters are made.
        banks: layer -> the number of filters in its bank.
    """
    plan, shares = [], made.shares
    for name, layer in layers.items():
        if name not in shares:
            continue
        filters, bank = layer.layout.filters, banks[name]
        unconstrained = unconstrained_count(shares[name], filters)
        plan.append(
            LayerPlan(
                name=name,
                kind=type(layer.module).__name__,
                filters=filters,
                length=layer.layout.length,
                bank=bank,
                share=shares[name],
                unconstrained=unconstrained,
                rule=made.mixing.of_layer(filters - unconstrained, bank, name),
            )
        )
    return plan


def take_weights(module: nn.Module) -> dict[str, BankedLayer]:
    """Remove the weights of all conv layers, which `refuse_unfit` has validated.

    Raises:
        PiggybackError: the module has no conv layers.
    """
    layers = {n: m for n, m in module.named_modules() if isinstance(m, ConvLayer)}
    if not layers:
        raise PiggybackError(
            f"{type(module).__name__} has no conv layers, so there is nothing to share"
        )
    banked, normed = {}, _normed(module)
    for name, layer in layers.items():
        layout = FilterLayout.of(layer)
        filters = layout.to_filters(layer.weight.detach()).clone()
        trainable = layer.weight.requires_grad
        scale = 0.0 if filters.is_meta else filters.square().mean().sqrt().item()
        del layer._parameters[WEIGHT]
        bank = filters[:0].clone()
        bias = layer._parameters[BIAS]
        # A subclass, or a replaced forward, may use the weight in any way.
        plain = type(layer) in get_args(ConvLayer) and "forward" not in layer.__dict__
        linear = plain and layer.groups == 1
        banked[name] = BankedLayer(
            module=layer,
            layout=layout,
            given_ND=filters,
            scale=scale,
            pieces=[bank],
            trainable=trainable,
            shared_bias=bias,
            linear=linear,
            outputs_stay=id(layer) in normed,
        )
    return banked


def _normed(module: nn.Module) -> set[int]:
    """Ids of layers followed by a norm in a Sequential: a norm does not change its input in place."""
    sequences = [list(m) for m in module.modules() if type(m) is nn.Sequential]
    return {
        id(layer) for s in sequences for layer, after in pairwise(s) if isinstance(after, _NORMS)
    }


def _set_channels(layer: nn.Module, weight_shape: tuple[int, ...]) -> None:
    """Set the layer's channels to those of its weight; its forward does not depend on them."""
    assert isinstance(layer, ConvLayer)
    first, second = weight_shape[:2]
    second *= layer.groups
    layer.in_channels, layer.out_channels = (first, second) if layer.transposed else (second, first)
