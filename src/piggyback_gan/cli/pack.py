"""pbgan pack: make a smaller bank of some tasks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import BankPath, parse
from piggyback_gan.cli.signals import ended_by_signals


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make a smaller bank of some tasks and the tasks whose filters they use.

    Outputs do not change: all weights are compared, bit for bit, before OUT appears.
    """

    bank: BankPath
    """The bank's directory; it is not changed."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The new bank's directory: missing or empty."""
    tasks: Annotated[str, tyro.conf.arg(metavar="TASK,...")]
    """The tasks to keep, separated by commas."""


def run(arguments: list[str]) -> int:
    """Pack; print which tasks were included and the new size."""
    given = parse(Arguments, "pack", arguments)
    from piggyback_gan.share.packing import pack

    with ended_by_signals():
        packed = pack(given.bank, given.out, [task.strip() for task in given.tasks.split(",")])
    along = f", and {', '.join(packed.along)}, whose filters they use" if packed.along else ""
    print(f"{given.out} has {', '.join(packed.tasks)}{along}")
    print(
        f"{packed.bytes:,} bytes of {packed.bytes_before:,} "
        f"({packed.bytes / packed.bytes_before:.3f}); all weights are bit-identical"
    )
    return 0
