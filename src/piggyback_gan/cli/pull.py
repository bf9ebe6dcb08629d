"""pbgan pull: bring a bank up to what another one has."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import optional, parse
from piggyback_gan.cli.console import say_transfer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Bring a bank up to what another one has: only files that are missing are fetched, and each is checked.

    Both must have begun with the same tasks. Pulling again goes on after an interruption.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A bank's directory, or hf://OWNER/NAME or hf://OWNER/NAME@REVISION on the Hugging Face hub."""
    bank: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BANK")]
    """The directory that is brought up; it is made if it is not there."""
    task: Annotated[str | None, tyro.conf.Positional, optional("[TASK]")] = None
    """Bring this task and those before it, and no later one."""


def run(arguments: list[str]) -> int:
    """Pull, and say what travelled."""
    given = parse(Arguments, "pull", arguments)
    from piggyback_gan.share.transfer import pull

    say_transfer(pull(given.source, given.bank, given.task), given.bank)
    return 0
