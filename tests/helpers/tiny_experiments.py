"""A tiny experiment for tests: two paired tasks and an unpaired one, drawn, and networks that judge."""

import json
from pathlib import Path
from typing import Any

from drawn import draw_pairs
from judging_networks import Colours, Difference, saved
from piggyback_gan.cli import experiment as command
from piggyback_gan.experiments.results import Stage, part_folder, read_stages
from piggyback_gan.experiments.settings import Experiment, read_experiment

TASKS = {"boxes": "paired", "night": "paired", "winter": "unpaired"}
STRATEGIES = ("standalone", "finetune", "piggyback")
HEAD = """
title = "Boxes"
steps = 4
first_learning_rate = 0.002
features = "colours.pt"
distance = "difference.pt"
samples = 2
curve_images = 2
[options]
batch_size = 2
image_size = 16
discriminator_layers = 1
ndf = 4
[generator]
generator = "resnet-6"
ngf = 4
[search]
val_fraction = 0.34
"""


def tasks_text(**modes: str) -> str:
    """The `[[task]]` tables."""
    return "".join(f'[[task]]\nname = "{task}"\nmode = "{mode}"\n' for task, mode in modes.items())


def strategies_text(*names: str, rate: object = 0.002) -> str:
    """A `[[strategy]]` table for each name."""
    return "".join(f'[[strategy]]\nname = "{name}"\nlearning_rate = {rate}\n' for name in names)


def draw(folder: Path, text: str | None = None) -> Path:
    """Draw the tasks' images and the networks that judge, and write the experiment's file beside them."""
    folder.mkdir(exist_ok=True)
    for seed, task in enumerate(TASKS):
        draw_pairs(folder / task, train=4, test=3, size=20, seed=seed)
    saved(Colours(), folder / "colours.pt")
    saved(Difference(), folder / "difference.pt")
    return write(folder, text or HEAD + tasks_text(**TASKS) + strategies_text(*STRATEGIES))


def write(folder: Path, text: str, name: str = "boxes.toml") -> Path:
    """An experiment's file."""
    path = folder / name
    path.write_text(text)
    return path


def read(folder: Path, text: str, **given: Any) -> Experiment:
    """What a file of this text says."""
    return read_experiment(write(folder, text), **given)


def run(file: Path, out: Path, *more: str) -> int:
    """The command, in this process."""
    return command.run([str(file), "--out", str(out), "--device", "cpu", *more])


def stages(out: Path, label: str, seed: int = 0) -> list[Stage]:
    """What a strategy's part has measured."""
    return list(read_stages(part_folder(out, label, seed)))


def figures(out: Path) -> dict[str, dict[str, Any]]:
    """Every part's stages, but for what time and memory they took."""
    found = {}
    for path in sorted(out.glob("parts/*/*/stage-*.json")):
        content = json.loads(path.read_text())
        del content["seconds"], content["peak_memory"]
        found[str(path.relative_to(out))] = content
    return found
