"""Allocation of a task's new filters to layers, by given shares or by a budget."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from piggyback_gan.core.filter_options import FilterOptions, check_unconstrained
from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.core.mixings import LowRankMixing, Mixing, mixing_of
from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.names import DEFAULT_UNCONSTRAINED

# A bank of fewer filters spans next to nothing: such a layer (the output layer of most image networks)
# stays unconstrained unless a pattern names it. It costs a fraction of a percent of the network.
SMALLEST_SHARED_LAYER = 8

Shares = float | Mapping[str, float]


@dataclass(frozen=True)
class LayerSize:
    """Size of a layer: `filters` filters of `length` values each, and `bank` filters in its bank."""

    filters: int
    length: int
    bank: int

    def cost(self, unconstrained: int, mixing: Mixing) -> int:
        """Number of values that a task stores for the layer."""
        mixed = self.filters - unconstrained
        rule = mixing.of_layer(mixed, self.bank)
        return unconstrained * self.length + (rule.cost(mixed, self.bank) if mixed else 0)


def resolve_shares(unconstrained: Shares, layer_filters: Mapping[str, int]) -> dict[str, float]:
    """Resolve lambda for every layer.

    Args:
        unconstrained: one share for all layers, where layers of fewer than 8 filters stay free; or a
            mapping from layer names and patterns (`*`, `?`, `[..]`) to shares. An exact name goes
            before patterns, an earlier pattern before a later one; layers that nothing matches get
            the default, 0.25, and stay free if small.
        layer_filters: layer name -> number of filters.

    Raises:
        PiggybackError: a share outside [0, 1], or a pattern that matches no layer.
    """
    if isinstance(unconstrained, Mapping):
        patterns, default = dict(unconstrained), DEFAULT_UNCONSTRAINED
    else:
        patterns, default = {}, unconstrained
    check_unconstrained(unconstrained)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layer_filters):
            raise PiggybackError(
                f"pattern {pattern!r} matches none of the layers: {first_names(list(layer_filters), 12)}"
            )
    shares = {}
    for name, filters in layer_filters.items():
        free = 1.0 if _is_small(filters) else default
        by_pattern = (share for pattern, share in patterns.items() if fnmatchcase(name, pattern))
        shares[name] = float(patterns.get(name, next(by_pattern, free)))
    return shares


def allot(
    options: FilterOptions, layers: Mapping[str, LayerSize], private: int
) -> tuple[Shares, Mixing]:
    """Spread a later task's new filters over the layers.

    With a share lambda and allocation "even", every layer has that share, as in the paper; with "last",
    the last layers are free, so many that a second task has about as many parameters as with "even" and
    never more, and the others mix all of their filters. With a budget, "even" is the largest one share
    that keeps to it, and "last" frees as many of the last layers as it pays for. Layers of fewer than 8
    filters are always free; with "last", so are those where a free filter has no more values than a
    mixed one.

    A rank or a number of bank filters that the options leave open is such that mixing takes about a
    third of the budget: new filters in the last layers are worth more. With a budget a layer is freed in
    part only where else much of it would be left: layers that are wholly free or wholly mixed keep
    later tasks from costing more, and from needing this one.

    Args:
        options: with their defaults. A table of shares leaves nothing to spread.
        layers: by name, in the order in which they are defined.
        private: how many parameters the task has beside these layers' filters.

    Returns:
        The unconstrained shares, as `resolve_shares` takes them, and the mixing of the other filters.

    Raises:
        PiggybackError: as `resolve_shares`, or the budget is not even enough for what is mixed.
    """
    if options.unconstrained is not None:
        mixing = mixing_of(options)
        if isinstance(options.unconstrained, Mapping) or options.allocation == "even":
            return options.unconstrained, mixing
        # What the bank has grown by since does not change where new filters are.
        second = {n: LayerSize(at.filters, at.length, at.filters) for n, at in layers.items()}
        evenly = _cost(_even(options.unconstrained, layers), second, mixing)
        return _last_layers(second, mixing, evenly, spare=0.0), mixing
    whole, values = _values(options, layers, private)
    mixed = {name: at for name, at in layers.items() if not _is_small(at.filters)}
    mixing = _largest(options, mixed, dict.fromkeys(mixed, 0.0), values // 3)
    no_new = _even(0.0, layers)
    if values < _cost(no_new, layers, mixing):
        mixing = _largest(options, layers, no_new, values)
    least = _cost(no_new, layers, mixing)
    if values < least:
        remedy = "give a larger budget"
        if options.rank or options.bank_filters:
            remedy += f", or a smaller {'rank' if options.rank else 'number of bank filters'}"
        raise PiggybackError(
            f"budget {options.budgets[-1]:g} is too small: without any new filters, {mixing.kind} mixing and "
            f"the small layers take {(least + private) / whole:.4f} of a network, with {private / whole:.4f} for "
            "parameters outside conv filters (norms, biases, linear and attention layers); "
            f"{remedy}"
        )
    if options.allocation == "last":
        shares = _last_layers(layers, mixing, values, spare=0.5)
        if _cost(shares, layers, _largest(options, layers, shares, values)) < 0.95 * values:
            shares = _last_layers(layers, mixing, values, spare=0.0)
    else:
        most = max((at.filters for at in layers.values()), default=0)
        spread = (_even(n / most, layers) for n in range(most, 0, -1))
        fitting = (s for s in spread if _cost(s, layers, mixing) <= values)
        shares = next(fitting, _even(0.0, layers))
    return shares, _largest(options, layers, shares, values)


@dataclass(frozen=True)
class Need:
    """How much a network needs new filters in a layer.

    Attributes:
        change: how much its outputs change if the layer mixes all of its filters with `rank`.
        errors: relative squared errors of the layer's outputs for mixing weights of each rank from 0 to N.
        rank: see `change`.
    """

    change: float
    errors: Sequence[float]
    rank: int

    def at(self, mixing: Mixing) -> float:
        """The outputs' change with a mixing, in proportion to the error of the layer."""
        rank = getattr(mixing, "rank", len(self.errors) - 1)
        least = 1e-12
        return self.change * max(self.errors[rank], least) / max(self.errors[self.rank], least)


