"""Geometry of overlapping tiles: positions and blending weights. No torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.checks import check_choice, check_positive

NormFrom = Literal["tile", "image"]

NORM_FROM = get_args(NormFrom)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tile size, overlap, and source of instance norm's statistics.

    Attributes:
        tile: height and width of a tile in pixels.
        overlap: least overlap of neighbouring tiles in pixels; at most half a tile.
        norm_from: where instance norm takes its statistics from: each ``"tile"``, or the ``"image"``, so that
            all tiles use the same ones.
        sample_pixels: pixels of the image used for the statistics of ``norm_from="image"``; a smaller image is
            used whole.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    tile: int = 512
    overlap: int = 64
    norm_from: NormFrom = "tile"
    sample_pixels: int = 2**20

    def __post_init__(self) -> None:
        check_positive("tile", self.tile)
        check_choice("norm_from", self.norm_from, NORM_FROM)
        if self.sample_pixels < 1:
            raise PiggybackError(
                f"invalid sample_pixels: found {self.sample_pixels!r}, give 1 or more"
            )
        if self.overlap not in range(self.tile // 2 + 1):
            raise PiggybackError(
                f"invalid overlap: found {self.overlap!r}, give one from 0 to half of the tile's "
                f"{self.tile} pixels"
            )

    @classmethod
    def of(
        cls, tile: int, overlap: int | None = None, norm_from: NormFrom | None = None
    ) -> "Tiling":
        """Create a tiling with defaults for None: an overlap of 64, or a quarter of tiles smaller than 256."""
        if overlap is None:
            overlap = min(cls.overlap, tile // 4)
        return cls(tile=tile, overlap=overlap, norm_from=norm_from or cls.norm_from)

    def check(self, config: Architecture) -> None:
        """Check that a network takes tiles of this size.

        Raises:
            PiggybackError: it does not; the message names the nearest size that it takes.
        """
        multiple = config.size_multiple
        if self.tile % multiple or self.tile < config.minimum_size:
            nearest = max(round(self.tile / multiple) * multiple, config.minimum_size)
            raise PiggybackError(
                f"invalid tile: found {self.tile}, but {config.name} takes multiples of {multiple} "
                f"from {config.minimum_size} on: give {nearest}"
            )


@dataclass(frozen=True)
class TiledAxis:
    """One axis of an image, padded by reflection to a length that the network takes, and cut into tiles.

    Attributes:
        length: pixels of the image along the axis.
        before: padded pixels before the image's first one.
        indices: (padded length,), the image's pixel at each position.
        size: pixels of each tile.
        starts: position at which each tile begins, ascending.
        weights: (tiles, size), in [0, 1]; at every position the weights of all tiles sum to one.
    """

    length: int
    before: int
    indices: NDArray[np.intp]
    size: int
    starts: tuple[int, ...]
    weights: NDArray[np.float32]

    def pixels(self, tile: int) -> NDArray[np.intp]:
        """Return the image's pixels in a tile, (size,)."""
        return self.indices[self.starts[tile] : self.starts[tile] + self.size]

    def reach(self, tile: int) -> tuple[int, int]:
        """Return the range of the image's pixels to which a tile contributes: first, and one after the last."""
        counting = np.flatnonzero(self.weights[tile]) + self.starts[tile] - self.before
        first, last = int(counting[0]), int(counting[-1]) + 1
        return max(first, 0), min(last, self.length)

    def weights_in_reach(self, tile: int) -> tuple[slice, NDArray[np.float32]]:
        """Return which of a tile's pixels are in its reach, and their weights."""
        offset = self.before - self.starts[tile]
        first, last = (pixel + offset for pixel in self.reach(tile))
        return slice(first, last), self.weights[tile, first:last]


def lay_tiles(length: int, config: Architecture, tiling: Tiling | None = None) -> TiledAxis:
    """Lay tiles along an axis of `length` pixels; without a tiling, a single one.

    Tiles are spaced evenly. Their starts are multiples of the network's stride if the overlap is one, as 64 is
    for ResNets. A tile has weight one around its middle. In an overlap it has weight zero in the quarter next to
    its edge, where the network lacks context, and a cosine ramp between.
    """
    before, after = padding(length, config)
    indices = np.pad(np.arange(length), (before, after), mode="symmetric")
    padded = len(indices)
    if tiling is None or padded <= tiling.tile:
        return TiledAxis(length, before, indices, padded, (0,), np.ones((1, padded), np.float32))
    size, overlap = tiling.tile, tiling.overlap
    # Tile and last start are multiples of the network's stride, so all starts can be multiples of this step.
    step = math.gcd(config.size_multiple, overlap)
    count = math.ceil((padded - size) / (size - overlap)) + 1
    places = np.arange(count) * ((padded - size) // step) / (count - 1)
    starts = np.rint(places).astype(int) * step
    # The seam of two tiles is in the middle of their overlap.
    seams = (starts[1:] + starts[:-1] + size) / 2
    pixels = starts[:, None] + np.arange(size) + 0.5
    ramp = max(overlap / 2, 1e-6)
    begun = np.ones((count, size))
    begun[1:] = _rise((pixels[1:] - seams[:, None]) / ramp)
    ended = np.zeros((count, size))
    ended[:-1] = _rise((pixels[:-1] - seams[:, None]) / ramp)
    weights = (begun - ended).astype(np.float32)
    return TiledAxis(length, before, indices, size, tuple(map(int, starts)), weights)


def padding(length: int, config: Architecture) -> tuple[int, int]:
    """Return how many pixels to add before and after an axis, so that the network takes it."""
    multiple = config.size_multiple
    needed = max(math.ceil(length / multiple) * multiple, config.minimum_size)
    before = (needed - length) // 2
    return before, needed - length - before


def padded_pixels(height: int, width: int, config: Architecture) -> int:
    """Return the number of an image's pixels after padding for a network."""
    return math.prod(length + sum(padding(length, config)) for length in (height, width))


def _rise(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine ramp from 0 at -1/2 to 1 at 1/2."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(place + 0.5, 0, 1))
