"""What training a task will take, known before it begins: pairs, steps, layers, parameters, memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from piggyback_gan.bank import Bank, open_or_new
from piggyback_gan.config import GeneratorConfig
from piggyback_gan.data import PairedFolder, find_pairs
from piggyback_gan.devices import choose_device
from piggyback_gan.discriminators import build_discriminator
from piggyback_gan.errors import PiggybackError
from piggyback_gan.generators import build_generator
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.options import Device, GeneratorOptions, TrainingOptions
from piggyback_gan.tasks import LayerPlan, ParameterCount, check_task_name


@dataclass(frozen=True)
class TaskPlan:
    """A task that can be trained: all that could be checked without decoding images was.

    `network` has the task added; `memory` is an estimate of the peak in bytes while training.
    """

    task: str
    bank: Bank
    folder: PairedFolder
    options: TrainingOptions
    network: PiggybackNetwork
    layers: list[LayerPlan]
    parameters: ParameterCount
    steps: int
    memory: int

    @property
    def config(self) -> GeneratorConfig:
        """The generator's architecture."""
        return self.bank.config


def plan_task(
    bank_path: Path,
    task: str,
    data: Path,
    options: TrainingOptions,
    generator: GeneratorOptions,
) -> TaskPlan:
    """Check everything about a task before it is trained.

    Raises:
        PiggybackError: what is wrong, in one line: the name, the data's layout, an option, the device,
            an architecture that is not the bank's, or a damaged bank.
    """
    check_task_name(task)
    folder = find_pairs(data)
    bank = open_or_new(bank_path, generator.for_new_bank(options.image_size))
    if task in bank.tasks:
        raise PiggybackError(
            f"{bank.path} has a task {task!r} already: finished tasks never change"
        )
    config = generator.for_bank(bank.config) if bank.tasks else bank.config
    device = cast(Device, choose_device(options.device))
    options = options.resolved(earlier=bank.tasks, device=device)
    _check_size(config, options)
    torch.manual_seed(options.seed)
    network = bank.network() if bank.tasks else PiggybackNetwork(build_generator(config))
    layers = network.plan(options.unconstrained)
    network.add_task(task, options.unconstrained, init=options.init)
    return TaskPlan(
        task=task,
        bank=bank,
        folder=folder,
        options=options,
        network=network,
        layers=layers,
        parameters=network.parameter_count(task),
        steps=options.epochs * -(-len(folder.train) // options.batch_size),
        memory=_estimate_memory(network, config, options),
    )


def _check_size(config: GeneratorConfig, options: TrainingOptions) -> None:
    size, multiple = options.image_size, config.size_multiple
    if size % multiple or size < config.minimum_size:
        raise PiggybackError(
            f"image_size {size} does not fit {config.name}: it takes multiples of {multiple} "
            f"from {config.minimum_size} on"
        )
    if size < 16:
        raise PiggybackError(f"image_size {size} is too small: 16 is the least that can be judged")
    smallest = 3 * 2**options.discriminator_layers
    if options.discriminator == "patch" and size < smallest:
        raise PiggybackError(
            f"image_size {size} is too small for a discriminator of {options.discriminator_layers} "
            f"layers, which needs {smallest}: set discriminator_layers in a --config file"
        )


def _estimate_memory(
    network: PiggybackNetwork, config: GeneratorConfig, options: TrainingOptions
) -> int:
    """Weights, gradients, optimiser state and activations of one step, in bytes; about right."""
    channels = config.input_channels + config.output_channels
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        generator = build_generator(config)
        discriminator = build_discriminator(options.discriminator_config(channels))
    shape = (options.batch_size, config.input_channels, options.image_size, options.image_size)
    values = 2 * _activations(generator, shape)
    # The discriminator sees real and fake pairs in its own step, and fake ones in the generator's.
    values += 3 * 2 * _activations(discriminator, (shape[0], channels, *shape[2:]))
    values += sum(p.numel() for p in generator.parameters())
    trained = [*network.trainable_parameters(), *discriminator.parameters()]
    values += 4 * sum(p.numel() for p in trained)
    return 4 * values


def _activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """How many values the layers' outputs have together for an input of this shape."""
    total = 0

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(shape, device="meta"))
    return total
