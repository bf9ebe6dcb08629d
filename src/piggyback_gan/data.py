"""Paired data sets on disk: finding the pairs, checking every file, random crops in reproducible order."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.images import (
    Pixels,
    list_images,
    normalize,
    read_halves,
    read_image,
    resize,
)

HELD_OUT = ("val", "test")
DECODING_THREADS = 4
CACHE_BYTES = 2 << 30
_AHEAD = 4 * DECODING_THREADS

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Pair:
    """One pair on disk: two files, or one file with A as its left and B as its right half."""

    name: str
    a: Path
    b: Path

    @property
    def side_by_side(self) -> bool:
        """Whether both are halves of one file."""
        return self.a == self.b

    def read(
        self, direction: str, formats: tuple[ImageFormat, ImageFormat]
    ) -> tuple[Pixels, Pixels]:
        """Read input and target, in this order.

        Args:
            direction: "AtoB" or "BtoA".
            formats: of the input and of the target.

        Raises:
            PiggybackError: a file can't be read, has an odd width, or the two differ in size.
        """
        format_a, format_b = formats if direction == "AtoB" else formats[::-1]
        if self.side_by_side:
            a, b = read_halves(self.a, format_a, format_b)
        else:
            a, b = read_image(self.a, format_a), read_image(self.b, format_b)
            if a.shape[:2] != b.shape[:2]:
                raise PiggybackError(
                    f"{self.a} and {self.b.parent.name}/{self.b.name} differ in size: "
                    f"{a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]}"
                )
        return (a, b) if direction == "AtoB" else (b, a)


@dataclass(frozen=True)
class PairedFolder:
    """What a data set's folder holds: `layout` is "side-by-side" or "two folders"."""

    root: Path
    layout: str
    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    held_out_name: str | None

    @property
    def name(self) -> str:
        """The folder's own name, without where it lies."""
        return self.root.resolve().name


def find_pairs(root: Path) -> PairedFolder:
    """Find the pairs of a data set in one of the layouts of pix2pix.

    Either `train/` with side-by-side images (A left, B right), or `trainA/` and `trainB/` with files of
    the same names, their suffixes aside. Held out: `val/`, else `test/` (`valA/` and `valB/`, ...), if
    there is one.

    Raises:
        PiggybackError: no such folder, neither or both layouts, no images, or files without a partner.
    """
    if not root.is_dir():
        raise PiggybackError(f"{root}: no such folder of data")
    together, apart = (root / "train").is_dir(), (root / "trainA").is_dir()
    if together == apart:
        found = "both are" if together else "neither is"
        raise PiggybackError(
            f"{root}: expected train/ with side-by-side images, or trainA/ and trainB/: {found} there"
        )
    find = _side_by_side if together else _two_folders
    faults: list[str] = []
    train = find(root, "train", faults)
    held_out_name: str | None = None
    held_out: tuple[Pair, ...] = ()
    for name in HELD_OUT:
        if held_out := find(root, name, faults):
            held_out_name = name
            break
    if faults:
        raise PiggybackError(f"{root}: {'; '.join(faults)}")
    if not train:
        raise PiggybackError(f"{root}: there are no images in {'train' if together else 'trainA'}/")
    layout = "side-by-side" if together else "two folders"
    return PairedFolder(root, layout, train, held_out, held_out_name)


def _side_by_side(root: Path, split: str, faults: list[str]) -> tuple[Pair, ...]:
    folder = root / split
    if not folder.is_dir():
        return ()
    return tuple(Pair(path.name, path, path) for path in list_images(folder))


def _two_folders(root: Path, split: str, faults: list[str]) -> tuple[Pair, ...]:
    if split != "train" and not any((root / f"{split}{side}").is_dir() for side in "AB"):
        return ()
    a, b = (_by_stem(root / f"{split}{side}", faults) for side in "AB")
    lonely = [f"{split}A/{a[stem].name}" for stem in sorted(a.keys() - b.keys())]
    lonely += [f"{split}B/{b[stem].name}" for stem in sorted(b.keys() - a.keys())]
    if lonely:
        faults.append(f"{len(lonely)} files have no partner: {_first(lonely)}")
    return tuple(Pair(a[stem].name, a[stem], b[stem]) for stem in sorted(a.keys() & b.keys()))


def _by_stem(folder: Path, faults: list[str]) -> dict[str, Path]:
    paths = list_images(folder)
    by_stem = {path.stem: path for path in paths}
    if len(by_stem) < len(paths):
        twice = sorted({path.name for path in paths} - {path.name for path in by_stem.values()})
        faults.append(f"{folder.name}/: files differ only in their suffix: {_first(twice)}")
    return by_stem


