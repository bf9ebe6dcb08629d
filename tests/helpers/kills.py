"""Processes killed after each change of a file, before the next line."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from signal import SIGKILL
from types import CodeType, FrameType
from typing import Any

Line = tuple[str, int, int]
"""Function, line number, how often it was run."""


def trace(codes: Collection[CodeType], at_line: Callable[[Line], object]) -> None:
    """Call before each line of these functions."""
    visits: Counter[tuple[str, int]] = Counter()

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code not in codes:
            return None
        if event == "line":
            place = frame.f_code.co_name, frame.f_lineno
            visits[place] += 1
            at_line((*place, visits[place]))
        return tracer

    sys.settrace(tracer)


def die_at_each_line(
    codes: Collection[CodeType],
    action: Callable[[Path], None],
    make: Callable[[Path], None],
    folder: Path,
) -> list[tuple[Line, Path]]:
    """Kill a process before the lines of these functions at which files are in a new state. Call it in its own process.

    Other lines would leave the same: what is on disk is all that outlives a kill. Each kill works on a path of its
    own, which `make` prepared; the action is done whole on `folder / "new"`.
    """
    lines: dict[object, Line] = {}  # by what is on disk
    make(folder / "new")

    def note(line: Line) -> None:
        paths = sorted((folder / "new").rglob("*"))
        lines.setdefault(tuple((p, p.read_bytes() if p.is_file() else None) for p in paths), line)

    trace(codes, note)
    action(folder / "new")
    sys.settrace(None)
    killed = []
    for number, line in enumerate(lines.values()):
        path = folder / str(number)
        make(path)
        process = os.fork()
        if process == 0:
            try:
                trace(codes, lambda at, line=line: at == line and os.kill(os.getpid(), SIGKILL))
                action(path)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -SIGKILL, line
        killed.append((line, path))
    return killed