def allot_by_need(
    options: FilterOptions,
    layers: Mapping[str, LayerSize],
    private: int,
    needs: Mapping[str, Need],
) -> tuple[dict[str, float], Mixing, float]:
    """Spend a task's budget where its network needs it: on layers of new filters, and on the rank of each other layer.

    Every layer begins with what costs least. Then the budget is spent step by step, each time on the layer, and there on
    the rank or on new filters, that gains most for its cost.

    Args:
        options: with their defaults and a budget that `allot` accepts.
        layers, private: as for `allot`.
        needs: of all layers that could mix.

    Returns:
        The unconstrained share of each layer, 0 or 1; the mixing of the others; and the sum of their needs that is left.

    Raises:
        PiggybackError: the budget is not even enough for what is mixed.
    """
    _, values = _values(options, layers, private)
    ways = {name: _ways(options, at, needs.get(name)) for name, at in layers.items()}
    taken = {name: min(found, key=lambda way: way.cost) for name, found in ways.items()}
    left = values - sum(way.cost for way in taken.values())
    if left < 0:
        raise PiggybackError(f"budget {options.budgets[-1]:g} is too small: give a larger budget")
    while True:
        steps = [
            ((taken[name].lost - way.lost) / (way.cost - taken[name].cost), name, way)
            for name, found in ways.items()
            for way in found
            if taken[name].cost < way.cost <= taken[name].cost + left
            and way.lost < taken[name].lost
        ]
        if not steps:
            break
        _, name, way = max(steps, key=lambda step: step[0])
        left -= way.cost - taken[name].cost
        taken[name] = way
    shares = {name: float(way.rank is None) for name, way in taken.items()}
    ranks = {name: way.rank for name, way in taken.items() if way.rank is not None}
    mixing = mixing_of(options, max(ranks.values(), default=1))
    if isinstance(mixing, LowRankMixing):
        rules = {n: replace(mixing, rank=rank) for n, rank in ranks.items()}
        sizes = {n: (layers[n].filters, layers[n].bank) for n in ranks}
        differ = [
            n for n, size in sizes.items() if rules[n].of_layer(*size) != mixing.of_layer(*size)
        ]
        mixing = replace(mixing, ranks={n: ranks[n] for n in differ})
    return shares, mixing, sum(way.lost for way in taken.values())


