"""The card of a task: what describes it in its file. No times or places: equal runs give equal files."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from piggyback_gan.config import GeneratorConfig
from piggyback_gan.folders import PairedFolder, UnpairedFolder
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.options import TrainingOptions
from piggyback_gan.tasks import ParameterCount


def task_card(
    folder: PairedFolder | UnpairedFolder,
    formats: tuple[ImageFormat, ImageFormat],
    options: TrainingOptions,
    config: GeneratorConfig,
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
    first, second = formats
    return {
        "library_version": library_version,
        "mode": options.mode,
        "data": {"name": data_name, "layout": folder.layout, **counts},
        "image": {
            "size": options.image_size,
            "size_multiple": config.size_multiple,
            "input": asdict(first),
            "output": asdict(second),
            "tensor_range": [-1, 1],
        },
        "options": asdict(options),
        "effective_batch": effective_batch,
        "epoch": epoch,
        "parameters": None if parameters is None else parameters.as_card(),
        "validation": None if validation is None else dict(validation),
    }
