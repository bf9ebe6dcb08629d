"""Train three paired tasks on photographs in one bank, and evaluate each again after the last.

    python benchmarks/lifelong.py ../shared/data --out /tmp/lifelong

DATA contains cityscapes/, maps/ and facade_windows/, in pix2pix's layout. All images are 64 px, lambda
is 1/4. Every task is evaluated on all of its held-out images, from the bank on disk, when it is learned
and after the last one; all outputs are hashed both times. With --standalone, tasks 2 and 3 are also
trained in the same way as standalone networks. Results go to docs/results/lifelong-64px.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from piggyback_gan import Bank, GeneratorOptions, TrainingOptions, teach
from piggyback_gan.cli.progress import TrainingProgress
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.evaluation.evaluate import Evaluation, evaluate
from piggyback_gan.images.format import ImageFormat

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "docs" / "results"
GENERATOR = GeneratorOptions(generator="resnet-6", ngf=32)
# As it was recorded, before augmentation came to be on for little data.
OPTIONS = TrainingOptions(
    batch_size=4,
    image_size=64,
    discriminator_layers=2,
    ndf=32,
    augment="off",
    unconstrained=0.25,
    allocation="even",
)
# A whole network wants a higher rate than pix2pix's 2e-4 in so few steps, a bank's task more still.
STANDALONE_RATE = 5e-4


@dataclass(frozen=True)
class Task:
    """A data set and its number of epochs, about 2000 steps each."""

    folder: str
    direction: str
    epochs: int


TASKS = (
    Task("cityscapes", "AtoB", 8),
    Task("maps", "BtoA", 7),
    Task("facade_windows", "BtoA", 16),
)


def options_of(task: Task, **changes: Any) -> TrainingOptions:
    return replace(OPTIONS, direction=task.direction, epochs=task.epochs, **changes)


def held_out(data: Path, task: Task) -> PairedDataset:
    return PairedDataset(
        find_pairs(data / task.folder).held_out,
        direction=task.direction,
        formats=(ImageFormat(), ImageFormat()),
        size=OPTIONS.image_size,
    )


def judge(bank: Path, name: str, dataset: PairedDataset) -> Evaluation:
    return evaluate([Bank.open(bank).generator(name)], dataset, torch.device("cpu"))


def train(bank: Path, data: Path, task: Task, options: TrainingOptions) -> float:
    started = time.monotonic()
    with TrainingProgress() as progress:
        teach(bank, task.folder, data / task.folder, options, GENERATOR, callback=progress)
    return time.monotonic() - started


def figures(evaluation: Evaluation) -> dict[str, Any]:
    return {**evaluation.metrics, "outputs_sha256": evaluation.outputs_sha256}


def machine(repository: Path = HERE.parent) -> Mapping[str, Any]:
    def git(*words: str) -> str:
        ran = subprocess.run(
            ["git", *words], capture_output=True, text=True, check=True, cwd=repository
        )
        return ran.stdout.strip()

    changed = git("status", "--porcelain", "src", "benchmarks")
    return {
        "commit": git("rev-parse", "HEAD") + (" with changes" if changed else ""),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def require_new(folder: Path) -> None:
    """Exit if the folder exists; prepare the CPU."""
    if folder.exists():
        sys.exit(f"{folder} exists: give a new folder")
    torch.set_flush_denormal(True)


def learned_row(bank_path: Path, task: Task, seconds: float, judged: Evaluation) -> dict[str, Any]:
    """Return the figures of a task that was just learned."""
    bank = Bank.open(bank_path)
    card = bank.card(task.folder)
    return {
        "task": task.folder,
        "seconds": round(seconds),
        "options": card.options,
        "data": card.to_json()["data"],
        "parameters": asdict(card.parameters),
        "bytes": bank.entries[-1].bytes,
        "when_learned": figures(judged),
    }


def epochs_of(bank_path: Path, task: Task) -> list[dict[str, Any]]:
    """Read a task's metrics file."""
    lines = (bank_path / "runs" / task.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def record_after_last(row: dict[str, Any], before: Evaluation, after: Evaluation) -> None:
    """Add a task's metrics after the last one, and the number of bit-identical outputs."""
    hashes = zip(before.output_hashes, after.output_hashes, strict=True)
    row["after_last"] = figures(after)
    row["identical_outputs"] = f"{sum(a == b for a, b in hashes)} of {after.images}"


def write_results(name: str, **content: Any) -> None:
    """Write a benchmark's figures to docs/results, with its command, machine and generator."""
    result = {
        "command": "python " + " ".join(sys.argv),
        "machine": machine(),
        "generator": asdict(GENERATOR),
        **content,
    }
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path} is written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for banks and runs")
    parser.add_argument("--standalone", action="store_true", help="train tasks 2 and 3 alone, too")
    given = parser.parse_args()
    require_new(given.out)
    bank_path = given.out / "bank"
    rows: list[dict[str, Any]] = []
    learned: list[tuple[Task, PairedDataset, Evaluation]] = []
    for task in TASKS:
        seconds = train(bank_path, given.data, task, options_of(task))
        dataset = held_out(given.data, task)
        learned.append((task, dataset, judge(bank_path, task.folder, dataset)))
        rows.append(learned_row(bank_path, task, seconds, learned[-1][2]))
    for row, (task, dataset, before) in zip(rows, learned, strict=True):
        record_after_last(row, before, judge(bank_path, task.folder, dataset))
    if given.standalone:
        for row, (task, dataset, _) in list(zip(rows, learned, strict=True))[1:]:
            alone = given.out / f"standalone-{task.folder}"
            options = options_of(task, learning_rate=STANDALONE_RATE)
            row["standalone"] = {
                "seconds": round(train(alone, given.data, task, options)),
                "learning_rate": STANDALONE_RATE,
                "bytes": Bank.open(alone).entries[-1].bytes,
                **figures(judge(alone, task.folder, dataset)),
            }
    write_results("lifelong-64px.json", tasks=rows)


if __name__ == "__main__":
    main()
