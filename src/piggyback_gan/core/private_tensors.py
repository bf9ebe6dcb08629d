"""Parameters and buffers of a module that are not conv filters: each task has its own values."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError


class PrivateTensors:
    """Biases, affine norm parameters, running statistics and all other tensors except conv filters.

    Args:
        module: the module, which holds one task's values at a time.
        filter_keys: names of the conv filters and mixing tensors in the module.

    Raises:
        PiggybackError: a submodule has extra state, which can't be stored per task.
    """

    def __init__(self, module: nn.Module, filter_keys: Collection[str]) -> None:
        for name, part in module.named_modules():
            if type(part).get_extra_state is not nn.Module.get_extra_state:
                raise PiggybackError(f"{name!r} has extra state, which can't be stored per task")
        self._module = module
        self._filter_keys = filter_keys
        self.trainable = {key for key, p in self.parameters().items() if p.requires_grad}
        """Names of those that required a gradient in the given module."""
        self.given = self.copy()
        """The given module's values."""
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
        """Copy the module's current values."""
        return {key: tensor.detach().clone() for key, tensor in self.live().items()}

    def load(self, values: Mapping[str, Tensor], *, trains: bool) -> None:
        """Load a task's values into the module; those that train require gradients if the task does."""
        with torch.no_grad():
            for key, tensor in self.live().items():
                tensor.copy_(values[key])
        for key, parameter in self.parameters().items():
            parameter.requires_grad_(trains and key in self.trainable)
            if not trains:
                parameter.grad = None  # a later optimizer step must not change another task's

    def move(self, fn: Callable[..., Any]) -> None:
        """Move the given values, as `nn.Module._apply` does."""
        self.given = {key: fn(tensor) for key, tensor in self.given.items()}


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module by name: its `state_dict` and its non-persistent buffers."""
    return {**dict(module.named_buffers()), **module.state_dict()}


@torch.no_grad()
def load_module_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `module_state` returned.

    Raises:
        RuntimeError, KeyError: the state does not fit the module.
    """
    kept = module.state_dict()
    left_out = {key: b for key, b in module.named_buffers() if key not in kept}
    module.load_state_dict({key: tensor for key, tensor in state.items() if key not in left_out})
    for key, buffer in left_out.items():
        buffer.copy_(state[key])
