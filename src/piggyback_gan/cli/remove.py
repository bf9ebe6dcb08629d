"""pbgan remove: remove the newest task."""

import sys
from dataclasses import dataclass

import tyro

from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest
from piggyback_gan.cli.arguments import BankPath, TaskName, parse
from piggyback_gan.errors import PiggybackError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Remove a bank's newest task. Earlier ones can't be removed: later tasks mix their filters."""

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The newest task's name."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Don't ask for confirmation."""


def run(arguments: list[str]) -> int:
    """Remove, after confirmation; the exit status is 1 if the answer was no."""
    given = parse(Arguments, "remove", arguments)
    Manifest.read(given.bank).require_newest(given.task)
    if not given.yes:
        if not sys.stdin.isatty():
            raise PiggybackError(f"removing {given.task!r} can't be undone: give --yes")
        try:
            answer = input(f"Remove {given.task!r} from {given.bank} for good? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing removed")
            return 1
    from piggyback_gan.bank.bank import Bank

    with writer_lock(given.bank, f"remove {given.task}"):
        Bank.open(given.bank).remove(given.task)
    print(f"{given.task} is removed from {given.bank}")
    return 0
