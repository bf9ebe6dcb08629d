"""Write image files that take as long to read as photographs."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pairs(folder: Path, count: int, size: int) -> None:
    """Write files of side-by-side pairs."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        photograph_like(random, 2 * size, size).save(folder / f"{number}.png")


def photograph_like(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw blurred noise, whose encoded size is about that of a photograph."""
    noise = random.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
