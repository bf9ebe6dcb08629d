"""Import and call code that a user names, such as a function that builds a network. No torch."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError, error_line

VARIABLE = "PBGAN_GENERATORS"

_NOT_USER_CODE = {"site-packages", "piggyback_gan"}
_allowed: set[str] = set()
_folders: list[str] = []


def allow_generator(name: str) -> None:
    """Allow banks in this process to build their generator with this code.

    A bank only names the code that builds its generator, and such code runs only with permission. Allow what
    you wrote yourself, or have read and trust.

    Args:
        name: ``"package.module:callable"``.

    Raises:
        PiggybackError: the name has another form.
    """
    check_code_name(name)
    _allowed.add(name)


def import_from_working_folder() -> None:
    """Import user code from the working folder too: a command has no script whose folder is on the path."""
    _folders[:] = [""]


def call_allowed(name: str, /, **arguments: Any) -> Any:
    """Call allowed code that builds a generator, and return its result.

    Raises:
        PiggybackError: the user did not allow it, it can't be imported, or it fails.
    """
    named = {part.strip() for part in os.environ.get(VARIABLE, "").split(",")}
    if name not in _allowed | named:
        raise PiggybackError(
            f"the bank's generator is built by {name}, and code that a bank names runs only with permission: if "
            f"you trust it, set {VARIABLE}={name} (in Python: piggyback_gan.allow_generator({name!r}))"
        )
    # At the end of the path, so that a file of the working folder never hides an installed module. The entry
    # stays: the code may import more when it runs.
    sys.path.extend(folder for folder in _folders if folder not in sys.path)
    found = import_callable(name)
    try:
        return found(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise PiggybackError(
            f"{name} fails, called with {given}: {error_line(error)}{user_location(error)}"
        ) from error


def import_callable(name: str) -> Callable[..., Any]:
    """Import ``"package.module:callable"``.

    Raises:
        PiggybackError: it can't be imported, or is not callable.
    """
    module, _, attribute = name.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything
        raise PiggybackError(f"{name} can't be imported: {error_line(error)}") from None
    if not callable(found):
        raise PiggybackError(
            f"{name} is neither a network nor builds one: {type(found).__name__} is not callable"
        )
    return found


def user_location(error: BaseException) -> str:
    """Return " (FILE, line N)" of the last frame of an error in the user's files; "" if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [at for at in frames if not _NOT_USER_CODE.intersection(Path(at.filename).parts)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def is_code_name(name: object) -> bool:
    """Return whether a generator's name is that of user code."""
    return isinstance(name, str) and ":" in name


def check_code_name(name: str) -> None:
    """Raise PiggybackError unless ``name`` has the form ``package.module:callable``."""
    parts = [part for side in name.split(":") for part in side.split(".")]
    if name.count(":") != 1 or not all(map(str.isidentifier, parts)):
        raise PiggybackError(f"invalid name of code: found {name!r}, give package.module:callable")
