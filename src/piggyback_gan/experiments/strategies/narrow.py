"""A separate narrow network for each later task."""

from bisect import bisect_left
from dataclasses import dataclass, replace

import torch
from torch import nn

from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import (
    Kept,
    KeptStrategy,
    Learner,
    check_share,
    conv_layers,
    count,
)
from piggyback_gan.experiments.strategies.piggyback import Piggyback
from piggyback_gan.names import DEFAULT_UNCONSTRAINED
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import ResnetGenerator, UnetGenerator, build_generator


@dataclass(frozen=True, kw_only=True)
class Narrow(KeptStrategy):
    """Later tasks train a separate network with fewer channels (ngf), from random weights.

    Attributes:
        unconstrained: lambda. The width is this share of task 1's ngf, rounded up.
        equal_parameters: take instead the width whose number of parameters is nearest to what piggyback
            with this lambda adds for the task of the same order.
    """

    unconstrained: float = DEFAULT_UNCONSTRAINED
    equal_parameters: bool = False

    def __post_init__(self) -> None:
        check_share("unconstrained of narrow networks", self.unconstrained)
        if not isinstance(self.equal_parameters, bool):
            raise PiggybackError(
                f"invalid equal_parameters: found {self.equal_parameters!r}, give true or false"
            )

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        if not kept.tasks:
            return Learner(fresh)
        width = self._width(fresh, len(kept.tasks))
        return Learner(build_generator(replace(_config(fresh), ngf=width)))

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        values = kept.tasks[task]
        width = len(values[f"{next(iter(conv_layers(fresh)))}.weight"])
        network = _without_values(replace(_config(fresh), ngf=width))
        network.load_state_dict(values, assign=True)
        return network

    def predicted(self, network: nn.Module, order: int) -> float:
        if order == 0:
            return count(network)
        return _count(replace(_config(network), ngf=self._width(network, order)))

    def _width(self, network: nn.Module, order: int) -> int:
        config = _config(network)
        if not self.equal_parameters:
            return unconstrained_count(self.unconstrained, config.ngf)
        target = Piggyback(unconstrained=self.unconstrained).predicted(network, order)

        def size(width: int) -> int:
            return _count(replace(config, ngf=width))

        # The 20th task may add more than a whole network: search larger widths, too.
        least = bisect_left(range(1, 4 * config.ngf), target, key=size) + 1
        return min((max(least - 1, 1), least), key=lambda width: abs(size(width) - target))


def _config(network: nn.Module) -> GeneratorConfig:
    assert isinstance(network, ResnetGenerator | UnetGenerator)
    return network.config


def _count(config: GeneratorConfig) -> int:
    return round(count(_without_values(config)))


def _without_values(config: GeneratorConfig) -> nn.Module:
    """Build the network on the meta device, without drawing random values."""
    with torch.device("meta"):
        return build_generator(config)
