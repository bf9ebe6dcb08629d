"""Contact sheets of a report: the same held-out images, as every strategy translates them."""

import filecmp
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.labels import DIRECTIONS
from piggyback_gan.experiments.results import Results, Stage

PICTURES = "pictures"


@dataclass(frozen=True)
class Picture:
    """A picture of a sheet: its file from the report's folder on ("" where it is missing), and its words."""

    file: str
    alt: str


@dataclass(frozen=True)
class Sheet:
    """One task's pictures: a row for each held-out image, a column for each heading."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Picture, ...], ...]


def write_sheets(results: Results, out: Path) -> list[Sheet]:
    """Copy the pictures of the first seed into a report's folder, and say what shows what.

    A strategy whose outputs changed since the task was learned has two columns. A task without any picture
    has no sheet.
    """
    (out / PICTURES).mkdir()
    sheets = (_sheet(results, task, out) for task in summary.tasks(results))
    return [sheet for sheet in sheets if sheet.rows]


def safe(name: str) -> str:
    """A name as part of a file's name, whatever is in it."""
    return re.sub(r"[^a-z0-9._-]", "-", name)


def _sheet(results: Results, task: str, out: Path) -> Sheet:
    index = summary.tasks(results).index(task) + 1
    numbers = range(int(results.experiment.get("samples", 0)))
    columns: list[tuple[str, list[Path]]] = [
        (what, [results.sample(task, number, what) for number in numbers])
        for what in ("input", "target")
    ]
    for label in summary.strategies(results):
        columns += _of_strategy(results, label, task, index, numbers)
    columns = [(name, paths) for name, paths in columns if any(path.is_file() for path in paths)]
    copied = [
        _copy(paths, out, f"{index}-{safe(task)}-{column}-{safe(name)}", f"{name}, {task}")
        for column, (name, paths) in enumerate(columns)
    ]
    rows = zip(*copied, strict=True)
    described = results.experiment["tasks"][index - 1]
    # A task that is learned both ways has pictures of its own direction only.
    way = DIRECTIONS[described["direction"]] if described.get("mode") == "unpaired" else ""
    return Sheet(f"Task {index}, {task}{way}", tuple(name for name, _ in columns), tuple(rows))


def _of_strategy(
    results: Results, label: str, task: str, index: int, numbers: range
) -> list[tuple[str, list[Path]]]:
    """The columns of one strategy: what it makes now, and what it made when it learned the task."""
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
        file = f"{PICTURES}/{name}-{number}.png"
        if path.is_file():
            shutil.copyfile(path, out / file)
        pictures.append(
            Picture(file if path.is_file() else "", f"{words}, held-out image {number + 1}")
        )
    return pictures
