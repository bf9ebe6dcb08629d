"""Small paired data sets of coloured boxes."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_pairs(
    folder: Path, *, train: int = 6, test: int = 2, size: int = 24, seed: int = 0
) -> Path:
    """Write side-by-side images: coloured boxes on the left, their inverted colours on the right."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        if not count:
            continue
        (folder / split).mkdir(parents=True)
        for index in range(count):
            left = np.full((size, size, 3), 40, np.uint8)
            x, y = random.integers(0, size // 2, 2)
            left[y : y + size // 2, x : x + size // 2] = random.integers(0, 255, 3)
            both = np.concatenate([left, 255 - left], axis=1)
            Image.fromarray(both).save(folder / split / f"{index:03d}.png")
    return folder
