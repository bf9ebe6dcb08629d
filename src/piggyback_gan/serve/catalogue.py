"""The tasks of a served bank, read again whenever the bank changes."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import MANIFEST_NAME, NOTES_NAME, TaskEntry
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import best_suffix
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import Direction
from piggyback_gan.networks.config import Architecture
from piggyback_gan.networks.generators import build_outline
from piggyback_gan.serve.problems import Problem
from piggyback_gan.share.notes import BankNotes, TaskNotes, parse_notes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedDirection:
    """A task in one direction: the hash of its file, its image formats and its generator's architecture.

    A task that was removed and learned again has another hash, and is a different one.
    """

    task: str
    sha256: str
    direction: Direction
    input: ImageFormat = field(compare=False)
    output: ImageFormat = field(compare=False)
    config: Architecture = field(compare=False)

    @property
    def output_format(self) -> str:
        """The file format of outputs by default: "png" or "tif"."""
        return best_suffix(self.output).removeprefix(".")


@dataclass(frozen=True)
class ServedTask:
    """A task as the server describes it; the trained one of its directions comes first."""

    entry: TaskEntry
    mode: str
    image_size: int
    directions: tuple[ServedDirection, ...]
    notes: TaskNotes

    def find(self, direction: str | None) -> ServedDirection:
        """Return a direction of the task; None is the trained one.

        Raises:
            Problem: the task does not have this direction.
        """
        for served in self.directions:
            if direction in (None, served.direction):
                return served
        known = [served.direction for served in self.directions]
        raise Problem(
            "invalid-request",
            f"task {self.entry.name!r} does not translate {direction}: choose {' or '.join(known)}",
            directions=known,
        )


@dataclass(frozen=True)
class _State:
    """A bank as it was read, and the stamp of its files then."""

    stamp: tuple[int, ...]
    bank: Bank
    tasks: Mapping[str, ServedTask]


class Catalogue:
    """The current tasks of a bank.

    A bank changes atomically, when its manifest is replaced: requests that looked before keep the old tasks,
    later ones see the new task.
    """

    def __init__(self, path: Path) -> None:
        """Read all tasks.

        Raises:
            PiggybackError: the path is not a bank, a task can't be read, or the networks need custom code
                that is not allowed.
        """
        self.path = path
        self._state = _read(path, {}, lenient=False)
        build_outline(self.bank.config)  # fails now if custom code is not allowed or broken
        self._unread: tuple[int, ...] | None = None
        self._reading = asyncio.Lock()

    @property
    def bank(self) -> Bank:
        """The bank as of the last look."""
        return self._state.bank

    @property
    def tasks(self) -> Mapping[str, ServedTask]:
        """Tasks by name in the order of learning, as of the last look."""
        return self._state.tasks

    async def look(self) -> Mapping[str, ServedTask]:
        """Return the tasks, read again if the bank has changed.

        If the bank can't be read any more, this is logged and the tasks stay as they were.
        """
        if self._is_new():
            async with self._reading:
                if self._is_new():
                    await asyncio.to_thread(self._read_again)
        return self.tasks

    async def task(self, name: str) -> ServedTask:
        """Return a task by its name.

        Raises:
            Problem: it does not exist; the document lists the tasks that do.
        """
        tasks = await self.look()
        if name not in tasks:
            raise Problem(
                "unknown-task",
                f"the bank has no task of this name: its tasks are {', '.join(tasks) or 'none yet'}",
                tasks=list(tasks),
            )
        return tasks[name]

    def is_there(self) -> bool:
        """Whether the bank exists on disk."""
        return _stamp(self.path) is not None

    def _is_new(self) -> bool:
        stamp = _stamp(self.path)
        return stamp is not None and stamp not in (self._state.stamp, self._unread)

    def _read_again(self) -> None:
        stamp = _stamp(self.path)
        try:
            self._state = _read(self.path, self.tasks, lenient=True)
        except PiggybackError as error:
            _log.error("the bank changed and can't be read, its tasks stay as they were: %s", error)
            self._unread = stamp  # not again until it changes


def _stamp(path: Path) -> tuple[int, ...] | None:
    """A value that changes with `bank.json` or `card.toml`; None if the bank does not exist."""
    try:
        files = [os.stat(path / MANIFEST_NAME)]
        with contextlib.suppress(FileNotFoundError):
            files.append(os.stat(path / NOTES_NAME))
    except OSError:
        return None
    return tuple(n for file in files for n in (file.st_ino, file.st_mtime_ns, file.st_size))


def _read(path: Path, known: Mapping[str, ServedTask], *, lenient: bool) -> _State:
    """Read a bank's tasks, reusing known ones that have not changed; lenient: leave out what can't be read."""
    stamp = _stamp(path) or ()  # before the bank, so that the next look finds a change in between
    bank = Bank.open(path)
    notes = _notes(bank)
    tasks: dict[str, ServedTask] = {}
    for entry in bank.entries:
        earlier = known.get(entry.name)
        if earlier is not None and earlier.entry == entry:
            tasks[entry.name] = replace(earlier, notes=notes.of(entry.name))
            continue
        try:
            tasks[entry.name] = _served(bank, entry, notes)
        except PiggybackError as error:
            if not lenient:
                raise
            _log.error("task %r is left out: %s", entry.name, error)
    return _State(stamp, bank, tasks)


def _served(bank: Bank, entry: TaskEntry, notes: BankNotes) -> ServedTask:
    card = bank.card(entry.name)
    directions = []
    for direction in bank.directions(entry.name):
        source, target = bank.formats(entry.name, direction)
        config = bank.generator_config(entry.name, direction)
        directions.append(
            ServedDirection(entry.name, entry.sha256, direction, source, target, config)
        )
    return ServedTask(entry, card.mode, card.image.size, tuple(directions), notes.of(entry.name))


def _notes(bank: Bank) -> BankNotes:
    """Read the bank's `card.toml`; empty notes if it is missing or can't be read."""
    path = bank.path / NOTES_NAME
    try:
        return parse_notes(path.read_bytes(), path, bank.tasks)
    except FileNotFoundError:
        return BankNotes()
    except (OSError, PiggybackError) as error:
        _log.warning("descriptions and licences are left out: %s", error)
        return BankNotes()
