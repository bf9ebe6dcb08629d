"""How fast training, translating and opening are, each beside what it is compared with, in one run.

    python benchmarks/speed.py --out speed.json

What is recorded in docs/results is RECORDED below; `--all` takes every network, size and batch size, which is
hours on a CPU. `--parts`, `--networks`, `--sizes` and `--batch-sizes` leave out the others.

In every round each side does the same piece of work once, one after the other, so that other work on the machine slows
all alike; a ratio is the median over rounds of a side's time by that of the side it is compared with in the same
round, with the quartiles. Images and weights are random: no time depends on what they show. A table goes to stdout,
everything to the JSON file.

- paired, unpaired: training steps. `plain`: the public trainers' (plain_loops.py); `standalone`: our trainer with a
  plain network; `task 2`, `task 20`: with a bank, as tasks are by default; `paper`: lambda 1/4 in every layer.
  `bf16` is `standalone` at `--precision bf16`.
- memory: the peak of a process that does nothing but three such steps.
- use: a folded network's forward, switching to another task of a bank of 20, against loading 20 checkpoints.
- folder: `translate` on a folder of PNG files, against bare forwards of as many images.
- data: batches of an epoch from PNG files of pairs, kept in memory and decoded again, beside a training step.
- start: the command `pbgan train` on 400 pairs, until its first step is done.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lifelong import machine
from piggyback_gan import Bank, FilterOptions, GeneratorOptions, TrainingOptions
from piggyback_gan.config import GeneratorConfig
from piggyback_gan.data import PairedDataset
from piggyback_gan.devices import choose_device
from piggyback_gan.experiments.memory import peak, reset_peak
from piggyback_gan.experiments.strategies.base import Learner
from piggyback_gan.folders import Pair
from piggyback_gan.generators import build_generator
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.outputs import plan_outputs
from piggyback_gan.trainer import Batch, PairedTrainer, Trainer
from piggyback_gan.translate import translate_files
from piggyback_gan.unpaired_trainer import UnpairedTrainer
from plain_loops import PlainPaired, PlainUnpaired

PAPER = FilterOptions(unconstrained=0.25, allocation="even")
DEFAULT = FilterOptions()
TASKS = 20
WARM_UP = 2
FILES = 16
DATA_STEPS = 4
PAIRS = 400
PARTS = ("paired", "unpaired", "memory", "use", "folder", "data", "start")
NETWORKS = ("resnet-6", "resnet-9", "unet-256")
SIZES = (64, 128, 256)
BATCH_SIZES = (1, 4)
# part, network, size, batch size
Case = tuple[str, str, int, int]
RECORDED: Sequence[Case] = (
    ("paired", "resnet-9", 64, 1),
    ("paired", "resnet-9", 128, 1),
    ("paired", "resnet-9", 256, 1),
    ("paired", "resnet-9", 64, 4),
    ("paired", "resnet-9", 128, 4),
    ("paired", "resnet-6", 64, 1),
    ("paired", "resnet-6", 128, 1),
    ("paired", "unet-256", 256, 1),
    ("paired", "unet-256", 256, 4),
    ("unpaired", "resnet-9", 64, 1),
    ("unpaired", "resnet-9", 128, 1),
    ("unpaired", "resnet-9", 64, 4),
    ("unpaired", "unet-256", 256, 1),
    ("memory", "resnet-9", 64, 1),
    ("memory", "resnet-9", 128, 4),
    ("memory", "resnet-9", 256, 1),
    ("use", "resnet-9", 256, 1),
    ("folder", "resnet-9", 64, 1),
    ("folder", "resnet-9", 256, 1),
    ("data", "resnet-9", 64, 1),
    ("data", "resnet-9", 256, 1),
    ("start", "resnet-9", 64, 1),
)
# side -> the tasks before it and how they are made; None for networks without a bank
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


def network_of(config: GeneratorConfig, side: str) -> nn.Module:
    """What a side trains: a plain network, or a bank with a task in training."""
    torch.manual_seed(0)
    plain = build_generator(config)
    bank = BANKS[side]
    if bank is None:
        return plain if side == "plain" else Learner(plain)
    network = PiggybackNetwork(plain, factored=True)
    earlier, options = bank
    for order in range(earlier + 1):
        made = network.allot(options)
        network.add_task(f"task{order}", made.shares, mixing=made.mixing)
        if order < earlier:
            network.finish_task()
    return network


def stepper(
    config: GeneratorConfig, side: str, options: TrainingOptions, device: torch.device
) -> Any:
    """A function of (step number, first, second) that trains a step."""
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


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(
    sides: Mapping[str, Callable[[int], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Side -> its seconds in every round, after a warm-up."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(WARM_UP + rounds):
        for side, work in sides.items():
            seconds = timed(lambda work=work, number=number: work(number), device)  # type: ignore[misc]
            if number >= WARM_UP:
                times[side].append(seconds)
    return times


def compared(times: Mapping[str, list[float]], against: Mapping[str, str]) -> dict[str, Any]:
    """Side -> median seconds, and the ratio to what it is compared with: median and quartiles."""
    rows: dict[str, Any] = {}
    for side, seconds in times.items():
        rows[side] = {"seconds": round(statistics.median(seconds), 5)}
        if (other := against.get(side)) in times:
            ratios = [a / b for a, b in zip(seconds, times[str(other)], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            rows[side] |= {
                "against": other,
                "ratio": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
            }
    return rows


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


def peak_of(
    mode: Any, name: Any, size: int, batch: int, given: argparse.Namespace, side: str
) -> int:
    """The peak of a process that trains three steps; what making a bank took is over by then."""
    torch.set_flush_denormal(True)
    config, options, device = setting(mode, name, size, batch, given)
    step = stepper(config, side, options, device)
    images = [torch.zeros(batch, 3, size, size) for _ in range(2)]
    reset_peak(device)
    for number in range(3):
        step(number, *images)
    return peak(device) or 0


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


def filled_bank(path: Path, config: GeneratorConfig, options: FilterOptions) -> Bank:
    """A bank of 20 tasks that were never trained, but moved at random."""
    bank = Bank.new(path, config)
    network = bank.empty_network()
    with bank.writing("a benchmark"):
        for order in range(TASKS):
            made = network.allot(options)
            network.add_task(f"task{order}", made.shares, mixing=made.mixing)
            with torch.no_grad():
                for parameter in network.trainable_parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
            network.finish_task()
            bank.add(network.task_state(f"task{order}"), {"mode": "paired"})
    return Bank.open(path)


def use(name: Any, given: argparse.Namespace) -> dict[str, Any]:
    """A folded network and switching tasks, at 256 px."""
    device = torch.device(choose_device(given.device))
    config = GeneratorOptions(generator=name, ngf=given.ngf).for_new_bank(256)
    image = torch.rand(1, 3, 256, 256).to(device)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        for label, options in (("default", DEFAULT), ("paper", PAPER)):
            with torch.inference_mode(False):
                bank = filled_bank(Path(temporary) / label, config, options)
            files = []
            for order in range(TASKS):
                files.append(Path(temporary) / f"{label}-{order}.pt")
                torch.save(bank.generator(f"task{order}").state_dict(), files[-1])
            plain = build_generator(config).eval().to(device)
            folded = bank.generator(bank.tasks[-1], device=device)

            def forward(network: nn.Module, number: int) -> object:
                return network(image)

            def switch(number: int, path: Path = bank.path) -> nn.Module:
                with torch.inference_mode(False):
                    task = f"task{TASKS - 1 - number % 2}"
                    return Bank.open(path).generator(task, device=device)

            def load_all(number: int, files: list[Path] = files) -> list[nn.Module]:
                networks: list[nn.Module] = []
                for file in files:
                    network = build_generator(config)
                    network.load_state_dict(torch.load(file, weights_only=True))
                    networks.append(network.eval().to(device))
                return networks

            times = in_turn(
                {
                    "plain forward": partial(forward, plain),
                    "folded forward": partial(forward, folded),
                    "20 checkpoints": load_all,
                    "switch": switch,
                },
                given.rounds,
                device,
            )
            rows[label] = compared(
                times, {"folded forward": "plain forward", "switch": "20 checkpoints"}
            )
            ratios = [a / b for a, b in zip(times["switch"], times["plain forward"], strict=True)]
            rows[label]["switch"]["of a forward"] = round(statistics.median(ratios), 3)
    return rows


def folder(name: Any, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """`translate_files` on a folder of PNG files, against bare forwards of as many images."""
    device = torch.device(choose_device(given.device))
    config = GeneratorOptions(generator=name, ngf=given.ngf).for_new_bank(size)
    generator = build_generator(config).eval().to(device)
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "in"
        source.mkdir()
        for number in range(FILES):
            photograph_like(chance, size, size).save(source / f"{number}.png")
        formats = ImageFormat(), ImageFormat()
        tensor = torch.rand(1, 3, size, size)

        def files(number: int) -> None:
            out = Path(temporary) / f"out{number}"
            out.mkdir()
            planned = plan_outputs([source], out, same_format=False, overwrite=False)
            translate_files(generator, config, planned, formats)

        def forwards(number: int) -> None:
            for _ in range(FILES):
                with torch.inference_mode():
                    generator(tensor.to(device)).cpu()

        times = in_turn({"forwards": forwards, "files": files}, given.rounds, device)
    rows = compared(times, {"files": "forwards"})
    rows["files"]["of the network's rate"] = round(1 / rows["files"]["ratio"], 3)
    return rows


def write_pairs(folder: Path, count: int, size: int) -> None:
    """Files of two images beside each other."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        photograph_like(chance, 2 * size, size).save(folder / f"{number}.png")


