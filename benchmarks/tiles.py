"""Measure the effect of instance norm on tiles, with different statistics.

    python benchmarks/tiles.py /tmp/lifelong/bank ../shared/data

The bank is from benchmarks/lifelong.py. For two of its tasks, held-out inputs in the training size (64 px)
are joined to one image of 1024 x 512, which is translated whole and in tiles. The distance is the
mean absolute difference from the whole; the disagreement is the root mean square difference of tiles
from their blend where they overlap; both in 8-bit steps. Results: docs/results/tiles.json.
"""

import argparse
import functools
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lifelong import OPTIONS, RESULTS, TASKS, held_out, machine
from piggyback_gan import Bank, GeneratorConfig, Tiling
from piggyback_gan.inference.shared_norm import Window, with_shared_norms
from piggyback_gan.inference.tiled import sample_windows
from piggyback_gan.inference.tiling import TiledAxis, lay_tiles
from piggyback_gan.system.device import choose_device

HEIGHT, WIDTH = 512, 1024
TILINGS = ((256, 64),)


class Tiles:
    """An image in tiles."""

    def __init__(self, picture: Tensor, config: GeneratorConfig, tiling: Tiling) -> None:
        self.picture, self.config, self.tiling = picture, config, tiling
        self.rows, self.columns = (
            lay_tiles(length, config, tiling) for length in picture.shape[1:]
        )

    def read(self, rows: Any, columns: Any) -> Tensor:
        return self.picture[:, torch.from_numpy(rows)[:, None], torch.from_numpy(columns)]

    def __iter__(self) -> Iterator[tuple[int, int, Window]]:
        for row, column in product(range(len(self.rows.starts)), range(len(self.columns.starts))):
            image = self.read(self.rows.pixels(row), self.columns.pixels(column))
            weights = (self.rows.weights[row], self.columns.weights[column])
            yield row, column, Window(image, *map(torch.from_numpy, weights))

    def sampled(self, pixels: int) -> list[Window]:
        tiling = Tiling(tile=self.tiling.tile, overlap=self.tiling.overlap, sample_pixels=pixels)
        height, width = self.picture.shape[1:]
        return sample_windows(self.config, (height, width), self.read, tiling)


def is_norm(module: nn.Module) -> bool:
    return type(module).__name__ in ("InstanceNorm2d", "_SharedNorm")


def count(
    sums: dict[int, Tensor], number: int, window: Window, _: nn.Module, given: tuple[Tensor]
) -> None:
    """Add a tile's features to the sums of a norm layer."""
    features = given[0][0]
    rows, columns = (
        nn.functional.adaptive_avg_pool1d(weights[None], size)[0].double()
        for weights, size in zip((window.rows, window.columns), features.shape[1:], strict=True)
    )
    moments = [((features.double() ** power) @ columns) @ rows for power in (0, 1, 2)]
    sums[number] = sums.get(number, 0) + torch.stack(moments)


def pooled(generator: nn.Module, tiles: Tiles, rounds: int) -> nn.Module:
    """Pool the statistics of all tiles, normalized by themselves, or in later rounds by the previous round."""
    shared = with_shared_norms(generator, tiles.sampled(1))
    for index in range(rounds):
        used = generator if index == 0 else shared
        sums: dict[int, Tensor] = {}

        for _, _, window in tiles:
            hooks = [
                norm.register_forward_pre_hook(functools.partial(count, sums, number, window))
                for number, norm in enumerate(filter(is_norm, used.modules()))
            ]
            used(window.image[None])
            for hook in hooks:
                hook.remove()
        for number, norm in enumerate(filter(is_norm, shared.modules())):
            total, first, second = sums[number]
            norm.mean = (first / total).float()
            norm.var = (second / total - (first / total) ** 2).clamp(min=0).float()
    return shared


