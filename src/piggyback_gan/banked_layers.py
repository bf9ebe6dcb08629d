"""The conv layers of a module, with their weights taken out and a filter bank for each."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from piggyback_gan.errors import PiggybackError
from piggyback_gan.filters import ConvLayer, FilterLayout, compose, unconstrained_count
from piggyback_gan.tasks import BIAS, MIXING, UNCONSTRAINED, WEIGHT, LayerPlan, tensor_key


@dataclass
class OwnLayer:
    """Weight and bias that a task has in place of a layer's, with channels of their own."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, *, trains: bool) -> "OwnLayer":
        """Copies of these tensors."""
        copies = [
            None if t is None else nn.Parameter(t.detach().clone().to(weight), trains)
            for t in (weight, bias)
        ]
        assert copies[0] is not None
        return cls(copies[0], copies[1])

    def tensors(self, layer: str) -> dict[str, Tensor]:
        """The values under the names that they have in a network."""
        both = {WEIGHT: self.weight, BIAS: self.bias}
        return {tensor_key(layer, k): t.detach() for k, t in both.items() if t is not None}

    def parameter_count(self) -> int:
        """How many values they have."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move them, as `nn.Module._apply` does: they stay the same objects, for their optimizer."""
        holder = nn.ParameterList(p for p in (self.weight, self.bias) if p is not None)
        holder._apply(fn)  # type: ignore[no-untyped-call]
        self.weight = holder[0]
        self.bias = holder[1] if len(holder) > 1 else None


@dataclass
class BankedLayer:
    """One conv layer and its filter bank.

    Attributes:
        module: the layer; while a task is in training it has that task's `unconstrained_filters` (U, D)
            and `mixing_weights` (P, K) as parameters, where they are not empty.
        layout: how its weight is laid out as filters.
        given_ND: the weight that the layer came with, as filters, until the first task is finished.
        scale: the root mean square of that weight.
        bank_KD: the unconstrained filters of all finished tasks, in their order.
        trainable: whether the weight that it came with required a gradient.
        shared_bias: the parameter that holds the biases of tasks without an own layer here.
        rows: how many filters each finished task brought to the bank.
    """

    module: ConvLayer
    layout: FilterLayout
    given_ND: Tensor
    scale: float
    bank_KD: Tensor
    trainable: bool
    shared_bias: nn.Parameter | None
    rows: list[int] = field(default_factory=list)

    def begin_task(self, free_UD: Tensor, mixing_PK: Tensor) -> None:
        """Hang a task's trainable filters on the layer, leaving out what is empty."""
        for name, tensor in ((UNCONSTRAINED, free_UD), (MIXING, mixing_PK)):
            parameter = nn.Parameter(tensor, self.trainable) if len(tensor) else None
            self.module.register_parameter(name, parameter)

    def end_task(self) -> None:
        """Take the trainable filters off the layer."""
        self.module.register_parameter(UNCONSTRAINED, None)
        self.module.register_parameter(MIXING, None)

    def put_on(self, weight: Tensor) -> None:
        """Give the layer a composed weight, a plain tensor in the place of its parameter."""
        self.module.weight = weight

    def take_off(self) -> Tensor | None:
        """Take the composed weight off the layer, if it has one."""
        weight: Tensor | None = self.module.__dict__.pop("weight", None)
        return weight

    def put_own(self, own: OwnLayer | None) -> None:
        """Give the layer a task's own weight and bias; None makes it a layer of the bank again."""
        self.take_off()
        parameters = self.module._parameters
        parameters.pop(WEIGHT, None)
        if own is not None:
            parameters[WEIGHT] = own.weight
        parameters[BIAS] = self.shared_bias if own is None else own.bias
        _set_channels(self.module, self.layout.weight_shape if own is None else own.weight.shape)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move what is no parameter of the module, after the module itself was moved."""
        self.bank_KD, self.given_ND = fn(self.bank_KD), fn(self.given_ND)
        self.shared_bias = self.module._parameters[BIAS]

    def check_own(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        """Whether weight and bias can stand in the layer's place: all but the channels must agree.

        Raises:
            PiggybackError: they can't.
        """
        expected, found = self.layout.weight_shape, tuple(weight.shape)
        if len(found) != len(expected) or found[2:] != expected[2:] or self.module.groups > 1:
            raise PiggybackError(
                f"a task's own layer {name!r} must be like the network's but for its channels: "
                f"expected a weight like {tuple(expected)}, found {found}"
            )
        filters = FilterLayout(found, self.module.transposed, groups=1).filters
        room = None if self.shared_bias is None else filters
        if room != (None if bias is None else len(bias)):
            raise PiggybackError(
                f"a task's own layer {name!r} has no fitting bias: one for each of {filters} filters "
                "where the network's layer has one, else none"
            )

    def fold_onto(self, module: nn.Module, weight: Tensor) -> None:
        """Make a copy of this layer a plain one, with room for a bias of as many values."""
        filters = FilterLayout(
            tuple(weight.shape), self.module.transposed, self.module.groups
        ).filters
        bias = self.shared_bias
        if bias is not None:
            bias = nn.Parameter(bias.detach().new_empty(filters), requires_grad=False)
        own = (UNCONSTRAINED, MIXING, WEIGHT, BIAS)
        others = {key: p for key, p in module._parameters.items() if key not in own}
        plain = nn.Parameter(weight.detach().clone(), self.trainable)
        module._parameters = {WEIGHT: plain, BIAS: bias, **others}
        _set_channels(module, weight.shape)

    def own_parameters(self) -> list[nn.Parameter]:
        """The trainable filters and mixing weights of the task in training."""
        own = (self.module._parameters[UNCONSTRAINED], self.module._parameters[MIXING])
        return [parameter for parameter in own if parameter is not None]

    def trained_parts(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (P, K) of the task in training, empty where the layer has none."""
        free, mixing = self.module._parameters[UNCONSTRAINED], self.module._parameters[MIXING]
        return (
            self.bank_KD.new_empty(0, self.layout.length) if free is None else free,
            self.bank_KD.new_empty(0, len(self.bank_KD)) if mixing is None else mixing,
        )

    def random_start(self, unconstrained: int) -> tuple[Tensor, Tensor]:
        """Random filters (U, D) and mixing weights (P, K), both giving filters of the given weight's scale.

        Mixing weights of a fixed small scale would make piggyback filters many times smaller than others.
        """
        bank, layout = self.bank_KD, self.layout
        free = (
            torch.randn(unconstrained, layout.length, dtype=bank.dtype).to(bank.device) * self.scale
        )
        shape = (layout.filters - unconstrained, len(bank))
        mixing = torch.randn(shape, dtype=bank.dtype).to(bank.device)
        mixed = (mixing @ bank).square().mean().sqrt()
        return free, mixing * (self.scale / mixed) if mixed > 0 else mixing

    def warm_start(
        self,
        source_free_UD: Tensor,
        source_mixing_PK: Tensor,
        source_bank_KD: Tensor,
        source_rows: Sequence[int],
        unconstrained: int,
    ) -> tuple[Tensor, Tensor]:
        """Filters (U, D) and mixing weights (P, K) that compose to exactly an earlier task's filters.

        Row i of the source is the bank's row `start + i` if it was unconstrained there, and its own
        mixing of the bank before `start` if it was not.
        """
        with torch.no_grad():
            filters = compose(
                source_free_UD, source_mixing_PK, source_bank_KD, source_rows, exact=True
            )
        start, count = len(source_bank_KD), len(source_free_UD)
        mixing = self.bank_KD.new_zeros(len(filters), len(self.bank_KD))
        mixing[:count, start : start + count].fill_diagonal_(1)
        mixing[count:, :start] = source_mixing_PK
        return filters[:unconstrained].clone(), mixing[unconstrained:].clone()


