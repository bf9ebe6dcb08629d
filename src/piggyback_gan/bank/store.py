"""The bank's task files: reading, appending, removing and verifying them."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from piggyback_gan.bank.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    TASK_FILE,
    TASKS_FOLDER,
    Manifest,
    TaskEntry,
    check_content,
    now,
    parse_header,
    read_header,
)
from piggyback_gan.core.mixings import mixing_from_card
from piggyback_gan.core.task import Needs, TaskFilters, TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Storage, check_task_name
from piggyback_gan.system.files import atomic_write, require_writable

_TASK_FORMAT = "piggyback-gan task"
_NO_PREVIOUS = "none"
_SHARES = "unconstrained"
_MIXING = "mixing"
_START = "start"
_STORAGE = "storage"
_NEEDS = "needs"
_DAMAGE = (KeyError, ValueError, RecursionError, SafetensorError, msgspec.MsgspecError)
_Shares = dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]]


@dataclass(frozen=True)
class StoredTask:
    """A task as its file has it: its state, its card as JSON, and its states in other networks by name."""

    state: TaskState
    card: Mapping[str, Any]
    others: Mapping[str, TaskState] = field(default_factory=dict)


@dataclass(frozen=True)
class _StoredNeeds:
    """What a task needs: ranges of numbers of earlier tasks, first and last, and the hash of their files' hashes."""

    tasks: list[tuple[int, int]]
    sha256: str
    bank_filters: Annotated[int, msgspec.Meta(ge=0)]


