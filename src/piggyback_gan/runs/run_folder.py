"""The folder of a training run, BANK/runs/TASK: options, state and files. No torch here."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from piggyback_gan.bank.lock import current_writer
from piggyback_gan.bank.manifest import MANIFEST_NAME, RUNS_FOLDER, Manifest, TaskEntry
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import check_task_name
from piggyback_gan.system.files import atomic_write, require_writable
from piggyback_gan.training.callbacks import Position

State = Literal["running", "interrupted", "failed", "finished"]

_FORMAT = "piggyback-gan run"
_FORMAT_VERSION = 1
_RUN, _DATA, _CHECKPOINT, _METRICS = "run.json", "data.json", "checkpoint.pt", "metrics.jsonl"
_CURVES, _SAMPLES, _TENSORBOARD = "curves.png", "samples", "tensorboard"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The content of `run.json`.

    Attributes:
        task: the task's name.
        state: also "running" after the process was killed.
        position: of the last checkpoint.
        data: the folder of images, absolute; it may move.
        data_name: the folder's own name when the run began.
        options, generator: as given, before defaults were filled in.
        resolved: the options with defaults, which a resumed run keeps.
        effective_batch: images in a step, over all processes and accumulated batches.
        bank_tasks: the SHA-256 of the files of all tasks in the bank when it began.
        surroundings: versions, machine and seconds, for information.
        problem: the error that ended a failed run.
    """

    task: str
    state: State
    position: Position
    data: str
    data_name: str
    options: Mapping[str, Any]
    generator: Mapping[str, Any]
    resolved: Mapping[str, Any]
    effective_batch: int
    bank_tasks: Sequence[str]
    surroundings: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


