"""The one error that a person is meant to read: what was wrong, what was found, what to do."""

import re
from collections.abc import Sequence

_OUT_OF_MEMORY = r"out of memory|can't allocate memory|not enough memory"


class PiggybackError(ValueError):
    """A mistake that its reader can mend. The command line prints it as one line and exits with status 2."""


class PartnerEnded(PiggybackError):
    """Another of the processes that train together ended, and this one can't go on without it."""


class SaidElsewhere(PiggybackError):
    """The first of several processes says the same, or what led to this: it need not be said again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, a CPU or a GPU had no more memory to give; torch says so in a RuntimeError."""
    said = isinstance(error, RuntimeError) and re.search(_OUT_OF_MEMORY, str(error))
    return isinstance(error, MemoryError) or bool(said)


NAMED = 20


def first_names(names: Sequence[str], limit: int = NAMED, separator: str = "; ") -> str:
    """Join at most ``limit`` names in one line; "and N more" stands for the others."""
    rest = len(names) - limit
    return separator.join([*names[:limit], *([f"and {rest} more"] if rest > 0 else [])])


def said(error: BaseException) -> str:
    """What an error of other people's code says, in a line: its kind and first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
