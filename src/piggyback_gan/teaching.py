"""Teaching a bank one paired task: the run from the data's folder to the finished task in the bank."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piggyback_gan.bank import open_or_new
from piggyback_gan.config import GeneratorConfig
from piggyback_gan.data import Pair, PairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation import Evaluation, evaluate
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.images import display, encode, grid, to_pixels
from piggyback_gan.manifest import TaskEntry, atomic_write, require_writable
from piggyback_gan.options import GeneratorOptions, TrainingOptions
from piggyback_gan.planning import TaskPlan, plan_task
from piggyback_gan.trainer import PairedTrainer

REPORT_EVERY = 10


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` of `steps` in all, in `epoch` of `epochs`, both counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int


class Interrupted(Exception):
    """Training was stopped from outside; the bank is as it was."""

    def __init__(self, position: Position) -> None:
        super().__init__(
            f"stopped in epoch {position.epoch} of {position.epochs}, "
            f"after step {position.step} of {position.steps}"
        )
        self.position = position


class Reporter:
    """Who is told how a run goes. This one listens and says nothing; others override what they tell."""

    def planned(self, plan: TaskPlan) -> None:
        """Everything is checked but the images."""

    def checked(self, split: str, done: int, total: int) -> None:
        """So many pairs of a split were decoded."""

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        """Every `REPORT_EVERY` steps, with the losses of the last one."""

    def validated(self, position: Position, metrics: Mapping[str, float] | None) -> None:
        """At the end of each epoch; None where nothing is held out."""


def run_folder(bank: Path, task: str) -> Path:
    """Where the run of a task keeps metrics and samples: beside the bank, which holds tasks only.

    Raises:
        PiggybackError: the bank is the root folder.
    """
    resolved = bank.resolve()
    if not resolved.name:
        raise PiggybackError(f"{bank} can't be a bank: it has no name")
    return resolved.with_name(resolved.name + ".runs") / task


def teach(
    bank_path: str | Path,
    task: str,
    data: str | Path,
    options: TrainingOptions | None = None,
    generator: GeneratorOptions | None = None,
    *,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TaskEntry:
    """Train a paired task and add it to a bank, which is made if it is not there.

    The task enters the bank only when it is finished: whatever happens before, the bank is as it was.
    Metrics, sample pictures and the run's state go to `run_folder(bank_path, task)`.

    Args:
        bank_path: the bank's directory.
        task: the new task's name.
        data: a folder of pairs (`data.find_pairs`).
        options: how to train.
        generator: the architecture, for a new bank.
        reporter: who is told how it goes.
        should_stop: asked after every step.

    Returns:
        The bank's entry of the new task.

    Raises:
        PiggybackError: anything that makes training impossible, or a loss that is not finite.
        Interrupted: `should_stop` said so.
    """
    bank_path, task_data = Path(bank_path), Path(data)
    options, generator = options or TrainingOptions(), generator or GeneratorOptions()
    # Refuses a folder of other things before the lock is put into it.
    bank = open_or_new(bank_path, generator.for_new_bank(options.image_size))
    with bank.writing(f"train {task}"):
        plan = plan_task(bank_path, task, task_data, options, generator)
        return _Run(plan, reporter or Reporter(), should_stop).run()


def _formats(config: GeneratorConfig) -> tuple[ImageFormat, ImageFormat]:
    return ImageFormat(channels=config.input_channels), ImageFormat(channels=config.output_channels)


class _Run:
    """One training run, with the bank's lock held."""

    def __init__(self, plan: TaskPlan, reporter: Reporter, should_stop: Callable[[], bool]) -> None:
        self.plan = plan
        self.reporter = reporter
        self.should_stop = should_stop
        self.device = torch.device(plan.options.device)
        self.folder = run_folder(plan.bank.path, plan.task)
        self.position = Position(1, plan.options.epochs, 0, plan.steps)
        self.started = time.monotonic()
        self.library_version = version("piggyback-gan")

    def run(self) -> TaskEntry:
        plan, options = self.plan, self.plan.options
        self.reporter.planned(plan)
        assert options.load_size is not None
        train, held_out = self._load_all(
            ("train", plan.folder.train, options.load_size),
            (plan.folder.held_out_name or "held-out", plan.folder.held_out, options.image_size),
        )
        shown = held_out or self._load(
            "train", plan.folder.train[: options.samples], options.image_size
        )
        self._begin()
        try:
            entry = self._train(train, held_out, shown)
        except BaseException as error:
            # What ended the run is worth more than a note of it that can't be written.
            with suppress(PiggybackError):
                self._save_state("interrupted" if isinstance(error, Interrupted) else "failed")
            raise
        with suppress(PiggybackError):
            self._save_state("finished")
        return entry

    def _train(
        self, train: PairedDataset, held_out: PairedDataset, shown: PairedDataset
    ) -> TaskEntry:
        """Train all epochs and add the task to the bank."""
        plan = self.plan
        # The network has its start already; this is for the discriminator, and for dropout.
        torch.manual_seed(plan.options.seed)
        network = plan.network.to(self.device)
        trainer = PairedTrainer(network, plan.config, plan.options, self.device)
        for epoch in range(1, plan.options.epochs + 1):
            losses = self._epoch(trainer, train, epoch)
            validation = self._validate(held_out) if held_out else None
            self._record(losses, trainer.learning_rate(), validation)
            self._save_samples(shown)
            trainer.end_epoch()
        plan.network.finish_task()
        return plan.bank.add(plan.network.task_state(plan.task), self._card(validation))

    def _load_all(self, *splits: tuple[str, Sequence[Pair], int]) -> list[PairedDataset]:
        """Load all splits, and name what can't be used in any of them at once."""
        datasets, faults = [], []
        for split in splits:
            try:
                datasets.append(self._load(*split))
            except PiggybackError as error:
                faults.append(str(error))
        if faults:
            raise PiggybackError("; ".join(faults))
        return datasets

    def _load(self, split: str, pairs: Sequence[Pair], size: int) -> PairedDataset:
        config = self.plan.config

        def on_progress(done: int) -> None:
            self.reporter.checked(split, done, len(pairs))
            self._stop_if_asked()

        return PairedDataset(
            pairs,
            direction=self.plan.options.direction,
            formats=_formats(config),
            size=size,
            on_progress=on_progress,
        )

    def _begin(self) -> None:
        """Make the run's folder, in place of that of an earlier try at the same task."""
        strangers = self.folder.exists() and not (self.folder / "run.json").exists()
        if strangers and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise PiggybackError(f"{self.folder} is no run's folder: move it away")
        require_writable(self.folder / "samples")
        for old in (self.folder / "metrics.jsonl", *self.folder.glob("samples/epoch-*.png")):
            old.unlink(missing_ok=True)
        self._save_state("running")

    def _epoch(self, trainer: PairedTrainer, train: PairedDataset, epoch: int) -> dict[str, float]:
        """Train one epoch and return its mean losses."""
        options = self.plan.options
        self.plan.network.train()
        batches = train.epoch(
            epoch,
            batch_size=options.batch_size,
            crop=options.image_size,
            flip=options.flip,
            seed=options.seed,
        )
        sums: dict[str, Tensor] = {}
        seen = 0
        with closing(batches):
            for inputs, targets in batches:
                losses = trainer.step(inputs, targets)
                seen += len(inputs)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, torch.zeros_like(loss)) + loss * len(inputs)
                self.position = replace(self.position, epoch=epoch, step=self.position.step + 1)
                if self.position.step % REPORT_EVERY == 0 or self.position.step == 1:
                    self.reporter.stepped(self.position, self._finite(losses))
                self._stop_if_asked()
        return {name: loss / seen for name, loss in self._finite(sums).items()}

    def _finite(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise PiggybackError(
                    f"the {name} loss is {value} in epoch {self.position.epoch}, step "
                    f"{self.position.step}: the bank is unchanged; try a lower --learning-rate "
                    f"(now {self.plan.options.learning_rate})"
                )
        return values

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Interrupted(self.position)

    def _validate(self, held_out: PairedDataset) -> Evaluation:
        self.plan.network.eval()
        return evaluate(self.plan.network, held_out, self.device, between=self._stop_if_asked)

    def _record(
        self, losses: Mapping[str, float], learning_rate: float, validation: Evaluation | None
    ) -> None:
        """Append the epoch's line to metrics.jsonl. No times in it: equal runs give equal files."""
        metrics = validation.metrics if validation else None
        record = {
            "epoch": self.position.epoch,
            "step": self.position.step,
            "learning_rate": learning_rate,
            "loss": dict(losses),
            "validation": metrics,
        }
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise PiggybackError(f"{path} can't be written: {error.strerror}") from None
        self.reporter.validated(self.position, metrics)

    def _save_samples(self, dataset: PairedDataset) -> None:
        """One picture: a row for each of the first images, input | output | target."""
        self.plan.network.eval()
        pairs = [dataset.pair(i) for i in range(min(self.plan.options.samples, len(dataset)))]
        inputs, targets = (torch.stack(images) for images in zip(*pairs, strict=True))
        with torch.inference_mode():
            outputs = self.plan.network(inputs.to(self.device))
        source, target = _formats(self.plan.config)
        rows = [
            [
                display(to_pixels(image, f), f)
                for image, f in zip(row, (source, target, target), strict=True)
            ]
            for row in zip(inputs, outputs, targets, strict=True)
        ]
        path = self.folder / "samples" / f"epoch-{self.position.epoch:04d}.png"
        atomic_write(path, encode(grid(rows), ".png"))

    def _save_state(self, state: str) -> None:
        content = {
            "task": self.plan.task,
            "state": state,
            "position": asdict(self.position),
            "seconds": round(time.monotonic() - self.started, 1),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        atomic_write(self.folder / "run.json", (json.dumps(content, indent=1) + "\n").encode())

    def _card(self, validation: Evaluation | None) -> dict[str, Any]:
        """What describes the task in its file. No times or places: equal runs give equal files."""
        plan, config = self.plan, self.plan.config
        return {
            "library_version": self.library_version,
            "mode": "paired",
            "data": {
                "name": plan.folder.name,
                "layout": plan.folder.layout,
                "train_pairs": len(plan.folder.train),
                "held_out_pairs": len(plan.folder.held_out),
            },
            "image": {
                "size": plan.options.image_size,
                "size_multiple": config.size_multiple,
                "input_channels": config.input_channels,
                "output_channels": config.output_channels,
                "file_range": [0, 255],
                "tensor_range": [-1, 1],
            },
            "options": asdict(plan.options),
            "parameters": {
                **asdict(plan.parameters),
                "total": plan.parameters.total,
                "share": plan.parameters.share,
            },
            "validation": validation and {"images": validation.images, **validation.metrics},
        }
