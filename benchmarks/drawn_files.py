"""Image files that take as long to read as photographs."""

from pathlib import Path

import numpy as np
from PIL import Image


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
