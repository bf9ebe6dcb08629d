"""The folder of a lifelong experiment, with figures and pictures that are made up but add up."""

import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.results import (
    EXPERIMENT_FILE,
    SAMPLES,
    Results,
    Stage,
    output_sample,
    part_folder,
    to_json,
    write_stage,
)

TASKS = {"cityscapes": "paired", "maps": "paired", "horses": "unpaired"}
KINDS = {
    "standalone": "standalone",
    "finetune": "finetune",
    "piggyback-1-4": "piggyback",
    "lora": "lora",
}
SEEDS = (0, 1)
NETWORK = 1000
ADDED = {"standalone": 1.0, "finetune": 0.0, "piggyback-1-4": 0.34, "lora": 0.33}
QUALITY = {"standalone": 1.0, "finetune": 0.96, "piggyback-1-4": 1.03, "lora": 1.12}
PAIRED = {"l1": 0.21, "psnr": 16.2, "ssim": 0.45, "perceptual_distance": 5.4}
DISTANCES = {"frechet_distance": 812.0, "kernel_distance": 0.034}
MISSING = ("lora", 1)  # this part has its first task only


def draw_experiment(
    folder: Path, tasks: dict[str, str] | None = None, *, pixels: int = 16, **changed: Any
) -> Results:
    """Write an experiment's folder: 2 paired tasks and 1 unpaired, 4 strategies, 2 seeds, one part unfinished.

    Args:
        tasks: name -> mode, in order, in place of those of the module.
        pixels: the pictures' side.
        changed: fields of experiment.json that are to be others.
    """
    modes = tasks or TASKS
    experiment = _experiment(modes) | changed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPERIMENT_FILE).write_bytes(to_json(experiment))
    for index, name in enumerate(modes):
        for number in range(experiment["samples"]):
            for what in ("input", "target") if modes[name] == "paired" else ("input",):
                _draw(folder / SAMPLES / f"{name}-{number}-{what}.png", index + number, 0, pixels)
    for strategy in experiment["strategies"]:
        for seed in experiment["seeds"]:
            last = 1 if (strategy["label"], seed) == MISSING else len(modes)
            for order in range(1, last + 1):
                write_part(folder, modes, strategy["label"], seed, order, pixels)
    return Results.read(folder)


def write_part(
    folder: Path, modes: dict[str, str], label: str, seed: int, order: int, pixels: int = 16
) -> None:
    """One stage of one part, and its pictures."""
    chance = random.Random(f"{label}-{seed}-{order}")
    learned = list(modes)[:order]
    forgets = label == "finetune"
    kind = ADDED.get(label, 0.34)
    networks = [2 if mode == "unpaired" else 1 for mode in modes.values()]
    kept = networks[0] + kind * sum(networks[1:order])
    added = networks[order - 1] * (kind if order > 1 else 1.0)
    part = part_folder(folder, label, seed)
    part.mkdir(parents=True, exist_ok=True)
    figures = {}
    for index, task in enumerate(learned, 1):
        worse = QUALITY.get(label, 1.0) if index > 1 else 1.0
        if forgets:
            worse *= 1 + 0.4 * (order - index)
        figures[task] = _figures(modes[task], worse + 0.02 * seed, index)
    write_stage(
        part,
        Stage(
            strategy=label,
            seed=seed,
            order=order,
            task=learned[-1],
            learning_rate=2e-4,
            steps=600,
            seconds=0.0 if order == 1 and label != "standalone" else 100 + 10 * chance.random(),
            peak_memory=None if label == "lora" else 300_000_000 + order,
            parameters=NETWORK * kept,
            predicted=NETWORK * added,
            standalone=NETWORK * networks[order - 1],
            bytes=round(4 * NETWORK * kept) + 99,
            figures=figures,
            identical={t: (0 if forgets and t != learned[-1] else 12, 12) for t in learned},
            curve=_curve(modes[learned[-1]], QUALITY.get(label, 1.0), chance),
            warnings=("256 images, 1280 dimensions: Fréchet distances are too high",),
        ),
    )
    for index, task in enumerate(learned):
        for number in range(2):
            wear = 40 * (order - index - 1) if forgets else 0
            _draw(output_sample(part, order, task, number), index + number, 20 + wear, pixels)


def _figures(mode: str, worse: float, index: int) -> dict[str, Figure]:
    values = {}
    for metric, value in {**(PAIRED if mode == "paired" else {}), **DISTANCES}.items():
        level = value * (1 + 0.1 * index)
        values[metric] = level / worse if metric in ("psnr", "ssim") else level * worse
    if mode == "unpaired":
        values = {
            f"{metric}_{direction}": value * (1.1 if direction == "BtoA" else 1)
            for metric, value in values.items()
            for direction in ("AtoB", "BtoA")
        } | {"cycle_l1_A": 0.1 * worse, "cycle_l1_B": 0.12 * worse}
    return {m: Figure(v, v - abs(v) * 0.03, v + abs(v) * 0.04) for m, v in values.items()}


def _curve(mode: str, worse: float, chance: random.Random) -> tuple[dict[str, float], ...]:
    names = ("perceptual_distance",) if mode == "paired" else ("cycle_l1_A", "cycle_l1_B")
    start = 0.9 if worse > 1 else 1.6
    return tuple(
        {"step": 100 * epoch}
        | {name: worse * (5 + start * 3 / epoch + 0.05 * chance.random()) for name in names}
        for epoch in range(1, 7)
    )


def _draw(path: Path, hue: int, wear: int, pixels: int) -> None:
    """A disc on a ground; what a worn network makes of it is flat and pale."""
    rows, columns = np.mgrid[:pixels, :pixels] / pixels
    disc = ((rows - 0.5) ** 2 + (columns - 0.3 - 0.1 * (hue % 5)) ** 2) < 0.08
    ground = np.stack([rows * 200, columns * 160, np.full_like(rows, 40.0 * (hue % 6))], axis=2)
    image = np.where(disc[..., None], 230 - ground, ground)
    faded = image + (150 - image) * min(wear / 120, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(faded.clip(0, 255).astype(np.uint8)).save(path)


def _experiment(modes: dict[str, str]) -> dict[str, Any]:
    return {
        "name": "drawn",
        "title": "Drawn tasks",
        "library_version": "0.1.0",
        "torch": "2.13.0",
        "python": "3.11.9",
        "machine": {"architecture": "x86_64", "cores": 2, "device": "cpu"},
        "command": "pbgan experiment drawn.toml --out drawn",
        "started": "2026-11-20T10:00:00+00:00",
        "file": '[experiment]\nname = "drawn"\nseeds = [0, 1]\n',
        "seeds": list(SEEDS),
        "samples": 2,
        "generator": {"generator": "resnet-6", "ngf": 32, "norm": "instance"},
        "features": {"name": "mobilenet_v2_features", "sha256": "ab" * 32},
        "distance": {"name": "squeezenet_distance", "sha256": "cd" * 32},
        "tasks": [
            {
                "name": name,
                "mode": mode,
                "direction": "AtoB",
                "data": f"data/{name}",
                "train_images": 400,
                "held_out_images": 256,
                "image_size": 64,
                "epochs": 6,
                "steps": 600,
                "options": {"batch_size": 4, "l1_weight": 100.0, "flip": True, "augment": []},
            }
            for name, mode in modes.items()
        ],
        "strategies": [
            {
                "label": label,
                "kind": kind,
                "options": {"unconstrained": 0.25} if kind == "piggyback" else {},
                "learning_rates": [2e-4, 5e-4],
            }
            for label, kind in KINDS.items()
        ],
        "first_learning_rate": 2e-4,
    }
