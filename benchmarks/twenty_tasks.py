"""Make twenty small paired tasks from four data sets, to measure the cost of a growing sequence.

    python benchmarks/twenty_tasks.py ../shared/data OUT
    pbgan experiment benchmarks/twenty-64px.toml --data OUT --out DIR --jobs 2 \
        --features ../shared/features/mobilenet_v2_features.pt \
        --distance ../shared/features/squeezenet_distance.pt

DATA contains cityscapes/, maps/, facade_windows/ and edges2clothes/, in pix2pix's layout. OUT, a new folder, gets
a folder for each task: train/ and test/ with side-by-side PNGs, the input left, the target right, 5 tasks of each
data set. Images are resized first and then degraded, so that no resizing removes noise or dots: train with
load_size = image_size. A task's images are chosen by a hash of their names, those of test/ among the held-out
ones, and names are the random seeds too: the files are the same each time. The licences of DATA apply to OUT.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from piggyback_gan.data.folders import Pair, find_pairs
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat

TRAIN, TEST, SIZE = 200, 64, 64

PHOTO_SIDE = {"cityscapes": "B", "maps": "A", "facade_windows": "A", "edges2clothes": "B"}
"""Side of a data set with the photographs; the other has labels, maps, masks or edges."""

Picture = Image.Image
Make = Callable[[Picture, Picture, np.random.Generator], tuple[Picture, Picture]]
"""(photo, drawing, random) -> input and target, all RGB and of one size."""


@dataclass(frozen=True)
class Task:
    """A task, its data set, and a function that makes a pair."""

    name: str
    folder: str
    make: Make


# Damage to a photograph


def gray(photo: Picture, chance: np.random.Generator) -> Picture:
    return photo.convert("L").convert("RGB")


def noisy(photo: Picture, chance: np.random.Generator) -> Picture:
    values = _values(photo)
    return _picture(values + chance.normal(0, 0.1, values.shape))


def blurred(photo: Picture, chance: np.random.Generator) -> Picture:
    return photo.filter(ImageFilter.GaussianBlur(2))


def coarse(photo: Picture, chance: np.random.Generator) -> Picture:
    """Halve the resolution and enlarge again."""
    small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BOX)
    return small.resize(photo.size, Image.Resampling.BICUBIC)


def with_holes(photo: Picture, chance: np.random.Generator) -> Picture:
    """Remove three boxes of a fifth to a third of the side."""
    values, side = _values(photo), photo.width
    for _ in range(3):
        height, width = chance.integers(side // 5, side // 3, 2, endpoint=True)
        top, left = chance.integers(0, (side - height, side - width), endpoint=True)
        values[top : top + height, left : left + width] = 0.5
    return _picture(values)


def at_dusk(photo: Picture, chance: np.random.Generator) -> Picture:
    """Make the image dark, bluish and grainy."""
    values = 0.5 * _values(photo) ** 1.6 * (0.6, 0.75, 1.0)
    return _picture(values + chance.normal(0, 0.02, values.shape))


def dithered(photo: Picture, chance: np.random.Generator) -> Picture:
    """Dither each channel to two levels."""
    return Image.merge("RGB", [band.convert("1").convert("L") for band in photo.split()])


def compressed(photo: Picture, chance: np.random.Generator) -> Picture:
    """Compress as a low-quality JPEG."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=10, subsampling=0)
    return Image.open(buffer).convert("RGB")


def outlined(photo: Picture, chance: np.random.Generator) -> Picture:
    """Draw dark lines at the steepest fifth of all pixels."""
    steep = _steepness(photo)
    lines = np.where(steep > np.quantile(steep, 0.8), 0.0, 1.0)
    return _picture(np.repeat(lines[..., None], 3, axis=2))


# What becomes of a photograph


def turned(photo: Picture) -> Picture:
    return photo.transpose(Image.Transpose.ROTATE_90)


def in_snow(photo: Picture) -> Picture:
    """Turn green areas white and others pale."""
    values = _values(photo)
    light = values.mean(axis=2, keepdims=True)
    red, green, blue = np.split(values, 3, axis=2)
    green_share = np.clip((green - (red + blue) / 2) * 12, 0, 1)
    snow = 0.65 + 0.35 * light + np.array([-0.02, 0, 0.03])
    pale = 0.5 * values + 0.5 * light
    return _picture(green_share * snow + (1 - green_share) * pale)


def as_cartoon(photo: Picture) -> Picture:
    """Reduce to five levels per channel, with dark contours."""
    smooth = photo.filter(ImageFilter.MedianFilter(5))
    flat = np.round(_values(smooth) * 4) / 4
    contours = np.clip(1.3 - 4 * _steepness(smooth), 0, 1)
    return _picture(flat * contours[..., None])


def _steepness(photo: Picture) -> NDArray[np.float64]:
    """Compute the gradient magnitude of the brightness, (H, W)."""
    rows, columns = np.gradient(np.asarray(photo.convert("L"), np.float64) / 255)
    return np.hypot(rows, columns)


