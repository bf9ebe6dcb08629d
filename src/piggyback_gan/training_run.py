"""One training run: epochs, validation, checkpoints, and the finished task's way into the bank."""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from torch import Tensor

from piggyback_gan.bank import BACKWARD, FORWARD
from piggyback_gan.checkpoints import load_checkpoint, save_checkpoint
from piggyback_gan.curves import plot_curves
from piggyback_gan.data import PairedDataset, UnpairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation import Evaluation, evaluate, evaluate_unpaired
from piggyback_gan.folders import PairedFolder, changes, fingerprint
from piggyback_gan.image_encoding import encode
from piggyback_gan.image_reading import Source
from piggyback_gan.manifest import TaskEntry, atomic_write
from piggyback_gan.metrics import HIGHER_IS_BETTER
from piggyback_gan.planning import TaskPlan
from piggyback_gan.processes import Processes
from piggyback_gan.reporting import REPORT_EVERY, Interrupted, Reporter
from piggyback_gan.runs import Position, Run, RunFolder, State
from piggyback_gan.samples import sample_grid
from piggyback_gan.tensorboard_log import TensorBoardLog
from piggyback_gan.trainer import Batch, Losses, PairedTrainer, Trainer
from piggyback_gan.unpaired_trainer import UnpairedTrainer

Dataset = PairedDataset | UnpairedDataset
_Loaded = TypeVar("_Loaded")


