"""What a network knows of one task: its tensors, its size, where it starts; and a layer's plan for it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from piggyback_gan.core.mixings import MIXING_TENSORS, FullMixing, Mixing, Shape
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import PREVIOUS, STANDALONE, Storage

UNCONSTRAINED = "unconstrained_filters"
PLACES = "unconstrained_places"
WEIGHT = "weight"
BIAS = "bias"
TRAINED = (UNCONSTRAINED, PLACES, *MIXING_TENSORS)
"""What a layer has of a task in training."""


@dataclass(frozen=True)
class Needs:
    """What a task is composed with.

    Attributes:
        tasks: the earlier tasks, in order; its filters are the same bits whether others are there or not.
        bank_filters: how many filters the banks have, in all, of the layers that it mixes.
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
            `<layer>.mixing_weights` (P, K), left out where they are empty, and every private parameter and
            buffer under its own name. The weight of an own layer is private: `<layer>.weight`. Where the
            unconstrained filters are not a layer's first ones, `<layer>.unconstrained_places` (U,) says which
            they are, in rising order.
        needs: the earlier tasks that it is composed with; None until the bank works it out.
    """

    name: str
    filters: TaskFilters
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)
    needs: Needs | None = None

    def check_layers(self, layers: Collection[str]) -> list[str]:
        """Compare the task's layers with those of a network, and return the names of its own ones.

        Raises:
            PiggybackError: they are others.
        """
        own = [layer for layer in layers if tensor_key(layer, WEIGHT) in self.tensors]
        if self.filters.shares.keys() != set(layers) - set(own):
            raise PiggybackError(
                f"task {self.name!r} does not fit the network: it has other layers"
            )
        return own

    def own_layer(self, layer: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of an own layer."""
        return self.tensors[tensor_key(layer, WEIGHT)], self.tensors.get(tensor_key(layer, BIAS))

    def check_shapes(self, expected: Mapping[str, Shape]) -> None:
        """Compare the tensors' names and shapes with those that a network expects.

        Raises:
            PiggybackError: names the first tensor that is missing, unknown or of another shape.
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
    """How many parameters a task adds.

    Attributes:
        unconstrained: values in the task's unconstrained filters.
        mixing: mixing weights, and which bank filters are selected.
        private: biases, affine norm parameters and all other parameters beside conv filters.
        standalone: parameters of the whole network, if the task had one of its own.
    """

    unconstrained: int
    mixing: int
    private: int
    standalone: int

    def __add__(self, other: "ParameterCount") -> "ParameterCount":
        """Of two networks together."""
        return ParameterCount(
            self.unconstrained + other.unconstrained,
            self.mixing + other.mixing,
            self.private + other.private,
            self.standalone + other.standalone,
        )

    @property
    def total(self) -> int:
        """All that the task adds to the bank."""
        return self.unconstrained + self.mixing + self.private

    @property
    def share(self) -> float:
        """`total` relative to a standalone network: 1.0 for a first task."""
        return self.total / self.standalone

    def as_card(self) -> dict[str, Any]:
        """Return the counts with `total` and `share`, by name."""
        return {**asdict(self), "total": self.total, "share": self.share}


@dataclass(frozen=True)
class LayerPlan:
    """What a task takes of one layer: `filters` = unconstrained + piggyback, each of `length` values.

    `bank` is the number of filters to mix from, `share` the lambda that led to `unconstrained`, `rule`
    how this layer's piggyback filters are mixed.
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
        """How many filters are mixed."""
        return self.filters - self.unconstrained

    @property
    def shapes(self) -> dict[str, Shape]:
        """The task's tensors of this layer, by name; empty ones are left out."""
        shapes: dict[str, Shape] = {}
        if self.unconstrained:
            shapes[UNCONSTRAINED] = (self.unconstrained, self.length)
        return shapes | (self.rule.shapes(self.piggyback, self.bank) if self.piggyback else {})

    @property
    def mixing(self) -> int:
        """How many values the task keeps of this layer's mixing."""
        return self.rule.cost(self.piggyback, self.bank) if self.piggyback else 0

    @property
    def parameters(self) -> int:
        """Values that the task keeps of this layer's filters."""
        return self.unconstrained * self.length + self.mixing


def resolve_start(init: str | None, finished: Sequence[str]) -> str | None:
    """The finished task that a new one starts from; None for a start of its own.

    Args:
        init: a task's name, "previous", "standalone", or None for the first task.
        finished: the finished tasks in order.

    Raises:
        PiggybackError: there is no such task; the message lists the ways to start.
    """
    if init == STANDALONE or not finished:
        if init not in (None, STANDALONE):
            raise PiggybackError(f"the first task can't start from {init!r}: it has no forerunner")
        return None
    if init in (None, PREVIOUS):
        return finished[0] if init is None else finished[-1]
    if init not in finished:
        ways = ", ".join((STANDALONE, PREVIOUS, *finished))
        raise PiggybackError(f"a task can't start from {init!r}; ways to start: {ways}")
    return init


def filter_shapes(plan: Collection[LayerPlan], found: Collection[str] = ()) -> dict[str, Shape]:
    """The shapes of a task's unconstrained filters and what mixes; empty ones are left out.

    Args:
        plan: what it takes of each layer.
        found: the names of its tensors: places are among them where filters are in another order.
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
    """The name of a layer's tensor in a network; the layer may be the network itself."""
    return f"{layer_name}.{tensor_name}" if layer_name else tensor_name
