"""Parametrized conv weights, and the tensors that a task stores of such networks."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from piggyback_gan.core.allocation import SMALLEST_SHARED_LAYER
from piggyback_gan.core.filters import ConvLayer, FilterLayout
from piggyback_gan.experiments.strategies.base import Kept, Tensors, conv_layers

_PARAMETRIZED = ".parametrizations.weight."


def shared_layers(network: nn.Module) -> dict[str, ConvLayer]:
    """The conv layers that tasks share; layers of fewer than 8 filters are task-specific."""
    return {
        name: layer
        for name, layer in conv_layers(network).items()
        if FilterLayout.of(layer).filters >= SMALLEST_SHARED_LAYER
    }


def shared_count(network: nn.Module) -> int:
    """Number of weights of the shared layers."""
    return sum(layer.weight.numel() for layer in shared_layers(network).values())


def parametrize_shared(network: nn.Module, make: Callable[[str, ConvLayer], nn.Module]) -> None:
    """Parametrize the shared layers' weights by the modules that `make` returns."""
    for name, layer in shared_layers(network).items():
        parametrize.register_parametrization(layer, "weight", make(name, layer))


def private_values(network: nn.Module) -> dict[str, Tensor]:
    """All tensors of a parametrized network except weights and their parametrizations."""
    return {k: t for k, t in network.state_dict().items() if _PARAMETRIZED not in k}


def parts(network: nn.Module, part: str) -> dict[str, Tensor]:
    """Layer -> a tensor of its parametrization: "0.x" for the tensor x of the module of `make`."""
    found = {}
    for key, tensor in network.state_dict().items():
        layer, _, found_part = key.partition(_PARAMETRIZED)
        if found_part == part:
            found[layer] = tensor
    return found


def fill(network: nn.Module, kept: Kept, task: str, weights: Tensors) -> nn.Module:
    """Load a task's private tensors and its weights by layer into a plain network."""
    private = {k: t for k, t in kept.tasks[task].items() if k in network.state_dict()}
    network.load_state_dict(private | {f"{name}.weight": w for name, w in weights.items()})
    return network


def pack(mask: Tensor) -> Tensor:
    """A mask of any shape -> its bits (ceil(values / 8),) of torch.uint8."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(bits: Tensor, shape: torch.Size) -> Tensor:
    """The mask of this shape, of torch.bool. The inverse of `pack`."""
    flat = np.unpackbits(bits.numpy(), count=math.prod(shape)).astype(bool)
    return torch.from_numpy(flat).reshape(shape)


def packed_count(network: nn.Module) -> float:
    """Size of a packed mask of all shared weights, in 32-bit values."""
    return sum(math.ceil(layer.weight.numel() / 8) for layer in shared_layers(network).values()) / 4
