"""Evaluate the tasks of a part after each task: from disk, on all held-out images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.loading import Dataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import BATCH_SIZE, output_hashes
from piggyback_gan.evaluation.judge import Figure, Judge, Judgement
from piggyback_gan.experiments.results import (
    Stage,
    held_out_sample,
    output_sample,
    read_table,
    to_json,
)
from piggyback_gan.experiments.run.plan import PartPlan
from piggyback_gan.experiments.strategies.base import count
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.images.display import display
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.tensors import to_pixels
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.files import atomic_write

Say = Callable[[str], None]

_REHEARSED = 3  # images: the fewest that have a kernel distance


class Examiner:
    """Evaluates what a part has learned.

    Args:
        plan: of the part.
        judge: the evaluator after each task.
        device: to compute on.
        say: called with one line for each result.
        between: called after every batch; it may raise to stop.
    """

    def __init__(
        self,
        plan: PartPlan,
        judge: Judge,
        device: torch.device,
        say: Say,
        between: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.judge = judge
        self.device = device
        self.say = say
        self.between = between
        self._held_out: dict[tuple[str, int | None], Dataset] = {}

    def rehearse(self, tasks: Sequence[Task]) -> dict[str, frozenset[str]]:
        """Evaluate untrained networks on a few images of each task, to fail before hours of training.

        Args:
            tasks: the part's, or more.

        Returns:
            Task -> the names of its figures.

        Raises:
            PiggybackError: a network can't evaluate a task's images, or there are too few.
        """
        names = {}
        for task in tasks:
            with torch.random.fork_rng(devices=[]):
                networks = [build_generator(self.plan.config_of(w)) for w in task.networks]
            generators: list[nn.Module] = [n.to(self.device).eval() for n in networks]
            try:
                judged = self._judged(self.judge, task, generators, task.held_out(_REHEARSED))
            except PiggybackError as error:
                raise PiggybackError(f"task {task.name!r} can't be evaluated: {error}") from None
            names[task.name] = frozenset(judged.figures)
        return names

    def watch(
        self, task: Task, generators: Sequence[nn.Module], dataset: Dataset
    ) -> dict[str, float]:
        """Evaluate a task in training by fast metrics, on some images: metric -> value."""
        watcher = Judge(distance=self.judge.distance)
        figures = self._judged(watcher, task, generators, dataset).figures
        return {name: figure.value for name, figure in figures.items()}

    def examine(self, order: int, training: Mapping[str, Any], done: Mapping[int, Stage]) -> Stage:
        """Evaluate every task so far, from the strategy's files.

        Earlier tasks whose outputs are bit-identical are not evaluated again.

        Args:
            order: number of tasks learned.
            training: steps, seconds, peak_memory, learning_rate and curve of the newest one.
            done: earlier stages.

        Raises:
            PiggybackError: a file is damaged.
        """
        plan = self.plan
        newest = plan.tasks[order - 1]
        figures: dict[str, Mapping[str, Figure]] = {}
        identical: dict[str, tuple[int, int]] = {}
        warnings: list[str] = []
        for learned, task in enumerate(plan.tasks[:order], 1):
            dataset = self._held_out_of(task)
            generators = [self._generator(task, which) for which in task.networks]
            self._save_pictures(order, task, generators[0], dataset)
            if task is not newest:
                # Bit-identical outputs have the same figures.
                some = None if order == len(plan.tasks) else plan.experiment.compare_images
                identical[task.name] = same, of = self._compared(task, generators, some)
                if same == of:
                    figures[task.name] = done[learned].figures[task.name]
                    continue
            judged = self._judged(self.judge, task, generators, dataset)
            if task is newest:
                hashes = to_json({"sha256": list(judged.output_hashes)})
                atomic_write(self._hashes_file(task), hashes)
            identical[task.name] = _same(self._remembered(task), judged.output_hashes)
            figures[task.name] = judged.figures
            warnings += [f"{task.name}: {words}" for words in judged.warnings]
            found = in_words({name: figure.value for name, figure in judged.figures.items()})
            self.say(f"after {newest.name}: {task.name} {found}")
        size = plan.strategy.size(plan.folder)
        networks = {which: build_generator(plan.config_of(which)) for which in newest.networks}
        earlier = [which for task in plan.tasks[: order - 1] for which in task.networks]
        return Stage(
            strategy=plan.label,
            seed=plan.seed,
            order=order,
            task=newest.name,
            learning_rate=training["learning_rate"],
            steps=training["steps"],
            seconds=training["seconds"],
            peak_memory=training["peak_memory"],
            parameters=size.parameters,
            predicted=sum(
                plan.strategy.predicted(n, earlier.count(w)) for w, n in networks.items()
            ),
            standalone=sum(map(count, networks.values())),
            bytes=size.bytes,
            figures=figures,
            identical=identical,
            curve=tuple(training["curve"]),
            warnings=tuple(warnings),
        )

    def _generator(self, task: Task, which: str) -> nn.Module:
        fresh = build_generator(self.plan.config_of(which))
        folder = self.plan.folder
        return self.plan.strategy.generator(folder, task.name, which, fresh).to(self.device).eval()

    def _judged(
        self, judge: Judge, task: Task, generators: Sequence[nn.Module], dataset: Dataset
    ) -> Judgement:
        if not any(format.labels for format in task.formats):
            # The recogniser is for label maps.
            judge = Judge(judge.features, judge.distance, cache=judge.cache)
        return judge.judge(
            generators,
            dataset,
            self.device,
            direction=task.options.direction,
            paired=task.partners,
            between=self.between,
        )

    @torch.inference_mode()
    def _save_pictures(
        self, order: int, task: Task, generator: nn.Module, dataset: Dataset
    ) -> None:
        """Save the first held-out images once, and the generator's outputs for them."""
        plan, (of_input, of_output) = self.plan, task.formats
        is_new = task is plan.tasks[order - 1]
        for number in range(min(plan.experiment.samples, len(dataset))):
            first, second = dataset.pair(number)
            output = generator(first.unsqueeze(0).to(self.device))[0].float().cpu()
            _save(output_sample(plan.folder, order, task.name, number), output, of_output)
            if is_new and plan.pictures is not None:
                _save(held_out_sample(plan.pictures, task.name, number, "input"), first, of_input)
                if task.partners:
                    path = held_out_sample(plan.pictures, task.name, number, "target")
                    _save(path, second, of_output)

    def _remembered(self, task: Task) -> list[str]:
        """Read the hashes of a task's outputs when it was learned.

        Raises:
            PiggybackError: the file can't be read.
        """
        path = self._hashes_file(task)
        before = read_table(path, f"{path} is damaged").get("sha256")
        if not isinstance(before, list) or len(before) != sum(_sides(self._held_out_of(task))):
            raise PiggybackError(
                f"{path} is damaged: remove {self.plan.folder} to do all of it again"
            )
        return before

    def _compared(
        self, task: Task, generators: Sequence[nn.Module], count: int | None
    ) -> tuple[int, int]:
        """Count the outputs that are bit-identical to those when the task was learned, and all outputs.

        Args:
            task: an earlier one.
            generators: of the task, as they are now.
            count: compare this number of images of each side, rounded up to whole batches; None: all.

        Raises:
            PiggybackError: the stored hashes can't be read.
        """
        # Whole batches: an output's bits may depend on the batch.
        some = self._held_out_of(task, count and -(-count // BATCH_SIZE) * BATCH_SIZE)
        before, start = [], 0
        every = self._remembered(task)
        for compared, kept in zip(_sides(some), _sides(self._held_out_of(task)), strict=True):
            before += every[start : start + compared]
            start += kept
        return _same(before, output_hashes(generators, some, self.device, self.between))

    def _hashes_file(self, task: Task) -> Path:
        return self.plan.folder / f"outputs-{task.name}.json"

    def _held_out_of(self, task: Task, count: int | None = None) -> Dataset:
        """A task's held-out images, or the first `count` of each side; cached."""
        if (task.name, count) not in self._held_out:
            self._held_out[task.name, count] = task.held_out(count)
        return self._held_out[task.name, count]


def _save(path: Path, image: Tensor, format: ImageFormat) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, encode(display(to_pixels(image, format), format), ".png"))


def _sides(dataset: Dataset) -> tuple[int, ...]:
    """Number of outputs of each side, in the order of evaluation."""
    if isinstance(dataset, PairedDataset):
        return (len(dataset),)
    return len(dataset.first), len(dataset.second)


def _same(before: Sequence[str], now: Sequence[str]) -> tuple[int, int]:
    """Count equal hashes, and all hashes."""
    return sum(a == b for a, b in zip(before, now, strict=True)), len(now)


def in_words(values: Mapping[str, float]) -> str:
    """Format names and values in a line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