class Store:
    """A bank's files. Architecture and cards are opaque here.

    Args:
        path: the bank's directory.
        manifest: the bank's; read it with `Store.open`, or give one without tasks.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a bank's files.

        Raises:
            PiggybackError: as `Manifest.read`.
        """
        return cls(path, Manifest.read(path))

    def read(self) -> Iterator[StoredTask]:
        """Read all tasks in order, checking each file against the manifest and the chain.

        Raises:
            PiggybackError: a file is missing, damaged, foreign or of a newer version; it is named.
        """
        return map(self.read_task, self.manifest.places)

    def check(self) -> Iterator[tuple[TaskEntry, StoredTask | PiggybackError]]:
        """Read all tasks in order, going on after one that is missing or damaged."""
        for entry in self.manifest.tasks:
            try:
                yield entry, self.read_task(entry.name)
            except PiggybackError as error:
                yield entry, error

    def read_task(self, name: str) -> StoredTask:
        """Read one task, and only its file.

        Raises:
            PiggybackError: the task does not exist, or as `read`.
        """
        entry = self.manifest.entry(name)
        path = self.path / TASKS_FOLDER / entry.file
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise PiggybackError(f"task {name!r}: {path} is missing") from None
        except OSError as error:
            raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
        check_content(entry, content, path)
        try:
            return self._parse(entry, path, content)
        except _DAMAGE as error:
            if isinstance(error, PiggybackError) and str(path) in str(error):
                raise
            raise PiggybackError(f"task {name!r}: {path} is damaged: {error}") from None

    def outlines(self) -> Iterator[StoredTask]:
        """Read all tasks without their tensors, from the files' headers, whose hashes are not checked.

        Raises:
            PiggybackError: a file is missing, or its header is damaged.
        """
        for entry in self.manifest.tasks:
            path = self.path / TASKS_FOLDER / entry.file
            metadata = read_header(path)
            try:
                yield self._stored(entry, metadata, {})
            except _DAMAGE as error:
                raise PiggybackError(f"task {entry.name!r}: {path} is damaged: {error}") from None

    def check_new(self, name: str) -> None:
        """Check that a new task can have this name.

        Raises:
            PiggybackError: it is not a task's name, or the bank has such a task.
        """
        check_task_name(name)
        if name in self.manifest.places:
            raise PiggybackError(
                f"{self.path} has a task {name!r} already: finished tasks never change"
            )

    def append(
        self,
        state: TaskState,
        card: Mapping[str, Any],
        others: Mapping[str, TaskState] | None = None,
    ) -> TaskEntry:
        """Add a finished task. The caller holds the writer's lock. A crash leaves the bank with or without it.

        Args:
            state: the task in the bank's first network.
            card: its card, JSON values only.
            others: its states in other networks of the bank, by their names (lower-case words).

        Raises:
            PiggybackError: the name is taken, the bank changed meanwhile, or it can't be written.
        """
        self.check_new(state.name)
        tasks = self.manifest.tasks
        self._require_unchanged()
        require_writable(self.path / TASKS_FOLDER)
        self.clear_leftovers()
        metadata = {
            "format": _TASK_FORMAT,
            "format_version": str(FORMAT_VERSION),
            "task": state.name,
            "architecture": json.dumps(self.manifest.architecture, sort_keys=True),
            "card": json.dumps(card, sort_keys=True),
            "previous_sha256": self._sha256_before(len(tasks)),
        }
        tensors = dict(state.tensors)
        metadata |= self._state_metadata(state)
        for network, other in (others or {}).items():
            metadata |= {_of(network, k): word for k, word in self._state_metadata(other).items()}
            tensors |= {_of(network, key): tensor for key, tensor in other.tensors.items()}
        metadata["tensors_sha256"] = tensors_sha256(tensors)
        tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
        content = _with_sorted_header(safetensors.torch.save(tensors, metadata))
        entry = TaskEntry(
            name=state.name,
            file=f"{len(tasks) + 1:04d}-{state.name}.safetensors",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            added=now(),
        )
        atomic_write(self.path / TASKS_FOLDER / entry.file, content)
        manifest = replace(self.manifest, tasks=(*tasks, entry))
        try:
            manifest.write(self.path)
        except PiggybackError:
            if not self._is_on_disk(manifest):
                (self.path / TASKS_FOLDER / entry.file).unlink(missing_ok=True)
            raise
        self.manifest = manifest
        return entry

    def remove(self, name: str) -> None:
        """Remove the newest task. The caller holds the writer's lock.

        Raises:
            PiggybackError: the task does not exist, later ones are built on it (they are named), the bank
                changed meanwhile, or it can't be written.
        """
        self.manifest.require_newest(name)
        self._require_unchanged()
        manifest = replace(self.manifest, tasks=self.manifest.tasks[:-1])
        manifest.write(self.path)
        self.manifest = manifest
        self.clear_leftovers()

    def leftovers(self) -> list[Path]:
        """List files in the tasks folder that the manifest does not name."""
        folder = self.path / TASKS_FOLDER
        named = {entry.file for entry in self.manifest.tasks}
        return sorted(path for path in folder.glob("*") if path.name not in named)

    def _require_unchanged(self) -> None:
        """Check that no other process wrote to the bank since this manifest was read."""
        tasks = self.manifest.tasks
        if not tasks and not (self.path / MANIFEST_NAME).exists():
            return
        found = Manifest.read(self.path)
        # A bank without tasks may take another architecture.
        if found.tasks != tasks or (tasks and found.architecture != self.manifest.architecture):
            raise PiggybackError(f"{self.path} was changed by another process: open it again")

    def _is_on_disk(self, manifest: Manifest) -> bool:
        path = self.path / MANIFEST_NAME
        return path.exists() and path.read_bytes() == manifest.render()

    def clear_leftovers(self, keep: Collection[str] = ()) -> None:
        """Remove what a killed writer left, and nothing else. The caller holds the writer's lock.

        Args:
            keep: files in the tasks folder to keep, which are about to become tasks.
        """
        for path in (*self.leftovers(), *self.path.glob(".bank.*.tmp")):
            task_file = TASK_FILE.fullmatch(path.name)
            number = int(task_file[1]) if task_file else 0
            unnamed = number > len(self.manifest.tasks) and path.name not in keep
            temporary = path.name.startswith(".") and path.suffix == ".tmp"
            if (unnamed or temporary) and path.is_file():
                path.unlink(missing_ok=True)

    def _sha256_before(self, place: int) -> str:
        """Return the hash of the file of the task before a place."""
        return self.manifest.tasks[place - 1].sha256 if place else _NO_PREVIOUS

    def _parse(self, entry: TaskEntry, path: Path, content: bytes) -> StoredTask:
        metadata = parse_header(content[8 : 8 + int.from_bytes(content[:8], "little")], path)
        if metadata.get("format") != _TASK_FORMAT or metadata.get("task") != entry.name:
            raise PiggybackError(f"task {entry.name!r}: {path} is not this task's file")
        if int(metadata["format_version"]) > FORMAT_VERSION:
            raise PiggybackError(f"{path} was written by a newer version: update piggyback-gan")
        if json.loads(metadata["architecture"]) != self.manifest.architecture:
            raise PiggybackError(f"task {entry.name!r}: {path} belongs to another architecture")
        if metadata["previous_sha256"] != self._sha256_before(self.manifest.places[entry.name]):
            raise PiggybackError(
                f"task {entry.name!r}: {path} was built on another file of the task before it"
            )
        tensors = safetensors.torch.load(content)
        if tensors_sha256(tensors) != metadata["tensors_sha256"]:
            raise PiggybackError(f"task {entry.name!r}: {path}: its tensors are not those it names")
        return self._stored(entry, metadata, tensors)

    def _stored(
        self, entry: TaskEntry, metadata: Mapping[str, str], tensors: dict[str, Tensor]
    ) -> StoredTask:
        """Build a task from its metadata and the tensors of all networks, which may be left out."""
        others = {}
        for key in sorted(metadata):
            network, _, word = key.rpartition("/")
            if network and word == _SHARES:
                prefix = _of(network, "")
                theirs = [k for k in tensors if k.startswith(prefix)]
                mine = {k.removeprefix(prefix): tensors.pop(k) for k in theirs}
                words = {
                    k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)
                }
                others[network] = self._state(entry.name, words, mine)
        state = self._state(entry.name, metadata, tensors)
        card = msgspec.convert(json.loads(metadata["card"]), dict[str, Any])
        return StoredTask(state, card, others)

    def _state_metadata(self, state: TaskState) -> dict[str, str]:
        """Return a task's state without its tensors, as its file's header has it."""
        assert state.needs is not None
        numbers = [self.manifest.places[name] + 1 for name in state.needs.tasks]
        needs = {
            "tasks": _ranges(numbers),
            "sha256": self._files_sha256(numbers),
            "bank_filters": state.needs.bank_filters,
        }
        return {
            _SHARES: json.dumps(dict(state.filters.shares), sort_keys=True),
            _MIXING: json.dumps(state.filters.mixing.as_card(), sort_keys=True),
            _START: json.dumps(state.filters.start),
            _STORAGE: state.filters.storage,
            _NEEDS: json.dumps(needs, sort_keys=True),
        }

    def _state(
        self, name: str, metadata: Mapping[str, str], tensors: dict[str, Tensor]
    ) -> TaskState:
        """The inverse of `_state_metadata`."""
        start = msgspec.json.decode(metadata[_START], type=str | None)
        places = self.manifest.places
        if start is not None and places.get(start, len(places)) >= places[name]:
            raise PiggybackError(f"it starts from {start!r}, which is not an earlier task")
        return TaskState(
            name=name,
            filters=TaskFilters(
                shares=msgspec.json.decode(metadata[_SHARES], type=_Shares),
                mixing=mixing_from_card(json.loads(metadata[_MIXING])),
                start=start,
                storage=msgspec.convert(metadata[_STORAGE], Storage),
            ),
            tensors=tensors,
            needs=self._needs(name, metadata[_NEEDS]),
        )

    def _needs(self, name: str, text: str) -> Needs:
        """Parse what a task needs; only earlier tasks can be named."""
        words = "what it needs is not given as numbers of earlier tasks"
        try:
            needs = msgspec.json.decode(text, type=_StoredNeeds)
        except msgspec.MsgspecError as error:
            raise PiggybackError(f"{words}: {error}") from None
        ends = [0, *(end for first, last in needs.tasks for end in (first, last + 1))]
        # Ranges do not overlap, so their number is limited by that of the tasks.
        if not all(a < b for a, b in pairwise(ends)) or ends[-1] > self.manifest.places[name] + 1:
            raise PiggybackError(words)
        numbers = [n for first, last in needs.tasks for n in range(first, last + 1)]
        if needs.sha256 != self._files_sha256(numbers):
            raise PiggybackError("it was built on other files of the tasks that it needs")
        return Needs(tuple(self.manifest.tasks[n - 1].name for n in numbers), needs.bank_filters)

    def _files_sha256(self, numbers: Iterable[int]) -> str:
        """Hash the hashes of these tasks' files: the chain covers neighbours only."""
        hashes = "".join(self.manifest.tasks[number - 1].sha256 for number in numbers)
        return hashlib.sha256(hashes.encode()).hexdigest()


def _of(network: str, key: str) -> str:
    """Return a tensor's or key's name in a task's file, for another network."""
    return f"{network}/{key}"


def _ranges(places: Iterable[int]) -> list[list[int]]:
    """Return rising numbers as ranges [first, last]."""
    ranges: list[list[int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return ranges


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values, independent of their order."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its header's keys in order: the library's order is random."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