class PairedDataset:
    """The pairs of one split, decoded and resized, checked as a whole before anything is trained.

    Decoded images are kept in memory as they are stored while they take less than `cache_bytes`; a larger set is
    decoded again for each batch.

    Args:
        pairs: what to read.
        direction: "AtoB" or "BtoA".
        formats: of the input and of the target.
        size: all images are resized to (size, size), bicubic.
        on_progress: called with the number of pairs checked so far.

    Raises:
        PiggybackError: names all files that can't be used, in one message.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        direction: str,
        formats: tuple[ImageFormat, ImageFormat],
        size: int,
        cache_bytes: int = CACHE_BYTES,
        on_progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.pairs = pairs
        self.size = size
        self._direction = direction
        self._formats = formats
        self._cached: dict[int, tuple[Pixels, Pixels]] = {}
        values = sum(_bytes_per_pixel(format) for format in formats)
        keep = len(pairs) * values * size * size <= cache_bytes
        faults: list[str] = []
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            for index, result in enumerate(_ahead(pool, self._try, range(len(pairs)))):
                if isinstance(result, PiggybackError):
                    faults.append(str(result))
                elif keep:
                    self._cached[index] = result
                on_progress(index + 1)
        if faults:
            raise PiggybackError(
                f"{len(faults)} of {len(pairs)} pairs can't be used: {_first(faults)}"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Input and target, float32 (C, size, size) in [-1, 1]."""
        input, target = self._stored(index)
        return normalize(input, self._formats[0]), normalize(target, self._formats[1])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All pairs in order, whole, without crop or flip: float32 (B, C, size, size) in [-1, 1]."""
        for start in range(0, len(self), batch_size):
            pairs = [self.pair(i) for i in range(start, min(start + batch_size, len(self)))]
            inputs, targets = (torch.stack(images) for images in zip(*pairs, strict=True))
            yield inputs, targets

    def epoch(
        self, number: int, *, batch_size: int, crop: int, flip: bool, seed: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """One epoch of training batches: shuffled, randomly cropped and flipped, as in pix2pix.

        All chance comes from `seed` and the epoch's `number` alone, so any epoch can be had by itself.
        Images that are not kept in memory are decoded ahead, in threads.

        Yields:
            Inputs and targets, float32 (B, C, crop, crop) in [-1, 1]; the last batch may be smaller.
        """
        chance = torch.Generator().manual_seed(seed * 1_000_003 + number)
        order = torch.randperm(len(self), generator=chance).tolist()
        shape = (len(self),)
        tops, lefts = (
            torch.randint(self.size - crop + 1, shape, generator=chance).tolist() for _ in range(2)
        )
        flips = (torch.rand(shape, generator=chance) < 0.5).logical_and(torch.tensor(flip)).tolist()

        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            # The threads only decode: tensor work beside the network's own would take its cores away
            # (a step took 1.5 times as long).
            pairs = map(self._stored, order) if self._cached else _ahead(pool, self._stored, order)
            for start in range(0, len(order), batch_size):
                batch: tuple[list[Pixels], list[Pixels]] = ([], [])
                for index in order[start : start + batch_size]:
                    top, left = tops[index], lefts[index]
                    for images, image in zip(batch, next(pairs), strict=True):
                        cut = image[:, top : top + crop, left : left + crop]
                        images.append(cut[:, :, ::-1] if flips[index] else cut)
                inputs, targets = (np.stack(images) for images in batch)
                yield normalize(inputs, self._formats[0]), normalize(targets, self._formats[1])

    def _stored(self, index: int) -> tuple[Pixels, Pixels]:
        return self._cached[index] if index in self._cached else self._decode(index)

    def _decode(self, index: int) -> tuple[Pixels, Pixels]:
        images = self.pairs[index].read(self._direction, self._formats)
        input, target = (
            _planes(resize(image, self.size, labels=format.labels))
            for image, format in zip(images, self._formats, strict=True)
        )
        return input, target

    def _try(self, index: int) -> tuple[Pixels, Pixels] | PiggybackError:
        try:
            return self._decode(index)
        except PiggybackError as error:
            return error


def _planes(pixels: Pixels) -> Pixels:
    """(H, W, C) as (C, H, W)."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _bytes_per_pixel(format: ImageFormat) -> int:
    return (1 if format.labels else format.channels) * np.dtype(format.depth).itemsize


_Item = TypeVar("_Item")


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
) -> Iterator[_Result]:
    """Results in order, with some of them made before they are asked for."""
    waiting = [pool.submit(work, item) for item in items[:_AHEAD]]
    for item in [*items[_AHEAD:], *[None] * len(waiting)]:
        result = waiting.pop(0).result()
        if item is not None:
            waiting.append(pool.submit(work, item))
        yield result


def _first(names: Sequence[str], limit: int = 20) -> str:
    more = f"; and {len(names) - limit} more" if len(names) > limit else ""
    return "; ".join(names[:limit]) + more
