"""Small training runs for tests: options, what to compare, and stops at any moment."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import Program
from piggyback_gan import GeneratorOptions, Interrupted, TrainingOptions, teach
from piggyback_gan.training.callbacks import Callback, Position

GENERATOR = GeneratorOptions(generator="resnet-6", ngf=4)
OPTIONS = TrainingOptions(
    epochs=2, batch_size=2, image_size=16, discriminator_layers=1, ndf=4, samples=1, device="cpu"
)
CONFIG = """
generator = "resnet-6"
ngf = 4
batch_size = 2
image_size = 16
discriminator_layers = 1
ndf = 4
samples = 1
device = "cpu"
"""
SAME_TIME = {"SOURCE_DATE_EPOCH": "1700000000"}


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def bank_files(bank: Path) -> dict[str, bytes]:
    """What a bank is: all but its runs and who writes it."""
    ignored = ("runs/", "bank.lock", "bank.writer.json")
    return {name: content for name, content in files(bank).items() if not name.startswith(ignored)}


def run_folder(bank: Path, task: str) -> Path:
    return bank / "runs" / task


def run_state(bank: Path, task: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((run_folder(bank, task) / "run.json").read_text())
    return content


def records(bank: Path, task: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics file."""
    lines = (run_folder(bank, task) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class Watch(Callback):
    """Counts the moments at which a run may stop, once it trains, and stops it at one of them.

    Each step is such a moment, and each batch of validation.

    Attributes:
        at: the moment to stop at, counted from 1; never if None.
        moments: how many there were.
        step: after which step `stop` ended it.
        resumed_at: where the run went on.
        early: (epoch, best) where patience ended it.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.moments = self.step = 0
        self.resumed_at: Position | None = None
        self.early: tuple[int, int] | None = None

    def asked(self) -> bool:
        """For `should_stop`."""
        self.moments += 1
        return self.at is not None and self.moments >= self.at

    def checked(self, split: str, done: int, total: int) -> None:
        self.moments -= 1  # it is asked after each file that is read, too

    def resumed(self, position: Position, differences: Sequence[str]) -> None:
        self.resumed_at = position

    def stopped_early(self, epoch: int, best: int) -> None:
        self.early = epoch, best


def stop(at: int, *arguments: Any, **more: Any) -> Watch:
    """Train until a moment of `Watch`, counted from 1."""
    watch = Watch(at)
    with pytest.raises(Interrupted) as stopped:
        teach(*arguments, **more, callback=watch, should_stop=watch.asked)
    watch.step = stopped.value.position.step
    return watch


def wait_for(what: Callable[[], bool], runs: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a process has done something; fail if it ends before."""
    deadline = time.monotonic() + seconds
    while not what():
        assert runs() and time.monotonic() < deadline
        time.sleep(0.002)


def start(*arguments: object) -> Program:
    """The command line in a process of its own."""
    return Program(*arguments, environment=SAME_TIME)
