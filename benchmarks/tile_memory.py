"""Measure peak memory of translating a 20000 x 20000 image in tiles, from file to file.

    python benchmarks/tile_memory.py

A drawn RGB image is written; another process reads, translates and writes it. The
network is a ResNet-9 with ngf 64 for the first tiles (and for the statistics, with --norm-from image), whose
memory is that of all tiles; the others use one small convolution, so that the run takes minutes.
Prints one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from piggyback_gan import GeneratorConfig, Tiling, build_generator
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.strips import write_strips
from piggyback_gan.inference.outputs import Outcome
from piggyback_gan.inference.tiling import NORM_FROM
from piggyback_gan.inference.translate import translate_files

CONFIG = GeneratorConfig(name="resnet-9", ngf=64)
FORMAT = ImageFormat()


class MostlySmall(nn.Module):
    """A full network for the first inputs, one convolution for the others."""

    def __init__(self, real: int) -> None:
        super().__init__()
        self.network = build_generator(CONFIG)
        self.small = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
        self.real = real

    def forward(self, images: Tensor) -> Tensor:
        self.real -= 1
        output: Tensor = self.network(images) if self.real >= 0 else self.small(images)
        return output


def draw(path: Path, side: int) -> None:
    """Draw an image of waves and grain."""
    chance = np.random.default_rng(0)
    grain = chance.integers(0, 16, (256, side, 3), dtype=np.uint8)
    across = np.arange(side)

    def strip(top: int) -> np.ndarray:
        rows = np.arange(top, min(top + 256, side))
        waves = np.sin(rows[:, None] / 50) + np.sin(across / 70)
        return (waves * 50 + 110).astype(np.uint8)[..., None] + grain[: len(rows)]

    write_strips(path, map(strip, range(0, side, 256)), (side, side, 3), "uint8")


def measure(source: Path, output: Path, norm_from: str, real: int) -> None:
    """Translate and print peak memory; runs in its own process."""
    torch.set_num_threads(2)
    with torch.inference_mode():
        generator = MostlySmall(real).eval()
    before = peak()
    started = time.monotonic()
    (outcome,) = translate_files(
        generator,
        CONFIG,
        [Outcome(source, output)],
        (FORMAT, FORMAT),
        tiling=Tiling(norm_from=norm_from),
        max_pixels=10**12,
    )
    assert outcome.problem is None, outcome.problem
    figures = {"seconds": round(time.monotonic() - started), "before": before, "peak": peak()}
    print(json.dumps(figures))


def peak() -> int:
    """Return this process's peak memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--suffix", choices=(".png", ".tif"), default=".png")
    parser.add_argument("--norm-from", choices=NORM_FROM, default="tile")
    parser.add_argument("--real", type=int, default=3, help="tiles for the real network")
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_process:
        output = given.in_process.with_name(f"output{given.suffix}")
        measure(given.in_process, output, given.norm_from, given.real)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"input{given.suffix}"
        draw(source, given.side)
        ran = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--in-process", str(source)],
            check=True,
            stdout=subprocess.PIPE,
        )
    figures = json.loads(ran.stdout)
    image = given.side**2 * 3
    figures |= {
        "side": given.side,
        "suffix": given.suffix,
        "norm_from": given.norm_from,
        "image": image,
        "beyond_the_image": figures["peak"] - image,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
