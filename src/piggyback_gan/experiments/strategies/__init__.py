"""The strategies that an experiment can compare, by the names that its file calls them."""

from collections.abc import Mapping

from piggyback_gan.experiments.strategies.base import Strategy
from piggyback_gan.experiments.strategies.piggyback import Piggyback
from piggyback_gan.experiments.strategies.whole_networks import Finetune, Standalone

STRATEGIES: Mapping[str, type[Strategy]] = {
    "standalone": Standalone,
    "finetune": Finetune,
    "piggyback": Piggyback,
}

__all__ = ["STRATEGIES", "Strategy"]
