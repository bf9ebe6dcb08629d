"""Where a task's new filters are: what share of each layer, by the user's word or by a budget."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from piggyback_gan.errors import PiggybackError
from piggyback_gan.filter_options import FilterOptions
from piggyback_gan.filters import unconstrained_count
from piggyback_gan.mixings import Mixing, mixing_of
from piggyback_gan.names import DEFAULT_UNCONSTRAINED

# A bank of so few filters spans next to nothing: such a layer (the output layer of most image
# networks) stays free unless a pattern names it. It costs a fraction of a percent of the network.
SMALLEST_SHARED_LAYER = 8

Shares = float | Mapping[str, float]


@dataclass(frozen=True)
class LayerSize:
    """A layer of `filters` filters of `length` values each, that can mix from `bank` of them."""

    filters: int
    length: int
    bank: int

    def cost(self, unconstrained: int, mixing: Mixing) -> int:
        """How many values a task keeps of the layer."""
        mixed = self.filters - unconstrained
        rule = mixing.of_layer(mixed, self.bank)
        return unconstrained * self.length + (rule.cost(mixed, self.bank) if mixed else 0)


def resolve_shares(unconstrained: Shares, layer_filters: Mapping[str, int]) -> dict[str, float]:
    """Lambda for every layer.

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
    for share in (*patterns.values(), default):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise PiggybackError(
                f"the unconstrained share must be a number from 0 to 1, not {share!r}"
            )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layer_filters):
            raise PiggybackError(
                f"pattern {pattern!r} matches none of the layers: {_some(layer_filters)}"
            )
    shares = {}
    for name, filters in layer_filters.items():
        free = 1.0 if _is_small(filters) else default
        by_pattern = (share for pattern, share in patterns.items() if fnmatchcase(name, pattern))
        shares[name] = float(patterns.get(name, next(by_pattern, free)))
    return shares


def allocated_shares(
    options: FilterOptions, layers: Mapping[str, LayerSize], private: int
) -> Shares:
    """Spread a later task's new filters over the layers.

    With a share lambda and allocation "even", every layer has that share, as in the paper; with "last",
    the last layers are free, so many that a second task has about as many parameters as with "even" and
    never more, and the others mix all of their filters. With a budget, "even" is the largest one share
    that keeps to it, and "last" frees as many of the last layers as it pays for. Layers of fewer than 8
    filters are always free; with "last", so are those where a free filter has no more values than a
    mixed one.

    Args:
        options: with their defaults. A table of shares leaves nothing to spread.
        layers: by name, in the order in which they are defined.
        private: how many parameters the task has beside these layers' filters.

    Returns:
        What `resolve_shares` takes.

    Raises:
        PiggybackError: as `resolve_shares`, or the budget is not even enough for what is mixed.
    """
    mixing = mixing_of(options)
    if options.unconstrained is not None:
        if isinstance(options.unconstrained, Mapping) or options.allocation == "even":
            return options.unconstrained
        # What the bank has grown by since does not change where new filters are.
        second = {n: LayerSize(at.filters, at.length, at.filters) for n, at in layers.items()}
        evenly = _cost(_even(options.unconstrained, layers), second, mixing)
        return _last_layers(second, mixing, evenly)
    assert options.budget is not None, "options must have their defaults"
    whole = private + sum(at.filters * at.length for at in layers.values())
    values = math.floor(options.budget * whole) - private
    least = _cost(_even(0.0, layers), layers, mixing)
    if values < least:
        raise PiggybackError(
            f"budget {options.budget:g} is too small: without any new filters, {mixing.kind} mixing and "
            f"the small layers take {(least + private) / whole:.4f} of a network; give a larger budget, "
            "or a mixing of fewer values"
        )
    if options.allocation == "last":
        return _last_layers(layers, mixing, values)
    most = max(at.filters for at in layers.values())
    shares = (n / most for n in range(most, 0, -1))
    return next((s for s in shares if _cost(_even(s, layers), layers, mixing) <= values), 0.0)


def _even(share: float, layers: Mapping[str, LayerSize]) -> dict[str, float]:
    return resolve_shares(share, {name: at.filters for name, at in layers.items()})


def _cost(shares: Mapping[str, float], layers: Mapping[str, LayerSize], mixing: Mixing) -> int:
    return sum(
        at.cost(unconstrained_count(shares[name], at.filters), mixing)
        for name, at in layers.items()
    )


def _last_layers(layers: Mapping[str, LayerSize], mixing: Mixing, values: int) -> dict[str, float]:
    """The last layers free, as many as the values are enough for; at most one of them in part."""

    def extra(name: str, unconstrained: int) -> int:
        return layers[name].cost(unconstrained, mixing) - layers[name].cost(0, mixing)

    free = {n for n, at in layers.items() if _is_small(at.filters) or extra(n, at.filters) <= 0}
    shares = {name: 1.0 if name in free else 0.0 for name in layers}
    left = values - _cost(shares, layers, mixing)
    for name in reversed([name for name in layers if name not in free]):
        filters = layers[name].filters
        count = max(n for n in range(filters + 1) if n == 0 or extra(name, n) <= left)
        # Rounded down, so that its ceiling is this number of filters again.
        shares[name] = math.floor(count / filters * 1e6) / 1e6
        left -= extra(name, count)
        if count < filters:
            break
    return shares


def _is_small(filters: int) -> bool:
    return filters < SMALLEST_SHARED_LAYER


def _some(names: Iterable[str], limit: int = 12) -> str:
    """The first names of a list that may be long."""
    listed = list(names)
    more = f", and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
