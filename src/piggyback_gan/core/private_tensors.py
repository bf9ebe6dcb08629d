"""The parameters and buffers of a module that are no conv filters: every task has its own."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError


class PrivateTensors:
    """Biases, affine norm parameters, running statistics and all else beside conv filters, by name.

    Args:
        module: where they live. It holds one task's values at a time.
        filter_keys: names in the module that are conv filters, or say how they are mixed.

    Raises:
        PiggybackError: a part of the module has extra state, which can't be kept for each task.
    """

    def __init__(self, module: nn.Module, filter_keys: Collection[str]) -> None:
        for name, part in module.named_modules():
            if type(part).get_extra_state is not nn.Module.get_extra_state:
                raise PiggybackError(f"{name!r} has extra state, which can't be kept for each task")
        self._module = module
        self._filter_keys = filter_keys
        self.trainable = {key for key, p in self.parameters().items() if p.requires_grad}
        """The names of those that required a gradient in the module as it came."""
        self.given = self.copy()
        """The values that the module came with."""
        self._given_parameters = set(self.parameters())

    def parameters(self) -> dict[str, nn.Parameter]:
        """The module's own parameters among them."""
        named = self._module.named_parameters()
        return {key: parameter for key, parameter in named if key not in self._filter_keys}

    def given_parameters(self) -> dict[str, Tensor]:
        """The parameters among `given`."""
        return {key: self.given[key] for key in self._given_parameters}

    def live(self) -> dict[str, Tensor]:
        """The module's own tensors, which hold the active task's values."""
        buffers = self._module.named_buffers()
        return self.parameters() | {k: b for k, b in buffers if k not in self._filter_keys}

    def copy(self) -> dict[str, Tensor]:
        """The values that the module holds now."""
        return {key: tensor.detach().clone() for key, tensor in self.live().items()}

    def load(self, values: Mapping[str, Tensor], *, trains: bool) -> None:
        """Give the module a task's values, and gradients to those that train if the task does."""
        with torch.no_grad():
            for key, tensor in self.live().items():
                tensor.copy_(values[key])
        for key, parameter in self.parameters().items():
            parameter.requires_grad_(trains and key in self.trainable)
            if not trains:
                parameter.grad = None  # a step that is still to come must not move another task's

    def move(self, fn: Callable[..., Any]) -> None:
        """Move what is kept beside the module, as `nn.Module._apply` does."""
        self.given = {key: fn(tensor) for key, tensor in self.given.items()}


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by name: its `state_dict`, and the buffers that are left out of it."""
    return {**dict(module.named_buffers()), **module.state_dict()}


@torch.no_grad()
def load_module_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module what `module_state` told.

    Raises:
        RuntimeError, KeyError: it is of another module.
    """
    kept = module.state_dict()
    left_out = {key: b for key, b in module.named_buffers() if key not in kept}
    module.load_state_dict({key: tensor for key, tensor in state.items() if key not in left_out})
    for key, buffer in left_out.items():
        buffer.copy_(state[key])
