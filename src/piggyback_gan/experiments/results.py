"""What an experiment leaves in its folder, written and read.

The folder::

    experiment.json                     everything that was set: tasks, strategies, seeds, versions
    samples/<task>-<n>-input.png        the first held-out images of each task
    samples/<task>-<n>-target.png
    parts/<strategy>/rate-<r>/          a candidate of its learning rate, kept likewise
    parts/<strategy>/seed-<s>/
        part.json                           what it was begun with
        stage-<k>.json                  all that was measured after the k-th task, counted from 1
        samples/after-<k>/<task>-<n>.png    what the strategy makes of the same inputs then
        bank/ or kept-<k>/              the tasks themselves
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.part_names import PartName
from piggyback_gan.names import check_name, check_task_name
from piggyback_gan.system.files import atomic_write

EXPERIMENT_FILE = "experiment.json"
PARTS = "parts"
SAMPLES = "samples"
STAGE = "stage-"
DIVERGED = "diverged.json"

_NUMBER = (int, float)
_STAGE_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("strategy", "task"), (str,)),
    **dict.fromkeys(("seed", "order", "steps", "bytes"), (int,)),
    **dict.fromkeys(("learning_rate", "seconds", "parameters", "predicted", "standalone"), _NUMBER),
    "peak_memory": (int, type(None)),
    **dict.fromkeys(("figures", "identical"), (dict,)),
    **dict.fromkeys(("curve", "warnings"), (list,)),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What was measured of one strategy and seed after one more task.

    Attributes:
        strategy: its label.
        seed: of all chance.
        order: how many tasks are learned now.
        task: the newest.
        learning_rate: the generator's, for this task.
        steps: how many the task was trained.
        seconds: how long that took; 0 where a network was taken over.
        peak_memory: of the process while training, or of the GPU, in bytes; None where unknown.
        parameters: what is kept of all tasks so far, in 32-bit values.
        predicted: what the task adds to that, by formula.
        standalone: parameters of the task's network, or networks, as plain ones.
        bytes: of the files that keep all tasks so far.
        figures: task -> metric -> figure, of every task so far, as it is now.
        identical: task -> how many outputs have the bits that they had when the task was learned, and of
            how many.
        curve: at the end of each epoch, {"step": steps so far, metric: value, ...} of some held-out images.
    """

    strategy: str
    seed: int
    order: int
    task: str
    learning_rate: float
    steps: int
    seconds: float
    peak_memory: int | None
    parameters: float
    predicted: float
    standalone: float
    bytes: int
    figures: Mapping[str, Mapping[str, Figure]]
    identical: Mapping[str, tuple[int, int]]
    curve: tuple[Mapping[str, float], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """All that a folder has so far: what was set, and the stages that are done.

    `tried` are the stages of tasks 2 and on at the candidates of a learning rate.
    """

    folder: Path
    experiment: Mapping[str, Any]
    stages: tuple[Stage, ...] = field(default_factory=tuple)
    tried: tuple[Stage, ...] = field(default_factory=tuple)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read an experiment's folder, finished or not; others may have made it.

        Raises:
            PiggybackError: it is none, or a file in it is damaged or of another experiment.
        """
        experiment = read_experiment_file(folder)
        try:
            _check_experiment(experiment)
        except PiggybackError as error:
            raise PiggybackError(f"{folder / EXPERIMENT_FILE} is damaged: {error}") from None
        tasks = [task["name"] for task in experiment["tasks"]]
        stages: list[Stage] = []
        tried: list[Stage] = []
        for strategy in experiment["strategies"]:
            label = strategy["label"]
            for seed in experiment["seeds"]:
                stages += _checked_stages(part_folder(folder, label, seed), label, seed, tasks)
            for rate in strategy.get("learning_rates", ()):
                part = rate_folder(folder, label, rate)
                found = list(_checked_stages(part, label, None, tasks))[1:]
                if any(stage.learning_rate != rate for stage in found):
                    raise PiggybackError(f"{part} is of another learning rate: remove it")
                tried += found
        return cls(folder, experiment, tuple(stages), tuple(tried))

    def sample(self, task: str, number: int, what: str) -> Path:
        """The picture of a held-out image: `what` is "input" or "target"."""
        return held_out_sample(self.folder, task, number, what)

    def output_sample(self, stage: Stage, task: str, number: int) -> Path:
        """The picture of what a strategy made of that input after a stage."""
        folder = part_folder(self.folder, stage.strategy, stage.seed)
        return output_sample(folder, stage.order, task, number)


def read_experiment_file(folder: Path) -> dict[str, Any]:
    """Everything that was set.

    Raises:
        PiggybackError: the folder is no experiment's, or the file is damaged.
    """
    return read_table(
        folder / EXPERIMENT_FILE,
        f"{folder} is no experiment's folder (the --out of pbgan experiment)",
    )


def part_folder(folder: Path, strategy: str, seed: int) -> Path:
    """Where an experiment keeps what one strategy does with one seed."""
    return folder / PARTS / str(PartName(strategy, seed))


def rate_folder(folder: Path, strategy: str, rate: float) -> Path:
    """Where an experiment keeps what a strategy does at a candidate of its learning rate."""
    return folder / PARTS / str(PartName(strategy, seed=0, rate=float(rate)))


def has_diverged(part: Path) -> bool:
    """Whether training failed in the part of a candidate of a learning rate."""
    return (part / DIVERGED).exists()


def held_out_sample(folder: Path, task: str, number: int, what: str) -> Path:
    """Where an experiment keeps the picture of a held-out image: `what` is "input" or "target"."""
    return folder / SAMPLES / f"{task}-{number}-{what}.png"


def output_sample(part: Path, order: int, task: str, number: int) -> Path:
    """Where a part keeps the picture of an output after so many tasks."""
    return part / SAMPLES / f"after-{order}" / f"{task}-{number}.png"


def stage_file(part: Path, order: int) -> Path:
    """Where a part keeps what was measured after so many tasks."""
    return part / f"{STAGE}{order}.json"


def write_stage(part: Path, stage: Stage) -> None:
    """Write what was measured, in one moment.

    Raises:
        PiggybackError: it can't be written.
    """
    atomic_write(stage_file(part, stage.order), to_json(asdict(stage)))


def read_stages(part: Path) -> Iterator[Stage]:
    """The stages of a part that are done, in order.

    Raises:
        PiggybackError: a file is damaged.
    """
    order = 1
    while (path := stage_file(part, order)).exists():
        content = read_table(path, f"{path} is damaged")
        try:
            stage = _stage(content, order)
        except (TypeError, ValueError, OverflowError) as error:
            raise PiggybackError(
                f"{path} is damaged ({error}): remove it to measure it again"
            ) from None
        yield stage
        order += 1


def to_json(content: Mapping[str, Any]) -> bytes:
    """JSON as this library writes it."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_table(path: Path, problem: str) -> dict[str, Any]:
    """A JSON file that holds a table.

    Args:
        path: the file.
        problem: what it means that the file can't be read; the error begins with it.

    Raises:
        PiggybackError: it is missing, can't be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PiggybackError(f"{problem}: {path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PiggybackError(f"{problem}: {path} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise PiggybackError(f"{problem}: {path} holds no table")
    return content


def _check_experiment(content: Mapping[str, Any]) -> None:
    """Refuse what a report can't be made of; names become parts of file names, and cells of CSV files.

    Raises:
        PiggybackError: a setting is missing or of another type, or a name can't be one.
    """
    for task in _named(content, "tasks", "name"):
        check_task_name(task)
    for label in _named(content, "strategies", "label"):
        check_name(label, "a strategy")
    if not content.get("seeds"):
        raise PiggybackError("seeds are missing")
    for table in (content, *content["strategies"]):
        for key, types in (("seeds", (int,)), ("learning_rates", _NUMBER)):
            values = table.get(key, [])
            if type(values) is not list or any(
                type(value) not in types or abs(value) > _MOST for value in values
            ):
                raise PiggybackError(f"{key} must be a list of numbers, found {values!r}")
    search = content.get("search") or {}
    if type(search) is not dict or type(search.get("metric", "")) is not str:
        raise PiggybackError(f"search must be a table with a metric, found {search!r}")
    if type(samples := content.get("samples", 0)) is not int:
        raise PiggybackError(f"samples must be a whole number, found {samples!r}")
    for key in ("generator", "features", "distance", "recogniser"):
        table = content.get(key)
        if table is not None and (
            type(table) is not dict or type(table.get("name", "")) is not str
        ):
            raise PiggybackError(f"{key} must be a table with a name, found {table!r}")


_MOST = 2**63  # of a seed or a rate, far beyond any


def _named(content: Mapping[str, Any], key: str, name: str) -> list[str]:
    """The names of a list of tables.

    Raises:
        PiggybackError: it is no such list, or two have one name.
    """
    tables = content.get(key)
    if type(tables) is not list or not tables:
        raise PiggybackError(f"{key} must be a list of tables, found {tables!r}")
    names = [table.get(name) if type(table) is dict else None for table in tables]
    texts = [found for found in names if isinstance(found, str)]
    if len(set(texts)) < len(tables):
        raise PiggybackError(f"{key} must have a {name} each, and each another")
    return texts


def _checked_stages(
    part: Path, label: str, seed: int | None, tasks: Sequence[str]
) -> Iterator[Stage]:
    for stage in read_stages(part):
        _check_stage(stage, part, label, stage.seed if seed is None else seed, tasks)
        yield stage


def _check_stage(stage: Stage, part: Path, label: str, seed: int, tasks: Sequence[str]) -> None:
    """Refuse what was measured elsewhere.

    Raises:
        PiggybackError: the stage is of another strategy, seed or task than its place says.
    """
    learned = tasks[: stage.order]
    here = stage.strategy == label and stage.seed == seed and stage.order <= len(tasks)
    if (
        not here
        or stage.task != learned[-1]
        or not {*stage.figures, *stage.identical} <= {*learned}
    ):
        raise PiggybackError(
            f"{stage_file(part, stage.order)} is of another experiment, strategy or seed: remove it"
        )


def _stage(content: dict[str, Any], order: int) -> Stage:
    """A stage as its file has it.

    Raises:
        TypeError, ValueError, OverflowError: a value is missing, of another type or not finite.
    """
    for key, types in _STAGE_TYPES.items():
        value = _typed(content.get(key), types, key)
        if type(value) in _NUMBER and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    if content["order"] != order or content["standalone"] < 1:
        raise ValueError(f"order is {content['order']}, standalone {content['standalone']}")
    return Stage(
        **content
        | {
            "figures": {task: _figures(found, task) for task, found in content["figures"].items()},
            "identical": {task: _counts(of, task) for task, of in content["identical"].items()},
            "curve": tuple(map(_point, content["curve"])),
            "warnings": tuple(_typed(text, (str,), "a warning") for text in content["warnings"]),
        }
    )


def _figures(found: Any, task: str) -> dict[str, Figure]:
    figures = {}
    for metric, figure in _typed(found, (dict,), task).items():
        # Files of a report are named after it. It may have capitals, as in _AtoB.
        check_name(metric.lower(), "a metric")
        figures[metric] = Figure(**_numbers(figure, metric))
    return figures


def _counts(found: Any, task: str) -> tuple[int, int]:
    same, of = (_typed(count, (int,), task) for count in _typed(found, (list,), task))
    return same, of


def _point(found: Any) -> dict[str, float]:
    point = _numbers(found, "a point of the curve")
    _typed(point.get("step"), (int,), "a step of the curve")
    return point


def _numbers(found: Any, where: str) -> dict[str, Any]:
    table = _typed(found, (dict,), where)
    return {key: _typed(value, _NUMBER, where) for key, value in table.items()}


def _typed(value: Any, types: tuple[type, ...], where: str) -> Any:
    """The value. Types are compared exactly: JSON's true is no number."""
    if type(value) not in types:
        raise TypeError(f"{where} can't be {type(value).__name__}")
    return value
