"""Where tables are printed."""

from rich.console import Console

_TABLE_WIDTH = 110


def wide_console() -> Console:
    """Standard output, wide enough for tables: lines longer than a terminal's wrap.

    The cut names and numbers that a narrow table would have are of no use.
    """
    return Console(highlight=False, width=max(_TABLE_WIDTH, Console().width))
