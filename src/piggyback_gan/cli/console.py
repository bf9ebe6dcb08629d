"""What several commands print: tables, and what was copied."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from piggyback_gan.share.transfer import Transfer

_TABLE_WIDTH = 110


def wide_console() -> Console:
    """Standard output, wide enough for tables: lines longer than a terminal's wrap.

    The cut names and numbers that a narrow table would have are of no use.
    """
    from rich.console import Console

    return Console(highlight=False, width=max(_TABLE_WIDTH, Console().width))


def say_transfer(done: Transfer, receiver: str) -> None:
    """What a pull or a push did, on stdout; what is to be known of it, on stderr."""
    for remark in done.remarks:
        print(f"pbgan: {remark}", file=sys.stderr)
    if done.tasks:
        names = ", ".join(done.tasks)
        print(
            f"{_tasks(len(done.tasks))} ({names}), {done.bytes:,} bytes: {receiver} has {done.held} now"
        )
    else:
        print(f"{receiver} has all {_tasks(done.held)} already")
    if done.documents:
        print(f"changed: {', '.join(done.documents)}")


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"
