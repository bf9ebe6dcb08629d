"""Banks of untrained tasks, with the size and speed of trained ones."""

from pathlib import Path

import torch

from piggyback_gan import Bank, FilterOptions, GeneratorConfig
from piggyback_gan.bank.card import ImageCard, ParameterCard, TaskCard
from piggyback_gan.images.format import ImageFormat


def filled_bank(path: Path, config: GeneratorConfig, options: FilterOptions, tasks: int) -> Bank:
    """Create a bank of tasks task0, task1, ... with random filters, for 8-bit RGB images."""
    bank = Bank.new(path, config)
    network = bank.empty_network()
    image = ImageCard(size=256, input=ImageFormat(), output=ImageFormat())
    with bank.writing("a benchmark"):
        for order in range(tasks):
            network.add_task(f"task{order}", options)
            with torch.no_grad():
                for parameter in network.trainable_parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
            network.finish_task()
            parameters = ParameterCard(**network.parameter_count(f"task{order}").as_card())
            card = TaskCard(mode="paired", image=image, options={}, parameters=parameters)
            bank.add(network.task_state(f"task{order}"), card.to_json())
    return Bank.open(path)
