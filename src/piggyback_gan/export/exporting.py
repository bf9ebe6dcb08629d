"""Export a task: fold it, write it as a file, read that back and compare it with the bank."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import require_outside_banks
from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.export.contract import ImageContract
from piggyback_gan.export.formats import FORMATS, Format
from piggyback_gan.export.options import ExportOptions
from piggyback_gan.export.quantizing import quantize
from piggyback_gan.images.read import list_images, read_image
from piggyback_gan.images.tensors import to_tensor
from piggyback_gan.inference.translate import padded, translate_batch
from piggyback_gan.names import ExportFormat
from piggyback_gan.system.files import staging_folder

TOLERANCES = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.25, "int8": 0.5}
"""The largest allowed difference of an output value in [-1, 1] from the bank's, by precision."""

_MOST_GENERATED = 256  # pixels: larger inputs would take long and show no more
_MOST_IN_FP16 = 64  # torch on a CPU takes a hundred times as long in fp16


@dataclass(frozen=True)
class Exported:
    """The result of `export_task`.

    Attributes:
        path: the file, or the folder.
        file: the file with the graph or weights: `path`, or in it.
        beside: further files, beside the file or in the folder: an example of use, and the contract where the
            format can't store it.
        contract: the image contract.
        inputs: number of inputs on which outputs were compared.
        largest, mean: absolute difference from the bank's outputs, of values in [-1, 1].
    """

    path: Path
    file: Path
    beside: tuple[Path, ...]
    contract: ImageContract
    inputs: int
    largest: float
    mean: float


