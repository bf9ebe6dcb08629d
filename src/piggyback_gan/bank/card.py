"""The card of a task: what describes it in its file. No times or places: equal runs give equal files."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.data.folders import PairedFolder, UnpairedFolder
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import Architecture
from piggyback_gan.training.options import TrainingOptions


def task_card(
    folder: PairedFolder | UnpairedFolder,
    formats: tuple[ImageFormat, ImageFormat],
    options: TrainingOptions,
    config: Architecture,
    *,
    data_name: str,
    library_version: str,
    effective_batch: int,
    parameters: ParameterCount | None,
    epoch: int,
    validation: Mapping[str, float] | None,
) -> dict[str, Any]:
    """What a finished task's file says of it, JSON values only.

    Args:
        folder: the images.
        formats: of input and output.
        options: resolved.
        config: the task's generator.
        data_name: what the folder of images was called when the run began.
        library_version: what it was trained with.
        effective_batch: images in a step.
        parameters: what the task adds, where that is known.
        epoch: whose weights it has.
        validation: the held-out metrics of that epoch.
    """
    if isinstance(folder, PairedFolder):
        counts = {"train_pairs": len(folder.train), "held_out_pairs": len(folder.held_out)}
    else:
        counts = {
            "train_a": len(folder.train_a),
            "train_b": len(folder.train_b),
            "held_out_a": len(folder.held_out_a),
            "held_out_b": len(folder.held_out_b),
        }
    return {
        "library_version": library_version,
        "mode": options.mode,
        "data": {"name": data_name, "layout": folder.layout, **counts},
        "image": _image(options.image_size, config, formats),
        "options": asdict(options),
        "effective_batch": effective_batch,
        "epoch": epoch,
        "parameters": None if parameters is None else parameters.as_card(),
        "validation": None if validation is None else dict(validation),
    }


def imported_card(
    *,
    unpaired: bool,
    direction: str,
    image_size: int,
    config: Architecture,
    options: Mapping[str, Any],
    parameters: ParameterCount,
    files: Mapping[str, Mapping[str, Any]],
    distances: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What the file of a task says that was trained elsewhere, JSON values only.

    Args:
        unpaired: whether it translates both ways.
        direction: which way its forward network translates.
        image_size: side of the images that it was trained on.
        config: of its forward network.
        options: how it was made a task.
        parameters: what it adds.
        files: by direction, what it was made of.
        distances: by direction, how far its outputs are from the network's that was imported.
    """
    first, second = (
        ImageFormat(channels=channels)
        for channels in (config.input_channels, config.output_channels)
    )
    return {
        "library_version": version("piggyback-gan"),
        "mode": "unpaired" if unpaired else "paired",
        "data": {},
        "image": _image(image_size, config, (first, second)),
        "options": {"direction": direction, **options},
        "parameters": parameters.as_card(),
        "validation": None,
        "imported": {
            "files": {way: dict(file) for way, file in files.items()},
            "distances": {way: dict(distance) for way, distance in distances.items()},
        },
    }


def _image(
    size: int, config: Architecture, formats: tuple[ImageFormat, ImageFormat]
) -> dict[str, Any]:
    first, second = formats
    return {
        "size": size,
        "size_multiple": config.size_multiple,
        "input": asdict(first),
        "output": asdict(second),
        "tensor_range": [-1, 1],
    }


def card_formats(card: Mapping[str, Any], config: Architecture) -> tuple[ImageFormat, ImageFormat]:
    """What a task's input and output files hold, in the direction that it was trained in."""
    image = _table(card, "image")
    if "input" in image:
        return ImageFormat.from_card(image["input"]), ImageFormat.from_card(image.get("output"))
    # Format 1 knew 8-bit images only, with the bank's channels.
    first, second = config.input_channels, config.output_channels
    return ImageFormat(channels=first), ImageFormat(channels=second)


def _directions(card: Mapping[str, Any]) -> tuple[str, ...]:
    trained = _table(card, "options").get("direction", "AtoB")
    # A card may come from anywhere, and this word goes far.
    if trained not in ("AtoB", "BtoA"):
        raise PiggybackError(f"a damaged card: its direction is {trained!r}, not AtoB or BtoA")
    other = "AtoB" if trained == "BtoA" else "BtoA"
    return (trained, other) if card.get("mode") == "unpaired" else (trained,)


def _table(card: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """One of a card's tables; an empty one where there is none."""
    table = card.get(key, {})
    if not isinstance(table, Mapping):
        raise PiggybackError(f"a damaged card: its {key} is no table, but {table!r:.40}")
    return table


def damaged_card(entry: TaskEntry, reason: Exception) -> PiggybackError:
    """What is told of a card that can be read, but lacks what a task's card has or has it as something else."""
    words = " ".join(str(reason).split())
    return PiggybackError(f"task {entry.name!r}: {entry.file} has a damaged card ({words})")
