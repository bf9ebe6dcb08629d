"""The error for mistakes that a user can fix, and helpers for one-line error texts."""

import re
from collections.abc import Sequence

MAX_NAMES = 20  # in one error
_OUT_OF_MEMORY = r"out of memory|can't allocate memory|not enough memory"


class PiggybackError(ValueError):
    """A mistake that the user can fix: one line that says what was wrong, what was found and what to do.

    The command line prints it and exits with status 2.
    """


class PartnerEnded(PiggybackError):
    """Another process of a distributed training ended, so this one can't go on."""


class ReportedElsewhere(PiggybackError):
    """Rank 0 already reported this error or its cause."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether CPU or GPU memory ran out; torch raises a RuntimeError for either."""
    from_torch = isinstance(error, RuntimeError) and re.search(_OUT_OF_MEMORY, str(error))
    return isinstance(error, MemoryError) or bool(from_torch)


def first_names(names: Sequence[str], limit: int = MAX_NAMES, separator: str = "; ") -> str:
    """Join at most ``limit`` names in one line; "and N more" stands for the others."""
    rest = len(names) - limit
    return separator.join([*names[:limit], *([f"and {rest} more"] if rest > 0 else [])])


def error_line(error: BaseException) -> str:
    """Return the type and the first line of an error that other code raised."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
