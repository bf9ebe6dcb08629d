"""Parts of speed.py that use trained tasks, and the start of a training."""

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from drawn_files import photograph_like, write_pairs
from filled_banks import filled_bank
from piggyback_gan import Bank, GeneratorOptions
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.inference.outputs import plan_outputs
from piggyback_gan.inference.translate import translate_files
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.device import choose_device
from speed_training import DEFAULT, PAPER, TASKS
from timing import compared, in_turn

FILES = 16
PAIRS = 400


def use(name: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Time a folded network and switching tasks, at 256 px."""
    device = torch.device(choose_device(given.device))
    config = GeneratorOptions(generator=name, ngf=given.ngf).for_new_bank(256)
    image = torch.rand(1, 3, 256, 256).to(device)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        for label, options in (("default", DEFAULT), ("paper", PAPER)):
            with torch.inference_mode(False):
                bank = filled_bank(Path(temporary) / label, config, options, TASKS)
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
    """Time `translate_files` on a folder of PNG files, and bare forwards of the same number of images."""
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


def start(given: argparse.Namespace) -> dict[str, Any]:
    """Time `pbgan train` until its first step is done, and --help, in seconds."""
    seconds: dict[str, list[float]] = {"first step": [], "help": []}
    program = [sys.executable, "-m", "piggyback_gan", "train"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data" / "train"
        write_pairs(folder, PAIRS, 256)
        for number in range(given.rounds):
            words = [str(Path(temporary) / f"bank{number}"), "one", "--data", str(folder.parent)]
            words += ["--image-size", "256", "--ngf", str(given.ngf)]
            seconds["first step"].append(until([*program, *words], b"epoch 1/"))
            seconds["help"].append(until([*program, "--help"], None))
    return compared(seconds, {})


def until(command: list[str], said: bytes | None) -> float:
    """Time a command until it prints this on a terminal, or until its end for None, in seconds."""
    ours, its = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        seen = b""
        while said is None or said not in seen:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the terminal's other end is closed
                break
        seconds = time.perf_counter() - began
        process.kill()
    os.close(ours)
    if said is not None and said not in seen:
        sys.exit(f"{command} ended before its first step:\n{seen.decode(errors='replace')}")
    return seconds
