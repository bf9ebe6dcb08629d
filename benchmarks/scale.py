"""Measure banks of many tasks: files, bytes, and time and memory of opening, adding, listing, verifying.

    python benchmarks/scale.py --out /tmp/scale

Banks of synthetic tasks (ResNet-6, ngf 16; random filters, no training) grow in three ways: new filters in
the last layers and low-rank mixing, the default; the same with a larger budget, with new filters in part of a further layer, so
that each task mixes from all; and the paper's, lambda 1/4 in every layer and full mixing. Each measurement runs in
its own process, with one thread. Results go to docs/results/scale.json; a table is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lifelong import require_new, write_results
from piggyback_gan import Bank, FilterOptions, GeneratorConfig, TrainingOptions
from piggyback_gan.bank.bank import open_or_new
from piggyback_gan.bank.manifest import MANIFEST_NAME, TASKS_FOLDER
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.experiments.run.memory import peak, reset_peak
from piggyback_gan.images.format import ImageFormat

CONFIG = GeneratorConfig(name="resnet-6", ngf=16)
CPU = torch.device("cpu")
BANKS = {
    "default": (TrainingOptions(), (10, 100, 1000)),
    "in part": (TrainingOptions(budget=0.15), (10, 100, 300)),
    "paper": (TrainingOptions(unconstrained=0.25, allocation="even"), (10, 100)),
}
"""Options of the later tasks, and at how many tasks the bank is measured."""


def grow(path: Path, options: TrainingOptions, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Add synthetic tasks one by one, and measure the bank at each size."""
    torch.manual_seed(0)
    network = open_or_new(path, CONFIG).empty_network()
    rows = []
    filters: FilterOptions = options
    seconds: list[float] = []
    for number in range(1, max(sizes) + 1):
        name = f"task-{number}"
        network.add_task(name, filters)
        with torch.no_grad():
            for parameter in network.trainable_parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        network.finish_task()
        if number == 1:
            filters = options = options.resolved(earlier=(name,), device="cpu")
        elif number == 2:
            # The later ones are made like it, however much the bank grows.
            made = network.task_state(name).filters
            filters = FilterOptions(
                unconstrained=dict(made.shares), mixing=options.mixing, **asdict(made.mixing)
            )
        state, card = network.task_state(name), card_of(network, name, options)
        bank = open_or_new(path, CONFIG)
        with bank.writing("benchmark"):
            started = time.monotonic()
            bank.add(state, card)
            seconds.append(time.monotonic() - started)
        if number in sizes:
            rows.append({**sizes_of(path), "append_seconds": min(seconds[-3:]), **measured(path)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def card_of(network: PiggybackNetwork, name: str, options: TrainingOptions) -> dict[str, Any]:
    plain = asdict(ImageFormat())
    return {
        "mode": "paired",
        "data": {"name": name},
        "image": {"size": 64, "input": plain, "output": plain},
        "options": asdict(options),
        "parameters": network.parameter_count(name).as_card(),
    }


def sizes_of(path: Path) -> dict[str, Any]:
    """Measure the bank on disk."""
    bank = Bank.open(path)
    files = list((path / TASKS_FOLDER).iterdir())
    return {
        "tasks": len(bank.tasks),
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "first_file_bytes": bank.entries[0].bytes,
        "last_file_bytes": bank.entries[-1].bytes,
        "manifest_bytes": (path / MANIFEST_NAME).stat().st_size,
        "last_task_share": bank.card(bank.tasks[-1]).parameters.share,
    }


def measured(path: Path) -> dict[str, Any]:
    """Measure each use of the bank in its own process."""
    figures = {}
    for what in USES:
        ran = subprocess.run(
            [sys.executable, __file__, "--out", str(path), "--measure", what],
            check=True,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        figures[what] = json.loads(ran.stdout)
    started = time.monotonic()
    listing = "from piggyback_gan.cli.main import main; import sys; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", listing, "tasks", str(path)], check=True, stdout=subprocess.DEVNULL
    )
    figures["pbgan tasks"] = {"seconds": time.monotonic() - started}
    return figures


USES: dict[str, Callable[[Path], object]] = {
    "open the bank": Bank.open,
    "open the first task": lambda path: Bank.open(path).generator("task-1"),
    "open the last task": lambda path: (bank := Bank.open(path)).generator(bank.tasks[-1]),
    "open all tasks": lambda path: Bank.open(path).network(),
    "verify": lambda path: [finding for finding in Bank.open(path).verify() if finding.problem],
}


def measure(path: Path, what: str) -> None:
    """Measure one use of the bank; runs in its own process."""
    Bank.open(
        path
    ).empty_network().state_dict()  # what is loaded when it is first used is no task's
    files: set[str] = set()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".safetensors"):
            files.add(str(arguments[0]))

    sys.addaudithook(watch)
    reset_peak(CPU)
    before = peak(CPU) or 0
    started = time.monotonic()
    found = USES[what](path)
    seconds = time.monotonic() - started
    assert what != "verify" or found == [], found
    figures = {
        "seconds": seconds,
        "files_read": len(files),
        "bytes_read": sum(Path(file).stat().st_size for file in files),
        "memory": max((peak(CPU) or 0) - before, 0),
    }
    print(json.dumps(figures))


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Format the figures as Markdown."""
    uses = (*USES, "pbgan tasks")
    kept = ("open the last task", "open all tasks", "verify")
    heads = ["bank", "tasks", "MB", "manifest, kB", "add one, s", *(f"{use}, s" for use in uses)]
    heads += ["files read for the last", *(f"{use}, MB" for use in kept)]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, rows in results.items():
        for row in rows:
            cells = [name, f"{row['tasks']:,}", f"{row['bytes'] / 1e6:.1f}"]
            cells += [f"{row['manifest_bytes'] / 1e3:.1f}", f"{row['append_seconds']:.3f}"]
            cells += [f"{row[use]['seconds']:.3f}" for use in uses]
            cells += [f"{row['open the last task']['files_read']:,}"]
            cells += [f"{row[use]['memory'] / 1e6:.0f}" for use in kept]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the banks")
    parser.add_argument("--banks", nargs="+", choices=BANKS, default=list(BANKS))
    parser.add_argument("--most", type=int, default=1000, help="no bank of more tasks")
    parser.add_argument("--measure", choices=USES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measure:
        measure(given.out, given.measure)
        return
    require_new(given.out)
    results = {}
    for name in given.banks:
        options, sizes = BANKS[name]
        fitting = tuple(size for size in sizes if size <= given.most)
        results[name] = grow(given.out / name.replace(" ", "-"), options, fitting)
    print(table(results))
    write_results("scale.json", generator=asdict(CONFIG), banks=results)


if __name__ == "__main__":
    main()
