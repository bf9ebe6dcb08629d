"""pbgan pack: a smaller bank of some tasks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import BankPath, parse
from piggyback_gan.cli.signals import ended_by_signals


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make a smaller bank of some tasks: these, and the tasks whose filters they are made of.

    Their outputs are the same: all weights are compared, bit for bit, before OUT appears.
    """

    bank: BankPath
    """The bank's directory; it stays as it is."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The new bank's directory: not there yet, or empty."""
    tasks: Annotated[str, tyro.conf.arg(metavar="TASK,...")]
    """The tasks that are wanted, with commas between them."""


def run(arguments: list[str]) -> int:
    """Pack, and say what came along and what it takes."""
    given = parse(Arguments, "pack", arguments)
    from piggyback_gan.share.packing import pack

    with ended_by_signals():
        packed = pack(given.bank, given.out, [task.strip() for task in given.tasks.split(",")])
    along = (
        f", and {', '.join(packed.along)}, of whose filters they are made" if packed.along else ""
    )
    print(f"{given.out} has {', '.join(packed.tasks)}{along}")
    print(
        f"{packed.bytes:,} bytes of {packed.bytes_before:,} "
        f"({packed.bytes / packed.bytes_before:.3f}); all weights are the same bits"
    )
    return 0
