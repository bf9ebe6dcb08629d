"""One training run: epochs, validation, checkpoints, and the finished task's way into the bank."""

import math
import platform
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.private_tensors import load_module_state, module_state
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.fingerprint import changes, fingerprint
from piggyback_gan.data.loading import Dataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import Evaluation, evaluate, evaluate_unpaired
from piggyback_gan.images.encode import encode
from piggyback_gan.names import BACKWARD, FORWARD, HIGHER_IS_BETTER
from piggyback_gan.runs.checkpoint import load_checkpoint, save_checkpoint
from piggyback_gan.runs.curves import plot_curves
from piggyback_gan.runs.run_folder import Run, RunFolder, State
from piggyback_gan.runs.samples import sample_grid
from piggyback_gan.runs.tensorboard import TensorBoardLog
from piggyback_gan.system.distributed import Processes
from piggyback_gan.system.files import atomic_write
from piggyback_gan.training.callbacks import REPORT_EVERY, Interrupted, Position, Reporter
from piggyback_gan.training.filter_selection import select_filters
from piggyback_gan.training.loop import Progress
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.plan import TaskPlan
from piggyback_gan.training.task_card import task_card
from piggyback_gan.training.task_data import TaskData, load_task_data
from piggyback_gan.training.trainer import Batch, Losses, Trainer
from piggyback_gan.training.unpaired import UnpairedTrainer


