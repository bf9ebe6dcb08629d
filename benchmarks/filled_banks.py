"""Banks of tasks that were never trained: as large, and as fast to use, as those that were."""

from pathlib import Path

import torch

from piggyback_gan import Bank, FilterOptions, GeneratorConfig
from piggyback_gan.bank.card import ImageCard, ParameterCard, TaskCard
from piggyback_gan.images.format import ImageFormat


def filled_bank(path: Path, config: GeneratorConfig, options: FilterOptions, tasks: int) -> Bank:
    """A bank of task0, task1 and so on for RGB images of 8 bits, moved at random."""
    bank = Bank.new(path, config)
    network = bank.empty_network()
    image = ImageCard(size=256, input=ImageFormat(), output=ImageFormat())
    with bank.writing("a benchmark"):
        for order in range(tasks):
            made = network.allot(options)
            network.add_task(f"task{order}", made.shares, mixing=made.mixing)
            with torch.no_grad():
                for parameter in network.trainable_parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
            network.finish_task()
            parameters = ParameterCard(**network.parameter_count(f"task{order}").as_card())
            card = TaskCard(mode="paired", image=image, options={}, parameters=parameters)
            bank.add(network.task_state(f"task{order}"), card.to_json())
    return Bank.open(path)
