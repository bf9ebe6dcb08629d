"""Small data sets on disk, some with pixels that encode their position, and the error that a call raises."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import Pair, find_pairs
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels

RGB, GRAY = ImageFormat(), ImageFormat(channels=1)
RED, BLUE = (200, 10, 20), (30, 40, 250)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(size: int, color: tuple[int, int, int]) -> Pixels:
    return np.full((size, size, 3), color, np.uint8)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels, path.suffix))


def side_by_side(root: Path, **counts: int) -> Path:
    """Write side-by-side pairs, red left and blue right: `count` files in each split."""
    both = np.concatenate([plain(20, RED), plain(20, BLUE)], axis=1)
    for split, count in counts.items():
        for i in range(count):
            save(root / split / f"{i}.png", both)
    return root


def two_folders(root: Path, **names: list[str]) -> Path:
    """Write images of these names to folders such as trainA (red) and trainB (blue)."""
    for folder, files in names.items():
        for name in files:
            save(root / folder / name, plain(20, RED if folder.endswith("A") else BLUE))
    return root


def refusal(call: Callable[[], object]) -> str:
    """Return the text of the PiggybackError that a call raises, after a check that it is one line."""
    with pytest.raises(PiggybackError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def dataset(pairs: Sequence[Pair], size: int = 20, **settings: Any) -> PairedDataset:
    defaults = {"direction": "AtoB", "formats": (RGB, RGB)}
    return PairedDataset(pairs, size=size, **(defaults | settings))


def mapped(root: Path, count: int, **settings: Any) -> PairedDataset:
    """Write pairs of equal input and target whose pixels hold their row (R), column (G) and pair (B)."""
    rows, columns = np.mgrid[:20, :20]
    for i in range(count):
        image = np.stack([rows * 12, columns * 12, np.full((20, 20), i)], axis=2).astype(np.uint8)
        save(root / "train" / f"{i:03}.png", np.concatenate([image, image], axis=1))
    return dataset(find_pairs(root).train, **settings)


def numbers(images: Tensor) -> list[int]:
    """Return the pair's number of each `mapped` image."""
    return [round((value.item() + 1) * 127.5) for value in images[:, 2, 0, 0]]


def corners(image: Tensor) -> tuple[int, int, bool]:
    """Return top, left and flip of a crop of a `mapped` image, after a check that it is one."""
    rows, columns = ((image[i] + 1) * 127.5 / 12 for i in (0, 1))
    flipped = bool(columns[0, 0] > columns[0, -1])
    top, left = round(rows.min().item()), round(columns.min().item())
    side = image.shape[-1]
    across = torch.arange(left, left + side, dtype=torch.float32)
    expected = across.flip(0) if flipped else across
    torch.testing.assert_close(columns, expected.expand(side, side), atol=1e-3, rtol=0)
    down = torch.arange(top, top + side, dtype=torch.float32)
    torch.testing.assert_close(rows, down[:, None].expand(side, side), atol=1e-3, rtol=0)
    return top, left, flipped


def epoch(data: Any, number: int = 1, **settings: Any) -> list[tuple[Tensor, Tensor]]:
    defaults = {"batch_size": 4, "crop": 16, "flip": True, "seed": 0}
    return list(data.epoch(number, **(defaults | settings)))


def same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )
