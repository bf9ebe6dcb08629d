"""The bank's directory without its tensors: the manifest, task files' headers, atomic writing.

A bank is a directory::

    bank.json                     the manifest: architecture and tasks in order, each with its file's SHA-256
    tasks/0001-<name>.safetensors what the first task added: shares, options and tensors
    tasks/0002-<name>.safetensors what the second added, and the SHA-256 of the first one's file
    runs/<name>/                  how a task's training goes or went; no part of what the bank is
    card.toml, README.md, samples/  what its owner says of it, and what `push` writes for its readers

Nothing here imports torch, so that listing a bank is instant.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import msgspec

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.files import atomic_write

FORMAT = "piggyback-gan bank"
FORMAT_VERSION = 1
MANIFEST_NAME = "bank.json"
TASKS_FOLDER = "tasks"
RUNS_FOLDER = "runs"
NOTES_NAME = "card.toml"
README_NAME = "README.md"
SAMPLES_FOLDER = "samples"
TASK_FILE = re.compile(r"([0-9]{4,})-([a-z0-9][a-z0-9._-]{0,63})\.safetensors")


@dataclass(frozen=True)
class TaskEntry:
    """One task in the manifest: `file` in the tasks folder, its size in `bytes`, `added` in UTC."""

    name: str
    file: str
    sha256: str
    bytes: int
    added: str


@dataclass(frozen=True)
class Manifest:
    """What `bank.json` says: the architecture, as its makers' words, and the tasks in order."""

    architecture: Mapping[str, Any]
    tasks: tuple[TaskEntry, ...] = ()

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Task name -> how many tasks came before it."""
        return {entry.name: place for place, entry in enumerate(self.tasks)}

    def entry(self, name: str) -> TaskEntry:
        """The entry of a task.

        Raises:
            PiggybackError: there is no such task; the message lists those there are.
        """
        if name in self.places:
            return self.tasks[self.places[name]]
        known = ", ".join(entry.name for entry in self.tasks) or "none yet"
        raise PiggybackError(f"the bank has no task {name!r}; tasks: {known}")

    def require_newest(self, name: str) -> None:
        """Only the newest task can be removed.

        Raises:
            PiggybackError: there is no such task, or later ones are built on it; they are named.
        """
        later = self.tasks[self.tasks.index(self.entry(name)) + 1 :]
        if later:
            names = ", ".join(task.name for task in later)
            raise PiggybackError(
                f"task {name!r} can't be removed: {names} came later and mix its filters; "
                "only the newest task can go"
            )

    def render(self) -> bytes:
        """The exact bytes of `bank.json`: reading compares them, so that no flipped bit goes unseen."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "tasks": [asdict(entry) for entry in self.tasks],
        }
        content["sha256"] = hashlib.sha256(_canonical(content)).hexdigest()
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, bank: Path) -> Self:
        """Read a bank's manifest.

        Raises:
            PiggybackError: no bank is there, it comes from a newer version, or `bank.json` is damaged.
        """
        path = bank / MANIFEST_NAME
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise PiggybackError(f"{bank} is no bank: it has no {MANIFEST_NAME}") from None
        except OSError as error:
            raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
        return cls.parse(raw, path)

    @classmethod
    def parse(cls, raw: bytes, path: str | Path) -> Self:
        """The manifest in the bytes of `bank.json`, wherever they come from.

        Raises:
            PiggybackError: it comes from a newer version, or is damaged; `path` names it.
        """
        try:
            content = json.loads(raw)
            ours = content["format"] == FORMAT
            version = content["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PiggybackError(f"{path} is damaged: it is no valid manifest") from None
        if not ours:
            raise PiggybackError(f"{path} is damaged or no bank's: format {content['format']!r}")
        if type(version) is not int or version < 1:
            raise PiggybackError(f"{path} is damaged: format_version is {version!r}")
        if version > FORMAT_VERSION:
            raise PiggybackError(
                f"{path} is of format {version}, this version reads up to {FORMAT_VERSION}: "
                "update piggyback-gan"
            )
        try:
            entries = msgspec.convert(content["tasks"], type=tuple[TaskEntry, ...])
            manifest = cls(content["architecture"], entries)
            rendered = manifest.render()
        except (KeyError, msgspec.ValidationError, RecursionError):
            raise PiggybackError(f"{path} is damaged: it is no valid manifest") from None
        if rendered != raw:
            raise PiggybackError(f"{path} is damaged: its checksum does not match its content")
        for entry in entries:
            # The checksum keeps accidents out, not malice: a name must not lead out of the folder.
            file = TASK_FILE.fullmatch(entry.file)
            if file is None or file[2] != entry.name:
                raise PiggybackError(f"{path} names a file that is no task's: {entry.file!r}")
        if len(manifest.places) < len(entries):
            raise PiggybackError(f"{path} is damaged: it names a task twice")
        return manifest

    def write(self, bank: Path) -> None:
        """Replace `bank.json` atomically: this is the moment at which a bank changes."""
        atomic_write(bank / MANIFEST_NAME, self.render())


def check_content(entry: TaskEntry, content: bytes, where: str | Path) -> None:
    """Compare the content of a task's file with what the manifest says of it.

    Raises:
        PiggybackError: its size or its SHA-256 is another; `where` names the file.
    """
    if len(content) != entry.bytes:
        raise PiggybackError(
            f"task {entry.name!r}: {where} is damaged: expected {entry.bytes} bytes, "
            f"found {len(content)}"
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise PiggybackError(
            f"task {entry.name!r}: {where} is damaged: its SHA-256 is not the one in the manifest"
        )


def now() -> str:
    """The time in UTC, or SOURCE_DATE_EPOCH's where set, so that a bank can be reproduced whole.

    Raises:
        PiggybackError: SOURCE_DATE_EPOCH is no time.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        raise PiggybackError(
            f"SOURCE_DATE_EPOCH must be a number of seconds since 1970, not {epoch!r}"
        ) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors.

    Raises:
        PiggybackError: the file is missing, truncated or none of that kind.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise PiggybackError(f"{path} is truncated or no safetensors file")
            return parse_header(file.read(length))
    except FileNotFoundError:
        raise PiggybackError(f"{path} is missing") from None
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except PiggybackError as error:
        raise error if str(path) in str(error) else PiggybackError(f"{path}: {error}") from None


def parse_header(header: bytes) -> dict[str, str]:
    """The metadata in a safetensors header, which is JSON.

    Raises:
        PiggybackError: it is no such header.
    """
    try:
        metadata = json.loads(header).get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError):
        raise PiggybackError("damaged, or no safetensors file") from None


def read_card(path: Path, entry: TaskEntry) -> dict[str, Any]:
    """Read the card of a task of the bank at `path`, as JSON, from the header of its file alone.

    Raises:
        PiggybackError: the file is missing, damaged or not a task's.
    """
    file = path / TASKS_FOLDER / entry.file
    metadata = read_header(file)
    if "card" not in metadata:
        raise PiggybackError(f"{file} is no task's file")
    try:
        card = json.loads(metadata["card"])
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise damaged_card(path, entry, "not a JSON object")
    return card


def damaged_card(path: Path, entry: TaskEntry, reason: str) -> PiggybackError:
    """The error for a card in the bank at `path`; the reason may have words from the card."""
    words = "".join(c if c.isprintable() else "?" for c in " ".join(reason.split()))
    file = path / TASKS_FOLDER / entry.file
    return PiggybackError(f"task {entry.name!r}: {file} has a damaged card: {words:.300}")


def require_empty(path: Path) -> None:
    """Check that a bank can come to be in a folder: nothing is there, or what belongs to a bank.

    Raises:
        PiggybackError: the folder holds other things.
    """
    if path.exists() and (not path.is_dir() or any(map(_is_foreign, path.iterdir()))):
        raise PiggybackError(f"{path} is no bank and not an empty folder: choose another place")


def _is_foreign(path: Path) -> bool:
    # With a dot before it: a manifest that was being written when its process was killed.
    return not path.name.startswith(("bank.", ".bank.")) and path.name not in (
        TASKS_FOLDER,
        RUNS_FOLDER,
        NOTES_NAME,
        README_NAME,
        SAMPLES_FOLDER,
    )


def require_outside_banks(path: Path) -> None:
    """Refuse a place inside a bank's directory, whose files are the bank's alone.

    Raises:
        PiggybackError: it is in one.
    """
    for folder in path.absolute().parents:
        if (folder / MANIFEST_NAME).exists():
            raise PiggybackError(f"{path} would lie in the bank {folder}: choose another place")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
