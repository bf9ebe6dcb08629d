"""Import a checkpoint folder of standalone networks into one bank: sizes, distances to the originals, quality.

    pbgan experiment benchmarks/lifelong-64px.toml --data DATA --out EXPERIMENT --part first/seed-0 ...
    pbgan experiment ...                                                        --part standalone-5e-4/seed-0 ...
    python benchmarks/shelf.py EXPERIMENT --data DATA --out OUT --features FILE --distance FILE

EXPERIMENT is a folder of `pbgan experiment` with standalone networks; they are written as pix2pix checkpoints,
imported with `pbgan import --all` with different options, and evaluated with `pbgan evaluate` on all held-out
images. `originals` keeps every network whole. Figures go to docs/results/import-64px.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from lifelong import RESULTS, machine, require_new

WAYS: dict[str, tuple[str, ...]] = {
    "originals": ("--max-error", "0"),
    "lambda 1/4": ("--unconstrained", ".25"),
    "error .5": ("--max-error", ".5"),
    "error .25": ("--max-error", ".25"),
    "lambda 1/4, 1000 steps": ("--unconstrained", ".25", "--finetune", "1000"),
    "lambda 1/8, 1000 steps": ("--unconstrained", ".125", "--finetune", "1000"),
    "lambda 0, 1000 steps": ("--unconstrained", "0", "--finetune", "1000"),
    "lambda 1/4 in bf16, 1000 steps": (
        *("--unconstrained", ".25", "--storage", "bf16"),
        *("--finetune", "1000"),
    ),
}
DIRECTIONS = {
    "cityscapes": "AtoB",
    "maps": "BtoA",
    "facade_windows": "BtoA",
    "edges2clothes": "AtoB",
}


def write_shelf(networks: Path, shelf: Path) -> None:
    """Write the networks of an experiment's part as pix2pix checkpoints, in the order of the tasks."""
    for path in sorted(networks.glob("forward/*.safetensors")):
        number, _, task = path.stem.partition("-")
        folder = shelf / f"{number}-{task}"
        folder.mkdir(parents=True)
        torch.save(safetensors.torch.load_file(path), folder / "latest_net_G.pth")
        words = (
            f"  crop_size: 64 \t[default: 256]\n  direction: {DIRECTIONS[task]} \t[default: AtoB]\n"
        )
        (folder / "train_opt.txt").write_text(words)


def pbgan(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "piggyback_gan", *map(str, arguments)], check=True)


def try_way(
    options: tuple[str, ...], bank: Path, shelf: Path, data: Path, judging: list[str]
) -> dict[str, Any]:
    """Import all networks and evaluate them."""
    started = time.monotonic()
    pbgan("import", bank, "--all", shelf, "--images", data, *options)
    seconds = time.monotonic() - started
    judged = bank.with_suffix(".json")
    pbgan("evaluate", bank, "--data", data, "--json", judged, *judging)
    tasks = {}
    listed = json.loads((bank / "bank.json").read_text())["tasks"]
    for entry, row in zip(listed, json.loads(judged.read_text())["tasks"], strict=True):
        with safetensors.safe_open(bank / "tasks" / entry["file"], "pt") as file:
            card = json.loads(file.metadata()["card"])
        tasks[entry["name"]] = {
            "bytes": entry["bytes"],
            "share": card["parameters"]["share"],
            "distance": card["imported"]["distances"],
            "figures": {name: figure["value"] for name, figure in row["figures"].items()},
        }
    return {"options": options, "seconds": round(seconds), "tasks": tasks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--part", default="standalone-5e-4/seed-0")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--distance", required=True)
    given = parser.parse_args()
    require_new(given.out)
    networks = max((given.experiment / "parts" / given.part).glob("kept-*"))
    shelf, data = given.out / "shelf", given.out / "data"
    write_shelf(networks, shelf)
    data.mkdir()
    for folder in sorted(shelf.iterdir()):
        (data / folder.name).symlink_to((given.data / folder.name.partition("-")[2]).resolve())
    judging = ["--features", given.features, "--distance", given.distance]
    found: dict[str, Any] = {"machine": dict(machine()), "ways": {}}
    found["files"] = {p.parent.name: p.stat().st_size for p in sorted(shelf.glob("*/*.pth"))}
    for number, (way, options) in enumerate(WAYS.items()):
        bank = given.out / f"bank-{number}"
        found["ways"][way] = try_way(options, bank, shelf, data, judging)
        (given.out / "import-64px.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "import-64px.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
