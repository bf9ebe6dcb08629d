"""Composition of the active task's weights, and their installation in the module's conv layers."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from piggyback_gan.core.banked_layer import BankedLayer
from piggyback_gan.core.filter_banks import FilterBanks
from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.core.layer_filters import Added
from piggyback_gan.core.mixed_outputs import add_up
from piggyback_gan.core.task import BIAS, WEIGHT


def _count_fused_steps(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Increment the version counters of parameters after a fused step, which does not do so itself."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.autograd.graph.increment_version(parameter)


register_optimizer_step_post_hook(_count_fused_steps)


class Composer:
    """Composes a task's weights and installs them in the conv layers, in place of their parameters.

    Weights are composed again only when a parameter they depend on has changed, which is detected by the
    parameters' version counters.

    Args:
        banks: the layers with their filter banks, and the tasks.
        factored: compute layers as the start's convolution plus the mixing's low-rank part where possible,
            instead of composing their weight (see `PiggybackNetwork`).
    """

    def __init__(self, banks: FilterBanks, *, factored: bool) -> None:
        self._banks = banks
        self._factored = factored
        self._installed: dict[str, tuple[Tensor, Callable[..., Any] | None]] = {}
        self._start_weights: dict[str, tuple[Tensor, Tensor]] = {}
        self._composed: tuple[object, ...] | None = None
        self._start: list[object] = []
        self._gradients: dict[str, Tensor] | None = None

    def mark_start(self) -> None:
        """Record the current values as the start of the task in training.

        Until they change, the task is composed exactly: it then equals the task that it starts from.
        """
        self._start = self._banks.versions()

    def install(self, name: str, *, exact: bool) -> None:
        """Compose a task's weights and install them, unless they already are.

        Args:
            name: the task. A finished one is always composed exactly.
            exact: compose exactly (`products.compose_exactly`) also if the task is in training.
        """
        trains = self._banks.is_training(name)
        versions = self._banks.versions() if trains else []
        exact = exact or not trains or versions == self._start
        key = (name, exact, *versions)
        if key == self._composed:
            return
        watched = [] if self._gradients is None else self._banks.selecting
        factored = self._factored and not exact and not watched
        # The composition must carry gradients even if this first call needs none.
        with torch.inference_mode(False), torch.set_grad_enabled(trains):
            for layer in self._banks.task(name).made.shares:
                parts = self._banks.parts(layer, name)
                if factored and self._banks.layers[layer].linear and (factors := parts.factored()):
                    self._put(layer, *factors)
                    continue
                filters = parts.compose(exact=exact)
                if layer in watched:
                    filters.register_hook(partial(self._sum_gradient, layer))  # type: ignore[no-untyped-call]
                self._put(layer, filters)
        self._composed = key

    def remove(self) -> None:
        """Take the composed weights off the layers: tensors with a history can't be copied or pickled."""
        for layer in list(self._installed):
            self._take(layer)
        self._start_weights.clear()
        self._composed = None

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Take the composed weights off inside of the block, and put the same ones back after it."""
        composed, installed = self._composed, dict(self._installed)
        self.remove()
        try:
            yield
        finally:
            for layer, (weight, forward) in installed.items():
                self._attach(layer, weight, forward)
            self._composed = composed

    @contextmanager
    def filter_gradients(self) -> Iterator[dict[str, Tensor]]:
        """Sum the gradients of the filters (N, D) of layers with selected mixing, inside of the block."""
        self.remove()
        sums: dict[str, Tensor] = {}
        self._gradients = sums
        try:
            yield sums
        finally:
            self.remove()
            self._gradients = None

    def _sum_gradient(self, layer: str, gradient: Tensor) -> None:
        assert self._gradients is not None
        sums = self._gradients
        sums[layer] = sums[layer] + gradient if layer in sums else gradient.clone()

    def _put(self, name: str, filters_ND: Tensor, added: Added | None = None) -> None:
        """Install filters, as a plain tensor in place of the layer's parameter.

        With `added`, the layer, which must be linear, also gets a forward that adds this part's outputs.
        """
        self._take(name)
        layer = self._banks.layers[name]
        if added is None:
            self._attach(name, layer.layout.to_weight(filters_ND), None)
            return
        # The start is the same in every step, and its weight may be a copy.
        filters, weight = self._start_weights.get(name, (None, None))
        if filters is not filters_ND or weight is None:
            weight = layer.layout.to_weight(filters_ND)
            self._start_weights[name] = filters_ND, weight
        inner: ConvLayer | Tensor = added.inner
        if not added.of_outputs:
            layout = layer.layout.of_filters(len(added.inner))
            inner = _without_bias(layer, layout.to_weight(added.inner))
        start = _without_bias(layer, weight)
        bias, up_NR = layer.module.bias, added.up_NR
        forward = partial(add_up, bias, start, inner, up_NR, layer.outputs_stay)
        self._attach(name, weight, forward)

    def _attach(self, name: str, weight: Tensor, forward: Callable[..., Any] | None) -> None:
        self._installed[name] = weight, forward
        module = self._banks.layers[name].module
        module.weight = weight
        if forward is not None:
            module.forward = forward  # type: ignore[method-assign]

    def _take(self, name: str) -> None:
        if name not in self._installed:
            return
        _, forward = self._installed.pop(name)
        module = self._banks.layers[name].module
        del module.__dict__[WEIGHT]
        if forward is not None:
            del module.forward


def _without_bias(layer: BankedLayer, weight: Tensor) -> ConvLayer:
    """A layer of the same kind with this weight and no bias."""
    module = copy.copy(layer.module)
    module._parameters = {BIAS: None}
    module.weight = weight
    return module