def export_task(
    bank: Bank | str | Path,
    task: str,
    path: str | Path | None = None,
    options: ExportOptions | None = None,
) -> Exported:
    """Write a task as a file, or a folder, that needs neither the bank nor this library.

    It is written under another name, read back, compared with the bank, and only then moved to its path,
    with a short example program beside it.

    Args:
        bank: the bank or its directory.
        task: the task's name.
        path: the file, or the folder; by default the task's name, with a direction that is not the trained
            one, and the format's suffix, in the working directory.
        options: format, precision and comparison.

    Raises:
        PiggybackError: the task, direction or an image does not exist; a file exists; a library is missing;
            the network can't be written in the format; outputs differ by more than the tolerance. No file is
            written then.
    """
    options = options or ExportOptions()
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    format = FORMATS[options.format]
    trained = bank.directions(task)[0]
    direction = options.direction or trained
    first, second = bank.formats(task, direction)
    contract = ImageContract(
        task=task,
        direction=direction,
        input=first,
        output=second,
        image_size=bank.card(task).image.size,
        precision=options.precision,
        generator=bank.generator_config(task, direction),
        task_sha256=bank.manifest.entry(task).sha256,
        library_version=version("piggyback-gan"),
    )
    if path is None:
        way = "" if direction == trained else f"-{direction}"
        path = f"{task}{way}{format.suffix}"
    path = Path(path)
    _require_name(path, format)
    beside = [Path(f"{path}{companion.ending}") for companion in format.companions]
    # Those of a folder come with it.
    places = [*(place for place in beside if path not in place.parents), path]
    for place in places:
        if place.exists() and not format.replaces(place):
            kind = "folder" if place.is_dir() else "file"
            raise PiggybackError(
                f"{place} is a {kind} that no such export wrote: give another --out"
            )
        if place.exists() and not options.overwrite:
            raise PiggybackError(f"{place} exists: give --overwrite or another --out")
    # Before the work is done: all of these may be wrong.
    images, calibration = _files(options.images), _files(options.calibration)
    generator = bank.generator(task, direction=direction)
    with staging_folder(path) as folder:
        made = folder / path.name
        written = Path(f"{made}{format.file}")
        written.parent.mkdir(parents=True, exist_ok=True)
        with _naming_failures(options.format):
            format.write(generator, contract, written)
            if options.precision == "int8":
                typical = _read(calibration, contract)
                quantize(written, (padded(image, contract.generator)[0] for image in typical))
            # As a user's program would: a program that loads may yet refuse an input.
            read = format.read(written, contract)
            inputs = _read(images, contract) if images else _generated(contract)
            count, largest, mean = _compare(generator, read, contract, inputs)
        tolerance = (
            TOLERANCES[options.precision] if options.tolerance is None else options.tolerance
        )
        if not largest <= tolerance:
            raise PiggybackError(
                f"{options.format} in {options.precision}: outputs differ by up to {largest:.2g} from the "
                f"bank's (mean {mean:.2g}), of values in [-1, 1], which is over the tolerance of "
                f"{tolerance:g}: nothing was written; another precision or format, or --tolerance"
            )
        for companion in format.companions:
            text = companion.text(contract, path.name)
            Path(f"{made}{companion.ending}").write_text(text, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        for place in places:
            _put(folder / place.name, place)
    return Exported(
        path, Path(f"{path}{format.file}"), tuple(beside), contract, count, largest, mean
    )


def _require_name(path: Path, format: Format) -> None:
    """Check the name of an export."""
    if path.name in ("", ".."):
        raise PiggybackError(f"{str(path)!r} can't name a file: give another --out")
    if not re.fullmatch(format.names, path.name):
        raise PiggybackError(f"invalid name {path.name!r}: {format.names_rule}")
    require_outside_banks(path)


def _put(made: Path, place: Path) -> None:
    """Move a file or a folder to its path: in one rename, or file by file into an existing folder."""
    if not place.is_dir():
        os.replace(made, place)
        return
    for inside in sorted(made.iterdir()):
        _put(inside, place / inside.name)


@contextlib.contextmanager
def _naming_failures(format: ExportFormat) -> Iterator[None]:
    """Turn errors of torch's exporters, which can be of any class, into one line."""
    try:
        yield
    except (PiggybackError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        raise PiggybackError(
            f"this network can't be written as {format}: {error_line(error)}; try another format"
        ) from None


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return these files, and the images in these folders."""
    files: list[Path] = []
    for path in paths:
        found = list_images(path) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise PiggybackError(
                f"{path}: {'it has no images' if path.is_dir() else 'no such file'}"
            )
        files += found
    return files


def _read(files: Sequence[Path], contract: ImageContract) -> Iterator[Tensor]:
    for file in files:
        yield to_tensor(read_image(file, contract.input), contract.input)[None]


def _generated(contract: ImageContract) -> Iterator[Tensor]:
    """Generate inputs of several sizes, single and in a batch: blurred noise, or blurred classes."""
    multiple, least = contract.generator.size_multiple, contract.generator.minimum_size
    is_slow = contract.precision == "fp16"
    most = _MOST_IN_FP16 if is_slow else _MOST_GENERATED
    side = max(min(contract.image_size, most) // multiple * multiple, least)
    generator = torch.Generator().manual_seed(0)
    smaller = max(side // 2 // multiple * multiple, least)
    # The second is not a multiple of the network's size multiple.
    sizes = [(1, side, side), (2, side + multiple - 1, side), (1, smaller, side)]
    for count, height, width in sizes[: 1 if is_slow else None]:
        shape = (count, contract.input.channels, height, width)
        coarse = torch.rand((*shape[:2], 4, 4), generator=generator) * 2 - 1
        image = F.interpolate(coarse, shape[2:], mode="bicubic")
        image += torch.randn(shape, generator=generator) * 0.1
        if contract.input.labels:
            image = F.one_hot(image.argmax(1), shape[1]).movedim(3, 1) * 2.0 - 1
        yield image.clamp(-1, 1)


def _compare(
    generator: nn.Module, read: nn.Module, contract: ImageContract, inputs: Iterable[Tensor]
) -> tuple[int, float, float]:
    """Return the number of images, and the largest and mean absolute difference of their outputs."""
    largest = total = 0.0
    images = values = 0
    for batch in inputs:
        expected, found = (
            translate_batch(network, contract.generator, batch) for network in (generator, read)
        )
        difference = (found.double() - expected.double()).abs()
        # Python's max would ignore NaN.
        worst = difference.max().item()
        largest = worst if not worst <= largest else largest
        total += difference.sum().item()
        images, values = images + len(batch), values + difference.numel()
    return images, largest, total / values
