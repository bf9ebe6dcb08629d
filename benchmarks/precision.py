"""What bf16 is worth here: steps of the paired trainer in both precisions, in turn, as JSON on stdout.

    python benchmarks/precision.py --size 64 --batch-size 4 --steps 10

The first task of a bank with the default generator's layers (--ngf narrows it) is trained on random
images. Steps of fp32 and bf16 alternate, so that other work on the machine slows both alike; `ratio` is
the median time of a bf16 step over that of an fp32 step: below 1, bf16 is faster. Times on a GPU are taken
after it has finished.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

import torch

from lifelong import machine
from piggyback_gan import GeneratorOptions, TrainingOptions
from piggyback_gan.devices import choose_device
from piggyback_gan.generators import build_generator
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.trainer import Batch, PairedTrainer

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
        trainers[precision].begin_epoch(1)
    seconds: dict[str, list[float]] = {precision: [] for precision in trainers}
    shape = (arguments.batch_size, 3, arguments.size, arguments.size)
    for step in range(WARM_UP + arguments.steps):
        images = [torch.rand(shape) * 2 - 1 for _ in range(2)]
        for precision, trainer in trainers.items():
            seconds[precision].append(_timed(trainer, Batch(step, *images, len(images[0]))))
    kept = {precision: times[WARM_UP:] for precision, times in seconds.items()}
    medians = {precision: statistics.median(times) for precision, times in kept.items()}
    ratios = [bf16 / fp32 for fp32, bf16 in zip(kept["fp32"], kept["bf16"], strict=True)]
    result = {
        "machine": machine(),
        **vars(arguments),
        "generator": config.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "seconds": {precision: round(median, 4) for precision, median in medians.items()},
        "ratio": round(medians["bf16"] / medians["fp32"], 3),
        "ratios_of_pairs": [round(ratio, 2) for ratio in ratios],
    }
    print(json.dumps(result, indent=1))


def _timed(trainer: PairedTrainer, batch: Batch) -> float:
    begun = time.perf_counter()
    trainer.step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


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