def blended(generator: nn.Module, tiles: Tiles) -> tuple[Tensor, float]:
    """Return the translation, and the disagreement of overlapping tiles."""
    rows, columns = tiles.rows, tiles.columns
    mean, square = torch.zeros_like(tiles.picture), torch.zeros_like(tiles.picture)
    for row, column, window in tiles:
        output = generator(window.image[None])[0]
        (inner_rows, a), (inner_columns, b) = (
            rows.weights_in_reach(row),
            columns.weights_in_reach(column),
        )
        output = output[:, inner_rows, inner_columns]
        weights = torch.from_numpy(np.outer(a, b))
        place = (slice(None), slice(*rows.reach(row)), slice(*columns.reach(column)))
        mean[place] += weights * output
        square[place] += weights * output**2
    variance = (square - mean**2).clamp(min=0)
    shared = torch.from_numpy(in_overlap(rows)[:, None] | in_overlap(columns))
    return mean, float(variance[:, shared].mean().sqrt())


def in_overlap(line: TiledAxis) -> np.ndarray:
    reached = np.zeros(line.length, int)
    for index in range(len(line.starts)):
        first, last = line.reach(index)
        reached[first:last] += 1
    return reached > 1


def picture_of(data: Path, task: Any) -> Tensor:
    dataset = held_out(data, task)
    side = OPTIONS.image_size
    count = (HEIGHT // side, WIDTH // side)
    inputs = [dataset.pair(i)[0] for i in range(count[0] * count[1])]
    rows = [torch.cat(inputs[i * count[1] : (i + 1) * count[1]], dim=2) for i in range(count[0])]
    return torch.cat(rows, dim=1)


@torch.inference_mode()
def measure(generator: nn.Module, picture: Tensor, config: GeneratorConfig) -> list[dict[str, Any]]:
    started = time.monotonic()
    whole = generator(picture[None])[0]
    whole_seconds = time.monotonic() - started
    found = []
    for tile, overlap in TILINGS:
        tiles = Tiles(picture, config, Tiling(tile=tile, overlap=overlap))
        small = nn.functional.interpolate(picture[None], scale_factor=tile / WIDTH, mode="area")[0]
        side = small.shape[1:]
        ways = {
            "each tile": lambda: generator,
            "image, all of it": lambda tiles=tiles: with_shared_norms(
                generator, tiles.sampled(HEIGHT * WIDTH)
            ),
            "image, a half": lambda tiles=tiles: with_shared_norms(
                generator, tiles.sampled(HEIGHT * WIDTH // 2)
            ),
            "image, a quarter": lambda tiles=tiles: with_shared_norms(
                generator, tiles.sampled(HEIGHT * WIDTH // 4)
            ),
            "a smaller copy": lambda small=small, side=side: with_shared_norms(
                generator, [Window(small, torch.ones(side[0]), torch.ones(side[1]))]
            ),
            "pooled, 1 round": lambda tiles=tiles: pooled(generator, tiles, 1),
            "pooled, 3 rounds": lambda tiles=tiles: pooled(generator, tiles, 3),
        }
        for way, make in ways.items():
            started = time.monotonic()
            shared = make()
            making = time.monotonic() - started
            output, disagreement = blended(shared, tiles)
            found.append(
                {
                    "tile": tile,
                    "overlap": overlap,
                    "statistics": way,
                    "distance": round(float((output - whole).abs().mean()) * 127.5, 3),
                    "disagreement": round(disagreement * 127.5, 3),
                    "extra_passes": round(making / whole_seconds, 1),
                }
            )
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    choose_device("cpu")
    bank = Bank.open(given.bank)
    results: dict[str, Any] = {
        "command": "python benchmarks/tiles.py BANK DATA",
        "machine": machine(),
        "tasks": {},
    }
    for task in TASKS[:2]:
        generator = bank.generator(task.folder)
        config = bank.generator_config(task.folder)
        results["tasks"][task.folder] = measure(generator, picture_of(given.data, task), config)
    path = RESULTS / "tiles.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{path} is written")


if __name__ == "__main__":
    main()
