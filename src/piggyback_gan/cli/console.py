"""Output shared by commands: tables, progress bars, counts, and transfers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table

    from piggyback_gan.share.transfer import Transfer

_TABLE_WIDTH = 110


def wide_console() -> Console:
    """Return a console on stdout that is wide enough for tables, so that no names or numbers are cut off.

    Lines wrap on narrower terminals.
    """
    from rich.console import Console

    return Console(highlight=False, width=max(_TABLE_WIDTH, Console().width))


def new_table(*headings: str, **style: Any) -> Table:
    """Return an empty table; columns whose heading begins with > are right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, **style)
    for heading in headings:
        is_right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if is_right else "left", no_wrap=True
        )
    return table


def new_progress(*columns: ProgressColumn, silent: bool = False) -> Progress:
    """Return a progress bar on stderr, which shows nothing unless that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=silent or not console.is_terminal)


def count(number: int, what: str) -> str:
    """Return a number of things in words: 1 image, 2 images."""
    return f"{number} {what}{'s' * (number != 1)}"


def print_transfer(done: Transfer, receiver: str) -> None:
    """Print the result of a pull or a push on stdout, and its remarks on stderr."""
    for remark in done.remarks:
        print(f"pbgan: {remark}", file=sys.stderr)
    if done.tasks:
        names = ", ".join(done.tasks)
        print(
            f"{count(len(done.tasks), 'task')} ({names}), {done.bytes:,} bytes: {receiver} now has {count(done.held, 'task')}"
        )
    else:
        print(f"{receiver} has all {count(done.held, 'task')} already")
    if done.documents:
        print(f"changed: {', '.join(done.documents)}")
