"""pbgan tasks: list a bank's tasks. Reads only the headers of files, which is fast."""

import json
from dataclasses import dataclass
from typing import Any

import tyro

from piggyback_gan.bank.card import TaskCard, parse_card
from piggyback_gan.bank.manifest import Manifest, TaskEntry, read_card
from piggyback_gan.cli.arguments import BankPath, parse


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """List a bank's tasks in the order they were added.

    Reads the files' headers only; pbgan verify checks their content.
    """

    bank: BankPath
    """The bank's directory."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print all details of each task as JSON."""


def run(arguments: list[str]) -> int:
    """List the tasks on stdout."""
    given = parse(Arguments, "tasks", arguments)
    manifest = Manifest.read(given.bank)
    rows, cards = [], []
    for entry in manifest.tasks:
        content = read_card(given.bank, entry)
        cards.append(parse_card(content, given.bank, entry))
        rows.append(_row(entry, cards[-1]) | {"card": content})
    if given.json:
        print(json.dumps({"architecture": manifest.architecture, "tasks": rows}, indent=1))
        return 0
    from piggyback_gan.cli.console import new_table, wide_console

    right = (">size", ">lambda or budget", ">parameters", ">share", ">bytes")
    table = new_table("task", "added", "mode", *right)
    for row, card in zip(rows, cards, strict=True):
        table.add_row(
            row["task"],
            row["added"][:16].replace("T", " "),
            "imported" if card.imported else card.mode,
            f"{row['image_size']} px",
            _filters(card),
            f"{row['parameters']:,}",
            f"{row['share']:.3f}",
            f"{row['bytes']:,}",
        )
    wide_console().print(table)
    return 0


def _filters(card: TaskCard) -> str:
    """Describe a task's share of new filters, and where they are if not in all layers, or its budget."""
    share, options = _unconstrained(card), card.options
    for name in ("max_error", "budget"):
        if share is None and options.get(name) is not None:
            return f"{name.removeprefix('max_')} {options[name]}"
    if share is None:
        return ""
    if isinstance(share, dict):
        return "per layer"
    is_last = card.parameters.mixing and options.get("allocation") == "last"
    return f"{share:g}{', last' if is_last else ''}"


def _unconstrained(card: TaskCard) -> Any:
    # A first task has nothing to mix from.
    return card.options.get("unconstrained") if card.parameters.mixing else 1.0


def _row(entry: TaskEntry, card: TaskCard) -> dict[str, Any]:
    return {
        "task": entry.name,
        "added": entry.added,
        "mode": card.mode,
        "image_size": card.image.size,
        "unconstrained": _unconstrained(card),
        "parameters": card.parameters.total,
        "share": card.parameters.share,
        "bytes": entry.bytes,
        "file": entry.file,
        "sha256": entry.sha256,
    }
