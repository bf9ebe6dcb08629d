"""The card of a trained task."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

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
    effective_batch: int,
    parameters: ParameterCount,
    epoch: int,
    validation: Mapping[str, float] | None,
) -> TaskCard:
    """Make the card of a finished task.

    `options` are resolved, `data_name` is the folder's name when the run began, `parameters` are what the task
    adds to the bank, and `validation` has the held-out metrics of the `epoch` whose weights were kept.
    """
    if isinstance(folder, PairedFolder):
        counts = {"train_pairs": len(folder.train), "held_out_pairs": len(folder.held_out)}
    else:
        sides = ("train_a", "train_b", "held_out_a", "held_out_b")
        counts = {side: len(getattr(folder, side)) for side in sides}
    first, second = formats
    return TaskCard(
        library_version=version("piggyback-gan"),
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
