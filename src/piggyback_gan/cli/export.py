"""pbgan export: a task as a file of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import SAME_GROUP, BankPath, TaskName, parse
from piggyback_gan.cli.signals import ended_by_signals
from piggyback_gan.export.options import ExportOptions
from piggyback_gan.names import Direction, ExportFormat
from piggyback_gan.system.option_hints import default_hint


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

    Beside it is put a short program that uses it. Before it gets its name, it is read back and its outputs are
    compared with the bank's.
    """

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The task's name."""
    out: Annotated[
        Path | None, default_hint("TASK or TASK-DIRECTION, with the format's suffix", "FILE")
    ] = None
    """The file; for triton the folder, whose name is the model's."""
    options: Annotated[_Options, SAME_GROUP]


def run(arguments: list[str]) -> int:
    """Export, and say what was written and how far it is from the bank."""
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
    kind = "image" if given.options.images else "generated input"
    print(
        f"compared on {made.inputs} {kind}{'s' * (made.inputs != 1)}: outputs differ from the bank's by at "
        f"most {made.largest:.2g}, {made.mean:.2g} in the mean, of values in [-1, 1]"
    )
    if contract.precision != "fp32" and not given.options.images:
        print(
            "pbgan: generated inputs are no photographs: --check IMAGE... tells what this precision costs",
            file=sys.stderr,
        )
    return 0
