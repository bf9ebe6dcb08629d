"""The card of a trained task."""

from collections.abc import Mapping
from dataclasses import asdict

from piggyback_gan.bank.card import DataCard, ImageCard, ParameterCard, TaskCard
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.data.folders import PairedFolder, UnpairedFolder
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
    parameters: ParameterCount,
    epoch: int,
    validation: Mapping[str, float] | None,
) -> TaskCard:
    """Make the card of a finished task.

    Args:
        folder: the training images.
        formats: of input and output.
        options: resolved.
        config: the task's generator.
        data_name: the folder's name when the run began.
        library_version: the version that trained the task.
        effective_batch: images per step.
        parameters: what the task adds to the bank.
        epoch: the epoch whose weights were kept.
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
    return TaskCard(
        library_version=library_version,
        mode=options.mode,
        data=DataCard(name=data_name, layout=folder.layout, **counts),
        image=ImageCard(
            size=options.image_size, size_multiple=config.size_multiple, input=first, output=second
        ),
        options=asdict(options),
        effective_batch=effective_batch,
        epoch=epoch,
        parameters=ParameterCard(**parameters.as_card()),
        validation=validation,
    )
