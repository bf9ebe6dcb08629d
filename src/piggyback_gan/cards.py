"""The card of a task: what describes it in its file. No times or places: equal runs give equal files."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from piggyback_gan.config import Architecture
from piggyback_gan.folders import PairedFolder, UnpairedFolder
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.options import TrainingOptions
from piggyback_gan.tasks import ParameterCount


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
