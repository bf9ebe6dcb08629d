"""Banks with every kind of task for tests: all mixings, own layers, one way and both, each value its own."""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from torch import nn

from banks import card, evenly
from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.core.allocation import Shares
from piggyback_gan.core.mixings import FullMixing, LowRankMixing, Mixing, SelectedMixing
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import TaskState
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.training.own_layers import own_layers

CONFIG = GeneratorConfig(name="resnet-6", ngf=4)
LAST: Shares = {"model.1[69]": 1.0, "model.23": 1.0, "*": 0.0}
FULL, LOW, SELECTED = FullMixing(), LowRankMixing(rank=1), SelectedMixing(bank_filters=3)


@dataclass(frozen=True)
class Task:
    """What a task of these banks is made as."""

    name: str
    shares: Shares
    mixing: Mixing
    init: str | None = None
    unpaired: bool = False
    channels: tuple[int, int] = (3, 3)


FIRST = Task("first", 1.0, FULL, unpaired=True)
MIXED = (
    FIRST,
    Task("gray", 0.25, LOW, channels=(1, 3)),
    Task("last", LAST, LOW),
    Task("both", LAST, SELECTED, "last", unpaired=True),
    Task("even", 0.25, FULL),
    Task("free", 1.0, FULL, "both"),
    Task("full", LAST, FULL, "even", unpaired=True),
    Task("far", LAST, LOW, "gray"),
    Task("chosen", 0.25, SELECTED, "far", unpaired=True, channels=(1, 1)),
    Task("chain", LAST, SELECTED, "chosen", unpaired=True),
)


def learn(network: PiggybackNetwork, task: Task, which: str) -> TaskState:
    """A task whose every value is its own, without training."""
    channels = task.channels if which == FORWARD else task.channels[::-1]
    own = own_layers(CONFIG, channels, seed=0)
    init = task.init if task.init in network.tasks else None
    mixing = task.mixing.as_card()
    mixing["mixing"] = mixing.pop("kind")
    network.add_task(task.name, evenly(task.shares, init=init, **mixing), own_layers=own)
    chance = torch.Generator().manual_seed(crc32(f"{task.name} {which}".encode()))
    banks = {f"{layer.name}.selected_filters": layer.bank for layer in network.plan_of(task.name)}
    with torch.no_grad():
        for parameter in network.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=chance), alpha=0.05)
        for key, buffer in network.module.named_buffers():
            if key in banks:
                buffer.copy_(torch.randperm(banks[key], generator=chance)[: len(buffer)])
    network.finish_task()
    return network.task_state(task.name)


def fill(path: Path, *tasks: Task) -> Bank:
    """A bank with these tasks."""
    networks = {which: Bank.new(path, CONFIG).empty_network(which) for which in (FORWARD, BACKWARD)}
    for task in tasks:
        bank = open_or_new(path, CONFIG)
        states = {
            which: learn(network, task, which)
            for which, network in networks.items()
            if which == FORWARD or task.unpaired
        }
        with bank.writing("test"):
            first, second = (ImageFormat(channels=channels) for channels in task.channels)
            words = card(
                networks[FORWARD],
                task.name,
                unpaired=task.unpaired,
                formats=(first, second),
                size=16,
            )
            bank.add(states[FORWARD], words, states.get(BACKWARD))
    return Bank.open(path)


def bits(module: nn.Module) -> dict[str, bytes]:
    """A module's values."""
    return {key: tensor.numpy().tobytes() for key, tensor in module.state_dict().items()}


def all_bits(bank: Bank) -> dict[tuple[str, str], dict[str, bytes]]:
    """The weights of all tasks in all their directions."""
    return {
        (task, direction): bits(bank.generator(task, direction=direction))
        for task in bank.tasks
        for direction in bank.directions(task)
    }
