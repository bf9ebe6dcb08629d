"""Contact sheets of a report: the same held-out images, translated by every strategy."""

import filecmp
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.labels import DIRECTIONS
from piggyback_gan.experiments.results import Results, Stage, held_out_sample

PICTURES = "pictures"
_UNSAFE = re.compile("[^a-z0-9._-]")  # in a file's name


@dataclass(frozen=True)
class Picture:
    """Picture of a sheet: its file relative to the report's folder ("" if missing), and its description."""

    file: str
    alt: str


@dataclass(frozen=True)
class Sheet:
    """Contact sheet of a task: a row for each held-out image, a column for each heading."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Picture, ...], ...]


def write_sheets(results: Results, out: Path) -> list[Sheet]:
    """Copy the pictures of the first seed into a report's folder; return a sheet for each task with pictures.

    A strategy whose outputs changed since the task was learned has two columns.
    """
    (out / PICTURES).mkdir()
    sheets = (_sheet(results, task, out) for task in summary.tasks(results))
    return [sheet for sheet in sheets if sheet.rows]


def _sheet(results: Results, task: str, out: Path) -> Sheet:
    index = summary.tasks(results).index(task) + 1
    numbers = range(int(results.experiment.get("samples", 0)))
    columns: list[tuple[str, list[Path]]] = [
        (what, [held_out_sample(results.folder, task, number, what) for number in numbers])
        for what in ("input", "target")
    ]
    for label in summary.strategies(results):
        columns += _of_strategy(results, label, task, index, numbers)
    columns = [(name, paths) for name, paths in columns if any(path.is_file() for path in paths)]
    copied = [
        _copy(paths, out, _UNSAFE.sub("-", f"{index}-{task}-{column}-{name}"), f"{name}, {task}")
        for column, (name, paths) in enumerate(columns)
    ]
    rows = zip(*copied, strict=True)
    described = results.experiment["tasks"][index - 1]
    # An unpaired task has pictures of its own direction only.
    way = DIRECTIONS[described["direction"]] if described.get("mode") == "unpaired" else ""
    return Sheet(f"Task {index}, {task}{way}", tuple(name for name, _ in columns), tuple(rows))


def _of_strategy(
    results: Results, label: str, task: str, index: int, numbers: range
) -> list[tuple[str, list[Path]]]:
    """Return a strategy's columns: its outputs now, and those when it learned the task if they differ."""
    seed = results.experiment["seeds"][0]
    stages = [s for s in results.stages if (s.strategy, s.seed) == (label, seed)]
    if len(stages) < index:
        return []

    def pictures(stage: Stage) -> list[Path]:
        return [results.output_sample(stage, task, number) for number in numbers]

    now, then = pictures(stages[-1]), pictures(stages[index - 1])
    if all(
        a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)
        for a, b in zip(now, then, strict=True)
    ):
        return [(label, now)]
    return [(f"{label}, when learned", then), (label, now)]


def _copy(paths: Sequence[Path], out: Path, name: str, words: str) -> list[Picture]:
    pictures = []
    for number, path in enumerate(paths):
        file = f"{PICTURES}/{name}-{number}.png" if path.is_file() else ""
        if file:
            shutil.copyfile(path, out / file)
        pictures.append(Picture(file, f"{words}, held-out image {number + 1}"))
    return pictures
