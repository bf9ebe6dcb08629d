"""One part of an experiment: a strategy learns the tasks with one seed, and is judged after each."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from piggyback_gan.bank import BACKWARD, FORWARD
from piggyback_gan.cards import task_card
from piggyback_gan.chance import seed_of
from piggyback_gan.data import PairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.memory import peak, reset_peak
from piggyback_gan.experiments.pictures import save_held_out, save_outputs
from piggyback_gan.experiments.plan import PartPlan
from piggyback_gan.experiments.results import (
    Stage,
    held_out_sample,
    output_sample,
    read_stages,
    stage_file,
    to_json,
    write_stage,
)
from piggyback_gan.experiments.strategies.base import Learner, Lesson, count
from piggyback_gan.experiments.strategies.whole_networks import Standalone
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.generators import build_generator
from piggyback_gan.judging import Figure, Judge, Judgement
from piggyback_gan.manifest import atomic_write
from piggyback_gan.task_data import Dataset, TaskData
from piggyback_gan.trainer import Batch, PairedTrainer, Trainer
from piggyback_gan.unpaired_trainer import UnpairedTrainer

Say = Callable[[str], None]


class Part:
    """A part while it runs; what is done already is not done again.

    Args:
        plan: what is to be done.
        judge: who judges after each task.
        watcher: who judges after each epoch, quickly.
        device: where to compute.
        say: told in a line how far it is.
        should_stop: asked in every step.
    """

    def __init__(
        self,
        plan: PartPlan,
        judge: Judge,
        watcher: Judge,
        device: torch.device,
        say: Say,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.judge = judge
        self.watcher = watcher
        self.device = device
        self.say = say
        self.should_stop = should_stop
        self._held_out: dict[str, TaskData] = {}

    def run(self) -> None:
        """Learn and judge all that is left.

        Raises:
            PiggybackError: images that can't be used, a loss that is not finite, a full disk, or a stage
                that is missing though later tasks are learned.
            Stopped: it was asked to stop; what was learned is kept.
        """
        plan = self.plan
        done = {stage.order: stage for stage in read_stages(plan.folder)}
        learned = plan.strategy.tasks(plan.folder)
        for order, task in enumerate(plan.tasks, 1):
            if order in done:
                continue
            if task.name not in learned:
                self._learn(order, task)
            elif len(learned) > order:
                raise PiggybackError(
                    f"{stage_file(plan.folder, order)} is missing, and can't be measured any more: later "
                    f"tasks are learned; remove {plan.folder} to do all of it again"
                )
            stage = self._measure(order, done)
            write_stage(plan.folder, stage)
            done[order] = stage

    # Learning

    def _learn(self, order: int, task: Task) -> None:
        """Train the strategy's next task, and keep it."""
        plan = self.plan
        taken_over = order == 1 and plan.first is not None
        data = self._data(task)
        torch.manual_seed(seed_of(plan.seed, order))
        networks = self._networks(task, plan.first if taken_over else None)
        lesson = Lesson(task.name, networks, plan.config, self._card(task))
        torch.manual_seed(seed_of(plan.seed, order, 1))
        learners = plan.strategy.begin(plan.folder, lesson)
        curve: list[Mapping[str, float]] = []
        reset_peak(self.device)
        started = time.monotonic()
        spent = 0.0
        if not taken_over:
            spent = self._train(task, data, learners, curve)
        seconds = time.monotonic() - started - spent
        training = {
            "steps": 0 if taken_over else task.steps,
            "seconds": 0.0 if taken_over else round(seconds, 1),
            "peak_memory": None if taken_over else peak(self.device),
            "learning_rate": plan.rate(task),
            "curve": curve,
        }
        plan.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._training_file(order), to_json(training))
        plan.strategy.finish(plan.folder, lesson, learners)

    def _train(
        self,
        task: Task,
        data: TaskData,
        learners: Mapping[str, nn.Module],
        curve: list[Mapping[str, float]],
    ) -> float:
        """Train all epochs.

        Returns:
            How many seconds went into judging for the curve.
        """
        options = self.plan.options(task)
        for learner in learners.values():
            learner.to(self.device)
        torch.manual_seed(options.seed)
        trainer = self._trainer(task, options, learners)
        some = task.some_held_out(self.plan.curve_images)
        step, spent = 0, 0.0
        for epoch in range(1, options.epochs + 1):
            for learner in learners.values():
                if isinstance(learner, Learner):
                    learner.begin_epoch(epoch, options.epochs)
            trainer.begin_epoch(epoch)
            batches = data.train.epoch(
                epoch,
                batch_size=options.batch_size * options.accumulate,
                crop=options.image_size,
                flip=options.flip,
                seed=options.seed,
            )
            with closing(batches):
                for first, second in batches:
                    losses, stop = trainer.step(
                        Batch(step, first, second, len(first)), self.should_stop
                    )
                    step += 1
                    if stop:
                        raise Stopped(f"{self.plan.label} stopped while it learned {task.name}")
            self._require_finite(losses.sums, task, self.plan.rate(task))
            began = time.monotonic()
            for learner in learners.values():
                learner.eval()
            generators = [learners[which] for which in (FORWARD, BACKWARD) if which in learners]
            figures = self._judged(self.watcher, task, generators, some, data.partners).figures
            curve.append({"step": step, **{name: f.value for name, f in figures.items()}})
            spent += time.monotonic() - began
            self.say(f"{task.name}: epoch {epoch} of {options.epochs}, {_words(curve[-1])}")
        return spent

    def _trainer(self, task: Task, options: Any, learners: Mapping[str, nn.Module]) -> Trainer:
        networks: dict[str, Any] = dict(learners)
        penalties = {
            which: learner.penalty
            for which, learner in learners.items()
            if isinstance(learner, Learner)
        }
        if options.mode == "paired":
            labels = task.formats[0].labels is not None
            return PairedTrainer(
                networks[FORWARD],
                self.plan.config,
                options,
                self.device,
                labels=labels,
                penalties=penalties,
            )
        return UnpairedTrainer(
            networks[FORWARD],
            networks[BACKWARD],
            self.plan.config,
            options,
            self.device,
            penalties=penalties,
        )

    def _networks(self, task: Task, first: Path | None) -> dict[str, nn.Module]:
        """Where a task's networks start: random weights, or those of the first task's."""
        networks: dict[str, nn.Module] = {}
        for which in self._whiches(task):
            network: nn.Module = build_generator(self.plan.config_of(which))
            if first is not None:
                network = Standalone().generator(first, task.name, which, network)
                network.requires_grad_(True)
            networks[which] = network
        return networks

    def _whiches(self, task: Task) -> tuple[str, ...]:
        return (FORWARD,) if task.options.mode == "paired" else (FORWARD, BACKWARD)

    def _card(self, task: Task) -> dict[str, Any]:
        options = self.plan.options(task)
        return task_card(
            task.folder,
            task.formats,
            options,
            self.plan.config,
            data_name=task.folder.name,
            library_version=version("piggyback-gan"),
            effective_batch=options.batch_size * options.accumulate,
            parameters=None,
            epoch=options.epochs,
            validation=None,
        )

    def _require_finite(self, losses: Mapping[str, torch.Tensor], task: Task, rate: float) -> None:
        for name, loss in losses.items():
            if not loss.isfinite():
                raise Diverged(
                    f"{self.plan.label}, {task.name}: the {name} loss is {loss.item()}; "
                    f"try a lower learning_rate (now {rate:g})"
                )

    # Judging

    def _measure(self, order: int, done: Mapping[int, Stage]) -> Stage:
        """Judge every task so far, from what the strategy keeps on disk."""
        plan = self.plan
        training = json.loads(self._training_file(order).read_text())
        figures: dict[str, Mapping[str, Figure]] = {}
        identical: dict[str, tuple[int, int]] = {}
        warnings: list[str] = []
        for learned, task in enumerate(plan.tasks[:order], 1):
            data = self._data(task)
            assert data.held_out is not None
            generators = [self._generator(task, which) for which in self._whiches(task)]
            save_outputs(
                partial(output_sample, plan.folder, order, task.name),
                *(task, generators[0], data.held_out, plan.samples, self.device),
            )
            if learned == order and plan.pictures is not None:
                save_held_out(
                    partial(held_out_sample, plan.pictures, task.name),
                    *(task, data.held_out, plan.samples),
                    partners=data.partners or task.options.mode == "paired",
                )
            if learned < order:
                # Outputs of the same bits have the same figures.
                bare = self._judged(Judge(), task, generators, data.held_out, data.partners)
                identical[task.name] = self._identical(task, bare.output_hashes)
                if len(set(identical[task.name])) == 1:
                    figures[task.name] = done[learned].figures[task.name]
                    continue
            judge = self._judge_of(task)
            judged = self._judged(judge, task, generators, data.held_out, data.partners)
            if learned == order:
                self._remember(task, judged.output_hashes)
                identical[task.name] = (judged.images, judged.images)
            figures[task.name] = judged.figures
            warnings += [f"{task.name}: {words}" for words in judged.warnings]
            self.say(f"after {plan.tasks[order - 1].name}: {task.name} {_values(judged)}")
        size = plan.strategy.size(plan.folder)
        task = plan.tasks[order - 1]
        networks = self._networks(task, None)
        backward_before = sum(len(self._whiches(t)) > 1 for t in plan.tasks[: order - 1])
        before = {FORWARD: order - 1, BACKWARD: backward_before}
        return Stage(
            strategy=plan.label,
            seed=plan.seed,
            order=order,
            task=task.name,
            learning_rate=training["learning_rate"],
            steps=training["steps"],
            seconds=training["seconds"],
            peak_memory=training["peak_memory"],
            parameters=size.parameters,
            predicted=sum(plan.strategy.predicted(n, before[w]) for w, n in networks.items()),
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

    def _judge_of(self, task: Task) -> Judge:
        """The judge, who recognises nothing where the inputs are no label maps."""
        judge = self.judge
        if judge.recogniser is None or any(format.labels for format in task.formats):
            return judge
        return Judge(judge.features, judge.distance, cache=judge.cache, seed=judge.seed)

    def _judged(
        self,
        judge: Judge,
        task: Task,
        generators: Sequence[nn.Module],
        dataset: Dataset,
        partners: bool,
    ) -> Judgement:
        if isinstance(dataset, PairedDataset):
            return judge.paired(generators[0], dataset, self.device, between=self._stop_if_asked)
        return judge.unpaired(
            (generators[0], generators[1]),
            dataset,
            self.device,
            direction=task.options.direction,
            paired=partners,
            between=self._stop_if_asked,
        )

    def _remember(self, task: Task, hashes: Sequence[str]) -> None:
        """Write down what a task's outputs are when it is learned."""
        atomic_write(self._hashes_file(task), to_json({"sha256": list(hashes)}))

    def _identical(self, task: Task, hashes: Sequence[str]) -> tuple[int, int]:
        """How many outputs are what they were when the task was learned, and of how many."""
        before = json.loads(self._hashes_file(task).read_text())["sha256"]
        return sum(a == b for a, b in zip(before, hashes, strict=True)), len(hashes)

    def _hashes_file(self, task: Task) -> Path:
        return self.plan.folder / f"outputs-{task.name}.json"

    def _data(self, task: Task) -> TaskData:
        """A task's images; they are read once."""
        if task.name not in self._held_out:
            self._held_out[task.name] = task.load()
        return self._held_out[task.name]

    def _training_file(self, order: int) -> Path:
        return self.plan.folder / f"training-{order}.json"

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Stopped(f"{self.plan.label} stopped while it was judged")


class Diverged(PiggybackError):
    """A loss is not finite."""


class Stopped(Exception):
    """A part was asked to stop; it goes on with the task that it was at."""


def _values(judged: Judgement) -> str:
    return _words({name: figure.value for name, figure in judged.figures.items()})


def _words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
