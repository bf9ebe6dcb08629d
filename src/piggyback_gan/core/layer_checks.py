"""Checks for layers that can't have filter banks."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune

from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.core.task import TRAINED, WEIGHT
from piggyback_gan.errors import PiggybackError

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_QUANTISED = ("torch.ao.nn.", "torch.nn.")
_NORMS = {
    "SpectralNorm": ("spectral norm", "torch.nn.utils.remove_spectral_norm(layer)"),
    "WeightNorm": ("weight norm", "torch.nn.utils.remove_weight_norm(layer)"),
}
_PARAMETRIZATIONS = {
    "_SpectralNorm": "spectral norm",
    "_WeightNorm": "weight norm",
    "_Orthogonal": "orthogonal",
}


def refuse_unfit(module: nn.Module) -> None:
    """Check that a network can be copied, and that the weight of each conv layer is a plain float parameter.

    Raises:
        PiggybackError: a layer is not supported; the message names the first one and the remedy.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise PiggybackError(f"{name!r} is lazy: call the network once before wrapping it")
    for name, part in module.named_modules():
        called = f"layer {name!r} ({type(part).__name__})"
        if _is_quantised(part):
            raise PiggybackError(
                f"{called} is quantised: wrap the float network, and quantise the result of fold()"
            )
        if found := _made_of_others(part):
            what, remedy = found
            raise PiggybackError(
                f"{called} has {what} instead of a plain weight: remove it first: {remedy}"
            )
        if isinstance(part, ConvLayer):
            _check_weight(called, part)
    owners = Counter(id(p) for m in module.modules() for p in m._parameters.values())
    for layer in module.modules():
        if isinstance(layer, ConvLayer) and owners[id(layer.weight)] > 1:
            shared = [n for n, m in module.named_modules() if _holds(m, layer.weight)]
            raise PiggybackError(
                f"layers {' and '.join(map(repr, shared))} share one weight: tied conv weights can't "
                "have filter banks; untie them or use one module twice"
            )


def _check_weight(called: str, layer: ConvLayer) -> None:
    weight = layer._parameters.get(WEIGHT)
    if any(hasattr(layer, name) for name in TRAINED):
        raise PiggybackError(f"{called} has filter banks already: wrap the plain module")
    if weight is None:
        raise PiggybackError(f"{called} has no parameter {WEIGHT!r} that could be mixed")
    if weight.is_complex():
        raise PiggybackError(
            f"{called} has complex weights, and only floats can be mixed: make it two layers, of the real and "
            "of the imaginary parts"
        )
    if weight.dtype not in _FLOATS:
        raise PiggybackError(
            f"{called} has weights of type {weight.dtype}, and only floats of 16 bits or more can be mixed: "
            "convert it (layer.float())"
        )


def _is_quantised(part: nn.Module) -> bool:
    homes = [kind.__module__ for kind in type(part).__mro__]
    return any(
        home.startswith(_QUANTISED) and {"quantized", "qat"}.intersection(home.split("."))
        for home in homes
    )


def _made_of_others(part: nn.Module) -> tuple[str, str] | None:
    """What computes a layer's weight from other parameters, and how to remove it.

    A parametrization of a layer that is not a conv layer is fine; hooks of the older kind can't be copied.
    """
    if parametrize.is_parametrized(part) and isinstance(part, ConvLayer):
        assert isinstance(part.parametrizations, nn.ModuleDict)
        tensor, made = next(iter(part.parametrizations.items()))
        kinds = (type(step).__name__ for step in made.children())
        names = ", ".join(_PARAMETRIZATIONS.get(kind, kind) for kind in kinds)
        return (
            f"a parametrization of its {tensor} ({names})",
            f"torch.nn.utils.parametrize.remove_parametrizations(layer, {tensor!r})",
        )
    for hook in part._forward_pre_hooks.values():
        if found := _NORMS.get(type(hook).__name__):
            return found
        if isinstance(hook, prune.BasePruningMethod):
            return "pruning", f"torch.nn.utils.prune.remove(layer, {hook._tensor_name!r})"
    return None


def _holds(module: nn.Module, parameter: Tensor) -> bool:
    return any(p is parameter for p in module._parameters.values())
