"""Train two unpaired tasks with a paired one between them in one bank, at 64 px.

    python benchmarks/unpaired.py ../shared/data --out /tmp/unpaired

DATA contains cityscapes/, facade_windows/ and maps/, in pix2pix's layout; the first and the last are trained
unpaired, in both directions. Every task is evaluated on all of its held-out images, from the bank on disk, when
it is learned and after the last one; all outputs of both directions are hashed both times. Held-out images
are paired here, so that translations can be compared with targets; training did not use the pairing.
Results go to docs/results/unpaired-64px.json, with each epoch's metrics.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lifelong import (
    OPTIONS,
    Task,
    epochs_of,
    held_out,
    judge,
    learned_row,
    record_after_last,
    require_new,
    train,
    write_results,
)
from piggyback_gan import Bank
from piggyback_gan.data.datasets import UnpairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.evaluation.evaluate import Evaluation, evaluate
from piggyback_gan.images.format import ImageFormat

# About 500 steps each: few for CycleGAN, whose step costs as much as seven paired ones.
TASKS = (
    (Task("cityscapes", "AtoB", 2), "unpaired"),
    (Task("facade_windows", "BtoA", 4), "paired"),
    (Task("maps", "BtoA", 2), "unpaired"),
)


def judge_both_ways(bank_path: Path, data: Path, task: Task) -> Evaluation:
    """Evaluate both directions of an unpaired task, from the bank on disk."""
    pairs = [pair.sources for pair in find_pairs(data / task.folder).held_out]
    first, second = zip(*pairs, strict=True)
    sides = (first, second) if task.direction == "AtoB" else (second, first)
    dataset = UnpairedDataset(
        *sides, formats=(ImageFormat(), ImageFormat()), size=OPTIONS.image_size
    )
    bank = Bank.open(bank_path)
    there, back = (
        bank.generator(task.folder, direction=way) for way in bank.directions(task.folder)
    )
    device = torch.device("cpu")
    return evaluate((there, back), dataset, device, direction=task.direction)


def evaluation(bank_path: Path, data: Path, task: Task, mode: str) -> Evaluation:
    if mode == "unpaired":
        return judge_both_ways(bank_path, data, task)
    return judge(bank_path, task.folder, held_out(data, task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the bank")
    given = parser.parse_args()
    require_new(given.out)
    bank_path = given.out / "bank"
    rows: list[dict[str, Any]] = []
    before: list[Evaluation] = []
    for task, mode in TASKS:
        options = replace(OPTIONS, direction=task.direction, epochs=task.epochs, mode=mode)
        seconds = train(bank_path, given.data, task, options)
        before.append(evaluation(bank_path, given.data, task, mode))
        row = learned_row(bank_path, task, seconds, before[-1])
        rows.append(row | {"epochs": epochs_of(bank_path, task)})
    for row, (task, mode), earlier in zip(rows, TASKS, before, strict=True):
        record_after_last(row, earlier, evaluation(bank_path, given.data, task, mode))
    write_results("unpaired-64px.json", tasks=rows)


if __name__ == "__main__":
    main()
