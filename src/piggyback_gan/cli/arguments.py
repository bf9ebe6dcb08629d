"""Parse a command's arguments, with errors in one line."""

import contextlib
import io
import re
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from piggyback_gan.cli.option_hints import REGISTRY
from piggyback_gan.errors import PiggybackError

BankPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BANK")]
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
SAME_GROUP = tyro.conf.arg(name="")
"""For a field that is a dataclass of options: list them among the command's own, without a prefix."""

_Arguments = TypeVar("_Arguments")


def optional(metavar: str) -> object:
    """Describe an option that has no default worth showing."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def parse(
    kind: type[_Arguments], command: str, arguments: list[str], default: _Arguments | None = None
) -> _Arguments:
    """Parse arguments into a dataclass.

    Raises:
        PiggybackError: the arguments are invalid.
        SystemExit: with status 0, after printing --help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            name = f"pbgan {command}"
            if default is None:
                return tyro.cli(kind, prog=name, args=arguments, registry=REGISTRY)
            return tyro.cli(kind, prog=name, args=arguments, default=default, registry=REGISTRY)
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise PiggybackError(_one_line(printed.getvalue(), command)) from None


def _one_line(box: str, command: str) -> str:
    """Return the text of an error that tyro drew as a box: its first part, up to the first rule."""
    lines = [line.strip("│|").strip() for line in box.splitlines()[1:]]
    words: list[str] = []
    for line in lines:
        if not re.fullmatch(r"[─╰╯╭╮\-+]*", line):
            words.append(line)
        elif words:  # without box characters, there is a rule above the text too
            break
    text = " ".join(words)
    # Users don't know the names of option groups, nor None for an option that was not given.
    text = re.sub(r"Error parsing (training|generator|architecture): ", "", text)
    text = text.replace("'None', ", "").replace(", 'None'", "")
    return f"{text} (pbgan {command} --help)"
