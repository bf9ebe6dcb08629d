"""Which tasks a served bank has, read again whenever the bank changes."""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import MANIFEST_NAME, NOTES_NAME, TaskEntry
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import Architecture
from piggyback_gan.networks.generators import build_outline
from piggyback_gan.serve.problems import Problem
from piggyback_gan.share.notes import BankNotes, TaskNotes, parse_notes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """A task in one direction.

    Attributes:
        task: its name.
        sha256: of its file in the bank: what is removed and learned anew is another task.
        direction: "AtoB" or "BtoA".
        input, output: what its images hold.
        config: the architecture of its generator.
    """

    task: str
    sha256: str
    direction: str
    input: ImageFormat = field(compare=False)
    output: ImageFormat = field(compare=False)
    config: Architecture = field(compare=False)


@dataclass(frozen=True)
class ServedTask:
    """A task as the server tells of it.

    Attributes:
        entry: its line in the manifest.
        mode: "paired" or "unpaired".
        image_size: side of the images that it was trained on, in pixels.
        ways: the one that it was trained in first.
        notes: what the bank's owner says of it.
    """

    entry: TaskEntry
    mode: str
    image_size: int
    ways: tuple[Way, ...]
    notes: TaskNotes

    def way(self, direction: str | None) -> Way:
        """The task in a direction; the one that it was trained in if None.

        Raises:
            Problem: it has no such direction.
        """
        for way in self.ways:
            if direction in (None, way.direction):
                return way
        known = [way.direction for way in self.ways]
        raise Problem(
            "invalid-request",
            f"task {self.entry.name!r} does not translate {direction}, but {' and '.join(known)}",
            directions=known,
        )


@dataclass(frozen=True)
class _State:
    """What was found when the bank was as `stamp` says."""

    stamp: tuple[int, ...]
    bank: Bank
    tasks: Mapping[str, ServedTask]


class Catalogue:
    """The tasks of a bank, as they are now.

    A bank changes in the moment in which its manifest is replaced: whoever looked before goes on with
    what was there, whoever looks after sees the new task.
    """

    def __init__(self, path: Path) -> None:
        """Read all tasks.

        Raises:
            PiggybackError: there is no bank, one of its tasks can't be read, or its networks are made by code
                that may not be run.
        """
        self.path = path
        self._state = _read(path, {}, lenient=False)
        build_outline(self.bank.config)  # own code that may not be run, or fails, shows now
        self._unread: tuple[int, ...] | None = None
        self._reading = asyncio.Lock()

    @property
    def bank(self) -> Bank:
        """The bank as it was when it was last looked at."""
        return self._state.bank

    @property
    def tasks(self) -> Mapping[str, ServedTask]:
        """By name, in the order of learning, as they were when they were last looked at."""
        return self._state.tasks

    async def look(self) -> Mapping[str, ServedTask]:
        """The tasks, after a look at whether the bank has changed.

        A bank that can't be read any more is told to the log; the tasks stay those that there were.
        """
        if self._is_new():
            async with self._reading:
                if self._is_new():
                    await asyncio.to_thread(self._read_again)
        return self.tasks

    async def task(self, name: str) -> ServedTask:
        """A task by its name.

        Raises:
            Problem: there is none; the document lists those that there are.
        """
        tasks = await self.look()
        if name not in tasks:
            raise Problem(
                "unknown-task",
                f"the bank has no task of this name; it has {', '.join(tasks) or 'none yet'}",
                tasks=list(tasks),
            )
        return tasks[name]

    def is_there(self) -> bool:
        """Whether the bank can be found on disk."""
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
    """What differs when `bank.json` or `card.toml` was changed; None where there is no bank."""
    try:
        return *_stamp_of(path / MANIFEST_NAME), *_stamp_of(path / NOTES_NAME, optional=True)
    except OSError:
        return None


def _stamp_of(file: Path, *, optional: bool = False) -> tuple[int, ...]:
    try:
        status = os.stat(file)
    except FileNotFoundError:
        if optional:
            return ()
        raise
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path, known: Mapping[str, ServedTask], *, lenient: bool) -> _State:
    """Read a bank's tasks; what is known of those that have not changed is kept.

    Args:
        path: the bank's directory.
        known: what was read earlier.
        lenient: tell the log of tasks that can't be read, and leave them out.
    """
    stamp = _stamp(path) or ()  # before the bank: of a change in between the next look tells
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
    ways = []
    for direction in bank.directions(entry.name):
        source, target = bank.formats(entry.name, direction)
        config = bank.generator_config(entry.name, direction)
        ways.append(Way(entry.name, entry.sha256, direction, source, target, config))
    return ServedTask(entry, card.mode, card.image.size, tuple(ways), notes.of(entry.name))


def _notes(bank: Bank) -> BankNotes:
    """What the bank's `card.toml` says; nothing where there is none, or it can't be read."""
    path = bank.path / NOTES_NAME
    try:
        return parse_notes(path.read_bytes(), path, bank.tasks)
    except FileNotFoundError:
        return BankNotes()
    except (OSError, PiggybackError) as error:
        _log.warning("descriptions and licences are left out: %s", error)
        return BankNotes()
