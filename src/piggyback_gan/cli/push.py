"""pbgan push: copy missing tasks to another bank, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import optional, parse
from piggyback_gan.cli.console import print_transfer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Copy the tasks that another bank lacks to it, and write its README as a model card.

    Licences, data and descriptions for the README are taken from BANK/card.toml, see docs/sharing.md. A README
    written or edited by hand is not changed. Trainings (runs/) are not copied.
    """

    bank: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BANK")]
    """The bank's directory."""
    destination: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """A directory or hf://OWNER/NAME on the hub, created if missing; or hf://OWNER/NAME@BRANCH, which must exist."""
    samples: Annotated[Path | None, optional("DIR")] = None
    """Show translations of up to 3 images of DIR/TASK, or of DIR for all tasks, in the README."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """Create a new repository on the hub as private."""


def run(arguments: list[str]) -> int:
    """Push, and print what was copied."""
    given = parse(Arguments, "push", arguments)
    from piggyback_gan.share.transfer import push

    done = push(given.bank, given.destination, samples=given.samples, private=given.private)
    print_transfer(done, given.destination)
    return 0
