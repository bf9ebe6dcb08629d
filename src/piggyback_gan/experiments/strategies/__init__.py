"""Strategies by their names in an experiment's file."""

from collections.abc import Mapping

from piggyback_gan.experiments.strategies.base import Strategy
from piggyback_gan.experiments.strategies.distill import Distill
from piggyback_gan.experiments.strategies.feature_extractor import FeatureExtractor
from piggyback_gan.experiments.strategies.low_rank import LowRank
from piggyback_gan.experiments.strategies.mask import Mask
from piggyback_gan.experiments.strategies.narrow import Narrow
from piggyback_gan.experiments.strategies.packnet import PackNet
from piggyback_gan.experiments.strategies.piggyback import Factorization, Piggyback
from piggyback_gan.experiments.strategies.whole_networks import Finetune, Standalone

STRATEGIES: Mapping[str, type[Strategy]] = {
    "standalone": Standalone,
    "finetune": Finetune,
    "piggyback": Piggyback,
    "factorization": Factorization,
    "feature-extractor": FeatureExtractor,
    "narrow": Narrow,
    "lora": LowRank,
    "mask": Mask,
    "packnet": PackNet,
    "distill": Distill,
}

__all__ = ["STRATEGIES", "Strategy"]
