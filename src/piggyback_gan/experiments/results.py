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
from typing import Any, Required, TypedDict

import msgspec

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

_MOST = 2**63  # far beyond any seed or learning rate


class _Task(TypedDict):
    name: str


class _Strategy(TypedDict, total=False):
    label: Required[str]
    seeds: list[int]
    learning_rates: list[int | float]


class _Search(TypedDict, total=False):
    metric: str


class _Network(TypedDict, total=False):
    name: str


class _Settings(TypedDict, total=False):
    """What a report takes from `experiment.json`."""

    tasks: Required[list[_Task]]
    strategies: Required[list[_Strategy]]
    seeds: Required[list[int]]
    search: _Search | None
    samples: int
    generator: _Network | None
    features: _Network | None
    distance: _Network | None
    recogniser: _Network | None


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
    curve: tuple[Mapping[str, int | float], ...] = ()
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
        except ValueError as error:
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
    """Validate the settings that a report needs; names become parts of file names, and cells of CSV files.

    Raises:
        PiggybackError: a setting is missing or of another type, or a name is not valid.
    """
    try:
        settings = msgspec.convert(content, _Settings)
    except msgspec.ValidationError as error:
        raise PiggybackError(str(error)) from None
    for key in ("tasks", "strategies", "seeds"):
        if not content[key]:
            raise PiggybackError(f"{key} are missing")
    tasks = [task["name"] for task in settings["tasks"]]
    labels = [strategy["label"] for strategy in settings["strategies"]]
    for names, what in ((tasks, "tasks"), (labels, "strategies")):
        if len(set(names)) < len(names):
            raise PiggybackError(f"two {what} have the same name")
    for task in tasks:
        check_task_name(task)
    for label in labels:
        check_name(label, "a strategy")
    numbers: list[float] = [*settings["seeds"]]
    for strategy in settings["strategies"]:
        numbers += [*strategy.get("seeds", ()), *strategy.get("learning_rates", ())]
    if any(abs(number) > _MOST for number in numbers):
        raise PiggybackError("a seed or learning rate is too large")


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
    """A stage from its file.

    Raises:
        msgspec.ValidationError, ValueError: a value is missing, of another type or not possible.
    """
    stage = msgspec.convert(content, Stage)
    if unknown := content.keys() - asdict(stage):
        raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
    for key, value in content.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    if stage.order != order or stage.standalone < 1:
        raise ValueError(f"order is {stage.order}, standalone {stage.standalone}")
    for figures in stage.figures.values():
        for metric in figures:
            # Files of a report are named after it. It may have capitals, as in _AtoB.
            check_name(metric.lower(), "a metric")
    if not all(isinstance(point.get("step"), int) for point in stage.curve):
        raise ValueError("a point of the curve has no step")
    return stage
