"""Data sets for training: check every file, cache decoded images, yield batches in reproducible order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from piggyback_gan.data.folders import Pair
from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.images.format import FULL_RANGE, Formats, ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import Source
from piggyback_gan.images.tensors import normalize, resize

DECODING_THREADS = 4
CACHE_BYTES = 2 << 30
_AHEAD = 4 * DECODING_THREADS

Part = tuple[int, int]
"""(rank, world): a process and the number of processes; each gets a share of every batch."""

_Cut = tuple[int, int, bool]
"""Top and left of a crop, and whether it is mirrored."""
_Draw = tuple[tuple[int, ...], tuple[_Cut, _Cut]]
"""The items that hold the images of both sides, and the crop of each."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Dataset(ABC):
    """Decoded items of a split, pairs or single images: from the cache if it holds them, else decoded again."""

    def __init__(
        self,
        formats: Formats,
        size: int,
        items: tuple[int, str],
        is_cached: bool,
        on_progress: Callable[[int], None],
    ) -> None:
        self.formats, self.size = formats, size
        self._kept: dict[int, tuple[Pixels, ...]] = {}
        count, kind = items
        faults: list[str] = []
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            for index, result in enumerate(_ahead(pool, self._try, range(count))):
                if isinstance(result, PiggybackError):
                    faults.append(str(result))
                elif is_cached:
                    self._kept[index] = result
                on_progress(index + 1)
        if faults:
            raise PiggybackError(
                f"{len(faults)} of {count} {kind} can't be used: {first_names(faults)}"
            )

    @abstractmethod
    def _decode(self, index: int) -> tuple[Pixels, ...]:
        """Decode an item to planes (C, size, size) of its one or two images."""

    @abstractmethod
    def _draws(self, crop: int, flip: bool, generator: torch.Generator) -> list[_Draw]:
        """Draw the order and the crops of an epoch."""

    def epoch(
        self,
        number: int,
        *,
        batch_size: int,
        crop: int,
        flip: bool,
        seed: int,
        start: int = 0,
        part: Part = (0, 1),
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield the training batches of one epoch: shuffled, randomly cropped and flipped, as in pix2pix.

        Order, crops and flips depend on `seed` and `number` alone, so any epoch can be repeated by itself, from
        any batch on. Images that are not cached are decoded ahead in threads.

        Args:
            number: number of the epoch.
            batch_size: images per batch, over all processes.
            crop: side of the crops in pixels.
            flip: mirror with probability 1/2.
            seed: random seed of the training.
            start: first batch to yield; those before it are not decoded.
            part: yield only this process's share of each batch. Shares are contiguous, differ by at most one
                image, and may be empty.

        Yields:
            Images of the two sides, float32 (B, C, crop, crop) in [-1, 1]; the last batch may be smaller.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        batches = _shares(self._draws(crop, flip, generator), batch_size, start, part)
        items = [index for batch in batches for indices, _ in batch for index in indices]
        with self._reading(items) as images:
            for batch in batches:
                drawn = [((next(images), next(images)), cuts) for _, cuts in batch]
                first, second = (
                    _batch([(pair[side], cuts[side]) for pair, cuts in drawn], crop, format)
                    for side, format in enumerate(self.formats)
                )
                yield first, second

    def _item(self, index: int) -> tuple[Pixels, ...]:
        return self._kept.get(index) or self._decode(index)

    @contextmanager
    def _reading(self, indices: Sequence[int]) -> Generator[Iterator[Pixels], None, None]:
        """Iterate over the images of items in order; without a cache they are decoded ahead in threads."""
        if self._kept:
            yield chain.from_iterable(map(self._item, indices))
            return
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            # The threads only decode: tensor work in them would compete with the network for cores (a step
            # took 1.5 times as long).
            yield chain.from_iterable(_ahead(pool, self._decode, indices))

    def _try(self, index: int) -> tuple[Pixels, ...] | PiggybackError:
        try:
            return self._decode(index)
        except PiggybackError as error:
            return error


class PairedDataset(_Dataset):
    """Pairs of one split, resized; all files are decoded once to check them.

    Decoded images are cached in their files' dtype if all take at most `cache_bytes`; a larger set is decoded
    again for each batch. Input and target get the same crops and flips.

    Args:
        pairs: pairs to read.
        direction: "AtoB" or "BtoA".
        formats: of the input and of the target.
        size: all images are resized to (size, size).
        cache_bytes: memory for decoded images.
        on_progress: called with the number of pairs checked so far.

    Raises:
        PiggybackError: names all files that can't be used, in one message; also targets with values
            beyond their format's range, which outputs can't reach.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        direction: str,
        formats: Formats,
        size: int,
        cache_bytes: int = CACHE_BYTES,
        on_progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.pairs, self._direction = pairs, direction
        needed = len(pairs) * sum(_bytes(format, size) for format in formats)
        super().__init__(formats, size, (len(pairs), "pairs"), needed <= cache_bytes, on_progress)

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Return input and target, float32 (C, size, size) in [-1, 1]."""
        input, target = self._item(index)
        return normalize(input, self.formats[0]), normalize(target, self.formats[1])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all pairs in order, without crop or flip: float32 (B, C, size, size) in [-1, 1]."""
        for start in range(0, len(self), batch_size):
            pairs = [self.pair(i) for i in range(start, min(start + batch_size, len(self)))]
            inputs, targets = (torch.stack(images) for images in zip(*pairs, strict=True))
            yield inputs, targets

    def _draws(self, crop: int, flip: bool, generator: torch.Generator) -> list[_Draw]:
        order = torch.randperm(len(self), generator=generator).tolist()
        cuts = _random_cuts(len(self), self.size, crop, flip, generator)
        return [((i,), (cuts[i], cuts[i])) for i in order]

    def _decode(self, index: int) -> tuple[Pixels, Pixels]:
        pair, (input_format, target_format) = self.pairs[index], self.formats
        input, target = pair.read(self._direction, self.formats)
        path = pair.b if self._direction == "AtoB" else pair.a
        return (
            _resized(input, self.size, input_format),
            _resized_target(target, self.size, target_format, path),
        )


class UnpairedDataset(_Dataset):
    """The two sides of one unpaired split; checked and cached as in `PairedDataset`.

    In an epoch each side is shuffled, cropped and flipped by itself: each image of the larger side is used once;
    the smaller side is reshuffled and repeated to the same length.

    Args:
        first, second: images of the two sides; counts may differ.
        formats: of the first and of the second side.
        size: all images are resized to (size, size).
        cache_bytes: memory for decoded images.
        on_progress: called with the number of images checked so far, of both sides.

    Raises:
        PiggybackError: names all files that can't be used, in one message; also those with values beyond
            their format's range, as each side is the other's target.
    """

    def __init__(
        self,
        first: Sequence[Source],
        second: Sequence[Source],
        *,
        formats: Formats,
        size: int,
        cache_bytes: int = CACHE_BYTES,
        on_progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.first, self.second = first, second
        sides = zip((first, second), formats, strict=True)
        self._sources = [(source, format) for side, format in sides for source in side]
        needed = sum(_bytes(format, size) for _, format in self._sources)
        items = len(self._sources), "images"
        super().__init__(formats, size, items, needed <= cache_bytes, on_progress)

    def __len__(self) -> int:
        """Images per epoch and side: the count of the larger side; 0 if a side is empty."""
        return max(len(self.first), len(self.second)) if self.first and self.second else 0

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one image of each side, float32 (C, size, size) in [-1, 1]; the smaller side repeats."""
        return self.image(0, index % len(self.first)), self.image(1, index % len(self.second))

    def image(self, side: int, index: int) -> Tensor:
        """Return an image of side 0 or 1: float32 (C, size, size) in [-1, 1]."""
        (stored,) = self._item(index + side * len(self.first))
        return normalize(stored, self.formats[side])

    def in_order(self, batch_size: int, side: int) -> Iterator[Tensor]:
        """Yield all images of side 0 or 1 in order, uncropped: float32 (B, C, size, size) in [-1, 1]."""
        count = len((self.first, self.second)[side])
        for start in range(0, count, batch_size):
            indices = range(start, min(start + batch_size, count))
            yield torch.stack([self.image(side, index) for index in indices])

    def _draws(self, crop: int, flip: bool, generator: torch.Generator) -> list[_Draw]:
        counts = (len(self.first), len(self.second))
        orders = [_repeated_order(count, len(self), generator) for count in counts]
        cuts = [_random_cuts(len(self), self.size, crop, flip, generator) for _ in counts]
        items = ((a, counts[0] + b) for a, b in zip(*orders, strict=True))
        return list(zip(items, zip(*cuts, strict=True), strict=True))

    def _decode(self, index: int) -> tuple[Pixels]:
        source, format = self._sources[index]
        return (_resized_target(source.read(format), self.size, format, source.path),)


def _random_cuts(
    count: int, size: int, crop: int, flip: bool, generator: torch.Generator
) -> list[_Cut]:
    tops, lefts = (
        torch.randint(size - crop + 1, (count,), generator=generator).tolist() for _ in range(2)
    )
    flips = torch.rand((count,), generator=generator) < (0.5 if flip else 0)
    return list(zip(tops, lefts, flips.tolist(), strict=True))


def _repeated_order(count: int, length: int, generator: torch.Generator) -> list[int]:
    """Concatenate random permutations of range(count), cut off at `length`."""
    order: list[int] = []
    while len(order) < length:
        order += torch.randperm(count, generator=generator).tolist()
    return order[:length]


def _shares(
    order: Sequence[_Item], batch_size: int, start: int, part: Part
) -> list[Sequence[_Item]]:
    """Return one process's share of each batch, from batch `start` on."""
    starts = range(start * batch_size, len(order), batch_size)
    batches = [order[begin : begin + batch_size] for begin in starts]
    return [batch[share_of(len(batch), part)] for batch in batches]


def share_of(count: int, part: Part) -> slice:
    """Return which of a batch's `count` images a process gets; lower ranks get the larger shares."""
    rank, world = part
    each, larger = divmod(count, world)
    first = rank * each + min(rank, larger)
    return slice(first, first + each + (rank < larger))


def _batch(drawn: Sequence[tuple[Pixels, _Cut]], crop: int, format: ImageFormat) -> Tensor:
    """Crop stored planes (C, size, size) to float32 (B, C, crop, crop) in [-1, 1]."""
    images = np.empty((len(drawn), format.stored_channels, crop, crop), dtype=format.depth)
    for image, (stored, (top, left, flipped)) in zip(images, drawn, strict=True):
        cut = stored[:, top : top + crop, left : left + crop]
        image[:] = cut[:, :, ::-1] if flipped else cut
    return normalize(images, format)


def _resized(pixels: Pixels, size: int, format: ImageFormat) -> Pixels:
    """Resize pixels (H, W, C) to planes (C, size, size)."""
    resized = resize(pixels, size, labels=format.labels)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def _resized_target(pixels: Pixels, size: int, format: ImageFormat, path: Path) -> Pixels:
    """Resize, clip bicubic overshoots at edges, and raise PiggybackError for values beyond the format's range."""
    planes = _resized(pixels, size, format)
    if format.labels or (format.low, format.high) == FULL_RANGE.get(format.depth):
        return planes
    low, high = pixels.min(), pixels.max()
    if low < format.low or high > format.high:
        raise PiggybackError(
            f"{path}: its values go from {low:g} to {high:g}, beyond the range of the task's targets, "
            f"{format.low:g} to {format.high:g}: give a wider range"
        )
    return planes.clip(low, high)


def _bytes(format: ImageFormat, size: int) -> int:
    return format.stored_channels * np.dtype(format.depth).itemsize * size * size


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Sequence[_Item]
) -> Iterator[_Result]:
    """Yield the results of `work` in order, computing up to `_AHEAD` of them in advance."""
    waiting = [pool.submit(work, item) for item in items[:_AHEAD]]
    for item in [*items[_AHEAD:], *[None] * len(waiting)]:
        result = waiting.pop(0).result()
        if item is not None:
            waiting.append(pool.submit(work, item))
        yield result
