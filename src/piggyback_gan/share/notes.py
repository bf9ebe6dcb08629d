"""card.toml: the owner's notes on a bank and its tasks: licences, data, descriptions. No torch here."""

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.toml_options import check_keys

_FREE_TEXT = "description"


@dataclass(frozen=True, kw_only=True)
class TaskNotes:
    """Notes on one task; None where not given.

    Attributes:
        license: of the task's weights, if it is not the bank's.
        data: the training data, in words or as an address.
        description: Markdown.
    """

    license: str | None = None
    data: str | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class BankNotes:
    """Notes on a bank; None where not given.

    Attributes:
        license: of all tasks without their own.
        description: Markdown.
        tasks: by name.
    """

    license: str | None = None
    description: str | None = None
    tasks: Mapping[str, TaskNotes] = field(default_factory=dict)

    def of(self, task: str) -> TaskNotes:
        """Return a task's notes; its licence is the bank's unless it has its own."""
        notes = self.tasks.get(task, TaskNotes())
        return replace(notes, license=notes.license or self.license)

    def only(self, tasks: Collection[str]) -> "BankNotes":
        """Return the notes without those of other tasks."""
        kept = {name: notes for name, notes in self.tasks.items() if name in tasks}
        return replace(self, tasks=kept)

    def contains(self, other: "BankNotes", tasks: Iterable[str]) -> bool:
        """Return whether these notes include the others, on the bank, on these tasks and on those that `other` names."""
        pairs = [(self.license, other.license), (self.description, other.description)]
        for task in {*tasks, *other.tasks}:
            pairs += zip(astuple(self.of(task)), astuple(other.of(task)), strict=True)
        return all(theirs in (None, mine) for mine, theirs in pairs)

    def render(self) -> bytes:
        """Return the bytes of a `card.toml`."""
        lines = _lines({"license": self.license, "description": self.description})
        for name, notes in self.tasks.items():
            lines += ["", f"[tasks.{_quoted(name)}]", *_lines(asdict(notes))]
        return ("\n".join(lines).lstrip("\n") + "\n").encode()


def parse_notes(raw: bytes, where: str | Path, tasks: Iterable[str]) -> BankNotes:
    """Parse a `card.toml`.

    Args:
        raw: its bytes.
        where: its name in errors.
        tasks: the bank's tasks.

    Raises:
        PiggybackError: it is not TOML, or has unknown keys or tasks, or invalid values.
    """
    try:
        content = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise PiggybackError(f"{where} is not valid TOML: {error}") from None
    check_keys(content, [f.name for f in fields(BankNotes)], str(where))
    tables = content.pop("tasks", {})
    known = list(tasks)
    if not isinstance(tables, dict):
        raise PiggybackError(f"{where}: tasks must be tables such as [tasks.{known[0]}]")
    notes = {}
    for name, table in tables.items():
        if name not in known:
            raise PiggybackError(
                f"{where} names a task that the bank does not have: {name!r}; tasks: {', '.join(known)}"
            )
        if not isinstance(table, dict):
            raise PiggybackError(f"{where}: {name} must be a table: [tasks.{name}]")
        place = f"{where}, [tasks.{name}]"
        check_keys(table, [f.name for f in fields(TaskNotes)], place)
        notes[name] = TaskNotes(**_texts(table, place))
    return BankNotes(**_texts(content, str(where)), tasks=notes)


def _texts(table: Mapping[str, Any], where: str) -> dict[str, str]:
    for key, value in table.items():
        one_line = key == _FREE_TEXT or (isinstance(value, str) and len(value.splitlines()) == 1)
        if not isinstance(value, str) or not value.strip() or not one_line:
            kind = "text" if key == _FREE_TEXT else "text of one line"
            raise PiggybackError(f"{where}: {key} must be {kind}, found {value!r}")
    return dict(table)


def _lines(texts: Mapping[str, str | None]) -> list[str]:
    return [f"{key} = {_quoted(text)}" for key, text in texts.items() if text is not None]


def _quoted(text: str) -> str:
    """Quote for TOML: a JSON string, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
