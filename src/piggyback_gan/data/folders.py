"""Data sets on disk: find the images of a task in the layouts of pix2pix, and hold some out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.images.decode import decode
from piggyback_gan.images.format import Formats
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import Source, list_images

HELD_OUT = ("val", "test")
_LAYOUTS = {True: "side-by-side", False: "two folders"}
_Named = TypeVar("_Named", "Pair", Source)


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

    def read(self, direction: str, formats: Formats) -> tuple[Pixels, Pixels]:
        """Read input and target, each as pixels (H, W, C) of its format.

        Args:
            direction: "AtoB" or "BtoA".
            formats: of the input and of the target.

        Raises:
            PiggybackError: a file can't be read, has an odd width, or the two differ in size.
        """
        decoded = decode(self.a)
        files = decoded, decoded if self.side_by_side else decode(self.b)
        sides = zip(self.sources, files, formats[:: 1 if direction == "AtoB" else -1], strict=True)
        a, b = (source.fit(file, format) for source, file, format in sides)
        if a.shape[:2] != b.shape[:2]:
            raise PiggybackError(
                f"{self.a} and {self.b.parent.name}/{self.b.name} differ in size: "
                f"{a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]}"
            )
        return (a, b) if direction == "AtoB" else (b, a)


Sides = tuple[Sequence[Pair]] | tuple[Sequence[Source], Sequence[Source]]
"""The pairs of a paired split, or the images of A and of B of an unpaired one."""


@dataclass(frozen=True)
class _Folder:
    root: Path
    layout: str
    held_out_name: str | None

    @property
    def name(self) -> str:
        """Name of the folder without its parents."""
        return self.root.resolve().name

    def _name_of_part(self, fraction: float) -> str:
        if self.held_out_name is not None:
            raise PiggybackError(
                f"{self.root}: {self.held_out_name} is held out already: leave out --val-fraction"
            )
        if not 0 < fraction < 1:
            raise PiggybackError(f"--val-fraction is {fraction:g}: give a number between 0 and 1")
        return f"{fraction:g} of train"


@dataclass(frozen=True)
class PairedFolder(_Folder):
    """Paired data set on disk; `layout` is "side-by-side" or "two folders"."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, sorted and without duplicates."""
        pairs = self.train + self.held_out
        return tuple(sorted({path for pair in pairs for path in (pair.a, pair.b)}))

    @property
    def train_sides(self) -> Sides:
        """The training pairs."""
        return (self.train,)

    @property
    def held_out_sides(self) -> Sides:
        """The held-out pairs."""
        return (self.held_out,)

    def with_held_out(self, fraction: float, seed: int) -> PairedFolder:
        """Hold out a fraction of the training pairs, chosen by seed and name alone.

        Raises:
            PiggybackError: there is a held-out split already, the fraction is not between 0 and 1, or no pair
                would be left to train on.
        """
        name = self._name_of_part(fraction)
        train, held_out = _split(self.train, fraction, seed, f"{self.root}: pairs")
        return replace(self, held_out_name=name, train=train, held_out=held_out)


