"""Translate a large image in blended tiles, from top to bottom, in bounded memory."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from piggyback_gan.inference.shared_norm import Window, with_shared_norms
from piggyback_gan.inference.tiling import TiledAxis, Tiling, lay_tiles
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.device import device_of

ReadTile = Callable[[NDArray[np.intp], NDArray[np.intp]], Tensor]
"""Reads the given rows and columns of an image: (C, rows, columns) in [-1, 1]."""

_WINDOW = 256
_SEED = 0


def translated_strips(
    generator: nn.Module,
    config: Architecture,
    size: tuple[int, int],
    read: ReadTile,
    tiling: Tiling,
) -> Iterator[Tensor]:
    """Translate an image in tiles.

    Memory use is that of one tile in the network, and of a strip as wide as the image and as high as a tile;
    with `norm_from="image"` first that of `tiling.sample_pixels` in the network.

    Args:
        generator: a folded task.
        config: its architecture, with the task's channels.
        size: (H, W) of the image.
        read: reads a tile of it.
        tiling: tile size, overlap and source of norm statistics.

    Yields:
        Strips from top to bottom, (C, rows, W) float32 on the CPU, in [-1, 1]; their rows add up to H.

    Raises:
        PiggybackError: the network does not take tiles of this size.
    """
    tiling.check(config)
    rows, columns = (lay_tiles(length, config, tiling) for length in size)
    if tiling.norm_from == "image" and len(rows.starts) * len(columns.starts) > 1:
        generator = with_shared_norms(generator, sample_windows(config, size, read, tiling))
    carried: Tensor | None = None
    for index in range(len(rows.starts)):
        top, bottom = rows.reach(index)
        strip = _row_of_tiles(generator, rows, columns, index, read)
        if carried is not None:
            strip[:, : carried.shape[1]] += carried
        last = index == len(rows.starts) - 1
        done = bottom if last else rows.reach(index + 1)[0]
        carried = strip[:, done - top :].clone()
        if done > top:
            yield strip[:, : done - top]


def _row_of_tiles(
    generator: nn.Module, rows: TiledAxis, columns: TiledAxis, index: int, read: ReadTile
) -> Tensor:
    """Translate one row of tiles: weighted contributions to the rows in its reach, (C, rows, W)."""
    device = device_of(generator)
    top, bottom = rows.reach(index)
    inner_rows, row_weights = rows.weights_in_reach(index)
    strip: Tensor | None = None
    for column in range(len(columns.starts)):
        tile = read(rows.pixels(index), columns.pixels(column)).to(device)
        with torch.inference_mode():
            output: Tensor = generator(tile[None])[0].cpu().float()
        inner_columns, column_weights = columns.weights_in_reach(column)
        output = output[:, inner_rows, inner_columns]
        if strip is None:
            strip = torch.zeros(output.shape[0], bottom - top, columns.length)
        left, right = columns.reach(column)
        weights = torch.from_numpy(np.outer(row_weights, column_weights))
        strip[:, :, left:right].addcmul_(output, weights)
    assert strip is not None
    return strip


def sample_windows(
    config: Architecture, size: tuple[int, int], read: ReadTile, tiling: Tiling
) -> list[Window]:
    """Read the parts of an image from which norm layers take their statistics.

    That is the whole image if it has at most `tiling.sample_pixels`; else windows, one at a random place (with a
    fixed seed) in each cell of a grid. Their margins, where the network lacks context, have no weight. The
    arguments are those of `translated_strips`.
    """
    lines = [lay_tiles(length, config) for length in size]
    lengths = [line.size for line in lines]
    if math.prod(lengths) <= tiling.sample_pixels:
        image = read(*(line.indices for line in lines))
        return [Window(image, *(torch.ones(length) for length in lengths))]
    # Outputs of a U-Net depend on its whole input, so its windows are as large as its tiles.
    side = tiling.tile if config.size_multiple > 4 else min(tiling.tile, _WINDOW)
    sides = [min(side, length) for length in lengths]
    count = max(tiling.sample_pixels // math.prod(sides), 1)
    cells = max(round(math.sqrt(count * lengths[0] / lengths[1])), 1)
    grid = (min(cells, count), max(count // cells, 1))
    random = np.random.default_rng(_SEED)
    windows = []
    for cell in np.ndindex(grid):
        pixels, counting = [], []
        for i, (line, length, side) in enumerate(zip(lines, lengths, sides, strict=True)):
            room = (length - side) // config.size_multiple
            step = int((cell[i] + random.random()) / grid[i] * (room + 1))
            place = step * config.size_multiple
            pixels.append(line.indices[place : place + side])
            counting.append(_without_margins(place, side, length, tiling.overlap))
        windows.append(Window(read(*pixels), *counting))
    return windows


def _without_margins(place: int, side: int, length: int, overlap: int) -> Tensor:
    """Return weights (side,): 0 in the margins (at most a quarter) at ends where the image goes on, else 1."""
    margin = min(overlap // 2, side // 4)
    weights = torch.ones(side)
    if place > 0:
        weights[:margin] = 0
    if place + side < length:
        weights[side - margin :] = 0
    return weights
