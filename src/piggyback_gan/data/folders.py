"""Data sets on disk: find the images of a task in the layouts of pix2pix, and hold some out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import Source, list_images, read_halves, read_image

HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Pair:
    """Pair on disk: two files, or one file with A as its left and B as its right half."""

    name: str
    a: Path
    b: Path

    @property
    def side_by_side(self) -> bool:
        """Whether A and B are halves of one file."""
        return self.a == self.b

    @property
    def sources(self) -> tuple[Source, Source]:
        """A and B as single images."""
        if self.side_by_side:
            return Source(self.a, "left"), Source(self.b, "right")
        return Source(self.a), Source(self.b)

    def read(
        self, direction: str, formats: tuple[ImageFormat, ImageFormat]
    ) -> tuple[Pixels, Pixels]:
        """Read input and target, each as pixels (H, W, C) of its format.

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
    """Paired data set on disk; `layout` is "side-by-side" or "two folders"."""

    root: Path
    layout: str
    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    held_out_name: str | None

    @property
    def name(self) -> str:
        """Name of the folder without its parents."""
        return self.root.resolve().name

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, sorted and without duplicates."""
        pairs = self.train + self.held_out
        return tuple(sorted({path for pair in pairs for path in (pair.a, pair.b)}))

    def with_held_out(self, fraction: float, seed: int) -> PairedFolder:
        """Hold out a fraction of the training pairs, chosen by seed and name alone.

        Raises:
            PiggybackError: there is a held-out split already, the fraction is not between 0 and 1, or no pair
                would be left to train on.
        """
        _refuse_second_split(self.root, self.held_out_name)
        train, held_out = _split(self.train, _pair_name, fraction, seed, f"{self.root}: pairs")
        return replace(self, train=train, held_out=held_out, held_out_name=_part_of_train(fraction))


@dataclass(frozen=True)
class UnpairedFolder:
    """Unpaired data set on disk; the sides may differ in names, counts and sizes.

    `paired_held_out` has the held-out images as pairs if each has a partner: halves of one file, or files of the
    same name apart from the suffix. Else it is empty.
    """

    root: Path
    layout: str
    train_a: tuple[Source, ...]
    train_b: tuple[Source, ...]
    held_out_a: tuple[Source, ...]
    held_out_b: tuple[Source, ...]
    held_out_name: str | None
    paired_held_out: tuple[Pair, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder without its parents."""
        return self.root.resolve().name

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, sorted and without duplicates."""
        sources = self.train_a + self.train_b + self.held_out_a + self.held_out_b
        return tuple(sorted({source.path for source in sources}))

    def with_held_out(self, fraction: float, seed: int) -> UnpairedFolder:
        """Hold out a fraction of the training images of each side, chosen by seed and name alone.

        If all training images have partners, both of a pair are held out.

        Raises:
            PiggybackError: there is a held-out split already, the fraction is not between 0 and 1, or no image
                would be left to train on.
        """
        _refuse_second_split(self.root, self.held_out_name)
        named = replace(self, held_out_name=_part_of_train(fraction))
        if pairs := _all_pairs(self.train_a, self.train_b):
            train, held_out = _split(pairs, _pair_name, fraction, seed, f"{self.root}: pairs")
            (train_a, train_b), (out_a, out_b) = (
                zip(*(pair.sources for pair in part), strict=True) for part in (train, held_out)
            )
            return replace(
                named,
                train_a=train_a,
                train_b=train_b,
                held_out_a=out_a,
                held_out_b=out_b,
                paired_held_out=held_out,
            )
        sides = (self.train_a, self.train_b)
        (train_a, out_a), (train_b, out_b) = (
            _split(side, _source_name, fraction, seed, f"{self.root}: images of {letter}")
            for side, letter in zip(sides, "AB", strict=True)
        )
        return replace(named, train_a=train_a, train_b=train_b, held_out_a=out_a, held_out_b=out_b)


def find_folder(root: Path, mode: str) -> PairedFolder | UnpairedFolder:
    """Find the images of a "paired" or "unpaired" task: see `find_pairs` and `find_unpaired`."""
    return find_pairs(root) if mode == "paired" else find_unpaired(root)


def find_pairs(root: Path) -> PairedFolder:
    """Find the pairs of a data set in one of the layouts of pix2pix.

    Either `train/` with side-by-side images (A left, B right), or `trainA/` and `trainB/` with files of the
    same names apart from the suffix. The held-out split is `val/`, else `test/` (`valA/` and `valB/`, ...).

    Raises:
        PiggybackError: the folder does not exist, has neither or both layouts, has no images, or files without
            a partner.
    """
    together = _is_side_by_side(root)
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
    return PairedFolder(root, _layout(together), train, held_out, held_out_name)


def find_unpaired(root: Path) -> UnpairedFolder:
    """Find the two sides of an unpaired data set.

    Either `trainA/` and `trainB/` with images of any names, counts and sizes, or `train/` with side-by-side
    images, whose halves are used separately. Held out as in `find_pairs`.

    Raises:
        PiggybackError: the folder does not exist, has neither or both layouts, or a side has no images.
    """
    together = _is_side_by_side(root)
    train_a, train_b = _sides(root, "train", together)
    if not train_a or not train_b:
        where = "train" if together else f"train{'B' if train_a else 'A'}"
        raise PiggybackError(f"{root}: there are no images in {where}/")
    for name in HELD_OUT:
        held_out_a, held_out_b = _sides(root, name, together)
        if bool(held_out_a) != bool(held_out_b):
            one, other = "AB" if held_out_a else "BA"
            raise PiggybackError(
                f"{root}: there are images in {name}{one}/, but none in {name}{other}/"
            )
        if held_out_a:
            break
    return UnpairedFolder(
        root,
        _layout(together),
        train_a,
        train_b,
        held_out_a,
        held_out_b,
        name if held_out_a else None,
        _all_pairs(held_out_a, held_out_b),
    )


def _is_side_by_side(root: Path) -> bool:
    if not root.is_dir():
        raise PiggybackError(f"{root}: no such folder of data")
    together, apart = (root / "train").is_dir(), (root / "trainA").is_dir()
    if together == apart:
        found = "both" if together else "neither"
        above = root.resolve().parent
        hint = ""
        if not together and ((above / "train").is_dir() or (above / "trainA").is_dir()):
            hint = f"; did you mean {above}?"
        raise PiggybackError(
            f"{root}: expected train/ with side-by-side images, or trainA/ and trainB/; found {found}{hint}"
        )
    return together


def _layout(together: bool) -> str:
    return "side-by-side" if together else "two folders"


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
        faults.append(f"{len(lonely)} files have no partner: {first_names(lonely)}")
    return tuple(Pair(a[stem].name, a[stem], b[stem]) for stem in sorted(a.keys() & b.keys()))


def _by_stem(folder: Path, faults: list[str]) -> dict[str, Path]:
    paths = list_images(folder)
    by_stem = {path.stem: path for path in paths}
    if len(by_stem) < len(paths):
        twice = sorted({path.name for path in paths} - {path.name for path in by_stem.values()})
        faults.append(f"{folder.name}/: files differ only in their suffix: {first_names(twice)}")
    return by_stem


def _sides(root: Path, split: str, together: bool) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """List both sides of one split of an unpaired folder."""
    if together:
        folder = root / split
        paths = list_images(folder) if folder.is_dir() else []
        return tuple(Source(p, "left") for p in paths), tuple(Source(p, "right") for p in paths)
    folders = [root / f"{split}{side}" for side in "AB"]
    a, b = (
        tuple(map(Source, list_images(folder))) if folder.is_dir() else () for folder in folders
    )
    return a, b


def _all_pairs(a: Sequence[Source], b: Sequence[Source]) -> tuple[Pair, ...]:
    """Return the sources as pairs if each has exactly one partner, else no pairs."""
    by_stem = {source.path.stem: source for source in b}
    alike = sorted(source.path.stem for source in a) == sorted(source.path.stem for source in b)
    if not alike or len(by_stem) < len(b):
        return ()
    return tuple(Pair(s.path.name, s.path, by_stem[s.path.stem].path) for s in a)


def _refuse_second_split(root: Path, held_out_name: str | None) -> None:
    if held_out_name is not None:
        raise PiggybackError(
            f"{root}: {held_out_name} is held out already: leave out --val-fraction"
        )


def _part_of_train(fraction: float) -> str:
    return f"{fraction:g} of train"


_Named = TypeVar("_Named")


def _pair_name(pair: Pair) -> str:
    return pair.name


def _source_name(source: Source) -> str:
    return source.path.name


def _split(
    items: Iterable[_Named], name: Callable[[_Named], str], fraction: float, seed: int, what: str
) -> tuple[tuple[_Named, ...], tuple[_Named, ...]]:
    """Split into items to train on and items held out, both in their old order."""
    if not 0 < fraction < 1:
        raise PiggybackError(f"--val-fraction is {fraction:g}: give a number between 0 and 1")
    items = tuple(items)
    count = max(1, round(fraction * len(items)))
    if count >= len(items):
        raise PiggybackError(
            f"{what}: of {len(items)}, {count} would be held out, and none left to train on"
        )
    # By hash, so that the choice depends neither on the order nor on a library's random numbers.
    chosen = sorted(
        items,
        key=lambda item: hashlib.sha256(
            f"{seed}/{name(item)}".encode(errors="surrogateescape")
        ).digest(),
    )
    held_out = set(chosen[:count])
    return (
        tuple(item for item in items if item not in held_out),
        tuple(item for item in items if item in held_out),
    )


def train_counts(folder: PairedFolder | UnpairedFolder) -> tuple[int, ...]:
    """Return the number of training pairs, or of training images of A and of B."""
    if isinstance(folder, PairedFolder):
        return (len(folder.train),)
    return len(folder.train_a), len(folder.train_b)