def photograph_like(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    """Blurred noise: about as large, when it is encoded, as a photograph is."""
    noise = chance.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def data(name: Any, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds for a batch of one, of pairs in memory and of pairs that are decoded again, and for a step."""
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


def start(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command `pbgan train` until its first step is done, and of --help."""
    seconds: dict[str, list[float]] = {"first step": [], "help": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data" / "train"
        write_pairs(folder, PAIRS, 256)
        for number in range(given.rounds):
            words = ["train", str(Path(temporary) / f"bank{number}"), "one", "--data"]
            words += [str(folder.parent), "--image-size", "256", "--ngf", str(given.ngf)]
            for side, arguments in (("first step", words), ("help", ["train", "--help"])):
                command = [sys.executable, "-m", "piggyback_gan", *arguments]
                began = time.perf_counter()
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                assert process.stdout is not None
                for line in process.stdout:
                    if side == "first step" and "step 1" in line:
                        seconds[side].append(time.perf_counter() - began)
                        process.kill()
                        break
                process.wait()
                if side == "help":
                    seconds[side].append(time.perf_counter() - began)
    return compared(seconds, {})


def measured(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    part, name, size, batch = case
    if part in ("paired", "unpaired"):
        return steps(part, name, size, batch, given)
    if part == "memory":
        return memory("paired", name, size, batch, given)
    if part == "use":
        return use(name, given)
    if part == "start":
        return start(given)
    return (folder if part == "folder" else data)(name, size, given)


def cases(given: argparse.Namespace) -> list[Case]:
    """What is to be measured."""
    grid = list(product(PARTS, NETWORKS, SIZES, BATCH_SIZES)) if given.all else RECORDED
    return [
        (part, name, size, batch)
        for part, name, size, batch in grid
        if part in given.parts
        and name in given.networks
        and size in given.sizes
        and batch in given.batch_sizes
        and not (name == "unet-256" and size % 256)
        and (part in ("paired", "unpaired", "memory") or batch == 1)
        # These are measured at one size, and with one network.
        and (part != "use" or size == 256)
        and (part != "start" or (name, size) == ("resnet-9", 64))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES)
    parser.add_argument(
        "--batch-sizes", nargs="+", type=int, choices=BATCH_SIZES, default=BATCH_SIZES
    )
    parser.add_argument("--sides", nargs="+", choices=BANKS, default=list(BANKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    rows = []
    for case in cases(given):
        named = dict(zip(("part", "network", "size", "batch"), case, strict=True))
        rows.append({**named, "sides": measured(case, given)})
        show(rows[-1])
        options = {key: value for key, value in vars(given).items() if key != "out"}
        content = {"machine": machine(), "options": options, "rows": rows}
        given.out.write_text(json.dumps(content, indent=1) + "\n")
    print(as_table(rows))


def show(row: Mapping[str, Any]) -> None:
    """Print a measurement as it comes."""
    head = " ".join(str(row[key]) for key in ("part", "network", "size", "batch"))
    print(f"{head}: {json.dumps(row['sides'])}", file=sys.stderr, flush=True)


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All measurements in Markdown."""
    lines = ["| | px | batch | side | | ratio | to |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        head = f"{row['part']} {row['network']} | {row['size']} | {row['batch']}"
        for side, found in flat(row["sides"]):
            value = (
                f"{found['seconds']:.4g} s" if "seconds" in found else f"{found['megabytes']} MB"
            )
            ratio, other = found.get("ratio", ""), found.get("against", "")
            if "quartiles" in found:
                low, high = found["quartiles"]
                ratio = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
            lines.append(f"| {head} | {side} | {value} | {ratio} | {other} |")
    return "\n".join(lines)


def flat(sides: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each side with its name; those of several banks have the bank's before it."""
    for side, found in sides.items():
        if "seconds" in found or "megabytes" in found:
            yield side, found
        else:
            yield from ((f"{side}: {name}", value) for name, value in found.items())


if __name__ == "__main__":
    main()
