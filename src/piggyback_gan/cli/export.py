"""pbgan export: write a task as a standalone file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import SAME_GROUP, BankPath, TaskName, parse
from piggyback_gan.cli.console import count
from piggyback_gan.cli.option_hints import default_hint
from piggyback_gan.cli.signals import ended_by_signals
from piggyback_gan.export.options import ExportOptions
from piggyback_gan.names import Direction, ExportFormat


@dataclass(frozen=True, kw_only=True)
class _Options(ExportOptions):
    format: ExportFormat = field()  # without ExportOptions' default
    direction: Annotated[Direction | None, default_hint("as it was trained", "{AtoB,BtoA}")] = None
    images: Annotated[
        tuple[Path, ...],
        tyro.conf.arg(
            name="check", metavar="IMAGE...", help_behavior_hint="(default: generated ones)"
        ),
    ] = ()
    calibration: Annotated[
        tuple[Path, ...], tyro.conf.arg(name="calibrate", metavar="IMAGE...", help_behavior_hint="")
    ] = ()
    tolerance: Annotated[
        float | None, default_hint("1e-4; fp16 0.05, bf16 0.25, int8 0.5", "DIFFERENCE")
    ] = None
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a task as a file, or a folder, that needs neither the bank nor this library.

    A short example program is written beside it. The file is read back and its outputs are compared with
    the bank's before it appears.
    """

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The task's name."""
    out: Annotated[
        Path | None, default_hint("TASK or TASK-DIRECTION, with the format's suffix", "FILE")
    ] = None
    """Output file; for triton a folder, named after the model."""
    options: Annotated[_Options, SAME_GROUP]


def run(arguments: list[str]) -> int:
    """Export; print what was written and its difference from the bank's outputs."""
    given = parse(Arguments, "export", arguments)
    from piggyback_gan.export.exporting import export_task
    from piggyback_gan.export.formats import FORMATS
    from piggyback_gan.export.onnx_file import OPSET
    from piggyback_gan.system.device import choose_device

    choose_device("cpu")
    with ended_by_signals():
        made = export_task(given.bank, given.task, given.out, given.options)
    contract = made.contract
    format = FORMATS[given.options.format]
    opset = f", opset {OPSET}" if format.is_onnx else ""
    megabytes = made.file.stat().st_size / 1e6
    print(
        f"{made.path}: {contract.task}, {contract.direction}, {given.options.format}{opset}, "
        f"{contract.precision}, {megabytes:.2f} MB"
    )
    for path, companion in zip(made.beside, format.companions, strict=True):
        print(f"{path}: {companion.says}")
    inputs = count(made.inputs, "image" if given.options.images else "generated input")
    print(
        f"compared on {inputs}: outputs differ from the bank's by at "
        f"most {made.largest:.2g}, {made.mean:.2g} in the mean, of values in [-1, 1]"
    )
    if contract.precision != "fp32" and not given.options.images:
        print(
            "pbgan: generated inputs are not photographs: give --check IMAGE... to measure this precision's error",
            file=sys.stderr,
        )
    return 0