@dataclass(frozen=True)
class UnpairedFolder(_Folder):
    """Unpaired data set on disk; the sides may differ in names, counts and sizes.

    `paired_held_out` has the held-out images as pairs if each has a partner: halves of one file, or files of the
    same name apart from the suffix. Else it is empty.
    """

    train_a: tuple[Source, ...]
    train_b: tuple[Source, ...]
    held_out_a: tuple[Source, ...]
    held_out_b: tuple[Source, ...]
    paired_held_out: tuple[Pair, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, sorted and without duplicates."""
        sources = self.train_a + self.train_b + self.held_out_a + self.held_out_b
        return tuple(sorted({source.path for source in sources}))

    @property
    def train_sides(self) -> Sides:
        """The training images of A and B."""
        return self.train_a, self.train_b

    @property
    def held_out_sides(self) -> Sides:
        """The held-out images of A and B, in matching order if they are pairs."""
        if self.paired_held_out:
            return sides_of_pairs(self.paired_held_out)
        return self.held_out_a, self.held_out_b

    def with_held_out(self, fraction: float, seed: int) -> UnpairedFolder:
        """Hold out a fraction of the training images of each side, as `PairedFolder.with_held_out` does.

        If all training images have partners, both of a pair are held out.
        """
        name, held_out = self._name_of_part(fraction), tuple[Pair, ...]()
        if pairs := _all_pairs(self.train_a, self.train_b):
            train, held_out = _split(pairs, fraction, seed, f"{self.root}: pairs")
            (train_a, train_b), (out_a, out_b) = map(sides_of_pairs, (train, held_out))
        else:
            train_a, out_a = _split(self.train_a, fraction, seed, f"{self.root}: images of A")
            train_b, out_b = _split(self.train_b, fraction, seed, f"{self.root}: images of B")
        return UnpairedFolder(
            self.root, self.layout, name, train_a, train_b, out_a, out_b, held_out
        )


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
    together, faults = _is_side_by_side(root), list[str]()
    train = _pairs(root, "train", together, faults)
    for name in HELD_OUT:
        if held_out := _pairs(root, name, together, faults):
            break
    if faults:
        raise PiggybackError(f"{root}: {'; '.join(faults)}")
    if not train:
        raise PiggybackError(f"{root}: there are no images in {'train' if together else 'trainA'}/")
    return PairedFolder(root, _LAYOUTS[together], name if held_out else None, train, held_out)


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
    layout, held_out_name = _LAYOUTS[together], name if held_out_a else None
    pairs = _all_pairs(held_out_a, held_out_b)
    return UnpairedFolder(
        root, layout, held_out_name, train_a, train_b, held_out_a, held_out_b, pairs
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


def _pairs(root: Path, split: str, together: bool, faults: list[str]) -> tuple[Pair, ...]:
    if together:
        return tuple(Pair(s.name, s.path, s.path) for s in _sides(root, split, together)[0])
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

    def images(folder: Path) -> list[Path]:
        return list_images(folder) if folder.is_dir() else []

    if together:
        paths = images(root / split)
        return tuple(Source(p, "left") for p in paths), tuple(Source(p, "right") for p in paths)
    a, b = (tuple(map(Source, images(root / f"{split}{side}"))) for side in "AB")
    return a, b


def _all_pairs(a: Sequence[Source], b: Sequence[Source]) -> tuple[Pair, ...]:
    """Return the sources as pairs if each has exactly one partner, else no pairs."""
    by_stem = {source.path.stem: source for source in b}
    alike = sorted(source.path.stem for source in a) == sorted(source.path.stem for source in b)
    if not alike or len(by_stem) < len(b):
        return ()
    return tuple(Pair(s.name, s.path, by_stem[s.path.stem].path) for s in a)


def sides_of_pairs(pairs: Iterable[Pair]) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Return the sources of A and of B, in the order of the pairs."""
    a, b = zip(*(pair.sources for pair in pairs), strict=True)
    return a, b


def _split(
    items: tuple[_Named, ...], fraction: float, seed: int, what: str
) -> tuple[tuple[_Named, ...], tuple[_Named, ...]]:
    """Split into items to train on and items held out, both in their old order."""
    count = max(1, round(fraction * len(items)))
    if count >= len(items):
        raise PiggybackError(
            f"{what}: of {len(items)}, {count} would be held out, and none left to train on"
        )

    def by_hash(item: _Named) -> bytes:
        return hashlib.sha256(f"{seed}/{item.name}".encode(errors="surrogateescape")).digest()

    # By hash, so that the choice depends neither on the order nor on a library's random numbers.
    held_out = set(sorted(items, key=by_hash)[:count])
    return (
        tuple(item for item in items if item not in held_out),
        tuple(item for item in items if item in held_out),
    )
