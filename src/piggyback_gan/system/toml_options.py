"""Read option dataclasses from TOML files."""

import dataclasses
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from piggyback_gan.errors import PiggybackError

_Options = TypeVar("_Options")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise PiggybackError if it can't be read or is not valid TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PiggybackError(f"{path} is not valid TOML: {error}") from None


def known_options(*classes: type) -> list[str]:
    """Return the names of all fields of these dataclasses, sorted."""
    return sorted({field.name for kind in classes for field in dataclasses.fields(kind)})


def check_keys(content: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise PiggybackError, which names the known keys, if `content` has others."""
    if unknown := sorted(content.keys() - set(known)):
        raise PiggybackError(
            f"{where}: unknown options {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )


def options_from(kind: type[_Options], content: Mapping[str, Any], where: str) -> _Options:
    """Create a dataclass from those entries of `content` that are its fields.

    Raises:
        PiggybackError: a value is not allowed; the message begins with `where`.
    """
    mine = {key: content[key] for key in known_options(kind) if key in content}
    for field in ("input_range", "output_range", "augment_policy"):  # TOML has no tuples
        if isinstance(mine.get(field), list):
            mine[field] = tuple(mine[field])
    try:
        return kind(**mine)
    except (PiggybackError, TypeError) as error:
        raise PiggybackError(f"{where}: {error}") from None
