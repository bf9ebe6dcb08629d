"""Task 1's network as a feature extractor: later tasks train its last layers."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Self

from torch import nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import (
    Kept,
    KeptStrategy,
    Learner,
    conv_layers,
    count,
    values_of,
)
from piggyback_gan.system.checks import check_positive


class _TailLearner(Learner):
    """A network that is frozen before one layer: values, statistics, and no dropout."""

    def __init__(self, module: nn.Module, first_trained: str, tail: list[str]) -> None:
        super().__init__(module)
        first = module.get_submodule(first_trained)
        before = takewhile(lambda layer: layer is not first, module.modules())
        self._frozen = [layer for layer in before if next(layer.children(), None) is None]
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in tail)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self


@dataclass(frozen=True, kw_only=True)
class FeatureExtractor(KeptStrategy):
    """Later tasks train and store only the last conv layers and their norms, starting from task 1's values.

    Attributes:
        trained_layers: number of conv layers, in the order of definition. 3 are both
            up-convolutions and the output layer of a ResNet.
    """

    trained_layers: int = 3

    def __post_init__(self) -> None:
        check_positive("trained_layers", self.trained_layers)

    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        if not kept.tasks:
            return Learner(fresh)
        fresh.load_state_dict(kept.first)
        return _TailLearner(fresh, self._first_trained(fresh), self._tail(fresh))

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        values = values_of(learner.module)
        if not kept.tasks:
            return kept.with_task(task, values)
        return kept.with_task(task, {key: values[key] for key in self._tail(learner.module)})

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        fresh.load_state_dict({**kept.first, **kept.tasks[task]})
        return fresh

    def predicted(self, network: nn.Module, order: int) -> float:
        if order == 0:
            return count(network)
        values = values_of(network)
        return sum(values[key].numel() for key in self._tail(network))

    def _first_trained(self, network: nn.Module) -> str:
        layers = list(conv_layers(network))
        if len(layers) <= self.trained_layers:
            raise PiggybackError(
                f"invalid trained_layers: found {self.trained_layers}, but the network has "
                f"{len(layers)} conv layers; give a number below that"
            )
        return layers[-self.trained_layers]

    def _tail(self, network: nn.Module) -> list[str]:
        """The keys of all tensors from the first trained layer on."""
        keys = list(network.state_dict())
        return keys[keys.index(f"{self._first_trained(network)}.weight") :]
