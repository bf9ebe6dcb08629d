"""Plan the training of a task before it starts: images, steps, layers, parameters, memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import LayerPlan, ParameterCount, resolve_start
from piggyback_gan.data.folders import PairedFolder, UnpairedFolder, find_folder
from piggyback_gan.data.formats import find_formats
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import unpaired_metric_names
from piggyback_gan.evaluation.metric_names import IMAGE_METRICS
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import AUTO, BACKWARD, FORWARD, STANDALONE, Device, check_task_name
from piggyback_gan.networks.config import Architecture, CustomGeneratorConfig
from piggyback_gan.networks.custom import fitted, try_out
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.device import choose_device
from piggyback_gan.system.seeding import seed_of
from piggyback_gan.training.memory import estimate_memory
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.own_layers import own_layers


@dataclass(frozen=True)
class TaskPlan:
    """A validated task; all images are still to be decoded.

    Attributes:
        task: its name.
        bank: without the task.
        folder: the images.
        options: resolved.
        formats: of input and output.
        networks: the forward and, for an unpaired task, the backward network, with the task added.
        layers: the task's filters in each layer of the forward network.
        parameters: of all networks.
        effective_batch: images in a step, over all processes and accumulated batches.
        epoch_steps: steps in an epoch.
        memory: estimated peak in bytes during training, per process.
    """

    task: str
    bank: Bank
    folder: PairedFolder | UnpairedFolder
    options: TrainingOptions
    formats: tuple[ImageFormat, ImageFormat]
    networks: Mapping[str, PiggybackNetwork]
    layers: list[LayerPlan]
    parameters: ParameterCount
    effective_batch: int
    epoch_steps: int
    memory: int

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.options.epochs * self.epoch_steps

    @property
    def config(self) -> Architecture:
        """The architecture of the task's generator: the bank's, with the task's channels."""
        first, second = self.formats
        return replace(
            self.bank.config, input_channels=first.channels, output_channels=second.channels
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the validation metrics; empty if no images are held out."""
        if isinstance(self.folder, PairedFolder):
            return IMAGE_METRICS if self.folder.held_out else ()
        if not self.folder.held_out_a:
            return ()
        paired = bool(self.folder.paired_held_out)
        return unpaired_metric_names(self.options.direction, paired=paired)


def plan_task(
    bank_path: Path,
    task: str,
    data: Path,
    options: TrainingOptions,
    generator: GeneratorOptions,
    *,
    processes: int = 1,
    effective_batch: int | None = None,
) -> TaskPlan:
    """Validate a task before it is trained, and add it to the bank's networks in memory.

    Args:
        bank_path, task, data, options, generator: as for `teach`.
        processes: number of processes that train together.
        effective_batch: images in a step, if a resumed run fixes it.

    Raises:
        PiggybackError: the name, the data's layout, an option or the device is not valid, the architecture
            differs from the bank's, or the bank is damaged.
    """
    check_task_name(task)
    device = cast(Device, choose_device(options.device))
    folder = find_folder(data, options.mode)
    if options.val_fraction:
        folder = folder.with_held_out(options.val_fraction, options.seed)
    bank = open_or_new(bank_path, generator.for_new_bank(options.image_size))
    bank.check_new(task)
    of_bank = bank.config.input_channels, bank.config.output_channels
    formats = find_formats(
        folder,
        options.direction,
        channels=(options.input_channels, options.output_channels),
        ranges=(options.input_range, options.output_range),
        labels=options.input_labels,
        bank_channels=of_bank if bank.tasks else (None, None),
    )
    channels = formats[0].channels, formats[1].channels
    if bank.tasks:
        generator.for_bank(bank.config)
    else:
        asked = generator.for_new_bank(options.image_size, channels)
        bank = Bank.new(bank_path, fitted(asked))
    backward_tasks = [t for t in bank.tasks if len(bank.directions(t)) > 1]
    options = options.resolved(
        earlier=bank.tasks,
        device=device,
        earlier_backward=backward_tasks,
        train_images=min(map(len, folder.train_sides)),
        equal_channels=channels[0] == channels[1],
    )
    check_size(bank.config, options)
    torch.manual_seed(options.seed)
    forward = _add(bank, FORWARD, task, channels, options, options.init)
    layers, networks = forward.plan_of(task), {FORWARD: forward}
    if options.mode == "unpaired":
        init = options.init
        if init not in (None, STANDALONE, AUTO, *backward_tasks):
            init = backward_tasks[0] if backward_tasks else None
        torch.manual_seed(seed_of(options.seed, 1))
        networks[BACKWARD] = _add(bank, BACKWARD, task, channels[::-1], options, init)
    if options.init == AUTO and not any(n.chooses_start for n in networks.values()):
        options = replace(options, init=resolve_start(AUTO, bank.tasks))
    counts = [network.parameter_count(task) for network in networks.values()]
    batch = effective_batch or options.batch_size * options.accumulate * processes
    plan = TaskPlan(
        task=task,
        bank=bank,
        folder=folder,
        options=options,
        formats=formats,
        networks=networks,
        layers=layers,
        parameters=sum(counts[1:], counts[0]),
        effective_batch=batch,
        epoch_steps=-(-max(map(len, folder.train_sides)) // batch),
        memory=estimate_memory(networks, bank.config, channels, options),
    )
    if options.quality is not None and forward.to_factorize and not plan.metrics:
        raise PiggybackError(
            "budget auto and quality compare figures of held-out images: give val/, test/ or --val-fraction, or a "
            "number as the budget and no quality"
        )
    if options.keep_best is not None and options.keep_best not in plan.metrics:
        raise PiggybackError(
            f"keep_best {options.keep_best!r} is not measured: choose one of {', '.join(plan.metrics)}"
            if plan.metrics
            else f"keep_best {options.keep_best!r} needs held-out images: give val/ or --val-fraction"
        )
    return plan


def _add(
    bank: Bank,
    which: str,
    task: str,
    channels: tuple[int, int],
    options: TrainingOptions,
    init: str | None,
) -> PiggybackNetwork:
    """Load one of the bank's networks and add the task."""
    network = bank.network(which=which)
    config = bank.network_config(which)
    source, start = None, resolve_start(init, network.tasks)
    if start and channels != (config.input_channels, config.output_channels):
        source = network.fold(start)
    own = own_layers(config, channels, options.seed, source)
    network.add_task(task, replace(options, init=init), own_layers=own)
    if isinstance(config, CustomGeneratorConfig):
        # It may not work in this direction, or with a task's own layers.
        of_task = replace(config, input_channels=channels[0], output_channels=channels[1])
        try_out(network.eval(), of_task)
        network.train()
    return network


def check_size(config: Architecture, options: TrainingOptions) -> None:
    size, multiple = options.image_size, config.size_multiple
    if size % multiple or size < config.minimum_size:
        raise PiggybackError(
            f"image_size {size} does not fit {config.name}: it takes multiples of {multiple} "
            f"from {config.minimum_size} on"
        )
    if size < 16:
        raise PiggybackError(f"image_size {size} is too small: metrics need at least 16")
    smallest = 3 * 2**options.discriminator_layers
    if options.discriminator == "patch" and size < smallest:
        raise PiggybackError(
            f"image_size {size} is too small for a discriminator of {options.discriminator_layers} "
            f"layers, which needs {smallest}: set discriminator_layers in a --config file"
        )
