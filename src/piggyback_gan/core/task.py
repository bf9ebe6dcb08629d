"""State, size and start of one task, and the plan of its layers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from piggyback_gan.core.mixings import MIXING_TENSORS, FullMixing, Mixing, Shape
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import AUTO, PREVIOUS, STANDALONE, Storage

UNCONSTRAINED = "unconstrained_filters"
PLACES = "unconstrained_places"
WEIGHT = "weight"
BIAS = "bias"
TRAINED = (UNCONSTRAINED, PLACES, *MIXING_TENSORS)
"""Names of the tensors that a conv layer holds for the task in training."""


@dataclass(frozen=True)
class Needs:
    """Dependencies of a task.

    Attributes:
        tasks: the earlier tasks it is composed with, in order. Other tasks do not affect its filters.
        bank_filters: total number of filters in the banks of the layers that it mixes.
    """

    tasks: tuple[str, ...]
    bank_filters: int


@dataclass(frozen=True)
class TaskFilters:
    """How a task's filters are made, as resolved from `FilterOptions` for one network.

    Attributes:
        shares: layer name -> lambda, the unconstrained share in [0, 1]; without the task's own layers.
        mixing: how piggyback filters are mixed from the bank.
        start: the earlier task that it starts from; None for a random start.
        storage: storage dtype of filters and mixing tensors, "fp32", "bf16" or "fp16".
    """

    shares: Mapping[str, float]
    mixing: Mixing = field(default_factory=FullMixing)
    start: str | None = None
    storage: Storage = "fp32"


@dataclass
class TaskState:
    """One task as a network holds it and a bank stores it.

    Attributes:
        name: the task.
        filters: how its filters are made.
        tensors: `<layer>.unconstrained_filters` (U, D) and what its mixing keeps, such as
            `<layer>.mixing_weights` (P, K), empty ones left out, and every private parameter and buffer under
            its own name. The weight of an own layer is private: `<layer>.weight`. If the unconstrained
            filters are not a layer's first ones, `<layer>.unconstrained_places` (U,) has their indices, in
            ascending order.
        needs: its dependencies; None until they are determined.
    """

    name: str
    filters: TaskFilters
    tensors: dict[str, Tensor] = field(default_factory=dict)
    needs: Needs | None = None

    def __repr__(self) -> str:
        made = self.filters
        return (
            f"TaskState({self.name!r}, {len(self.tensors)} tensors, {made.mixing.kind} mixing, "
            f"start: {made.start}, storage: {made.storage})"
        )

    def check_layers(self, layers: Collection[str]) -> list[str]:
        """Compare the task's layers with a network's, and return the names of the task's own layers.

        Raises:
            PiggybackError: the layers differ.
        """
        own = [layer for layer in layers if tensor_key(layer, WEIGHT) in self.tensors]
        ranked = set(getattr(self.filters.mixing, "ranks", ()))
        shared = self.filters.shares.keys()
        if shared != set(layers) - set(own) or not ranked <= shared:
            raise PiggybackError(f"task {self.name!r} does not fit the network: its layers differ")
        return own

    def own_layer(self, layer: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of an own layer."""
        return self.tensors[tensor_key(layer, WEIGHT)], self.tensors.get(tensor_key(layer, BIAS))

    def check_shapes(self, expected: Mapping[str, Shape]) -> None:
        """Compare the tensors' names and shapes with those that a network expects.

        Raises:
            PiggybackError: a tensor is missing, unknown or of the wrong shape; the message names the first.
        """
        found = {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                raise PiggybackError(
                    f"task {self.name!r} does not fit the network: {key}: "
                    f"expected {expected.get(key, 'nothing')}, found {found.get(key, 'nothing')}"
                )


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters that a task adds.

    Attributes:
        unconstrained: values in the task's unconstrained filters.
        mixing: mixing weights and indices of selected bank filters.
        private: biases, affine norm parameters and all parameters that are not conv filters.
        standalone: parameters of a whole network for this task alone.
    """

    unconstrained: int
    mixing: int
    private: int
    standalone: int

    def __add__(self, other: "ParameterCount") -> "ParameterCount":
        """Sum of the counts of two networks."""
        return ParameterCount(
            self.unconstrained + other.unconstrained,
            self.mixing + other.mixing,
            self.private + other.private,
            self.standalone + other.standalone,
        )

    @property
    def total(self) -> int:
        """Number of parameters that the task adds to the bank."""
        return self.unconstrained + self.mixing + self.private

    @property
    def share(self) -> float:
        """`total` relative to a standalone network: 1.0 for a first task."""
        return self.total / self.standalone

    def as_card(self) -> dict[str, Any]:
        """Convert to the table in a task's card, with `total` and `share`."""
        return {**asdict(self), "total": self.total, "share": self.share}


@dataclass(frozen=True)
class LayerPlan:
    """Plan of one layer of a task: `filters` = unconstrained + piggyback, each of `length` values.

    `bank` is the number of bank filters to mix from, `share` the lambda that `unconstrained` comes from,
    `rule` the mixing of this layer's piggyback filters.
    """

    name: str
    kind: str
    filters: int
    length: int
    bank: int
    share: float
    unconstrained: int
    rule: Mixing

    @property
    def piggyback(self) -> int:
        """Number of filters that are mixed."""
        return self.filters - self.unconstrained

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of the task's tensors of this layer, by name; empty ones are left out."""
        shapes: dict[str, Shape] = {}
        if self.unconstrained:
            shapes[UNCONSTRAINED] = (self.unconstrained, self.length)
        return shapes | (self.rule.shapes(self.piggyback, self.bank) if self.piggyback else {})

    @property
    def mixing(self) -> int:
        """Number of values that the task stores for this layer's mixing."""
        return self.rule.cost(self.piggyback, self.bank) if self.piggyback else 0

    @property
    def parameters(self) -> int:
        """Number of values that the task stores for this layer's filters."""
        return self.unconstrained * self.length + self.mixing


def resolve_start(init: str | None, finished: Sequence[str]) -> str | None:
    """Resolve the start of a new task to a finished task; None for a random start.

    Args:
        init: a task's name, "previous", "standalone"; or "auto" or None for the first task, until training
            images choose another one (`training.starts`).
        finished: the finished tasks in order.

    Raises:
        PiggybackError: the start does not exist; the message lists the possible ones.
    """
    if init == STANDALONE or not finished:
        if init not in (None, STANDALONE, AUTO):
            raise PiggybackError(
                f"the first task can't start from {init!r}: there are no earlier tasks"
            )
        return None
    if init in (None, AUTO, PREVIOUS):
        return finished[-1] if init == PREVIOUS else finished[0]
    if init not in finished:
        ways = ", ".join((AUTO, STANDALONE, PREVIOUS, *finished))
        raise PiggybackError(f"a task can't start from {init!r}; choose one of {ways}")
    return init


def filter_shapes(plan: Collection[LayerPlan], found: Collection[str] = ()) -> dict[str, Shape]:
    """Shapes of a task's unconstrained filters and mixing tensors; empty ones are left out.

    Args:
        plan: the plan of each layer.
        found: names of the task's tensors; they include places where filters are in another order.
    """
    shapes = {
        tensor_key(layer.name, name): shape
        for layer in plan
        for name, shape in layer.shapes.items()
    }
    for layer in plan:
        if (key := tensor_key(layer.name, PLACES)) in found and layer.unconstrained:
            shapes[key] = (layer.unconstrained,)
    return shapes


def tensor_key(layer_name: str, tensor_name: str) -> str:
    """Name a layer's tensor in a network; the layer may be the network itself (empty name)."""
    return f"{layer_name}.{tensor_name}" if layer_name else tensor_name
