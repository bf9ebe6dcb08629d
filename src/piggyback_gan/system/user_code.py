"""Code that a user names, such as the maker of a network: imported only where the user has named it. No torch here."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError, said

VARIABLE = "PBGAN_GENERATORS"

_OTHERS = {"site-packages", "piggyback_gan"}
_allowed: set[str] = set()
_folders: list[str] = []


def allow_generator(name: str) -> None:
    """Let banks be used whose generator this code makes, from now on in this process.

    A bank only names the code that makes its generator. What a bank names is not run unasked: allow what
    you wrote, or have read and trust.

    Args:
        name: ``"package.module:callable"``.

    Raises:
        PiggybackError: that is no such name.
    """
    check_code_name(name)
    _allowed.add(name)


def look_in_working_folder() -> None:
    """Let own code be found in the working folder, too: for commands, which no script's folder stands for."""
    _folders[:] = [""]


def call_allowed(name: str, /, **arguments: Any) -> Any:
    """Call code that makes a generator.

    Raises:
        PiggybackError: the user did not name it, it can't be imported, or it fails.
    """
    named = {part.strip() for part in os.environ.get(VARIABLE, "").split(",")}
    if name not in _allowed | named:
        raise PiggybackError(
            f"the bank's generator is made by {name}, and code that a bank names is not run unasked: if "
            f"you trust it, set {VARIABLE}={name} (in Python: piggyback_gan.allow_generator({name!r}))"
        )
    # At the end: what is installed was named, and no file that lies where somebody happens to work. For good:
    # the code may import what it needs when it needs it.
    sys.path.extend(folder for folder in _folders if folder not in sys.path)
    found = import_callable(name)
    try:
        return found(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise PiggybackError(
            f"{name} fails, called with {given}: {said(error)}{place(error)}"
        ) from error


def import_callable(name: str) -> Callable[..., Any]:
    """What ``"package.module:callable"`` names.

    Raises:
        PiggybackError: it can't be imported, or can't be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of others raises what it likes
        raise PiggybackError(f"{name} can't be imported: {said(error)}") from None
    if not callable(found):
        raise PiggybackError(
            f"{name} is no network and makes none: {type(found).__name__} can't be called"
        )
    return found


def place(error: BaseException) -> str:
    """Where in the user's own files an error came up, in brackets; nothing if in none of them."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [at for at in frames if not _OTHERS.intersection(Path(at.filename).parts)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def is_code_name(name: object) -> bool:
    """Whether a generator's name is meant to be that of a user's own code."""
    return isinstance(name, str) and ":" in name


def check_code_name(name: str) -> None:
    """Raise PiggybackError unless it is ``package.module:callable``."""
    parts = [part for side in name.split(":") for part in side.split(".")]
    if name.count(":") != 1 or not all(map(str.isidentifier, parts)):
        raise PiggybackError(f"invalid name of code: found {name!r}, give package.module:callable")
