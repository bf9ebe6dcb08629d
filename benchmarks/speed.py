"""Time training, translating and opening, each together with a baseline.

    python benchmarks/speed.py --out speed.json

docs/results has RECORDED below; `--all` measures every network, size and batch size, which takes hours on a CPU.
`--parts`, `--networks`, `--sizes` and `--batch-sizes` select a subset.

In every round each side does the same work once, in turn, so that other load on the machine affects all; a ratio
is the median over rounds of a side's time divided by its baseline's in the same round, with quartiles. Images and
weights are random: no time depends on them. A table is printed on stdout, all figures go to the JSON file.

- paired, unpaired: training steps. `plain`: the public trainers' (plain_loops.py); `standalone`: our trainer with a
  plain network; `task 2`, `task 20`: with a bank, as tasks are by default; `paper`: lambda 1/4 in every layer.
  `bf16` is `standalone` at `--precision bf16`.
- memory: peak memory of a process that only runs three such steps.
- use: a folded network's forward; switching tasks in a bank of 20, compared with loading 20 checkpoints.
- folder: `translate` on a folder of PNG files, compared with bare forwards of the same number of images.
- data: batches from PNG files of pairs, cached in memory and decoded again, compared with a training step.
- start: the command `pbgan train` on 400 pairs, until its first step is done.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from lifelong import machine
from speed_training import BANKS, data, memory, steps
from speed_use import folder, start, use

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


def cases(given: argparse.Namespace) -> list[Case]:
    """Parse what to measure."""
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


def show(row: Mapping[str, Any]) -> None:
    """Print a measurement."""
    head = " ".join(str(row[key]) for key in ("part", "network", "size", "batch"))
    print(f"{head}: {json.dumps(row['sides'])}", file=sys.stderr, flush=True)


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format all measurements as Markdown."""
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
    """Yield each side with its name, prefixed with the bank's if there are several."""
    for side, found in sides.items():
        if "seconds" in found or "megabytes" in found:
            yield side, found
        else:
            yield from ((f"{side}: {name}", value) for name, value in found.items())


if __name__ == "__main__":
    main()
