"""TOML files of training options."""

import dataclasses
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from piggyback_gan.errors import PiggybackError

_Options = TypeVar("_Options")


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        PiggybackError: it can't be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PiggybackError(f"{path} is no valid TOML: {error}") from None


def known_options(*classes: type) -> list[str]:
    """The fields of these dataclasses, sorted."""
    return sorted({field.name for kind in classes for field in dataclasses.fields(kind)})


def check_keys(content: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse keys that nothing reads.

    Raises:
        PiggybackError: names them, and those there are.
    """
    if unknown := sorted(content.keys() - set(known)):
        raise PiggybackError(
            f"{where}: unknown options {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )


def options_from(kind: type[_Options], content: Mapping[str, Any], where: str) -> _Options:
    """The options of a dataclass that are among these.

    Raises:
        PiggybackError: a value is not allowed.
    """
    mine = {key: content[key] for key in known_options(kind) if key in content}
    for field in ("input_range", "output_range", "augment_policy"):  # TOML has no tuples
        if isinstance(mine.get(field), list):
            mine[field] = tuple(mine[field])
    try:
        return kind(**mine)
    except (PiggybackError, TypeError) as error:
        raise PiggybackError(f"{where}: {error}") from None
