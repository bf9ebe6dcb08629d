"""pbgan push: bring another bank up to what this one has, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import optional, parse
from piggyback_gan.cli.console import say_transfer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Bring another bank up to what this one has: only files that are missing travel. Its README tells of it.

    What the README can't know of itself (licences, data, descriptions) is in BANK/card.toml, see
    docs/sharing.md. A README that was written or edited by hand is left alone. Trainings (runs/) never travel.
    """

    bank: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BANK")]
    """The bank's directory."""
    destination: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """A directory or hf://OWNER/NAME on the hub, made if not there; or hf://OWNER/NAME@BRANCH, which must be."""
    samples: Annotated[Path | None, optional("DIR")] = None
    """Translate up to 3 images of DIR/TASK, or of DIR for all tasks, and show them in the README."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """A new repository on the hub is for its owner's eyes only."""


def run(arguments: list[str]) -> int:
    """Push, and say what travelled."""
    given = parse(Arguments, "push", arguments)
    from piggyback_gan.share.transfer import push

    done = push(given.bank, given.destination, samples=given.samples, private=given.private)
    say_transfer(done, given.destination)
    return 0
