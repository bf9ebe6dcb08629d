"""Banks of tasks that were never trained: as large, and as fast to use, as those that were."""

from dataclasses import asdict
from pathlib import Path

import torch

from piggyback_gan import Bank, FilterOptions, GeneratorConfig
from piggyback_gan.images.format import ImageFormat


def filled_bank(path: Path, config: GeneratorConfig, options: FilterOptions, tasks: int) -> Bank:
    """A bank of task0, task1 and so on for RGB images of 8 bits, moved at random."""
    bank = Bank.new(path, config)
    network = bank.empty_network()
    plain = asdict(ImageFormat())
    card = {"mode": "paired", "image": {"size": 256, "input": plain, "output": plain}}
    with bank.writing("a benchmark"):
        for order in range(tasks):
            network.add_task(f"task{order}", options)
            with torch.no_grad():
                for parameter in network.trainable_parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
            network.finish_task()
            bank.add(network.task_state(f"task{order}"), card)
    return Bank.open(path)
