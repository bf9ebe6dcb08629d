"""Training parts of speed.py: time and memory of steps, and time of data loading."""

import argparse
import ctypes
import gc
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drawn_files import write_pairs
from piggyback_gan import FilterOptions, GeneratorOptions, TrainingOptions
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import Pair
from piggyback_gan.experiments.run.memory import peak, reset_peak
from piggyback_gan.experiments.strategies.base import Learner
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.device import choose_device
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.trainer import Batch, Trainer
from piggyback_gan.training.unpaired import UnpairedTrainer
from plain_loops import PlainPaired, PlainUnpaired
from timing import compared, in_turn

PAPER = FilterOptions(unconstrained=0.25, allocation="even")
DEFAULT = FilterOptions()
TASKS = 20
DATA_STEPS = 4
# side -> number and options of earlier tasks; None for networks without a bank
BANKS: Mapping[str, tuple[int, FilterOptions] | None] = {
    "plain": None,
    "standalone": None,
    "bf16": None,
    "task 2": (1, DEFAULT),
    "task 20": (TASKS - 1, DEFAULT),
    "task 2, paper": (1, PAPER),
    "task 20, paper": (TASKS - 1, PAPER),
}
# what each side is compared with
AGAINST = {side: "standalone" for side in BANKS if side not in ("plain", "standalone")} | {
    "standalone": "plain",
    "bf16": "plain",
}


def steps(mode: Any, name: Any, size: int, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    config, options, device = setting(mode, name, size, batch, given)
    chance = torch.Generator().manual_seed(0)
    shape = (batch, 3, size, size)
    images = [torch.rand(shape, generator=chance) * 2 - 1 for _ in range(2)]
    sides = {side: stepper(config, side, options, device) for side in given.sides}
    works = {
        side: (lambda number, step=step: step(number, *images)) for side, step in sides.items()
    }
    return compared(in_turn(works, given.rounds, device), AGAINST)


def memory(
    mode: Any, name: Any, size: int, batch: int, given: argparse.Namespace
) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    rows: dict[str, Any] = {}
    for side in given.sides:
        with context.Pool(1) as pool:
            found = pool.apply(peak_of, (mode, name, size, batch, given, side))
        rows[side] = {"megabytes": round(found / 1e6, 1)}
        if (other := AGAINST.get(side)) in rows:
            ratio = found / 1e6 / rows[str(other)]["megabytes"]
            rows[side] |= {"against": other, "ratio": round(ratio, 3)}
    return rows


def peak_of(
    mode: Any, name: Any, size: int, batch: int, given: argparse.Namespace, side: str
) -> int:
    """Measure peak memory of a process that trains three steps, without that of making a bank."""
    torch.set_flush_denormal(True)
    config, options, device = setting(mode, name, size, batch, given)
    step = stepper(config, side, options, device)
    images = [torch.zeros(batch, 3, size, size) for _ in range(2)]
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # freed memory may be the process's all the same
    reset_peak(device)
    for number in range(3):
        step(number, *images)
    return peak(device) or 0


def data(name: Any, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Time a batch of one from cached pairs, one from pairs decoded again, and a step, in seconds."""
    config, options, device = setting("paired", name, size, 1, given)
    step = stepper(config, "standalone", options, device)
    count = 64
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "train"
        write_pairs(folder, count, size)
        pairs = [Pair(path.stem, path, path) for path in sorted(folder.iterdir())]
        formats = ImageFormat(), ImageFormat()

        def epochs(cache_bytes: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
            dataset = PairedDataset(
                pairs, direction="AtoB", formats=formats, size=size, cache_bytes=cache_bytes
            )
            return lambda number: dataset.epoch(number, batch_size=1, crop=size, flip=True, seed=0)

        kept, decoded = epochs(1 << 30), epochs(0)

        def trained(number: int, epoch: Callable[[int], Iterator[tuple[Tensor, Tensor]]]) -> None:
            for at, (first, second) in enumerate(islice(epoch(number), DATA_STEPS)):
                step(number * DATA_STEPS + at, first, second)

        images = next(iter(kept(0)))
        times = in_turn(
            {
                "in memory": lambda number: list(kept(number)),
                "decoded": lambda number: list(decoded(number)),
                "steps": lambda number: [step(number, *images) for _ in range(DATA_STEPS)],
                "steps, in memory": lambda number: trained(number, kept),
                "steps, decoded": lambda number: trained(number, decoded),
            },
            given.rounds,
            device,
        )
    rows = compared(times, {"steps, in memory": "steps", "steps, decoded": "steps"})
    for side, row in rows.items():
        row["seconds"] = round(row["seconds"] / (DATA_STEPS if "steps" in side else count), 5)
    return rows


def setting(
    mode: Any, name: Any, size: int, batch: int, given: argparse.Namespace
) -> tuple[GeneratorConfig, TrainingOptions, torch.device]:
    device = torch.device(choose_device(given.device))
    config = GeneratorOptions(generator=name, ngf=given.ngf).for_new_bank(size)
    options = TrainingOptions(
        mode=mode,
        image_size=size,
        batch_size=batch,
        augment="off",
        discriminator_layers=3 if size > 64 else 2,
    )
    return (
        config,
        options.resolved(
            earlier=("one",),
            earlier_backward=("one",),
            device=choose_device(given.device),  # type: ignore[arg-type]
        ),
        device,
    )


def stepper(
    config: GeneratorConfig, side: str, options: TrainingOptions, device: torch.device
) -> Any:
    """Return a function of (step number, first, second) that trains a step."""
    networks: list[Any] = [network_of(config, side).to(device)]
    if options.mode == "unpaired":
        networks.append(network_of(config, side).to(device))
    if side == "plain":
        channels = config.output_channels
        if options.mode == "unpaired":
            judge = options.discriminator_config(channels)
            loop: Any = PlainUnpaired((networks[0], networks[1]), judge, device)
        else:
            judge = options.discriminator_config(config.input_channels + channels)
            loop = PlainPaired(networks[0], judge, device)
        return lambda step, first, second: loop.step(first.to(device), second.to(device))
    trainer: Trainer
    if side == "bf16":
        options = replace(options, precision="bf16")
    if options.mode == "unpaired":
        trainer = UnpairedTrainer(networks[0], networks[1], config, options, device)
    else:
        trainer = PairedTrainer(networks[0], config, options, device)
    trainer.begin_epoch(100)
    return lambda step, first, second: trainer.step(Batch(step, first, second, len(first)))


def network_of(config: GeneratorConfig, side: str) -> nn.Module:
    """Build what a side trains: a plain network, or a bank with a task in training."""
    torch.manual_seed(0)
    plain = build_generator(config)
    bank = BANKS[side]
    if bank is None:
        return plain if side == "plain" else Learner(plain)
    network = PiggybackNetwork(plain, factored=True)
    earlier, options = bank
    for order in range(earlier + 1):
        network.add_task(f"task{order}", options)
        if order < earlier:
            network.finish_task()
    return network
