"""Checks of single option values."""

from collections.abc import Sequence

from piggyback_gan.errors import PiggybackError

MOST = 65536  # more channels, pixels or epochs are a slip of the keyboard


def is_number(value: object) -> bool:
    """Whether a value is an int or a float; bool does not count."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_choice(field: str, value: object, allowed: Sequence[str]) -> None:
    """Raise PiggybackError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        names = ", ".join(allowed)
        raise PiggybackError(f"unknown {field}: found {value!r}, choose one of {names}")


def check_positive(field: str, value: object) -> None:
    """Raise PiggybackError unless ``value`` is an integer from 1 to 65536."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise PiggybackError(f"invalid {field}: found {value!r}, give an integer from 1 to {MOST}")
