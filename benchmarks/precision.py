"""Time steps of the paired trainer in fp32 and bf16, in turn; JSON on stdout.

    python benchmarks/precision.py --size 64 --batch-size 4 --steps 10

The first task of a bank with the default generator's layers (--ngf narrows it) is trained on random
images. Steps of fp32 and bf16 alternate, so that other load on the machine affects both; `ratio` is the
median of a bf16 step's time over that of the fp32 step before it: below 1, bf16 is faster. `wall` is wall time, on
a GPU until it has finished; `cpu` is processor time, which other load affects less.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from lifelong import machine
from piggyback_gan import GeneratorOptions, TrainingOptions
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.device import choose_device
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.trainer import Batch

WARM_UP = 2


def main() -> None:
    arguments = _arguments()
    device = torch.device(choose_device(arguments.device))
    config = GeneratorOptions(ngf=arguments.ngf).for_new_bank(arguments.size)
    options = TrainingOptions(image_size=arguments.size, batch_size=arguments.batch_size)
    trainers = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        network = PiggybackNetwork(build_generator(config)).to(device)
        network.add_task("one")
        chosen = replace(options, precision=precision).resolved(earlier=(), device=device.type)
        trainers[precision] = PairedTrainer(network, config, chosen, device)
        trainers[precision].begin_epoch(steps=100)
    times: dict[str, list[_Times]] = {precision: [] for precision in trainers}
    shape = (arguments.batch_size, 3, arguments.size, arguments.size)
    for step in range(WARM_UP + arguments.steps):
        images = [torch.rand(shape) * 2 - 1 for _ in range(2)]
        for precision, trainer in trainers.items():
            times[precision].append(_timed(trainer, Batch(step, *images, len(images[0]))))
    fp32, bf16 = (times[precision][WARM_UP:] for precision in ("fp32", "bf16"))
    result = {
        "machine": machine(),
        **vars(arguments),
        "generator": config.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "wall": _compared([t.wall for t in fp32], [t.wall for t in bf16]),
        "cpu": _compared([t.cpu for t in fp32], [t.cpu for t in bf16]),
    }
    print(json.dumps(result, indent=1))


class _Times(NamedTuple):
    """Measure a step's wall and processor time, in seconds."""

    wall: float
    cpu: float


def _timed(trainer: PairedTrainer, batch: Batch) -> _Times:
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return _Times(time.perf_counter() - wall, time.process_time() - cpu)


def _compared(fp32: list[float], bf16: list[float]) -> dict[str, float | list[float]]:
    ratios = sorted(b / f for f, b in zip(fp32, bf16, strict=True))
    return {
        "fp32": round(statistics.median(fp32), 4),
        "bf16": round(statistics.median(bf16), 4),
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--ngf", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
