"""pbgan translate: translate image files."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from piggyback_gan.cli.arguments import BankPath, TaskName, parse
from piggyback_gan.errors import PiggybackError
from piggyback_gan.inference.tiling import NormFrom, Tiling
from piggyback_gan.names import Device, Direction
from piggyback_gan.system.checks import check_positive
from piggyback_gan.system.launch import Place, find_place

if TYPE_CHECKING:
    from torch import nn

    from piggyback_gan.images.format import ImageFormat
    from piggyback_gan.networks.config import Architecture


Inputs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]


@dataclass(frozen=True, kw_only=True)
class _Common:
    """Arguments with a bank and with an ONNX file."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Output folder."""
    recursive: tyro.conf.FlagCreatePairsOff[bool] = False
    """Include subfolders; outputs keep the folder structure."""
    format: Literal["best", "same"] = "best"
    """best: lossless, a.png, or a.tif where PNG can't store the output; same: the input's format."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace existing outputs."""
    batch_size: int = 8
    """Images of one size translated at once; not with --tile."""
    tile: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Translate in tiles of this size, for images too large to be translated whole."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Overlap of neighbouring tiles, which is blended; 64, or a quarter of smaller tiles."""
    norm_from: NormFrom | None = None
    """Statistics of instance norm: of each tile (default), or of the image, so that tiles match."""
    max_pixels: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Refuse larger images; 178956970 by default, Pillow's limit for decompression bombs."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: give FILE INPUT... instead of BANK TASK INPUT..., to run an ONNX file of pbgan export."""


@dataclass(frozen=True, kw_only=True)
class Arguments(_Common):
    """Translate images of any size. Outputs have the inputs' names and sizes."""

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The task's name."""
    inputs: Inputs
    """Image files and folders; - reads paths from stdin, separated by line breaks or NUL."""
    direction: Annotated[
        Direction | None,
        tyro.conf.arg(help_behavior_hint="(default: as it was trained)", metavar="{AtoB,BtoA}"),
    ] = None
    """Direction; unpaired tasks have both."""


@dataclass(frozen=True, kw_only=True)
class OnnxArguments(_Common):
    """Translate images of any size with an ONNX file of pbgan export, using onnxruntime."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The ONNX file."""
    inputs: Inputs
    """Image files and folders; - reads paths from stdin, separated by line breaks or NUL."""


@dataclass(frozen=True)
class _Network:
    """Network that translates, of a bank's task or a file."""

    name: str
    generator: nn.Module
    config: Architecture
    formats: tuple[ImageFormat, ImageFormat]


def run(arguments: list[str]) -> int:
    """Translate; the exit status is 1 if some inputs could not be translated."""
    # This option decides which arguments there are.
    asked = [b for a, b in pairwise(arguments) if a == "--runtime"]
    asked += [a.partition("=")[2] for a in arguments if a.startswith("--runtime=")]
    with_onnx = asked[-1:] == ["onnx"]
    given: Arguments | OnnxArguments
    if with_onnx:
        given = parse(OnnxArguments, "translate", arguments)
    else:
        given = parse(Arguments, "translate", arguments)
    check_positive("batch_size", given.batch_size)
    tiling = _tiling(given)
    place = find_place()
    inputs = _inputs(given.inputs, place)
    from piggyback_gan.cli.console import count, new_progress
    from piggyback_gan.images.pixels import MAX_PIXELS
    from piggyback_gan.inference.outputs import plan_outputs
    from piggyback_gan.inference.translate import translate_files
    from piggyback_gan.system.files import require_writable

    network = _of_file(given) if isinstance(given, OnnxArguments) else _of_bank(given, tiling)
    planned = plan_outputs(
        inputs,
        given.out,
        same_format=given.format == "same",
        overwrite=given.overwrite,
        recursive=given.recursive,
        output_format=network.formats[1],
        place=place,
    )
    for folder in {given.out: None, **{outcome.output.parent: None for outcome in planned}}:
        require_writable(folder)
    with new_progress(silent=place.rank > 0) as progress:
        bar = progress.add_task(network.name, total=len(planned))
        outcomes = translate_files(
            network.generator,
            network.config,
            planned,
            network.formats,
            batch_size=given.batch_size,
            tiling=tiling,
            max_pixels=MAX_PIXELS if given.max_pixels is None else given.max_pixels,
            on_done=lambda done: progress.update(bar, completed=done),
        )
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        print(f"pbgan: {problem}", file=sys.stderr)
    who = f"process {place.rank} of {place.count}: " if place.count > 1 else ""
    failed = f", {len(problems)} could not be translated" if problems else ""
    done = count(len(outcomes) - len(problems), "image")
    print(f"{who}{done} in {given.out}{failed}")
    return 1 if problems else 0


def _of_bank(given: Arguments, tiling: Tiling | None) -> _Network:
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.system.device import choose_device

    bank = Bank.open(given.bank)
    if tiling is not None:
        tiling.check(bank.config)  # before the task is read
    generator = bank.generator(given.task, choose_device(given.device), given.direction)
    return _Network(
        given.task,
        generator,
        bank.generator_config(given.task, given.direction),
        bank.formats(given.task, given.direction),
    )


def _of_file(given: OnnxArguments) -> _Network:
    from piggyback_gan.export.onnx_file import open_onnx

    if given.norm_from == "image":
        raise PiggybackError("--norm-from image is not possible with an ONNX file: leave it out")
    generator, contract = open_onnx(given.file, given.device)
    return _Network(given.file.name, generator, contract.generator, contract.formats)


def _tiling(given: _Common) -> Tiling | None:
    if given.max_pixels is not None and given.max_pixels < 1:
        raise PiggybackError(f"invalid max_pixels: found {given.max_pixels}, give 1 or more")
    if given.tile is None:
        for flag, value in (("overlap", given.overlap), ("norm-from", given.norm_from)):
            if value is not None:
                raise PiggybackError(f"--{flag} applies to tiles: give --tile too")
        return None
    check_positive("tile", given.tile)
    return Tiling.of(given.tile, given.overlap, given.norm_from)


def _inputs(inputs: tuple[Path, ...], place: Place) -> list[Path]:
    """Return the given paths, with those on stdin in place of each -."""
    paths: list[Path] = []
    for path in inputs:
        if path != Path("-"):
            paths.append(path)
            continue
        if place.count > 1:
            raise PiggybackError(
                "several processes can't share a list on stdin: give files or folders"
            )
        listed = sys.stdin.buffer.read()
        names = listed.split(b"\0") if b"\0" in listed else listed.splitlines()
        paths += [Path(os.fsdecode(name)) for name in names if name.strip()]
    if not paths:
        raise PiggybackError("give at least one image or folder to translate")
    return paths
