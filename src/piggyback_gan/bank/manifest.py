"""The bank's directory without its tensors: the manifest, task files' headers, atomic writing.

A bank is a directory::

    bank.json                     the manifest: architecture and tasks in order, each with its file's SHA-256
    tasks/0001-<name>.safetensors what the first task added: shares, options and tensors
    tasks/0002-<name>.safetensors what the second added, and the SHA-256 of the first one's file
    runs/<name>/                  the runs of tasks' trainings; not part of the bank
    card.toml, README.md, samples/  notes of the owner, and what `push` writes for readers

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
from typing import Annotated, Any, Self

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
class _Head:
    """What manifests of all versions have."""

    format: str
    format_version: Annotated[int, msgspec.Meta(ge=1)]


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
    """The content of `bank.json`: the architecture, which is opaque here, and the tasks in order."""

    architecture: Mapping[str, Any]
    tasks: tuple[TaskEntry, ...] = ()

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Task name -> number of tasks before it."""
        return {entry.name: place for place, entry in enumerate(self.tasks)}

    def entry(self, name: str) -> TaskEntry:
        """Return the entry of a task.

        Raises:
            PiggybackError: the task does not exist; the message lists the bank's tasks.
        """
        if name in self.places:
            return self.tasks[self.places[name]]
        known = ", ".join(entry.name for entry in self.tasks) or "none yet"
        raise PiggybackError(f"the bank has no task {name!r}; tasks: {known}")

    def require_newest(self, name: str) -> None:
        """Check that a task is the newest: only that can be removed.

        Raises:
            PiggybackError: the task does not exist, or later ones are built on it; they are named.
        """
        later = self.tasks[self.tasks.index(self.entry(name)) + 1 :]
        if later:
            names = ", ".join(task.name for task in later)
            raise PiggybackError(
                f"task {name!r} can't be removed: {names} came later and mix its filters; "
                "only the newest task can be removed"
            )

    def render(self) -> bytes:
        """Return the exact bytes of `bank.json`; reading compares them, to find flipped bits."""
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
            PiggybackError: `bank` is not a bank, a newer version wrote it, or `bank.json` is damaged.
        """
        path = bank / MANIFEST_NAME
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise PiggybackError(f"{bank} is not a bank: it has no {MANIFEST_NAME}") from None
        except OSError as error:
            raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
        return cls.parse(raw, path)

    @classmethod
    def parse(cls, raw: bytes, path: str | Path) -> Self:
        """Parse the bytes of `bank.json`.

        Raises:
            PiggybackError: a newer version wrote it, or it is damaged; `path` names it.
        """
        try:
            content = json.loads(raw)
            head = msgspec.convert(content, _Head)
            if head.format != FORMAT:
                raise PiggybackError(f"{path} is damaged or not a bank's: format {head.format!r}")
            if head.format_version > FORMAT_VERSION:
                raise PiggybackError(
                    f"{path} is of format {head.format_version}, this version reads up to {FORMAT_VERSION}: "
                    "update piggyback-gan"
                )
            manifest = msgspec.convert(content, cls)
            rendered = manifest.render()
        except PiggybackError:
            raise
        except RecursionError:
            raise PiggybackError(f"{path} is damaged: it is not a valid manifest") from None
        except ValueError as error:
            raise PiggybackError(f"{path} is damaged: {error}") from None
        if rendered != raw:
            raise PiggybackError(f"{path} is damaged: its checksum does not match its content")
        for entry in manifest.tasks:
            # The checksum does not protect from malice: a name must not lead out of the folder.
            file = TASK_FILE.fullmatch(entry.file)
            if file is None or file[2] != entry.name:
                raise PiggybackError(f"{path} names a file that is not a task's: {entry.file!r}")
        if len(manifest.places) < len(manifest.tasks):
            raise PiggybackError(f"{path} is damaged: it names a task twice")
        return manifest

    def write(self, bank: Path) -> None:
        """Replace `bank.json` atomically: this is the moment at which a bank changes."""
        atomic_write(bank / MANIFEST_NAME, self.render())


def check_content(entry: TaskEntry, content: bytes, where: str | Path) -> None:
    """Compare the content of a task's file with its size and SHA-256 in the manifest.

    Raises:
        PiggybackError: they differ; `where` names the file.
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
    """Return the time in UTC, or SOURCE_DATE_EPOCH where set, for banks that are equal bit for bit.

    Raises:
        PiggybackError: SOURCE_DATE_EPOCH is not a time.
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
    """Read the metadata of a safetensors file, without its tensors.

    Raises:
        PiggybackError: the file is missing, truncated or not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return parse_header(file.read(min(length, path.stat().st_size)), path)
    except FileNotFoundError:
        raise PiggybackError(f"{path} is missing") from None
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None


def parse_header(header: bytes, path: Path) -> dict[str, str]:
    """Parse the safetensors header of a file, which is JSON, and return its metadata.

    Raises:
        PiggybackError: it is not one.
    """
    try:
        metadata = json.loads(header).get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError):
        raise PiggybackError(f"{path} is damaged, or not a safetensors file") from None


def read_card(path: Path, entry: TaskEntry) -> dict[str, Any]:
    """Read the card of a task of the bank at `path`, as JSON, from the header of its file alone.

    Raises:
        PiggybackError: the file is missing, damaged or not a task's.
    """
    file = path / TASKS_FOLDER / entry.file
    metadata = read_header(file)
    if "card" not in metadata:
        raise PiggybackError(f"{file} is not a task's file")
    try:
        return msgspec.convert(json.loads(metadata["card"]), dict[str, Any])
    except (ValueError, RecursionError, msgspec.ValidationError):
        raise damaged_card(path, entry, "not a JSON object") from None


def damaged_card(path: Path, entry: TaskEntry, reason: str) -> PiggybackError:
    """The error for a card in the bank at `path`; the reason may have words from the card."""
    words = "".join(c if c.isprintable() else "?" for c in " ".join(reason.split()))
    file = path / TASKS_FOLDER / entry.file
    return PiggybackError(f"task {entry.name!r}: {file} has a damaged card: {words:.300}")


def require_empty(path: Path) -> None:
    """Check that a new bank can use a folder: it is absent, empty, or has only files of banks.

    Raises:
        PiggybackError: the folder has other files.
    """
    if path.exists() and (not path.is_dir() or any(map(_is_foreign, path.iterdir()))):
        raise PiggybackError(
            f"{path} is not a bank, and the folder is not empty; choose another path"
        )


def _is_foreign(path: Path) -> bool:
    # With a dot: a manifest that a killed process was writing.
    return not path.name.startswith(("bank.", ".bank.")) and path.name not in (
        TASKS_FOLDER,
        RUNS_FOLDER,
        NOTES_NAME,
        README_NAME,
        SAMPLES_FOLDER,
    )


def require_outside_banks(path: Path) -> None:
    """Check that a path is not inside a bank's directory.

    Raises:
        PiggybackError: it is.
    """
    for folder in path.absolute().parents:
        if (folder / MANIFEST_NAME).exists():
            raise PiggybackError(f"{path} would be inside the bank {folder}; choose another path")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