@dataclass(frozen=True)
class _Way:
    """A way to make a layer's filters: mixed with a rank, or new (None).

    `cost` is the number of values that it stores, `lost` what the network loses by it.
    """

    rank: int | None
    cost: int
    lost: float


def _ways(options: FilterOptions, at: LayerSize, need: Need | None) -> list[_Way]:
    """The ways to make a layer's filters; of the mixed ones those that cost less than new filters."""
    new = _Way(None, at.filters * at.length, 0.0)
    if need is None:
        return [new]
    ways = []
    for rank in [options.rank] if options.rank else _ladder(at.filters):
        rule = mixing_of(options, rank).of_layer(at.filters, at.bank)
        cost = rule.cost(at.filters, at.bank)
        if cost < new.cost:
            ways.append(_Way(rank, cost, need.at(rule)))
    return [*ways, new]


def _ladder(most: int) -> list[int]:
    """Numbers up to `most`, each above the one before by one, or by about an eighth."""
    steps = [1]
    while steps[-1] < most:
        steps.append(min(most, steps[-1] + max(1, steps[-1] // 8)))
    return steps


def _values(
    options: FilterOptions, layers: Mapping[str, LayerSize], private: int
) -> tuple[int, int]:
    """Parameters of a whole network, and those that the (largest) budget leaves for these layers."""
    assert options.budgets, "options must have their defaults"
    whole = private + sum(at.filters * at.length for at in layers.values())
    return whole, math.floor(options.budgets[-1] * whole) - private


def _largest(
    options: FilterOptions,
    layers: Mapping[str, LayerSize],
    shares: Mapping[str, float],
    values: int,
) -> Mixing:
    """The mixing of the options, with the largest number they leave open for which the values are enough."""
    most = max((at.filters for at in layers.values()), default=1)

    def cost(number: int) -> int:
        return _cost(shares, layers, mixing_of(options, number))

    return mixing_of(options, max(1, bisect_right(range(1, most + 1), values, key=cost)))


def _even(share: float, layers: Mapping[str, LayerSize]) -> dict[str, float]:
    return resolve_shares(share, {name: at.filters for name, at in layers.items()})


def _cost(shares: Mapping[str, float], layers: Mapping[str, LayerSize], mixing: Mixing) -> int:
    return sum(
        at.cost(unconstrained_count(shares[name], at.filters), mixing)
        for name, at in layers.items()
    )


def _last_layers(
    layers: Mapping[str, LayerSize], mixing: Mixing, values: int, *, spare: float
) -> dict[str, float]:
    """The last layers free, as many as the values are enough for.

    One of them may be so in part, if more than the share `spare` of what new filters could take is left.
    """

    def extra(name: str, unconstrained: int) -> int:
        return layers[name].cost(unconstrained, mixing) - layers[name].cost(0, mixing)

    free = {n for n, at in layers.items() if _is_small(at.filters) or extra(n, at.filters) <= 0}
    shares = {name: 1.0 if name in free else 0.0 for name in layers}
    left = all_left = values - _cost(shares, layers, mixing)
    for name in reversed([name for name in layers if name not in free]):
        filters = layers[name].filters
        count = next(n for n in range(filters, -1, -1) if n == 0 or extra(name, n) <= left)
        if count < filters and left <= spare * all_left:
            break
        # Rounded down, so that its ceiling is this number of filters again.
        shares[name] = math.floor(count / filters * 1e6) / 1e6
        left -= extra(name, count)
        if count < filters:
            break
    return shares


def _is_small(filters: int) -> bool:
    return filters < SMALLEST_SHARED_LAYER
