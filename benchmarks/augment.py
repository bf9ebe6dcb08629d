"""Measure whether augmentation helps with little data: facade_windows, 476 pairs at 64 px, with and without it.

    python benchmarks/augment.py ../shared/data --out /tmp/augment --distance ../shared/features/squeezenet_distance.pt

Masks are translated to photos, in one bank per arm: all filters are trained, so that only the discriminator
differs. Both arms have the same steps and seeds, and take turns. Every epoch's held-out L1,
PSNR and SSIM are recorded; --distance names a TorchScript module that computes the perceptual distance of
two batches in [0, 1]: give only a file that you trust. Results go to docs/results/augment-64px.json.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifelong import (
    OPTIONS,
    STANDALONE_RATE,
    Task,
    epochs_of,
    held_out,
    judge,
    require_new,
    write_results,
)
from lifelong import train as train_task
from piggyback_gan import Bank

TASK = Task("facade_windows", "BtoA", 16)
ARMS = ("off", "on")

Distance = Callable[[Tensor, Tensor], Tensor]


def perceptual(bank: Path, data: Path, distance: Distance) -> float:
    """Compute the mean distance between outputs and targets of all held-out pairs."""
    generator = Bank.open(bank).generator(TASK.folder)
    found = []
    with torch.inference_mode():
        for inputs, targets in held_out(data, TASK).in_order(16):
            outputs = generator(inputs)
            found.append(distance((outputs + 1) / 2, (targets + 1) / 2))
    return torch.cat(found).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the banks")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=TASK.epochs)
    parser.add_argument("--distance", type=Path, help="a TorchScript file")
    given = parser.parse_args()
    require_new(given.out)
    distance = given.distance and torch.jit.load(given.distance, map_location="cpu")
    runs: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        for arm in ARMS:
            bank = given.out / f"{arm}-{seed}"
            options = replace(
                OPTIONS,
                direction=TASK.direction,
                epochs=given.epochs,
                learning_rate=STANDALONE_RATE,
                augment=arm,
                seed=seed,
            )
            seconds = train_task(bank, given.data, TASK, options)
            run = {
                "augment": arm,
                "seed": seed,
                "seconds": round(seconds),
                **judge(bank, TASK.folder, held_out(given.data, TASK)).metrics,
                "epochs": epochs_of(bank, TASK),
            }
            if distance:
                run["perceptual_distance"] = perceptual(bank, given.data, distance)
            runs.append(run)
            print({k: v for k, v in run.items() if k != "epochs"}, file=sys.stderr)
    write_results("augment-64px.json", options=asdict(options), runs=runs)


if __name__ == "__main__":
    main()