@dataclass
class Progress:
    """What a run has done, beside the trainer's state: what its checkpoint adds to that.

    Attributes:
        epoch: the one that is trained, counted from 1; one more than there are when all are done.
        batch: how many steps of it are done.
        sums: its losses so far, summed over images.
        seen: how many images they are of.
        records: a line of the metrics file for each epoch that is done.
        best: the epoch that is kept, its record, and the networks' values at its end.
    """

    epoch: int = 1
    batch: int = 0
    sums: dict[str, Tensor] | None = None
    seen: int = 0
    records: list[dict[str, Any]] | None = None
    best: dict[str, Any] | None = None


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
        epoch = min(self.progress.epoch, self.options.epochs)
        return Position(epoch, self.options.epochs, done, self.plan.steps)

    def run(self, *, resume: bool) -> TaskEntry:
        """Train from the beginning or the checkpoint to the end, and add the task to the bank.

        Raises:
            PiggybackError: as `teaching.teach`.
            Interrupted: training was stopped; the checkpoint is up to date.
        """
        self.reporter.planned(self.plan)
        hashes = self._fingerprint()
        before = self.folder.read_fingerprint() if resume else None
        if before is not None and (changed := changes(before, hashes)):
            raise PiggybackError(
                f"the data in {self.plan.folder.root} is not what {self.plan.task!r} was begun with: "
                f"{changed}"
            )
        train, held_out, shown = self._load_all()
        if before is None and self.team.is_first:
            self.folder.begin(self._state("running"), hashes)
        state: State = "failed"
        problem = None
        try:
            entry = self._train(train, held_out, shown, resume=resume)
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

    def _train(
        self, train: Dataset, held_out: Dataset | None, shown: Dataset, *, resume: bool
    ) -> TaskEntry:
        """Train all epochs that are left and add the task to the bank."""
        torch.manual_seed(
            self.options.seed
        )  # the networks have their start; this is the discriminators'
        trainer = self._trainer()
        if resume:
            self._load_checkpoint(trainer)
        self._open_log()
        while self.progress.epoch <= self.options.epochs and not self._out_of_patience():
            self._epoch(trainer, train, held_out, shown)
        if best := self.progress.best:
            for name, network in self.plan.networks.items():
                network.module.load_state_dict(best["networks"][name])
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
        return self.plan.bank.add(states[FORWARD], self._card(), states.get(BACKWARD))

    # Epochs

    def _epoch(
        self, trainer: Trainer, train: Dataset, held_out: Dataset | None, shown: Dataset
    ) -> None:
        """Train what is left of the current epoch, validate, and save a checkpoint."""
        progress = self.progress
        trainer.begin_epoch(progress.epoch)
        batches = train.epoch(
            progress.epoch,
            batch_size=self.plan.effective_batch,
            crop=self.options.image_size,
            flip=self.options.flip,
            seed=self.options.seed,
            start=progress.batch,
            part=(self.team.rank, self.team.world),
        )
        with closing(batches):
            for first, second in batches:
                begun = progress.batch * self.plan.effective_batch
                total = min(self.plan.effective_batch, len(train) - begun)
                batch = Batch(self.position.step, first, second, total)
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
            means = {n: v / progress.seen for n, v in self._finite(progress.sums or {}).items()}
            for network in self.plan.networks.values():
                network.eval()
            try:
                validation = None if held_out is None else self._validate(held_out)
            except Interrupted:
                stopped = True
            else:
                self._record(means, trainer.learning_rate(), validation)
                self._save_samples(shown)
        metrics, stopped = self.team.from_first((validation and validation.metrics, stopped))
        if stopped:
            self._save_checkpoint(trainer)
            raise Interrupted(self.position)
        self._keep_best(metrics, validation)
        self._advance()
        self._save_checkpoint(trainer)

    def _count(self, losses: Losses) -> None:
        progress = self.progress
        sums = progress.sums = progress.sums or {}
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
        names = self.team.from_first(sorted(progress.sums or {}))
        flat = torch.zeros(len(names) + 1, dtype=torch.float64, device=self.device)
        for index, name in enumerate(names):
            flat[index] = (progress.sums or {}).get(name, flat.new_zeros(()))
        flat[-1] = progress.seen
        flat = self.team.sum_all(flat)
        if not self.team.is_first:
            flat = torch.zeros_like(flat)
        progress.sums = dict(zip(names, flat[:-1], strict=True))
        progress.seen = int(flat[-1])

    def _advance(self) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums, progress.seen = None, 0

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

    def _validate(self, held_out: Dataset) -> Evaluation:
        found = self._evaluate(held_out)
        for name, value in found.metrics.items():
            if math.isnan(value):  # the losses are of the weights before the last step
                raise self._diverged(f"{name} of held-out images", value)
        return found

    def _evaluate(self, held_out: Dataset) -> Evaluation:
        networks = tuple(self.plan.networks.values())
        if isinstance(held_out, PairedDataset):
            return evaluate(networks[0], held_out, self.device, between=self._stop_if_asked)
        folder = self.plan.folder
        paired = not isinstance(folder, PairedFolder) and bool(folder.paired_held_out)
        return evaluate_unpaired(
            (networks[0], networks[1]),
            held_out,
            self.device,
            direction=self.options.direction,
            paired=paired,
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
        records = self.progress.records = [*(self.progress.records or []), record]
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

    def _keep_best(
        self, metrics: Mapping[str, float] | None, validation: Evaluation | None
    ) -> None:
        name = self.options.keep_best
        if name is None or metrics is None:
            return
        value = metrics[name] * (1 if name.split("_")[0] in HIGHER_IS_BETTER else -1)
        if self.progress.best is None or value > self.progress.best["value"]:
            self.progress.best = {
                "epoch": self.progress.epoch,
                "value": value,
                "images": validation.images if validation else 0,
                "metrics": dict(metrics),
                "networks": {
                    which: {k: t.clone() for k, t in network.module.state_dict().items()}
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

    def _trainer(self) -> Trainer:
        networks = {n: network.to(self.device) for n, network in self.plan.networks.items()}
        config = self.plan.config
        if self.options.mode == "paired":
            return PairedTrainer(
                networks[FORWARD],
                config,
                self.options,
                self.device,
                self.team,
                labels=self.plan.formats[0].labels,
            )
        return UnpairedTrainer(
            networks[FORWARD], networks[BACKWARD], config, self.options, self.device, self.team
        )

    def _fingerprint(self) -> dict[str, str]:
        folder = self.plan.folder

        def on_progress(done: int) -> None:
            self.reporter.checked("files", done, len(folder.paths))
            self._stop_if_asked()

        return fingerprint(folder.paths, root=folder.root, on_progress=on_progress)

    def _load_all(self) -> tuple[Dataset, Dataset | None, Dataset]:
        """Training images, held-out ones, and those that are shown; what can't be used is named at once."""
        folder, options = self.plan.folder, self.options
        assert options.load_size is not None
        name = folder.held_out_name or "held-out"
        splits: list[Callable[[], Dataset]]
        if isinstance(folder, PairedFolder):
            splits = [
                lambda: self._paired("train", folder.train, options.load_size or 0),
                lambda: self._paired(name, folder.held_out, options.image_size),
                lambda: self._paired(
                    "samples", folder.train[: options.samples], options.image_size
                ),
            ]
        else:
            out_a, out_b = folder.held_out_a, folder.held_out_b
            if folder.paired_held_out:
                sources = [pair.sources for pair in folder.paired_held_out]
                out_a, out_b = (tuple(side) for side in zip(*sources, strict=True))
            some = slice(options.samples)
            a, b = folder.train_a, folder.train_b
            splits = [
                lambda: self._unpaired("train", a, b, options.load_size or 0),
                lambda: self._unpaired(name, out_a, out_b, options.image_size),
                lambda: self._unpaired("samples", a[some], b[some], options.image_size),
            ]
        train, held_out = _all_or_faults(splits[:2])
        return (
            train,
            held_out if len(held_out) else None,
            held_out if len(held_out) else splits[2](),
        )

    def _paired(self, split: str, pairs: Sequence[Any], size: int) -> PairedDataset:
        return PairedDataset(
            pairs,
            direction=self.options.direction,
            formats=self.plan.formats,
            size=size,
            on_progress=self._progress_of(split, len(pairs)),
        )

    def _unpaired(
        self, split: str, a: Sequence[Source], b: Sequence[Source], size: int
    ) -> UnpairedDataset:
        first, second = (a, b) if self.options.direction == "AtoB" else (b, a)
        return UnpairedDataset(
            first,
            second,
            formats=self.plan.formats,
            size=size,
            on_progress=self._progress_of(split, len(a) + len(b)),
        )

    def _progress_of(self, split: str, total: int) -> Callable[[int], None]:
        def on_progress(done: int) -> None:
            self.reporter.checked(split, done, total)
            self._stop_if_asked()

        return on_progress

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
        content = load_checkpoint(self.folder.checkpoint)
        if content is None:
            return
        norms = (self.plan.config.norm, self.options.discriminator_norm)
        if "batch" in norms and content["world"] != self.team.world:
            raise PiggybackError(
                f"this run was begun by {content['world']} processes, and batch norm's statistics are of "
                f"a process's share of a batch: resume it with as many, not {self.team.world}"
            )
        trainer.load_state(content["trainer"])
        self.progress = progress = Progress(**content["progress"])
        if progress.sums is not None:
            progress.sums = {n: v.to(self.device) for n, v in progress.sums.items()}
        if not self.team.is_first:
            progress.sums, progress.seen = None, 0
        if self.team.is_first:
            # A killed process may have written a line more than its checkpoint knows of.
            self.folder.write_metrics(self.progress.records or [])
        self.reporter.resumed(self.position)

    def _state(self, state: State, problem: str | None = None) -> Run:
        surroundings = {
            "library": self.library_version,
            "torch": torch.__version__,
            "processes": self.team.world,
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "machine": platform.machine(),
            "seconds": round(time.monotonic() - self.started, 1),
        }
        return replace(
            self.begun,
            state=state,
            position=self.position,
            surroundings=surroundings,
            problem=problem,
        )

    def _end(self, state: State, problem: str | None) -> None:
        if self.log:
            self.log.close()
        if self.team.is_first and self.folder.exists:
            self.folder.write(self._state(state, problem))
            if state == "finished":
                self.folder.remove_checkpoint()

    def _card(self) -> dict[str, Any]:
        """What describes the task in its file. No times or places: equal runs give equal files."""
        plan = self.plan
        first, second = plan.formats
        last = (self.progress.records or [{}])[-1]
        kept: Mapping[str, Any] = self.progress.best or {
            "epoch": last["epoch"],
            "metrics": last["validation"],
        }
        folder = plan.folder
        if isinstance(folder, PairedFolder):
            counts = {"train_pairs": len(folder.train), "held_out_pairs": len(folder.held_out)}
        else:
            counts = {
                "train_a": len(folder.train_a),
                "train_b": len(folder.train_b),
                "held_out_a": len(folder.held_out_a),
                "held_out_b": len(folder.held_out_b),
            }
        return {
            "library_version": self.library_version,
            "mode": self.options.mode,
            "data": {"name": folder.name, "layout": folder.layout, **counts},
            "image": {
                "size": self.options.image_size,
                "size_multiple": plan.config.size_multiple,
                "input": asdict(first),
                "output": asdict(second),
                "tensor_range": [-1, 1],
            },
            "options": asdict(self.options),
            "effective_batch": plan.effective_batch,
            "epoch": kept["epoch"],
            "parameters": {
                **asdict(plan.parameters),
                "total": plan.parameters.total,
                "share": plan.parameters.share,
            },
            "validation": kept["metrics"],
        }


def _all_or_faults(loaders: Sequence[Callable[[], _Loaded]]) -> list[_Loaded]:
    """Load all, and name what can't be used in any of them at once."""
    loaded, faults = [], []
    for load in loaders:
        try:
            loaded.append(load())
        except PiggybackError as error:
            faults.append(str(error))
    if faults:
        raise PiggybackError("; ".join(faults))
    return loaded
