"""The real unpaired run: two unpaired tasks with a paired one between them, in one bank, at 64 px.

    python benchmarks/unpaired.py ../shared/data --out /tmp/unpaired

DATA holds cityscapes/, facade_windows/ and maps/, as pix2pix has them; the first and the last are trained
unpaired, in both directions. Every task is judged on all of its held-out images, from the bank on disk, when
it was learned and after the last one; every output of both directions is hashed both times. Held-out images
have partners here, so that translations can be compared with them: training never saw which belong together.
Results go to docs/results/unpaired-64px.json, with each epoch's metrics.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lifelong import GENERATOR, OPTIONS, RESULTS, Task, figures, held_out, judge, machine, train
from piggyback_gan import Bank
from piggyback_gan.data import UnpairedDataset
from piggyback_gan.evaluation import Evaluation, evaluate_unpaired
from piggyback_gan.folders import find_pairs
from piggyback_gan.image_formats import ImageFormat

# About 500 steps each: few for CycleGAN, whose step costs as much as seven paired ones.
TASKS = (
    (Task("cityscapes", "AtoB", 2), "unpaired"),
    (Task("facade_windows", "BtoA", 4), "paired"),
    (Task("maps", "BtoA", 2), "unpaired"),
)


def judge_both_ways(bank_path: Path, data: Path, task: Task) -> Evaluation:
    """Both directions of an unpaired task, from the bank on disk."""
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
    return evaluate_unpaired((there, back), dataset, device, direction=task.direction, paired=True)


def evaluation(bank_path: Path, data: Path, task: Task, mode: str) -> Evaluation:
    if mode == "unpaired":
        return judge_both_ways(bank_path, data, task)
    return judge(bank_path, task.folder, held_out(data, task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the bank")
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} exists: give a new folder")
    torch.set_flush_denormal(True)
    bank_path = given.out / "bank"
    rows: list[dict[str, Any]] = []
    before: list[Evaluation] = []
    for task, mode in TASKS:
        options = replace(OPTIONS, direction=task.direction, epochs=task.epochs, mode=mode)
        seconds = train(bank_path, given.data, task, options)
        before.append(evaluation(bank_path, given.data, task, mode))
        bank = Bank.open(bank_path)
        card = bank.card(task.folder)
        metrics = (bank_path / "runs" / task.folder / "metrics.jsonl").read_text()
        rows.append(
            {
                "task": task.folder,
                "seconds": round(seconds),
                "options": card["options"],
                "data": card["data"],
                "parameters": card["parameters"],
                "bytes": bank.entries[-1].bytes,
                "epochs": [json.loads(line) for line in metrics.splitlines()],
                "when_learned": figures(before[-1]),
            }
        )
    for row, (task, mode), earlier in zip(rows, TASKS, before, strict=True):
        after = evaluation(bank_path, given.data, task, mode)
        hashes = zip(earlier.output_hashes, after.output_hashes, strict=True)
        row["after_last"] = figures(after)
        row["identical_outputs"] = f"{sum(a == b for a, b in hashes)} of {after.images}"
    result = {
        "command": "python " + " ".join(sys.argv),
        "machine": machine(),
        "generator": asdict(GENERATOR),
        "tasks": rows,
    }
    path = RESULTS.with_name("unpaired-64px.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path} is written")


if __name__ == "__main__":
    main()
