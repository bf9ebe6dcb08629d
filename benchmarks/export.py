"""Measure exported files of a task: size, difference from the bank, quality.

    python benchmarks/export.py BANK TASK --data DATA --out OUT --features FILE --distance FILE

Every format and precision is exported by `pbgan export`'s own code, with int8 calibrated on training inputs, and evaluated
on all held-out pairs, as by `pbgan evaluate`. Figures go to OUT/export-64px.json; copy them to docs/results.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lifelong import machine, require_new
from piggyback_gan import Bank, ExportOptions, export_task
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.evaluation.feature_networks import load_distance, load_features
from piggyback_gan.evaluation.held_out import load_held_out
from piggyback_gan.evaluation.judge import Judge
from piggyback_gan.export.contract import ImageContract
from piggyback_gan.export.formats import FORMATS
from piggyback_gan.export.onnx_file import require
from piggyback_gan.images.encode import encode
from piggyback_gan.images.tensors import to_pixels
from piggyback_gan.names import EXPORT_FORMATS, EXPORT_PRECISIONS

CALIBRATION = 100
LEFT_OUT = {
    ("onnx", "bf16"),  # onnxruntime can't run it on a CPU
    ("torchscript", "fp16"),  # the same computation as torch-export's
    ("torchscript", "bf16"),
    *(("triton", precision) for precision in EXPORT_PRECISIONS),  # an ONNX file in a folder
}
CPU = torch.device("cpu")


def write_inputs(dataset: PairedDataset, contract: ImageContract, folder: Path) -> Path:
    """Write a data set's inputs as files, in the training size."""
    folder.mkdir(parents=True)
    for index in range(len(dataset)):
        pixels = to_pixels(dataset.pair(index)[0], contract.input)
        (folder / f"{index:04}.png").write_bytes(encode(pixels, ".png"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("task")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--distance", required=True)
    given = parser.parse_args()
    require_new(given.out)
    bank = Bank.open(given.bank)
    held_out, _ = load_held_out(bank, given.task, given.data, lambda *_: None)
    assert isinstance(held_out, PairedDataset)
    formats = bank.formats(given.task)
    learned = PairedDataset(
        find_pairs(given.data).train[:CALIBRATION],
        direction=bank.directions(given.task)[0],
        formats=formats,
        size=held_out.size,
    )
    judge = Judge(load_features(given.features, CPU), load_distance(given.distance, CPU), None)
    generator = bank.generator(given.task)
    networks: dict[str, torch.nn.Module] = {"bank": generator}
    rows: dict[str, dict[str, Any]] = {"bank": {}}
    plain = export_task(
        bank, given.task, given.out / "plain.pth", ExportOptions(format="state-dict")
    )
    calibration = write_inputs(learned, plain.contract, given.out / "calibration")
    judged = write_inputs(held_out, plain.contract, given.out / "inputs")
    for format in EXPORT_FORMATS:
        for precision in EXPORT_PRECISIONS:
            if (format, precision) in LEFT_OUT or (precision == "int8" and format != "onnx"):
                continue
            name = f"{format} {precision}"
            options = ExportOptions(
                format=format,
                precision=precision,
                images=(judged,),
                calibration=(calibration,) if precision == "int8" else (),
                tolerance=2,
            )
            path = given.out / f"{precision}{FORMATS[format].suffix}"
            made = export_task(bank, given.task, path, options)
            rows[name] = {
                "bytes": path.stat().st_size,
                "largest": made.largest,
                "mean": made.mean,
                "inputs": made.inputs,
            }
            networks[name] = FORMATS[format].read(path, made.contract)
            print(name, rows[name], flush=True)
    for name, network in networks.items():
        figures = judge.judge([network], held_out, CPU, direction="AtoB", paired=True).figures
        rows[name]["figures"] = {key: figure.value for key, figure in figures.items()}
    found = {
        "machine": {**machine(), "onnxruntime": require("onnxruntime").__version__},
        "generator": asdict(bank.generator_config(given.task)),
        "task": given.task,
        "files": rows,
    }
    (given.out / "export-64px.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
