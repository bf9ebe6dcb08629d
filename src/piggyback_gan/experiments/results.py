"""Read and write the results of an experiment.

The folder::

    experiment.json                     all settings: tasks, strategies, seeds, versions
    samples/<task>-<n>-input.png        the first held-out images of each task
    samples/<task>-<n>-target.png
    parts/<strategy>/rate-<r>/          a candidate learning rate, with the same files
    parts/<strategy>/seed-<s>/
        part.json                       settings when it was started
        stage-<k>.json                  all metrics after the k-th task, counted from 1
        samples/after-<k>/<task>-<n>.png    outputs for the same inputs at that stage
        bank/ or kept-<k>/              the tasks themselves
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """The settings in `experiment.json` that a report uses."""

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
    """Metrics of one strategy and seed after a task.

    Attributes:
        strategy: its label.
        seed: random seed.
        order: number of tasks learned so far.
        task: the newest task.
        learning_rate: the generator's, for this task.
        steps: training steps of the task.
        seconds: training time; 0 if the network was taken over.
        peak_memory: of the process while training, or of the GPU, in bytes; None if unknown.
        parameters: stored for all tasks so far, in 32-bit values.
        predicted: parameters that the task adds, by formula; where they are chosen by need, the most that it may add.
        standalone: parameters of the task's network, or networks, as plain ones.
        bytes: of the files that keep all tasks so far.
        figures: task -> metric -> figure, of every task so far, as it is now.
        identical: task -> number of outputs that are bit-identical to those when the task was learned,
            and number of all outputs.
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
    """Settings of an experiment and its finished stages.

    `tried` are the stages of tasks 2 and on at candidate learning rates.
    """

    folder: Path
    experiment: Mapping[str, Any]
    stages: tuple[Stage, ...] = ()
    tried: tuple[Stage, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read an experiment's folder, finished or not. Its content is validated.

        Raises:
            PiggybackError: it is not an experiment's, or a file is damaged or of another experiment.
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

    def output_sample(self, stage: Stage, task: str, number: int) -> Path:
        """Path of the picture of a strategy's output for that input after a stage."""
        folder = part_folder(self.folder, stage.strategy, stage.seed)
        return output_sample(folder, stage.order, task, number)


def read_experiment_file(folder: Path) -> dict[str, Any]:
    """Read the settings of an experiment.

    Raises:
        PiggybackError: the folder is not an experiment's, or the file is damaged.
    """
    problem = f"{folder} is not an experiment's folder (the --out of pbgan experiment)"
    return read_table(folder / EXPERIMENT_FILE, problem)


def part_folder(folder: Path, strategy: str, seed: int) -> Path:
    """Folder of a strategy's results with one seed."""
    return folder / PARTS / str(PartName(strategy, seed))


def rate_folder(folder: Path, strategy: str, rate: float) -> Path:
    """Folder of a strategy's results at a candidate learning rate."""
    return folder / PARTS / str(PartName(strategy, seed=0, rate=float(rate)))


def has_diverged(part: Path) -> bool:
    """Whether training diverged at a candidate learning rate."""
    return (part / DIVERGED).exists()


def held_out_sample(folder: Path, task: str, number: int, what: str) -> Path:
    """Path of the picture of a held-out image: `what` is "input" or "target"."""
    return folder / SAMPLES / f"{task}-{number}-{what}.png"


def output_sample(part: Path, order: int, task: str, number: int) -> Path:
    """Path of the picture of an output after `order` tasks."""
    return part / SAMPLES / f"after-{order}" / f"{task}-{number}.png"


def stage_file(part: Path, order: int) -> Path:
    """Path of the metrics after `order` tasks."""
    return part / f"{STAGE}{order}.json"


def write_stage(part: Path, stage: Stage) -> None:
    """Write a stage atomically."""
    atomic_write(stage_file(part, stage.order), to_json(asdict(stage)))


def read_stages(part: Path) -> Iterator[Stage]:
    """Read the finished stages of a part, in order.

    Raises:
        PiggybackError: a file is damaged.
    """
    for order in itertools.count(1):
        path = stage_file(part, order)
        if not path.exists():
            return
        content = read_table(path, f"{path} is damaged")
        try:
            yield _stage(content, order)
        except (ValueError, OverflowError) as error:
            raise PiggybackError(
                f"{path} is damaged ({error}): remove it to measure it again"
            ) from None


def to_json(content: Mapping[str, Any]) -> bytes:
    """Encode JSON as this library writes it."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_table(path: Path, problem: str) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Args:
        path: the file.
        problem: the beginning of the error message.

    Raises:
        PiggybackError: it is missing, can't be read or contains something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PiggybackError(f"{problem}: {path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PiggybackError(f"{problem}: {path} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise PiggybackError(f"{problem}: {path} is not a JSON object")
    return content


def _check_experiment(content: Mapping[str, Any]) -> None:
    """Validate the settings that a report needs; names become parts of file names, and cells of CSV files."""
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
    """Read the stages of a part; raise PiggybackError if one is of another strategy, seed or task."""
    for stage in read_stages(part):
        learned = tasks[: stage.order]
        is_own = stage.strategy == label and seed in (None, stage.seed)
        is_of_tasks = stage.order <= len(tasks) and stage.task == learned[-1]
        if not is_own or not is_of_tasks or {*stage.figures, *stage.identical} - {*learned}:
            raise PiggybackError(
                f"{stage_file(part, stage.order)} is of another experiment, strategy or seed: remove it"
            )
        yield stage


def _stage(content: dict[str, Any], order: int) -> Stage:
    """Convert a stage's file; a ValueError says which value is missing, of another type or not possible."""
    stage = msgspec.convert(content, Stage)
    if other := content.keys() ^ asdict(stage).keys():
        raise ValueError(f"unknown or missing keys: {', '.join(sorted(other))}")
    if msgspec.to_builtins(stage.figures) != content["figures"]:
        raise ValueError("a figure has unknown or missing values")
    for key, value in content.items():
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    if stage.order != order or stage.standalone < 1:
        raise ValueError(f"order is {stage.order}, standalone {stage.standalone}")
    for metric in {metric for figures in stage.figures.values() for metric in figures}:
        # Names files of a report; may have capitals, as in _AtoB.
        check_name(metric.lower(), "a metric")
    if not all(isinstance(point.get("step"), int) for point in stage.curve):
        raise ValueError("a point of the curve has no step")
    return stage
