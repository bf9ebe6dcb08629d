"""The training loop of one task, paired or unpaired, in one or several processes. Writes nothing to disk."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from piggyback_gan.core.free_tasks import Factorized
from piggyback_gan.core.output_fits import NotFinite
from piggyback_gan.core.private_tensors import load_module_state, module_state
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.banked import BankedGenerators
from piggyback_gan.training.callbacks import REPORT_EVERY, Callback, Diverged, Interrupted, Position
from piggyback_gan.training.collapse import IMAGES, has_collapsed
from piggyback_gan.training.filter_selection import select_filters
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.task_data import TaskData
from piggyback_gan.training.trainer import Batch, Losses, Penalty, TrainableNetwork, Trainer
from piggyback_gan.training.unpaired import UnpairedTrainer

Validate = Callable[[], Mapping[str, float] | None]


@dataclass
class Progress:
    """What a loop has done, besides the trainer's state.

    Attributes:
        epoch: the current epoch, counted from 1; `epochs + 1` after the last one.
        batch: steps done in this epoch.
        sums: losses of this epoch so far, summed over images.
        seen: images in `sums`.
        records: one for each epoch that is done, as for `Callback.epoch_ended`.
        best: the epoch that is kept, its metrics, and the networks' values at its end.
        collapsed: generators that made the same image of all inputs at the end of the last epoch.
    """

    epoch: int = 1
    batch: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seen: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    collapsed: list[str] = field(default_factory=list)


class TrainingLoop:
    """Trains a task's generators: filter selection, epochs, validation, early stopping.

    Call `begin` or `resume`, then `run`. Processes that train together each run the same loop.

    Args:
        generators: "forward", and for an unpaired task "backward", each with a task in training and on
            the options' device.
        config: the architecture of the task's forward generator.
        options: resolved.
        data: the task's images.
        validate: returns metrics on held-out images, None where nothing is held out. Called after each
            epoch, with the generators in eval mode; of several processes, by the first.
        effective_batch: images in a step, over all processes and accumulated batches.
        team: the processes that train together.
        callbacks: called in this order, by the first process.
        should_stop: called in every step; training stops after a step in which it returns True.
        penalties: additional losses, by the name of the generator.
    """

    def __init__(
        self,
        generators: Mapping[str, TrainableNetwork],
        config: Architecture,
        options: TrainingOptions,
        data: TaskData,
        validate: Validate,
        *,
        effective_batch: int,
        team: Processes | None = None,
        callbacks: Sequence[Callback] = (),
        should_stop: Callable[[], bool] = lambda: False,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        self.generators = generators
        self.config = config
        self.options = options
        self.data = data
        self.validate = validate
        self.effective_batch = effective_batch
        self.epoch_steps = -(-len(data.train) // effective_batch)
        self.team = team or Processes()
        self.callbacks = callbacks if self.team.is_first else ()
        self.should_stop = should_stop
        self.penalties = penalties
        self.device = torch.device(options.device)
        self.progress = Progress()
        self.banked = BankedGenerators(generators, data, options, self.team)
        self.trainer: Trainer

    @property
    def position(self) -> Position:
        """The newest step. Between two epochs, the epoch is the one that is done."""
        progress, epochs = self.progress, self.options.epochs
        step = (progress.epoch - 1) * self.epoch_steps + progress.batch
        epoch = max(1, progress.epoch - (progress.batch == 0))
        return Position(epoch, epochs, step, epochs * self.epoch_steps)

    def begin(self) -> None:
        """Choose starts and select filters where the options ask for it, and build discriminators and optimizers.

        Raises:
            Interrupted: stopped while a start was chosen or filters were selected.
        """
        torch.manual_seed(self.options.seed)
        with torch.random.fork_rng(devices=[]):
            for name, start in self.banked.choose_starts(self.stop_if_asked).items():
                for callback in self.callbacks:
                    callback.start_chosen(name, start)
            self._select_filters()
        self.trainer = self._build_trainer(self.options)

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on besides data and options: tensors and plain values."""
        return {
            "trainer": self.trainer.state(),
            "progress": vars(self.progress),
            "banked": self.banked.decided,
            "world": self.team.world,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`; the first process's serves all of them.

        Raises:
            PiggybackError: the number of processes differs, and there are batch norm statistics.
        """
        world = state.get("world")
        if world != self.team.world and self._has_batch_norm():
            raise PiggybackError(
                f"this run was begun by {world} processes, and batch norm's statistics are of "
                f"a process's share of a batch: resume it with as many, not {self.team.world}"
            )
        torch.manual_seed(self.options.seed)
        self.progress = Progress(**state["progress"])
        self.banked.restore(state["banked"], state["trainer"]["generators"])
        self.trainer = self._build_trainer(self.options)
        self.trainer.load_state(state["trainer"])
        sums = self.progress.sums if self.team.is_first else {}
        self.progress.sums = {name: total.to(self.device) for name, total in sums.items()}
        if not self.team.is_first:
            self.progress.seen = 0

    def run(self) -> None:
        """Train all epochs that are left. The generators end with the weights that are to be kept.

        Raises:
            Diverged: a loss or metric is not finite.
            Interrupted: `should_stop` returned True.
        """
        for callback in self.callbacks:
            callback.started(self.position)
        while self.progress.epoch <= self.options.epochs and not self._out_of_patience():
            self._epoch()
        if best := self.progress.best:
            for name, generator in self.generators.items():
                load_module_state(generator.module, best["networks"][name])

    def stop_if_asked(self) -> None:
        """Raise Interrupted if `should_stop` returns True."""
        if self.should_stop():
            raise Interrupted(self.position)

    def _build_trainer(self, options: TrainingOptions) -> Trainer:
        forward, common = self.generators[FORWARD], (self.config, options, self.device, self.team)
        if options.mode == "paired":
            labels = self.data.train.formats[0].labels
            return PairedTrainer(forward, *common, labels=labels, penalties=self.penalties)
        backward = self.generators[BACKWARD]
        return UnpairedTrainer(forward, backward, *common, penalties=self.penalties)

    def _has_batch_norm(self) -> bool:
        modules = (m for generator in self.generators.values() for m in generator.module.modules())
        in_generators = any(isinstance(module, _BatchNorm) for module in modules)
        return in_generators or self.options.discriminator_norm == "batch"

    def _factorize_at(self, step: int) -> None:
        """Before this step, pull filters of generators that are trained free to the bank, or factorize, if it is time to."""
        steps = self.options.epochs * self.epoch_steps
        due = self.banked.due(step, steps)
        if not due:
            if pulls := self.banked.pulls(step, steps):
                self.banked.pull(pulls)
            return
        if self.banked.promises_quality:
            # Held-out images take long: a stop among them loses no step.
            self._collect()
            self._checkpoint()
        found: dict[str, Factorized] = {}
        self.trainer.replace_generators(
            lambda: found.update(self.banked.factorize(due, self._measure)), self.banked.rates(due)
        )
        for callback in self.callbacks:
            callback.factorized(self.position, found)

    def _measure(self) -> Mapping[str, float]:
        """Metrics of held-out images in the middle of an epoch, in this process."""
        for generator in self.generators.values():
            generator.train(False)
        metrics = self._validated()
        for generator in self.generators.values():
            generator.train()
        assert metrics is not None, "where a quality is asked for, images are held out"
        return metrics

    def _select_filters(self) -> None:
        """Choose the bank filters to mix by the gradients of steps with learning rate 0."""
        networks = list(self.banked.networks.values())
        if not any(network.selects_filters for network in networks):
            return
        still = replace(self.options, learning_rate=0.0, backward_learning_rate=0.0)
        probe = self._build_trainer(still)
        probe.begin_epoch(self.epoch_steps)
        with closing(self._batches()) as batches:
            if not select_filters(networks, probe, batches, self.should_stop, self.team):
                raise Interrupted(self.position)

    # An epoch

    def _epoch(self) -> None:
        """Train the rest of the current epoch, and validate."""
        progress = self.progress
        for callback in self.callbacks:
            callback.epoch_started(progress.epoch, self.options.epochs)
        self.trainer.begin_epoch(self.epoch_steps)
        with closing(self._batches()) as batches:
            for batch in batches:
                try:
                    self._factorize_at(batch.step)
                except NotFinite as error:
                    raise self._diverged(f"output of layer {error.layer}", math.nan) from None
                losses, stop = self.trainer.step(batch, self.should_stop)
                self._count(losses)
                self._report(losses)
                if stop:
                    self._collect()
                    self._interrupt()
        self._collect()
        metrics, stopped, collapsed = None, False, False
        if self.team.is_first:
            means = {n: v / progress.seen for n, v in self._finite(progress.sums).items()}
            for generator in self.generators.values():
                generator.train(False)
            try:
                metrics = self._validated()
            except Interrupted:
                stopped = True
            else:
                collapsed = self._look_for_collapse()
                self._record(means, metrics)
        metrics, stopped, collapsed = self.team.from_first((metrics, stopped, collapsed))
        if stopped:
            self._interrupt()
        if not collapsed:
            self._keep_best(metrics)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums, progress.seen = {}, 0
        self._checkpoint()

    def _batches(self) -> Generator[Batch, None, None]:
        """This process's share of the batches that are left in the current epoch."""
        progress, size, count = self.progress, self.effective_batch, len(self.data.train)
        batches = self.data.train.epoch(
            progress.epoch,
            batch_size=size,
            crop=self.options.image_size,
            flip=self.options.flip,
            seed=self.options.seed,
            start=progress.batch,
            part=(self.team.rank, self.team.world),
        )
        done = (progress.epoch - 1) * self.epoch_steps
        with closing(batches):
            for index, (first, second) in enumerate(batches, progress.batch):
                yield Batch(done + index, first, second, min(size, count - index * size))

    def _count(self, losses: Losses) -> None:
        progress, sums = self.progress, self.progress.sums
        # Exact sums do not depend on how they are split over processes and interruptions.
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        for name, value in losses.sums.items():
            value = value.to(exact)
            sums[name] = sums[name] + value if name in sums else value
        progress.seen += losses.images
        progress.batch += 1

    def _collect(self) -> None:
        """Sum the epoch's losses over the processes, into the first one's."""
        if self.team.world == 1:
            return
        progress = self.progress
        names = self.team.from_first(sorted(progress.sums))
        flat = torch.zeros(len(names) + 1, dtype=torch.float64, device=self.device)
        for index, name in enumerate(names):
            flat[index] = progress.sums.get(name, flat.new_zeros(()))
        flat[-1] = progress.seen
        flat = self.team.sum_all(flat)
        if not self.team.is_first:
            flat = torch.zeros_like(flat)
        progress.sums = dict(zip(names, flat[:-1], strict=True))
        progress.seen = int(flat[-1])

    def _report(self, losses: Losses) -> None:
        position = self.position
        if not losses.images or not self.team.is_first:
            return
        if position.step == 1 or position.step % REPORT_EVERY == 0:
            means = {name: v / losses.images for name, v in self._finite(losses.sums).items()}
            for callback in self.callbacks:
                callback.stepped(position, means)

    def _finite(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} loss", value)
        return values

    def _validated(self) -> Mapping[str, float] | None:
        metrics = self.validate()
        for name, value in (metrics or {}).items():
            if math.isnan(value):  # the losses are of the weights before the last step
                raise self._diverged(f"{name} of held-out images", value)
        return metrics

    def _look_for_collapse(self) -> bool:
        """Whether a generator makes the same image of all inputs; said when it begins."""
        inputs, targets = (batches[0] for batches in self.data.some(self.options, IMAGES))
        sides = {FORWARD: (inputs, targets), BACKWARD: (targets, inputs)}
        now = [n for n, g in self.generators.items() if has_collapsed(g, *sides[n])]
        for name in set(now) - set(self.progress.collapsed):
            for callback in self.callbacks:
                callback.collapsed(self.position, name)
        self.progress.collapsed = now
        return bool(now)

    def _diverged(self, what: str, value: float) -> Diverged:
        position = self.position
        return Diverged(f"the {what} is {value} in epoch {position.epoch}, step {position.step}")

    def _record(self, losses: Mapping[str, float], metrics: Mapping[str, float] | None) -> None:
        record = {
            "epoch": self.progress.epoch,
            "step": self.position.step,
            "learning_rate": self.trainer.learning_rate(),
            "loss": losses,
            "validation": metrics,
        }
        self.progress.records.append(record)
        for callback in self.callbacks:
            callback.epoch_ended(self.position, self.progress.records)

    def _keep_best(self, metrics: Mapping[str, float] | None) -> None:
        name = self.options.keep_best
        if name is None or metrics is None or self.banked.is_free:
            return  # a free network is no task of the bank yet
        value = metrics[name] * (1 if higher_is_better(name) else -1)
        if self.progress.best is None or value > self.progress.best["value"]:
            self.progress.best = {
                "epoch": self.progress.epoch,
                "value": value,
                "metrics": dict(metrics),
                "networks": {
                    which: {k: t.clone() for k, t in module_state(generator.module).items()}
                    for which, generator in self.generators.items()
                },
            }

    def _out_of_patience(self) -> bool:
        best, patience, done = self.progress.best, self.options.patience, self.progress.epoch - 1
        if best is None or patience is None or done - best["epoch"] < patience:
            return False
        for callback in self.callbacks:
            callback.stopped_early(done, best["epoch"])
        return True

    def _interrupt(self) -> None:
        self._checkpoint()
        raise Interrupted(self.position)

    def _checkpoint(self) -> None:
        for callback in self.callbacks:
            callback.checkpoint(self.position, self.state())
