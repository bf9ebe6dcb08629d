"""One part of an experiment: train and evaluate a strategy on all tasks, with one seed."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from piggyback_gan.bank.card import TaskCard
from piggyback_gan.core.free_tasks import Factorized
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.judge import Judge
from piggyback_gan.experiments.results import (
    read_stages,
    read_table,
    stage_file,
    to_json,
    write_stage,
)
from piggyback_gan.experiments.run.examine import Examiner, Say, in_words
from piggyback_gan.experiments.run.memory import peak, reset_peak
from piggyback_gan.experiments.run.plan import PartPlan
from piggyback_gan.experiments.strategies.base import Learner, TaskSpec
from piggyback_gan.experiments.strategies.whole_networks import Standalone
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.files import atomic_write
from piggyback_gan.system.seeding import seed_of
from piggyback_gan.training.callbacks import Callback, Diverged, Interrupted, Position
from piggyback_gan.training.loop import TrainingLoop
from piggyback_gan.training.starts import Start
from piggyback_gan.training.task_card import task_card
from piggyback_gan.training.task_data import TaskData


class Part:
    """A part that runs; finished stages are not repeated.

    Args:
        plan: of the part.
        judge: the evaluator after each task.
        device: to compute on.
        say: called with one line of progress.
        should_stop: called in every step.
    """

    def __init__(
        self,
        plan: PartPlan,
        judge: Judge,
        device: torch.device,
        say: Say,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.examiner = Examiner(plan, judge, device, say, self._stop_if_asked)
        self.device = device
        self.say = say
        self.should_stop = should_stop

    def run(self) -> None:
        """Train and evaluate the tasks that are left.

        Raises:
            PiggybackError: images can't be used, a loss is not finite, the disk is full, or a stage is
                missing though later tasks are learned.
            Stopped: `should_stop` returned True; finished tasks are kept.
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
            stage = self.examiner.examine(order, self._training(order), done)
            write_stage(plan.folder, stage)
            done[order] = stage

    def _learn(self, order: int, task: Task) -> None:
        """Train and store the strategy's next task."""
        plan = self.plan
        taken_over = order == 1 and plan.first is not None
        torch.manual_seed(seed_of(plan.seed, order))
        networks = self._networks(task, plan.first if taken_over else None)
        spec = TaskSpec(task.name, networks, plan.config, partial(self._card, task))
        torch.manual_seed(seed_of(plan.seed, order, 1))
        learners = plan.strategy.begin(plan.folder, spec)
        training: dict[str, Any] = {"steps": 0, "seconds": 0.0, "peak_memory": None}
        training |= {"learning_rate": plan.rate(task), "curve": []}
        if not taken_over:
            # Outside the measured time, which is to compare strategies.
            images = task.load()
            reset_peak(self.device)
            started = time.monotonic()
            spent = self._train(task, images, learners, training["curve"])
            training["seconds"] = round(time.monotonic() - started - spent, 3)
            training["steps"], training["peak_memory"] = task.steps, peak(self.device)
        plan.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._training_file(order), to_json(training))
        plan.strategy.finish(plan.folder, spec, learners)

    def _train(
        self,
        task: Task,
        images: TaskData,
        learners: Mapping[str, nn.Module],
        curve: list[Mapping[str, float]],
    ) -> float:
        """Train all epochs; return the seconds spent on evaluation for the curve."""
        options = self.plan.options(task)
        for learner in learners.values():
            learner.to(self.device)
        generators = [learners[which] for which in task.networks]
        some = task.held_out(self.plan.experiment.curve_images)
        spent = 0.0

        def validate() -> Mapping[str, float]:
            nonlocal spent
            began = time.monotonic()
            metrics = self.examiner.watch(task, generators, some)
            spent += time.monotonic() - began
            return metrics

        networks: dict[str, Any] = dict(learners)
        own = {which: x for which, x in learners.items() if isinstance(x, Learner)}
        loop = TrainingLoop(
            networks,
            self.plan.config,
            options,
            images,
            validate,
            effective_batch=options.batch_size * options.accumulate,
            callbacks=(_Curve(task.name, tuple(own.values()), curve, self.say),),
            should_stop=self.should_stop,
            penalties={which: learner.penalty for which, learner in own.items()},
        )
        try:
            loop.begin()
            loop.run()
        except Interrupted:
            raise Stopped(f"{self.plan.label} stopped while it learned {task.name}") from None
        except Diverged as error:
            raise Diverged(
                f"{self.plan.label}, {task.name}: {error}; try a lower learning_rate (now "
                f"{self.plan.rate(task):g})"
            ) from None
        return spent

    def _networks(self, task: Task, first: Path | None) -> dict[str, nn.Module]:
        """Build a task's networks, with random weights or those of the first task."""
        networks: dict[str, nn.Module] = {}
        for which in task.networks:
            network: nn.Module = build_generator(self.plan.config_of(which))
            if first is not None:
                network = Standalone().generator(first, task.name, which, network)
                network.requires_grad_(True)
            networks[which] = network
        return networks

    def _card(self, task: Task, parameters: ParameterCount) -> TaskCard:
        options = self.plan.options(task)
        return task_card(
            task.folder,
            task.formats,
            options,
            self.plan.config,
            data_name=task.folder.name,
            effective_batch=options.batch_size * options.accumulate,
            parameters=parameters,
            epoch=options.epochs,
            validation=None,
        )

    def _training(self, order: int) -> dict[str, Any]:
        """Read how the task of a stage was trained; raise PiggybackError if the file can't be read."""
        path = self._training_file(order)
        training = read_table(path, f"{path} is damaged")
        if missing := {"steps", "seconds", "peak_memory", "learning_rate", "curve"} - set(training):
            raise PiggybackError(
                f"{path} is damaged: it lacks {', '.join(sorted(missing))}; remove {self.plan.folder} "
                "to do all of it again"
            )
        return training

    def _training_file(self, order: int) -> Path:
        return self.plan.folder / f"training-{order}.json"

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Stopped(f"{self.plan.label} stopped while it was evaluated")


class _Curve(Callback):
    """Records a task's learning curve, and calls the learners before each epoch."""

    def __init__(
        self, task: str, learners: Sequence[Learner], curve: list[Mapping[str, float]], say: Say
    ) -> None:
        self.task = task
        self.learners = learners
        self.curve = curve
        self.say = say

    def epoch_started(self, epoch: int, epochs: int) -> None:
        for learner in self.learners:
            learner.begin_epoch(epoch, epochs)

    def epoch_ended(self, position: Position, records: Sequence[Mapping[str, Any]]) -> None:
        point = {"step": position.step, **records[-1]["validation"]}
        self.curve.append(point)
        self.say(f"{self.task}: epoch {position.epoch} of {position.epochs}, {in_words(point)}")

    def start_chosen(self, generator: str, start: Start) -> None:
        self.say(
            f"{self.task}: {generator} starts from {start.init}, of {len(start.errors)} starts"
        )

    def factorized(self, position: Position, found: Mapping[str, Factorized]) -> None:
        changed = ", ".join(f"{name} changed by {how.change:.3f}" for name, how in found.items())
        self.say(f"{self.task}: factorized after step {position.step}; outputs of {changed}")

    def collapsed(self, position: Position, generator: str) -> None:
        self.say(f"{self.task}: after step {position.step} {generator} has collapsed")


class Stopped(Exception):
    """A part was stopped; it can be continued with the unfinished task."""
