"""pbgan pull: copy missing tasks from another bank."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import optional, parse
from piggyback_gan.cli.console import print_transfer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Copy the tasks that a bank lacks from another bank; each file is verified.

    One bank's tasks must be the first tasks of the other. Pull again to continue after an interruption.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A bank's directory, or hf://OWNER/NAME or hf://OWNER/NAME@REVISION on the Hugging Face hub."""
    bank: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BANK")]
    """Directory of the bank to update; created if missing."""
    task: Annotated[str | None, tyro.conf.Positional, optional("[TASK]")] = None
    """Copy tasks up to this one only."""


def run(arguments: list[str]) -> int:
    """Pull, and print what was copied."""
    given = parse(Arguments, "pull", arguments)
    from piggyback_gan.share.transfer import pull

    print_transfer(pull(given.source, given.bank, given.task), given.bank)
    return 0