class TrainingRun:
    """The training of one planned task. In the first process, with the bank's lock held.

    Args:
        plan: the task.
        begun: what the run's folder is to say, or says, of how it began.
        team: the processes that train together.
        reporter: who is told how it goes.
        should_stop: asked in every step.
    """

    def __init__(
        self,
        plan: TaskPlan,
        begun: Run,
        team: Processes,
        reporter: Reporter,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.options = plan.options
        self.begun = begun
        self.team = team
        self.reporter = reporter if team.is_first else Reporter()
        self.should_stop = should_stop
        self.device = torch.device(plan.options.device)
        self.folder = RunFolder(plan.bank.path, plan.task)
        self.progress = Progress()
        self.started = time.monotonic()
        self.library_version = version("piggyback-gan")
        self.log: TensorBoardLog | None = None

    @property
    def position(self) -> Position:
        """Where the run stands."""
        done = (self.progress.epoch - 1) * self.plan.epoch_steps + self.progress.batch
        # Between two epochs it stands at the end of the one that is done.
        epoch = max(1, self.progress.epoch - (self.progress.batch == 0))
        return Position(epoch, self.options.epochs, done, self.plan.steps)

    def run(self, *, resume: bool) -> TaskEntry:
        """Train from the beginning or the checkpoint to the end, and add the task to the bank.

        Raises:
            PiggybackError: as `teaching.teach`.
            Interrupted: training was stopped; the checkpoint is up to date.
        """
        self.reporter.planned(self.plan)
        folder = self.plan.folder
        hashes = fingerprint(
            folder.paths,
            root=folder.root,
            on_progress=lambda done: self._checked("files", done, len(folder.paths)),
        )
        before = self.folder.read_fingerprint() if resume else None
        if before is None and resume and self.folder.checkpoint.exists():
            raise PiggybackError(
                f"{self.folder.path} is damaged: it has a checkpoint, but no word of the data"
            )
        if before is not None and (changed := changes(before, hashes)):
            raise PiggybackError(
                f"the data in {folder.root} is not what {self.plan.task!r} was begun with: "
                f"{changed}"
            )
        data = load_task_data(folder, self.plan.formats, self.options, self._checked)
        if before is None and self.team.is_first:
            self.folder.begin(self._state("running"), hashes)
        state: State = "failed"
        problem = None
        try:
            entry = self._train(data, resume=resume)
            state = "finished"
        except Interrupted:
            state = "interrupted"
            raise
        except PiggybackError as error:
            problem = str(error)
            raise
        except BaseException as error:
            problem = type(error).__name__
            raise
        finally:
            # What ended the run is worth more than a note of it that can't be written.
            with suppress(PiggybackError):
                self._end(state, problem)
        return entry

    def _train(self, data: TaskData, *, resume: bool) -> TaskEntry:
        """Train all epochs that are left and add the task to the bank."""
        # The networks have their start already; this is for the discriminators.
        torch.manual_seed(self.options.seed)
        if any(network.selects_filters for network in self.plan.networks.values()) and not (
            resume and self.folder.checkpoint.exists()
        ):
            self._select_filters(data)
        trainer = self._trainer(self.options)
        if resume:
            self._load_checkpoint(trainer)
            # None may run ahead, to the end and away with the checkpoint, before all have it.
            self.team.from_first(None)
        self._open_log()
        while self.progress.epoch <= self.options.epochs and not self._out_of_patience():
            self._epoch(trainer, data)
        if best := self.progress.best:
            for name, network in self.plan.networks.items():
                load_module_state(network.module, best["networks"][name])
        for network in self.plan.networks.values():
            network.finish_task()
        entry: TaskEntry | None = None
        if self.team.is_first:
            entry = self._add_to_bank()
        entry = self.team.from_first(entry)
        assert entry is not None
        return entry

    def _add_to_bank(self) -> TaskEntry:
        states = {
            n: network.task_state(self.plan.task) for n, network in self.plan.networks.items()
        }
        last = self.progress.records[-1]
        kept = self.progress.best or {"epoch": last["epoch"], "metrics": last["validation"]}
        name = self.begun.data_name
        card = task_card(
            self.plan.folder,
            self.plan.formats,
            self.options,
            self.plan.config,
            data_name=name,
            library_version=self.library_version,
            effective_batch=self.plan.effective_batch,
            parameters=self.plan.parameters,
            epoch=kept["epoch"],
            validation=kept["metrics"],
        )
        return self.plan.bank.add(states[FORWARD], card.to_json(), states.get(BACKWARD))

    def _select_filters(self, data: TaskData) -> None:
        """Choose what is mixed from by steps at a rate of 0."""
        with torch.random.fork_rng(devices=[]):
            still = replace(self.options, learning_rate=0.0, backward_learning_rate=0.0)
            probe = self._trainer(still)
            with closing(self._batches(data)) as batches:
                chosen = select_filters(
                    self.plan.networks,
                    probe,
                    self.plan.epoch_steps,
                    batches,
                    self.should_stop,
                    self.team,
                )
        if not chosen:
            raise Interrupted(self.position)

    # Epochs

    def _epoch(self, trainer: Trainer, data: TaskData) -> None:
        """Train what is left of the current epoch, validate, and save a checkpoint."""
        progress = self.progress
        trainer.begin_epoch(self.plan.epoch_steps)
        with closing(self._batches(data)) as batches:
            for batch in batches:
                losses, stop = trainer.step(batch, self.should_stop)
                self._count(losses)
                if self.position.step % REPORT_EVERY == 0 or self.position.step == 1:
                    self._report(losses)
                if stop:
                    self._collect()
                    self._save_checkpoint(trainer)
                    raise Interrupted(self.position)
        self._collect()
        validation, stopped = None, False
        if self.team.is_first:
            means = {n: v / progress.seen for n, v in self._finite(progress.sums).items()}
            for network in self.plan.networks.values():
                network.eval()
            try:
                validation = None if data.held_out is None else self._validate(data)
            except Interrupted:
                stopped = True
            else:
                self._record(means, trainer.learning_rate(), validation)
                self._save_samples(data.shown)
        metrics, stopped = self.team.from_first((validation and validation.metrics, stopped))
        if stopped:
            self._save_checkpoint(trainer)
            raise Interrupted(self.position)
        self._keep_best(metrics)
        self._advance()
        self._save_checkpoint(trainer)

    def _batches(self, data: TaskData) -> Generator[Batch, None, None]:
        """What is left of the current epoch: this process's part."""
        progress, whole = self.progress, self.plan.effective_batch
        batches = data.train.epoch(
            progress.epoch,
            batch_size=whole,
            crop=self.options.image_size,
            flip=self.options.flip,
            seed=self.options.seed,
            start=progress.batch,
            part=(self.team.rank, self.team.world),
        )
        done = (progress.epoch - 1) * self.plan.epoch_steps
        with closing(batches):
            for index, (first, second) in enumerate(batches, progress.batch):
                total = min(whole, len(data.train) - index * whole)
                yield Batch(done + index, first, second, total)

    def _count(self, losses: Losses) -> None:
        progress = self.progress
        sums = progress.sums
        # Sums that are exact do not depend on how they are split over processes and interruptions.
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

    def _advance(self) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums, progress.seen = {}, 0

    def _report(self, losses: Losses) -> None:
        if losses.images and self.team.is_first:
            means = {name: v / losses.images for name, v in self._finite(losses.sums).items()}
            self.reporter.stepped(self.position, means)
            if self.log:
                self.log.losses(self.position.step, means)

    def _finite(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} loss", value)
        return values

    def _diverged(self, what: str, value: float) -> PiggybackError:
        return PiggybackError(
            f"the {what} is {value} in epoch {self.position.epoch}, step {self.position.step}: the bank "
            f"is unchanged; try a lower --learning-rate (now {self.options.learning_rate})"
        )

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Interrupted(self.position)

    def _validate(self, data: TaskData) -> Evaluation:
        found = self._evaluate(data)
        for name, value in found.metrics.items():
            if math.isnan(value):  # the losses are of the weights before the last step
                raise self._diverged(f"{name} of held-out images", value)
        return found

    def _evaluate(self, data: TaskData) -> Evaluation:
        networks, held_out = self.plan.networks, data.held_out
        if isinstance(held_out, PairedDataset):
            return evaluate(networks[FORWARD], held_out, self.device, between=self._stop_if_asked)
        assert held_out is not None
        return evaluate_unpaired(
            (networks[FORWARD], networks[BACKWARD]),
            held_out,
            self.device,
            direction=self.options.direction,
            paired=data.partners,
            between=self._stop_if_asked,
        )

    def _record(
        self, losses: Mapping[str, float], learning_rate: float, validation: Evaluation | None
    ) -> None:
        """Add the epoch to the metrics file and redraw the curves."""
        metrics = validation.metrics if validation else None
        record = {
            "epoch": self.progress.epoch,
            "step": self.position.step,
            "learning_rate": learning_rate,
            "loss": dict(losses),
            "validation": metrics,
        }
        records = self.progress.records
        records.append(record)
        self.folder.write_metrics(records)
        plot_curves(records, self.folder.curves)
        if self.log and metrics:
            self.log.validation(self.position.step, metrics)
        self.reporter.validated(self.position, metrics)

    def _save_samples(self, dataset: Dataset) -> None:
        networks = tuple(self.plan.networks.values())
        picture = sample_grid(networks, dataset, self.options.samples, self.device)
        atomic_write(self.folder.sample(self.progress.epoch), encode(picture, ".png"))
        if self.log:
            self.log.samples(self.position.step, picture)
            self.log.flush()

    def _keep_best(self, metrics: Mapping[str, float] | None) -> None:
        name = self.options.keep_best
        if name is None or metrics is None:
            return
        value = metrics[name] * (1 if name.split("_")[0] in HIGHER_IS_BETTER else -1)
        if self.progress.best is None or value > self.progress.best["value"]:
            self.progress.best = {
                "epoch": self.progress.epoch,
                "value": value,
                "metrics": dict(metrics),
                "networks": {
                    which: {k: t.clone() for k, t in module_state(network.module).items()}
                    for which, network in self.plan.networks.items()
                },
            }

    def _out_of_patience(self) -> bool:
        best, patience = self.progress.best, self.options.patience
        if best is None or patience is None or self.progress.epoch - 1 - best["epoch"] < patience:
            return False
        self.reporter.stopped_early(self.progress.epoch - 1, best["epoch"])
        return True

    # Beginning and end

    def _trainer(self, options: TrainingOptions) -> Trainer:
        networks = {n: network.to(self.device) for n, network in self.plan.networks.items()}
        config = self.plan.config
        if options.mode == "paired":
            return PairedTrainer(
                networks[FORWARD],
                config,
                options,
                self.device,
                self.team,
                labels=self.plan.formats[0].labels,
            )
        return UnpairedTrainer(
            networks[FORWARD], networks[BACKWARD], config, options, self.device, self.team
        )

    def _checked(self, split: str, done: int, total: int) -> None:
        self.reporter.checked(split, done, total)
        self._stop_if_asked()

    def _open_log(self) -> None:
        if self.options.log == "tensorboard" and self.team.is_first:
            step = self.position.step
            self.log = TensorBoardLog(self.folder.tensorboard, purge_step=step + 1 if step else 0)

    def _save_checkpoint(self, trainer: Trainer) -> None:
        """Write all that the next step depends on; the first process's file serves all of them."""
        if not self.team.is_first:
            return
        content = {
            "trainer": trainer.state(),
            "progress": vars(self.progress),
            "world": self.team.world,
        }
        save_checkpoint(self.folder.checkpoint, content)
        self.folder.write(self._state("running"))

    def _load_checkpoint(self, trainer: Trainer) -> None:
        if self.team.is_first:
            self.folder.remove_leftovers()
        content = load_checkpoint(self.folder.checkpoint)
        if content is None:
            return
        modules = (m for network in self.plan.networks.values() for m in network.modules())
        has_batch_norm = any(isinstance(module, _BatchNorm) for module in modules)
        has_batch_norm |= self.options.discriminator_norm == "batch"
        world = content.get("world")
        if has_batch_norm and world != self.team.world:
            raise PiggybackError(
                f"this run was begun by {world} processes, and batch norm's statistics are of "
                f"a process's share of a batch: resume it with as many, not {self.team.world}"
            )
        try:
            trainer.load_state(content["trainer"])
            self.progress = progress = Progress(**content["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise PiggybackError(
                f"{self.folder.checkpoint} does not fit this run, or another version wrote it ({why}): "
                f"discard it (pbgan runs {self.plan.bank.path} --discard {self.plan.task})"
            ) from None
        progress.sums = {n: v.to(self.device) for n, v in progress.sums.items()}
        if self.team.is_first:
            # A killed process may have written a line more than its checkpoint knows of.
            self.folder.write_metrics(progress.records)
        else:
            progress.sums, progress.seen = {}, 0
        self.reporter.resumed(self.position, self._differences())

    def _surroundings(self) -> dict[str, Any]:
        """What equal bytes depend on beside data and options."""
        return {
            "library": self.library_version,
            "torch": torch.__version__,
            "processes": self.team.world,
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "machine": platform.machine(),
        }

    def _differences(self) -> list[str]:
        """What is otherwise than when the run began."""
        before = self.begun.surroundings
        now = self._surroundings()
        return [f"{n} was {before[n]}, is {now[n]}" for n in now if before.get(n, now[n]) != now[n]]

    def _state(self, state: State, problem: str | None = None) -> Run:
        seconds = round(time.monotonic() - self.started, 1)
        return replace(
            self.begun,
            state=state,
            position=self.position,
            surroundings={**self._surroundings(), "seconds": seconds},
            problem=problem,
        )

    def _end(self, state: State, problem: str | None) -> None:
        if self.log:
            self.log.close()
        if self.team.is_first and self.folder.exists:
            self.folder.write(self._state(state, problem))
            if state == "finished":
                self.folder.remove_checkpoint()