def _values(photo: Picture) -> NDArray[np.float64]:
    """Convert to (H, W, 3) in [0, 1]."""
    return np.asarray(photo, np.float64) / 255


def _picture(values: NDArray[np.float64]) -> Picture:
    return Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8))


# Tasks


def to_photo(
    photo: Picture, drawing: Picture, chance: np.random.Generator
) -> tuple[Picture, Picture]:
    return drawing, photo


def to_drawing(
    photo: Picture, drawing: Picture, chance: np.random.Generator
) -> tuple[Picture, Picture]:
    return photo, drawing


def repair(damage: Callable[[Picture, np.random.Generator], Picture]) -> Make:
    """Return a function that makes a pair of the degraded photograph and the original."""
    return lambda photo, drawing, chance: (damage(photo, chance), photo)


def change(effect: Callable[[Picture], Picture]) -> Make:
    """Return a function that makes a pair of the photograph and the changed one."""
    return lambda photo, drawing, chance: (photo, effect(photo))


# The order in which they are learned: neighbours are of different data sets.
TASKS = (
    Task("labels-to-street", "cityscapes", to_photo),
    Task("map-to-aerial", "maps", to_photo),
    Task("windows-to-facade", "facade_windows", to_photo),
    Task("edges-to-clothes", "edges2clothes", to_photo),
    Task("street-colourise", "cityscapes", repair(gray)),
    Task("aerial-denoise", "maps", repair(noisy)),
    Task("facade-deblur", "facade_windows", repair(blurred)),
    Task("clothes-rotate", "edges2clothes", change(turned)),
    Task("street-to-labels", "cityscapes", to_drawing),
    Task("aerial-to-map", "maps", to_drawing),
    Task("facade-to-windows", "facade_windows", to_drawing),
    Task("clothes-to-edges", "edges2clothes", to_drawing),
    Task("street-inpaint", "cityscapes", repair(with_holes)),
    Task("aerial-enlarge", "maps", repair(coarse)),
    Task("facade-from-outlines", "facade_windows", repair(outlined)),
    Task("clothes-undither", "edges2clothes", repair(dithered)),
    Task("street-relight", "cityscapes", repair(at_dusk)),
    Task("aerial-to-winter", "maps", change(in_snow)),
    Task("facade-unblock", "facade_windows", repair(compressed)),
    Task("clothes-to-cartoon", "edges2clothes", change(as_cartoon)),
)


def write_task(task: Task, data: Path, out: Path, *, train: int, test: int, size: int) -> None:
    """Write a task's pairs.

    Args:
        task: the task.
        data: folder of the data sets.
        out: folder in which the task's folder is created.
        train, test: number of pairs.
        size: side of each image, in pixels.

    Raises:
        PiggybackError: the data set does not exist, can't be read or is too small.
    """
    found = find_pairs(data / task.folder)
    for split, pairs, count in (("train", found.train, train), ("test", found.held_out, test)):
        folder = out / task.name / split
        folder.mkdir(parents=True)
        for pair in chosen(pairs, count, f"{task.name}/{split}", found.root):
            chance = np.random.default_rng(_number(f"{task.name}/{split}/{pair.name}"))
            photo, drawing = _small(pair, PHOTO_SIDE[task.folder], size)
            both = [np.asarray(picture) for picture in task.make(photo, drawing, chance)]
            beside = Image.fromarray(np.concatenate(both, axis=1))
            beside.save(folder / f"{Path(pair.name).stem}.png")


def chosen(pairs: Sequence[Pair], count: int, seed: str, root: Path) -> list[Pair]:
    """Choose `count` pairs by a hash of their names.

    Raises:
        PiggybackError: there are fewer pairs.
    """
    if len(pairs) < count:
        raise PiggybackError(f"{root}: {seed} needs {count} pairs, found {len(pairs)}")
    return sorted(pairs, key=lambda pair: _number(f"{seed}/{pair.name}"))[:count]


def _small(pair: Pair, photo_side: str, size: int) -> tuple[Picture, Picture]:
    """Read photograph and drawing, resized to (size, size)."""
    direction = "AtoB" if photo_side == "A" else "BtoA"
    photo, drawing = (
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
        for pixels in pair.read(direction, (ImageFormat(), ImageFormat()))
    )
    return photo, drawing


def _number(words: str) -> int:
    """Hash a text to a number that is the same on any machine."""
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="where the four data sets are")
    parser.add_argument("out", type=Path, help="a new folder for the tasks")
    parser.add_argument("--train", type=int, default=TRAIN, help="pairs of each task to train on")
    parser.add_argument("--test", type=int, default=TEST, help="pairs of each task to judge by")
    parser.add_argument("--size", type=int, default=SIZE, help="of either picture's side")
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} exists: give a new folder")
    for task in TASKS:
        try:
            write_task(
                task, given.data, given.out, train=given.train, test=given.test, size=given.size
            )
        except PiggybackError as error:
            sys.exit(str(error))
        print(f"{given.out / task.name}: {given.train} pairs to train on, {given.test} to judge by")


if __name__ == "__main__":
    main()
