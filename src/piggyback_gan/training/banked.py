"""What a training does with its generators' filter banks: choose starts, and factorize what is trained free."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from piggyback_gan.core.factorize import (
    Factorized,
    factorize_task,
    factorized_as,
    restore_factorized,
)
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.starts import Start, choose_start
from piggyback_gan.training.task_data import TaskData

# Images on which networks are measured: so many that each layer has several places for each bank filter.
_PIXELS, _FEWEST, _MOST = 64 * 64 * 64, 4, 64

Judge = Callable[[], Mapping[str, float]]


class BankedGenerators:
    """The generators of a training that have a filter bank.

    Args:
        generators: all generators of the training, by name.
        data: the task's images.
        options: resolved.

    Attributes:
        networks: those with a filter bank.
        decided: generator -> where there is one, `start`, the start that was chosen; `made`, how a factorized task's
            filters are made, and its `budget`; plain values for a checkpoint.
    """

    def __init__(
        self, generators: Mapping[str, object], data: TaskData, options: TrainingOptions
    ) -> None:
        self.networks = {n: g for n, g in generators.items() if isinstance(g, PiggybackNetwork)}
        self.data = data
        self.options = options
        self.decided: dict[str, dict[str, Any]] = {}

    @property
    def is_free(self) -> bool:
        """Whether generators are trained free, to be factorized."""
        return any(network.to_factorize for network in self.networks.values())

    def due(self, step: int, steps: int) -> list[str]:
        """The generators that are to be factorized before this step of a training, at the latest before its last."""
        free = {name: network.to_factorize for name, network in self.networks.items()}
        return [name for name, how in free.items() if how and step >= int(how.free_share * steps)]

    def rates(self, names: Sequence[str]) -> dict[str, float]:
        """Learning rates after factorization, relative to before, of generators that are to be factorized."""
        options = {name: self.networks[name].to_factorize for name in names}
        return {name: own.factorized_rate for name, own in options.items() if own is not None}

    def choose_starts(self, between: Callable[[], None]) -> dict[str, Start]:
        """Choose what tasks start from by training images, where they are to choose (`init="auto"`)."""
        choosing = {name: n for name, n in self.networks.items() if n.chooses_start}
        starts = {}
        if choosing:
            samples = self._samples()
        for name, network in choosing.items():
            inputs, targets = samples[name], samples[_OTHER[name]]
            if self.options.mode == "unpaired":
                targets = inputs  # there are none: features are to keep what is in the images
            starts[name] = choose_start(network, inputs, targets, between=between)
            self.decided[name] = {"start": starts[name].init}
        return starts

    def factorize(self, names: Sequence[str], judge: Judge) -> dict[str, Factorized]:
        """Factorize these generators, one after the other (`factorize_task`).

        With `budget="auto"` the least budget is taken for which held-out figures become worse by no more than the
        quality allows.

        Args:
            names: of the generators.
            judge: returns metrics of held-out images, of the networks as they are.
        """
        samples, found = self._samples(), {}
        for name in names:
            found[name] = self._factorize(self.networks[name], samples[name], judge)
            self.decided.setdefault(name, {}).update(
                made=factorized_as(self.networks[name]), budget=found[name].budget
            )
        return found

    def _factorize(
        self, network: PiggybackNetwork, samples: Sequence[Tensor], judge: Judge
    ) -> Factorized:
        options = network.to_factorize
        assert options is not None
        if (quality := options.quality) is None:
            return factorize_task(network, samples)
        free = judge()
        return factorize_task(network, samples, lambda: keeps_quality(judge(), free, quality))

    def restore(
        self, decided: Mapping[str, dict[str, Any]], values: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Bring the networks to where a training was that decided this, given the generators' values."""
        self.decided = dict(decided)
        for name, own in decided.items():
            if "start" in own:
                self.networks[name].restart_task(own["start"])
            if "made" in own:
                restore_factorized(self.networks[name], own["made"], values[name])

    def _samples(self) -> dict[str, list[Tensor]]:
        """Training images by the generator that takes them, in small batches."""
        fitting = _PIXELS // self.options.image_size**2
        first, second = self.data.some(self.options, max(_FEWEST, min(_MOST, fitting)))
        return {FORWARD: first, BACKWARD: second}


def keeps_quality(
    metrics: Mapping[str, float], before: Mapping[str, float], quality: float
) -> bool:
    """Whether no metric has become worse by more than this ratio; PSNR by the ratio of root mean squared errors."""

    def ratio(name: str) -> float:
        now, then = metrics[name], before[name]
        if name.startswith("psnr"):
            return float(10 ** ((then - now) / 20))
        worse, better = (then, now) if higher_is_better(name) else (now, then)
        return worse / better if better > 0 else math.inf if worse > better else 1.0

    return all(ratio(name) <= quality for name in before)


_OTHER = {FORWARD: BACKWARD, BACKWARD: FORWARD}
