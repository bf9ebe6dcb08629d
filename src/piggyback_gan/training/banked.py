"""What a training does with its generators' filter banks: choose starts, and factorize what is trained free."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.free_tasks import (
    Factorized,
    factorize_task,
    made_as_card,
    made_from_card,
    pull_to_bank,
    restore_factorized,
)
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.private_tensors import load_module_state, module_state
from piggyback_gan.core.task import TaskFilters
from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.callbacks import Interrupted
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.starts import Start, choose_start
from piggyback_gan.training.task_data import TaskData

# Images to compare starts on: more of them choose the same, or another one that is as good.
_COMPARED = 16
# The most images to factorize on, up to 256 pixels a side: a U-Net's innermost layers have few places in each.
_FITTED = 64
_FITTED_SIDE = 256
_FEWEST = 4
# Filters are pulled to the bank in so many steps, of which factorization is the last.
_PULLS = 4

_Decided = TypeVar("_Decided")
Measure = Callable[[], Mapping[str, float]]
"""Measures metrics on held-out images."""


class BankedGenerators:
    """The generators of a training that have a filter bank.

    Of several processes, the first decides: arithmetic may differ between processors.

    Args:
        generators: all generators of the training, by name.
        data: the task's images.
        options: resolved.
        team: the processes that train together.

    Attributes:
        networks: those with a filter bank.
        decided: generator -> where there is one, `start`, the start that was chosen; `pulled`, how filters are made
            of which those of a free network are pulled to; `made`, how a factorized task's are made, and its `budget`;
            plain values for a checkpoint.
    """

    def __init__(
        self,
        generators: Mapping[str, object],
        data: TaskData,
        options: TrainingOptions,
        team: Processes,
    ) -> None:
        self.networks = {n: g for n, g in generators.items() if isinstance(g, PiggybackNetwork)}
        self.data = data
        self.options = options
        self.team = team
        self.decided: dict[str, dict[str, Any]] = {}

    @property
    def is_free(self) -> bool:
        """Whether generators are trained free, to be factorized."""
        return bool(self._free())

    @property
    def promises_quality(self) -> bool:
        """Whether generators are to be factorized so that their held-out figures keep a quality."""
        return any(options.quality is not None for _, options in self._free())

    def due(self, step: int, steps: int) -> list[str]:
        """The generators that are to be factorized before this step of a training, at the latest before its last."""
        return [name for name, how in self._free() if step >= int(how.free_share * steps)]

    def pulls(self, step: int, steps: int) -> dict[str, float]:
        """Generators whose filters are to be pulled to the bank before this step -> the share of the distance that is left."""
        found = {}
        for name, options in self._free():
            share = options.pulled_share
            for pull in range(1, _PULLS) if share else ():
                at = options.free_share - share * (_PULLS - pull) / (_PULLS - 1)
                if step == int(at * steps) > 0:
                    found[name] = 1 - pull / _PULLS
        return found

    def rates(self, names: Sequence[str]) -> dict[str, float]:
        """Learning rates after factorization, relative to before, of generators that are to be factorized."""
        return {name: own.factorized_rate for name, own in self._free() if name in names}

    def choose_starts(self, between: Callable[[], None]) -> dict[str, Start]:
        """Choose what tasks start from by training images, where they are to choose (`init="auto"`).

        Args:
            between: called before each candidate; it may raise Interrupted, which all processes then do.
        """
        choosing = {name: n for name, n in self.networks.items() if n.chooses_start}
        if not choosing:
            return {}

        def choose() -> dict[str, Start]:
            samples = self._samples(_COMPARED)
            # An unpaired task has no targets: features are to keep what is in the images.
            sides = _OTHER if self.options.mode == "paired" else {name: name for name in _OTHER}
            return {
                name: choose_start(network, samples[name], samples[sides[name]], between=between)
                for name, network in choosing.items()
            }

        starts = self._by_first(choose)
        for name, start in starts.items():
            torch.manual_seed(self.options.seed)  # noise is the same in all processes
            self.networks[name].restart_task(start.init)
            self.decided[name] = {"start": start.init}
        return starts

    def pull(self, pulls: Mapping[str, float]) -> None:
        """Pull the filters of these generators to the bank (`pull_to_bank`), to a share of the distance that is left."""

        def pull() -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
            samples, found = self._fitted(), {}
            for name, left in pulls.items():
                made = pull_to_bank(self.networks[name], samples[name], left, self._pulled(name))
                state = module_state(self.networks[name].module) if self.team.world > 1 else {}
                found[name] = made_as_card(made), {k: t.cpu() for k, t in state.items()}
            return found

        for name, (made, values) in self._by_first(pull).items():
            if not self.team.is_first:
                load_module_state(self.networks[name].module, values)
            self.decided.setdefault(name, {})["pulled"] = made

    def factorize(self, names: Sequence[str], measure: Measure) -> dict[str, Factorized]:
        """Factorize these generators, one after the other (`factorize_task`).

        With a `quality` the least budget is taken for which no metric becomes worse than the free networks' by more.

        Args:
            names: of the generators.
            measure: of the networks as they are; it may raise Interrupted, which all processes then do.
        """

        def factorize() -> dict[str, tuple[Factorized, dict[str, Any], dict[str, Tensor]]]:
            samples, found = self._fitted(), {}
            before = measure() if self.promises_quality else {}
            qualities = {name: options.quality or math.inf for name, options in self._free()}
            for name in names:
                network = self.networks[name]
                after: dict[str, float] = {}

                def accept(
                    quality: float = qualities[name], after: dict[str, float] = after
                ) -> bool:
                    after.update(measure())
                    return keeps_quality(after, before, quality)

                how = factorize_task(network, samples[name], accept, self._pulled(name))
                how = replace(how, figures={key: (before[key], after[key]) for key in after})
                state = {k: t.cpu() for k, t in module_state(network.module).items()}
                found[name] = how, made_as_card(network.made), state
            return found

        found = self._by_first(factorize)
        for name, (how, made, values) in found.items():
            if not self.team.is_first:
                restore_factorized(self.networks[name], made, values)
            self.decided.setdefault(name, {}).update(made=made, budget=how.budget)
        return {name: how for name, (how, _, _) in found.items()}

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

    def _free(self) -> list[tuple[str, FilterOptions]]:
        """The generators that are trained free, with their options."""
        found = [(name, network.to_factorize) for name, network in self.networks.items()]
        return [(name, options) for name, options in found if options is not None]

    def _pulled(self, name: str) -> TaskFilters | None:
        pulled = self.decided.get(name, {}).get("pulled")
        return None if pulled is None else made_from_card(pulled)

    def _by_first(self, decide: Callable[[], _Decided]) -> _Decided:
        """What the first process decides, in all of them; Interrupted in all if it is stopped."""
        decided: _Decided | None = None
        stopped: Interrupted | None = None
        if self.team.is_first:
            try:
                decided = decide()
            except Interrupted as error:
                stopped = error
        position, decided = self.team.from_first((stopped and stopped.position, decided))
        if decided is None:
            raise Interrupted(position)
        return decided

    def _fitted(self) -> dict[str, list[Tensor]]:
        """Training images to factorize on."""
        fitting = _FITTED * _FITTED_SIDE**2 // self.options.image_size**2
        return self._samples(max(_FEWEST, min(_FITTED, fitting)))

    def _samples(self, images: int) -> dict[str, list[Tensor]]:
        """Training images by the generator that takes them, in small batches."""
        first, second = self.data.some(self.options, images)
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