def plan_layers(
    layers: Mapping[str, BankedLayer], shares: Mapping[str, float], order: int
) -> list[LayerPlan]:
    """What a task that comes after `order` others takes of each layer."""
    return [
        LayerPlan(
            name=name,
            kind=type(layer.module).__name__,
            filters=layer.layout.filters,
            length=layer.layout.length,
            bank=sum(layer.rows[:order]),
            share=shares[name],
            unconstrained=unconstrained_count(shares[name], layer.layout.filters),
        )
        for name, layer in layers.items()
        if name in shares
    ]


def take_weights(module: nn.Module) -> dict[str, BankedLayer]:
    """Find all conv layers by name and take their weights out of them.

    Raises:
        PiggybackError: no conv layers, a conv weight shared with another layer, or a layer whose weight
            is not a plain float parameter (weight norm, spectral norm, complex).
    """
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, ConvLayer)]
    if not layers:
        raise PiggybackError(
            f"{type(module).__name__} has no conv layers: there is nothing to share"
        )
    owners = Counter(id(p) for m in module.modules() for p in m._parameters.values())
    for name, layer in layers:
        weight = layer._parameters.get("weight")
        called = f"layer {name!r} ({type(layer).__name__})"
        if weight is None or parametrize.is_parametrized(layer):
            raise PiggybackError(
                f"{called} has no plain weight: remove weight norm, spectral norm or other "
                "parametrizations first"
            )
        if not weight.is_floating_point():
            raise PiggybackError(
                f"{called} has a weight of type {weight.dtype}: only floats can be mixed"
            )
        if owners[id(weight)] > 1:
            shared = [n for n, m in module.named_modules() if _holds(m, weight)]
            raise PiggybackError(
                f"layers {' and '.join(map(repr, shared))} share one weight: tied conv weights can't "
                "have filter banks; untie them or use one module twice"
            )
        if hasattr(layer, UNCONSTRAINED) or hasattr(layer, MIXING):
            raise PiggybackError(f"{called} has filter banks already: wrap the plain module")
    banked = {}
    for name, layer in layers:
        layout = FilterLayout.of(layer)
        filters = layout.to_filters(layer.weight.detach()).clone()
        trainable = layer.weight.requires_grad
        scale = 0.0 if filters.is_meta else filters.square().mean().sqrt().item()
        del layer._parameters[WEIGHT]
        bank = filters[:0].clone()
        bias = layer._parameters[BIAS]
        banked[name] = BankedLayer(layer, layout, filters, scale, bank, trainable, bias)
        banked[name].end_task()
    return banked


def _holds(module: nn.Module, parameter: nn.Parameter) -> bool:
    return any(p is parameter for p in module._parameters.values())


def _set_channels(layer: nn.Module, weight_shape: tuple[int, ...]) -> None:
    """Let the layer say what its weight is; its forward does not depend on it."""
    assert isinstance(layer, ConvLayer)
    first, second = weight_shape[:2]
    second *= layer.groups
    layer.in_channels, layer.out_channels = (first, second) if layer.transposed else (second, first)
