"""pbgan translate: images in, images out."""

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
    """What does not depend on where the network comes from."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder for the outputs."""
    recursive: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the folders in the folders too; the outputs keep the tree."""
    format: Literal["best", "same"] = "best"
    """best: without loss, a.png, or a.tif where PNG can't hold the output; same: as its input."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace outputs that are there."""
    batch_size: int = 8
    """Images of one size that are translated at once; not with --tile."""
    tile: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Translate in tiles of this size, for images that are too large to be translated at once."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """What neighbouring tiles share and blend; 64, or a quarter of smaller tiles."""
    norm_from: NormFrom | None = None
    """Instance norm's statistics: of each tile (default), or of the image, so that tiles agree."""
    max_pixels: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Refuse larger images; 178956970, where Pillow sees a decompression bomb."""
    device: Device = "auto"
    """Where to compute; auto takes what is there."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: give FILE INPUT... in place of BANK TASK INPUT..., to try an ONNX file of pbgan export."""


@dataclass(frozen=True, kw_only=True)
class Arguments(_Common):
    """Translate images of any size. Outputs have the inputs' names and sizes."""

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The task's name."""
    inputs: Inputs
    """Image files, and folders of them; - reads paths from stdin, one a line or NUL after each."""
    direction: Annotated[
        Direction | None,
        tyro.conf.arg(help_behavior_hint="(default: as it was trained)", metavar="{AtoB,BtoA}"),
    ] = None
    """Which way; unpaired tasks know both."""


@dataclass(frozen=True, kw_only=True)
class OnnxArguments(_Common):
    """Translate images of any size with an ONNX file of pbgan export, by onnxruntime."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The ONNX file."""
    inputs: Inputs
    """Image files, and folders of them; - reads paths from stdin, one a line or NUL after each."""


@dataclass(frozen=True)
class _Network:
    """What translates, whether a bank's task or a file."""

    name: str
    generator: nn.Module
    config: Architecture
    formats: tuple[ImageFormat, ImageFormat]


def run(arguments: list[str]) -> int:
    """Translate; exit status 1 if some inputs could not be translated."""
    # What the words mean depends on this one.
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
    from rich.console import Console
    from rich.progress import Progress

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
    console = Console(stderr=True)
    silent = not console.is_terminal or place.rank > 0
    with Progress(console=console, disable=silent) as progress:
        bar = progress.add_task(network.name, total=len(planned))
        outcomes = translate_files(
            network.generator,
            network.config,
            planned,
            network.formats,
            batch_size=given.batch_size,
            tiling=tiling,
            max_pixels=MAX_PIXELS if given.max_pixels is None else given.max_pixels,
            on_done=lambda count: progress.update(bar, completed=count),
        )
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        print(f"pbgan: {problem}", file=sys.stderr)
    who = f"process {place.rank} of {place.count}: " if place.count > 1 else ""
    failed = f", {len(problems)} could not be translated" if problems else ""
    done = len(outcomes) - len(problems)
    print(f"{who}{done} image{'s' * (done != 1)} in {given.out}{failed}")
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
        raise PiggybackError(
            "--norm-from image reaches into the network, which an ONNX file does not allow: leave it out"
        )
    generator, contract = open_onnx(given.file, given.device)
    return _Network(given.file.name, generator, contract.generator, contract.formats)


def _tiling(given: _Common) -> Tiling | None:
    if given.max_pixels is not None and given.max_pixels < 1:
        raise PiggybackError(f"invalid max_pixels: found {given.max_pixels}, give 1 or more")
    if given.tile is None:
        for flag, value in (("overlap", given.overlap), ("norm-from", given.norm_from)):
            if value is not None:
                raise PiggybackError(f"--{flag} is about tiles: give --tile too")
        return None
    check_positive("tile", given.tile)
    return Tiling.of(given.tile, given.overlap, given.norm_from)


def _inputs(inputs: tuple[Path, ...], place: Place) -> list[Path]:
    """The paths that were given, with those on stdin in place of each -."""
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
