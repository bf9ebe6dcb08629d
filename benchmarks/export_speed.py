"""Time exported files translating one image, compared with the bank's network.

    python benchmarks/export_speed.py BANK TASK --inputs IMAGES --out OUT

Files are exported first, with int8 calibrated on IMAGES. All are timed in turn, with onnxruntime and torch on the
same number of threads (OMP_NUM_THREADS). Figures go to OUT/export-speed.json; copy them to docs/results.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lifelong import machine, require_new
from piggyback_gan import Bank, ExportOptions, export_task
from piggyback_gan.export.formats import FORMATS
from piggyback_gan.export.onnx_file import require
from piggyback_gan.names import ExportFormat, ExportPrecision
from timing import compared, in_turn

SIZES = (64, 256, 512)
ROUNDS = 15
# Torch in fp16 takes a hundred times as long on a CPU, and is timed on the smallest size alone.
SLOW: tuple[ExportFormat, ExportPrecision] = ("torch-export", "fp16")
FILES: tuple[tuple[ExportFormat, ExportPrecision], ...] = (
    ("onnx", "fp32"),
    ("onnx", "fp16"),
    ("onnx", "int8"),
    ("torch-export", "fp32"),
    ("torch-export", "bf16"),
    SLOW,
    ("torchscript", "fp32"),
)


def on_one_image(network: nn.Module, channels: int, size: int) -> Callable[[int], None]:
    images = torch.rand(1, channels, size, size) * 2 - 1

    def work(_: int) -> None:
        with torch.inference_mode():
            network(images)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("task")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    require_new(given.out)
    bank = Bank.open(given.bank)
    channels = bank.formats(given.task)[0].channels
    networks: dict[str, nn.Module] = {"bank": bank.generator(given.task)}
    for format, precision in FILES:
        options = ExportOptions(
            format=format,
            precision=precision,
            calibration=(given.inputs,) if precision == "int8" else (),
            tolerance=2,
        )
        path = given.out / f"{precision}{FORMATS[format].suffix}"
        made = export_task(bank, given.task, path, options)
        networks[f"{format} {precision}"] = FORMATS[format].read(path, made.contract)
    speed: dict[int, Any] = {}
    for size in SIZES:
        works = {
            name: on_one_image(network, channels, size)
            for name, network in networks.items()
            if name != " ".join(SLOW) or size == SIZES[0]
        }
        against = {name: "bank" for name in works if name != "bank"}
        speed[size] = compared(in_turn(works, ROUNDS, torch.device("cpu")), against)
        print(size, speed[size], flush=True)
    found = {
        "machine": {**machine(), "onnxruntime": require("onnxruntime").__version__},
        "speed": speed,
    }
    (given.out / "export-speed.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
