"""What an experiment leaves in its folder, written and read.

The folder::

    experiment.json                     everything that was set: tasks, strategies, seeds, versions
    samples/<task>-<n>-input.png        the first held-out images of each task
    samples/<task>-<n>-target.png
    parts/<strategy>/seed-<s>/
        part.json                           what it was begun with
        stage-<k>.json                  all that was measured after the k-th task, counted from 1
        samples/after-<k>/<task>-<n>.png    what the strategy makes of the same inputs then
        bank/ or kept-<k>/              the tasks themselves
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.judging import Figure
from piggyback_gan.manifest import atomic_write

EXPERIMENT_FILE = "experiment.json"
PARTS = "parts"
SAMPLES = "samples"
STAGE = "stage-"


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
    """All that a folder has so far: what was set, and the stages that are done."""

    folder: Path
    experiment: Mapping[str, Any]
    stages: tuple[Stage, ...] = field(default_factory=tuple)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read an experiment's folder, finished or not.

        Raises:
            PiggybackError: it is none, or a file in it is damaged.
        """
        experiment = read_experiment_file(folder)
        stages: list[Stage] = []
        for strategy in experiment["strategies"]:
            for seed in experiment["seeds"]:
                stages += read_stages(part_folder(folder, strategy["label"], seed))
        return cls(folder, experiment, tuple(stages))

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
    return read_table(folder / EXPERIMENT_FILE, f"{folder} is no experiment's folder")


def part_folder(folder: Path, strategy: str, seed: int) -> Path:
    """Where an experiment keeps what one strategy does with one seed."""
    return folder / PARTS / strategy / f"seed-{seed}"


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
            yield Stage(
                **content
                | {
                    "figures": {
                        task: {name: Figure(**figure) for name, figure in figures.items()}
                        for task, figures in content["figures"].items()
                    },
                    "identical": {k: (v[0], v[1]) for k, v in content["identical"].items()},
                    "curve": tuple(content["curve"]),
                    "warnings": tuple(content["warnings"]),
                }
            )
        except (KeyError, TypeError, AttributeError, IndexError):
            raise PiggybackError(f"{path} is damaged: remove it to measure it again") from None
        order += 1


def to_json(content: Mapping[str, Any]) -> bytes:
    """JSON as this library writes it."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_table(path: Path, problem: str) -> dict[str, Any]:
    """A JSON file that holds a table.

    Raises:
        PiggybackError: it can't be read; `problem` begins the message.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PiggybackError(f"{problem}: {path} is missing") from None
    except (OSError, ValueError) as error:
        raise PiggybackError(f"{problem}: {path} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise PiggybackError(f"{problem}: {path} holds no table")
    return content
