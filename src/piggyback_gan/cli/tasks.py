"""pbgan tasks: list a bank's tasks. Reads only the headers of files, which is fast."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tyro

from piggyback_gan.bank.manifest import Manifest, TaskEntry, read_card
from piggyback_gan.cli.arguments import BankPath, parse
from piggyback_gan.errors import PiggybackError


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
    rows = []
    for entry in manifest.tasks:
        try:
            rows.append(_row(entry, read_card(given.bank, entry)))
        except (KeyError, TypeError) as error:
            raise PiggybackError(
                f"task {entry.name!r}: {entry.file} has a damaged card (no {error})"
            ) from None
    if given.json:
        print(json.dumps({"architecture": manifest.architecture, "tasks": rows}, indent=1))
        return 0
    from piggyback_gan.cli.console import new_table, wide_console

    right = (">size", ">lambda or budget", ">parameters", ">share", ">bytes")
    table = new_table("task", "added", "mode", *right)
    for row in rows:
        table.add_row(
            row["task"],
            row["added"][:16].replace("T", " "),
            "imported" if "imported" in row["card"] else row["mode"],
            f"{row['image_size']} px",
            _filters(row),
            f"{row['parameters']:,}",
            f"{row['share']:.3f}",
            f"{row['bytes']:,}",
        )
    wide_console().print(table)
    return 0


def _filters(row: Mapping[str, Any]) -> str:
    """Describe a task's share of new filters, and where they are if not in all layers, or its budget."""
    card, share = row["card"], row["unconstrained"]
    if share is None and card["options"].get("max_error") is not None:
        return f"error {card['options']['max_error']:g}"
    if share is None:
        return f"budget {card['options']['budget']:g}"
    if isinstance(share, dict):
        return "per layer"
    is_last = card["parameters"]["mixing"] and card["options"].get("allocation") == "last"
    return f"{share:g}{', last' if is_last else ''}"


def _row(entry: TaskEntry, card: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": entry.name,
        "added": entry.added,
        "mode": card["mode"],
        "image_size": card["image"]["size"],
        # A first task has no filters to mix from.
        "unconstrained": card["options"]["unconstrained"] if card["parameters"]["mixing"] else 1.0,
        "parameters": card["parameters"]["total"],
        "share": card["parameters"]["share"],
        "bytes": entry.bytes,
        "file": entry.file,
        "sha256": entry.sha256,
        "card": card,
    }