class RunFolder:
    """The files of one task's training. Raises PiggybackError if the task's name is not valid."""

    def __init__(self, bank: Path, task: str) -> None:
        check_task_name(task)
        self.bank = bank
        self.task = task
        self.path = bank / RUNS_FOLDER / task
        self.metrics = self.path / _METRICS
        self.curves = self.path / _CURVES
        self.checkpoint = self.path / _CHECKPOINT
        self.tensorboard = self.path / _TENSORBOARD
        self._missing = f"{bank} has no run of {task!r} (pbgan runs {bank})"

    def sample(self, epoch: int) -> Path:
        """The sample picture of an epoch."""
        return self.path / _SAMPLES / f"epoch-{epoch:04d}.png"

    def newest_sample(self) -> Path | None:
        """The sample picture of the last epoch that has one."""
        found = self.path.glob(f"{_SAMPLES}/epoch-*[0-9].png")
        return max(found, key=lambda path: (len(path.name), path.name), default=None)

    @property
    def exists(self) -> bool:
        """Whether there is a run."""
        return (self.path / _RUN).exists()

    def begin(self, run: Run, fingerprint: Mapping[str, str]) -> None:
        """Create the folder, replacing that of an earlier run of the same task.

        Raises:
            PiggybackError: it holds something else, or can't be written.
        """
        if self.path.exists() and not self.exists and not self._is_empty():
            raise PiggybackError(f"{self.path} is not the folder of a run: move it away")
        require_writable(self.path)
        self._clear()
        self.write(run)  # first: this file marks the folder as a run's
        require_writable(self.path / _SAMPLES)
        atomic_write(self.path / _DATA, (json.dumps(fingerprint, indent=0) + "\n").encode())

    def write(self, run: Run) -> None:
        """Replace `run.json` atomically."""
        content = {"format": _FORMAT, "format_version": _FORMAT_VERSION, **asdict(run)}
        atomic_write(self.path / _RUN, (json.dumps(content, indent=1) + "\n").encode())

    def write_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.jsonl` atomically, a line for each epoch. No times: equal runs, equal files."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        atomic_write(self.metrics, lines.encode())

    def read(self) -> Run:
        """Read `run.json`.

        Raises:
            PiggybackError: the run does not exist, or the file is damaged or from a newer version.
        """
        path = self.path / _RUN
        content = _read_json(path, self._missing)
        if content.get("format") != _FORMAT:
            raise PiggybackError(f"{path} is damaged or not a run's")
        if content.get("format_version") != _FORMAT_VERSION:
            found = content.get("format_version")
            raise PiggybackError(
                f"{path} is of format {found}, this version knows {_FORMAT_VERSION}"
            )
        try:
            run = msgspec.convert(content, Run)
            if other := (asdict(run).keys() | {"format", "format_version"}) ^ content.keys():
                raise ValueError(f"unknown or missing keys: {', '.join(sorted(other))}")
        except ValueError as error:
            raise PiggybackError(f"{path} is damaged: {error}") from None
        return run

    def read_fingerprint(self) -> dict[str, str] | None:
        """Read the hashes of the data's files; None if the run was killed before it wrote them.

        Raises:
            PiggybackError: it is damaged.
        """
        path = self.path / _DATA
        if not path.exists():
            return None
        return {str(k): str(v) for k, v in _read_json(path, f"{path} is missing").items()}

    def later_tasks(self, run: Run) -> list[str]:
        """The tasks that were added to the bank since the run began, which prevent resuming it.

        Raises:
            PiggybackError: the bank is damaged.
        """
        return [entry.name for entry in self.bank_entries() if entry.sha256 not in run.bank_tasks]

    def bank_entries(self) -> tuple[TaskEntry, ...]:
        """The bank's tasks; empty if the bank does not exist yet.

        Raises:
            PiggybackError: the bank is damaged.
        """
        begun = (self.bank / MANIFEST_NAME).exists()
        return Manifest.read(self.bank).tasks if begun else ()

    def is_running(self) -> bool:
        """Whether a process is training it now."""
        writer = current_writer(self.bank)
        return writer is not None and writer.get("purpose") == training_purpose(self.task)

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint and temporary files."""
        self._remove(_CHECKPOINT)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed processes. The caller holds the writer lock."""
        self._remove(".*.tmp", f"{_SAMPLES}/.*.tmp")

    def discard(self) -> None:
        """Remove the run's files, and no others in its folder. The caller holds the writer lock.

        Raises:
            PiggybackError: the run does not exist, or can't be removed.
        """
        if not self.exists:
            raise PiggybackError(self._missing)
        try:
            self._clear()
            self._remove(_RUN)
        except OSError as error:
            raise PiggybackError(f"{self.path} can't be removed: {error.strerror}") from None
        for folder in (self.path / _SAMPLES, self.path, self.path.parent):
            with suppress(OSError):
                folder.rmdir()

    def _is_empty(self) -> bool:
        """Whether the folder has nothing but temporary files of a killed process."""
        return self.path.is_dir() and all(
            path.name.startswith(".") and path.suffix == ".tmp" for path in self.path.iterdir()
        )

    def _clear(self) -> None:
        self._remove(_DATA, _METRICS, _CURVES)
        self.remove_checkpoint()
        self._remove(f"{_SAMPLES}/epoch-*[0-9].png", f"{_TENSORBOARD}/events.out.tfevents.*")
        with suppress(OSError):  # it does not exist, or has other files
            self.tensorboard.rmdir()

    def _remove(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)


def training_purpose(task: str) -> str:
    """The purpose of a writer lock held for training."""
    return f"train {task}"


def list_runs(bank: Path) -> list[RunFolder]:
    """List the runs of a bank, by name.

    Raises:
        PiggybackError: the folder can't be read.
    """
    folder = bank / RUNS_FOLDER
    if not bank.is_dir():
        raise PiggybackError(f"{bank}: no such folder")
    if not folder.is_dir():
        return []
    try:
        names = sorted(path.name for path in folder.iterdir() if (path / _RUN).is_file())
    except OSError as error:
        raise PiggybackError(f"{folder} can't be read: {error.strerror}") from None
    found = []
    for name in names:
        with suppress(PiggybackError):
            found.append(RunFolder(bank, name))
    return found


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PiggybackError(missing) from None
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise PiggybackError(f"{path} is damaged: it is not a valid JSON object")
    return content
