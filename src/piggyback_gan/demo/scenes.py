"""Draw paired images for the demo: a random scene as label map, day photo, edges and night.

A scene is a stack of shapes in unit coordinates (x to the right, y down, both 0..1), each of one
material. Painting the stack gives a map of shape indices; the four renderings are look-ups in it.
Colours depend on the kind of shape only (a flat roof means brick walls, a tall oval tree is golden)
and textures on the position only, so that every target can be inferred from its input.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

SCENE_TASKS: tuple[str, ...] = ("labels2scene", "edges2scene", "day2night")

_FINER = 4  # supersampling factor, so that images of 64 px look smooth
_Outline: TypeAlias = tuple[tuple[float, float], ...]
_Box: TypeAlias = tuple[float, float, float, float]
_Array: TypeAlias = NDArray[Any]


class _Material(NamedTuple):
    colours: str  # label; day, from the top of a shape to its bottom; night likewise, if it glows
    texture: int = 0  # index into _textures
    relief: float = 0.0  # how much brighter the side towards the sun is
    lamp: bool = False  # lights its surroundings at night
    floor: bool = False  # shadows fall on it


_BRICK, _ROWS, _GRAIN = 1, 2, 3
_M = _Material
_MATERIALS: dict[str, _Material] = {
    "sky": _M("#4682dc #4a92de #e2eff6 #080c28 #3e427e"),
    "sun": _M("#ffe600 #fff6b4 #ffe06a #faf8e4 #e4e4d8"),
    "cloud": _M("#bedcff #ffffff #cdd9e8 #3a4068 #262c54", relief=0.08),
    "mountain": _M("#826ea0 #808cac #a6b6cc", relief=0.35),
    "snow": _M("#ebebf5 #ffffff #e2eaf4", relief=0.15),
    "hill": _M("#6ec86e #92c070 #5c9668", texture=_GRAIN, relief=0.15),
    "ground": _M("#3ca03c #a4cc5c #5c9a3e", texture=_GRAIN, floor=True),
    "lake": _M("#003cc8 #a8d6ea #3a7aba #383e7c #0e1840", texture=_ROWS),
    "road": _M("#804080 #aca6a4 #75727a", texture=_GRAIN, floor=True),
    "dash": _M("#fafad2 #f6f4e6 #f6f4e6", floor=True),
    "chimney": _M("#783c14 #966054 #7c4a3e", relief=0.3),
    "window": _M("#00dcdc #b0dcf2 #5480a8 #ffe88c #ffbe50", lamp=True),
    "door": _M("#a05a28 #7a4a2c #5c3622", relief=0.2),
    "trunk": _M("#6e461e #705036 #563c2a", relief=0.3),
    "round": _M("#007800 #6cb444 #2e6a2c", texture=_GRAIN, relief=0.5),
    "pine": _M("#005a50 #3a7c5c #1a4e42", texture=_GRAIN, relief=0.5),
    "poplar": _M("#f09614 #f4c04c #ce7a28", texture=_GRAIN, relief=0.4),
    "pole": _M("#5a5a5a #4a4c54 #4a4c54"),
    "lantern": _M("#ff78c8 #faf4dc #e2d8be #fffadc #ffecaa", lamp=True),
    "cottage wall": _M("#ffc896 #f6e2b2 #dcc492", relief=0.3),
    "cottage roof": _M("#e61e1e #d65440 #a43a30", texture=_ROWS, relief=0.3),
    "block wall": _M("#c86450 #c4745c #a45a48", texture=_BRICK, relief=0.3),
    "block roof": _M("#646478 #8c8890 #6c6872", relief=0.3),
    "villa wall": _M("#aabef0 #c6dcec #a0b8d0", texture=_ROWS, relief=0.3),
    "villa roof": _M("#28326e #56628e #3a4468", texture=_ROWS, relief=0.3),
    "tower wall": _M("#e696dc #ecb4aa #cc9088", relief=0.3),
    "tower roof": _M("#009682 #4a968a #2e6e66", texture=_ROWS, relief=0.3),
}
_KINDS = {name: kind for kind, name in enumerate(_MATERIALS)}
_TEXTS = [material.colours.split() for material in _MATERIALS.values()]
# Label, day top and bottom, night top and bottom of every kind; kinds that don't glow keep their day.
_COLOURS: _Array = np.array(
    [[ImageColor.getrgb(text) for text in (texts + texts[1:])[:5]] for texts in _TEXTS], np.float32
).swapaxes(0, 1)
_GLOWS: _Array = np.array([len(texts) == 5 for texts in _TEXTS])
_TEXTURE, _RELIEF, _LAMP, _FLOOR = (
    np.array(column, np.float32) for column in list(zip(*_MATERIALS.values(), strict=True))[1:]
)
# The columns and storeys a house may have; the roofs tell the styles apart.
_STYLES = {
    "cottage": ("23", "1"),
    "block": ("23", "23"),
    "villa": ("34", "12"),
    "tower": ("1", "34"),
}


@dataclass(frozen=True)
class Shape:
    """An object in a scene: outlines of one material."""

    material: str
    parts: tuple[_Outline, ...]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Layout of a scene; equal scenes give equal images.

    `sun` is the centre of the sun, and of the moon at night. `shapes` are
    painted in order: sky, sun, then from far to near. `shadows` fall on the ground by day, `pools`
    of lamp light at night.
    """

    sun: tuple[float, float]
    shapes: tuple[Shape, ...]
    shadows: tuple[_Outline, ...]
    pools: tuple[_Outline, ...]


def _rect(left: float, top: float, right: float, bottom: float) -> _Outline:
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _ellipse(x: float, y: float, rx: float, ry: float) -> _Outline:
    angles = (math.tau * i / 28 for i in range(28))
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


def _box(*shapes: Shape) -> _Box:
    xs, ys = zip(*(p for shape in shapes for part in shape.parts for p in part), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(a: _Box, b: _Box) -> float:
    """The share of the smaller box that lies in the other."""
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(wide, 0) * max(tall, 0) / smaller


def _land(rng: np.random.Generator, material: str, level: float, height: float) -> Shape:
    """Rolling land down to the lower rim, its upper rim within `height` of `level`."""
    a, b = rng.uniform(0.4, 1.6, 2)
    waves = [(x, math.sin(7 * a * x + 9 * b) + 0.4 * math.sin(14 * b * x + 9 * a))
             for x in np.linspace(-0.02, 1.02, 40).tolist()]  # fmt: skip
    rim = tuple((x, level + height * wave / 1.4) for x, wave in waves)
    return Shape(material, ((*rim, (1.02, 1.02), (-0.02, 1.02)),))


def _backdrop(rng: np.random.Generator, sun: tuple[float, float], horizon: float) -> list[Shape]:
    shapes = [Shape("sky", (_rect(-0.02, -0.02, 1.02, horizon + 0.06),))]
    shapes.append(Shape("sun", (_ellipse(*sun, *[rng.uniform(0.055, 0.085)] * 2),)))
    for _ in range(rng.integers(4)):
        x, y, r = rng.uniform(0, 1), rng.uniform(0.06, 0.28), rng.uniform(0.035, 0.06)
        puffs = ((-1.6, 0.3, 0.8), (-0.4, -0.2, 1.15), (1.0, 0.0, 0.95), (2.2, 0.4, 0.6))
        parts = [_ellipse(x + r * a, y + r * b, r * c * 1.2, r * c) for a, b, c in puffs]
        cloud = Shape("cloud", tuple(parts[: rng.integers(3, 5)]))
        if _overlap(_box(shapes[1]), _box(cloud)) < 0.5:  # else the hidden sun's light is unseen
            shapes.append(cloud)
    for _ in range(rng.integers(4)):
        x, y, wide = rng.uniform(0, 1), horizon - rng.uniform(0.18, 0.3), rng.uniform(0.2, 0.34)
        left, right = (x - wide, horizon + 0.05), (x + wide * rng.uniform(0.7, 1.3), horizon + 0.05)
        shapes.append(Shape("mountain", ((left, (x, y), right),)))
        low = y + 0.3 * (left[1] - y)
        (a, b), up = ((x + 0.3 * (foot - x) for foot in (left[0], right[0])), low - 0.03)
        shapes.append(Shape("snow", (((a, low), (x, y), (b, low), (x + 0.03, up),
                                      (x, low + 0.02), (x - 0.03, up)),)))  # fmt: skip
    for level in np.linspace(horizon - 0.11, horizon - 0.04, rng.integers(1, 3)).tolist():
        shapes.append(_land(rng, "hill", level, rng.uniform(0.02, 0.06)))
    return [*shapes, _land(rng, "ground", horizon, 0.015)]


def _house(rng: np.random.Generator, x: float, y: float, scale: float) -> list[Shape]:
    style = str(rng.choice(list(_STYLES)))
    columns, storeys = (int(rng.choice(list(digits))) for digits in _STYLES[style])
    cell = 0.09 * scale
    half, eave = cell * (columns / 2 + 0.12), y - cell * (storeys * 1.05 + 0.2)
    peaks = {"cottage": half * 0.95, "tower": half * 2.6, "villa": cell * 0.8, "block": cell * 0.35}
    ridge = {"villa": half - cell * 0.6, "block": half + cell * 0.2}.get(style, 0.0)  # half of it
    over, top = half + 0.2 * cell, eave - peaks[style]
    roof = ((x - over, eave), (x - ridge, top), (x + ridge, top), (x + over, eave))
    wall = Shape(f"{style} wall", (_rect(x - half, eave, x + half, y),))
    shapes = [wall, Shape(f"{style} roof", (roof,))]
    if style in ("cottage", "villa"):
        flue, w = x + half * float(rng.choice((-0.5, 0.5))), cell * 0.18
        shapes.append(Shape("chimney", (_rect(flue - w, top - w, flue + w, eave - cell * 0.4),)))
    door = rng.integers(columns)
    for row, column in np.ndindex(storeys, columns):
        mid, foot = x + cell * (column - (columns - 1) / 2), y - cell * 1.05 * row
        is_door = (row, column) == (0, door)
        w, sill = cell * (0.26 if is_door else 0.3), y if is_door else foot - cell * 0.3
        outline = _rect(mid - w, foot - cell * 0.96, mid + w, sill)
        shapes.append(Shape("door" if is_door else "window", (outline,)))
    return shapes


def _tree(rng: np.random.Generator, x: float, y: float, scale: float) -> list[Shape]:
    kind, r = str(rng.choice(("round", "pine", "poplar"))), scale * rng.uniform(0.055, 0.085)
    turn = rng.uniform(0, math.tau)
    puffs = [(0.5 * math.cos(a), 0.45 * math.sin(a) - 2) for a in (turn, turn + 2, turn + 4)]
    tiers = [(w * r, y - low * r) for low, w in ((0.6, 1.1), (1.5, 0.85), (2.4, 0.6))]
    crowns: dict[str, list[_Outline]] = {
        "round": [_ellipse(x + r * a, y + r * b, r * 0.8, r * 0.75) for a, b in puffs],
        "pine": [((x - w, low), (x, low - 1.6 * r), (x + w, low)) for w, low in tiers],
        "poplar": [_ellipse(x, y - r * 2.3, r * 0.72, r * 1.8)],
    }
    trunk = Shape("trunk", (_rect(x - r * 0.2, y - r * 1.4, x + r * 0.2, y),))
    return [trunk, Shape(kind, tuple(crowns[kind]))]


def _lake(rng: np.random.Generator, x: float, y: float, scale: float) -> list[Shape]:
    r = scale * rng.uniform(0.12, 0.2)
    return [Shape("lake", (_ellipse(x, y + r * 0.1, r, r * 0.26),))]


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a random scene; generators in the same state give equal scenes."""
    horizon, sun = rng.uniform(0.46, 0.58), (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.19))
    far, near, bend = rng.uniform(0.25, 0.75), rng.uniform(0.15, 0.85), rng.uniform(-0.2, 0.2)

    def road(t: float, side: float) -> tuple[float, float]:
        """A point of the road, t from horizon 0 to near 1; side -1 and 1 are its two rims."""
        middle = far + (near - far) * t + bend * math.sin(math.pi * t)
        return middle + side * (0.012 + 0.13 * t), horizon + (1 - horizon) * t

    shapes = _backdrop(rng, sun, horizon)
    taken: list[_Box] = []
    shadows: list[_Outline] = []
    pools: list[_Outline] = []
    dashes = [("dash", start, start * 1.35, 0.12) for start in (0.16, 0.36, 0.68)]
    for name, start, end, w in [("road", 0.02, 1.05, 1.0), *dashes]:
        ts = np.linspace(start, end, 14).tolist()
        shapes.append(
            Shape(name, ((*(road(t, -w) for t in ts), *(road(t, w) for t in reversed(ts))),))
        )
    things: list[tuple[float, list[Shape]]] = []
    makers = (
        [_lake] * rng.integers(2) + [_house] * rng.integers(1, 5) + [_tree] * rng.integers(2, 8)
    )
    for make in makers:
        for _ in range(15):  # attempts to find a free place
            x, t = rng.uniform(0.03, 0.97), rng.uniform(0.08, 0.88)
            y = road(t, 0)[1]
            thing = make(rng, x, y, 0.7 + 0.8 * t)
            box, (left, _, right, _) = _box(*thing), _box(thing[0])
            on_road = left < road(t, 1.2)[0] and right > road(t, -1.2)[0]
            if not on_road and all(_overlap(box, other) < 0.12 for other in taken):
                taken.append(box)
                things.append((y, thing))
                if make is _lake:
                    break
                away, end = (x - sun[0]) * 0.7 * (y - box[1]), y + 0.3 * (y - box[1])
                shadows.append(((left, y), (right, y), (right + away, end), (left + away, end)))
                break
    for t in np.linspace(0.2, 0.62, rng.integers(1, 4)).tolist():
        side, s = float(rng.choice((-1, 1))), 0.6 + 0.8 * t
        x, y = road(t, side * 1.35)
        pole = Shape("pole", (_rect(x - 0.009 * s, y - 0.2 * s, x + 0.009 * s, y),))
        head = Shape("lantern", (_ellipse(x, y - 0.21 * s, 0.026 * s, 0.026 * s),))
        things.append((y, [pole, head]))
        pools.append(_ellipse(x - side * 0.03 * s, y, 0.14 * s, 0.04 * s))
    for _, thing in sorted(things, key=lambda item: item[0]):
        shapes.extend(thing)
    return Scene(sun=sun, shapes=tuple(shapes), shadows=tuple(shadows), pools=tuple(pools))


@lru_cache(maxsize=4)
def _textures(size: int) -> tuple[_Array, _Array]:
    """Brightness offsets [4, n, n] by texture, and the starry sky's brightness [n, n]."""
    n = size * _FINER
    y, x = np.mgrid[:n, :n] * 64 // size  # so that bricks grow with the picture
    joints = (y % 8 < 2) | ((x + y // 8 % 2 * 8) % 16 < 3)
    # The same grain and stars in every image, so that they can be learned.
    rng = np.random.default_rng(0)
    grain = np.kron(rng.normal(0, 0.035, (size, size)), np.ones((_FINER, _FINER)))
    stars = np.zeros((n, n), np.float32)
    for at_x, at_y, light in rng.random((60, 3)):
        r = max(1, round(n / 128 * (0.5 + light)))
        stars[int(at_y * n * 0.6) :, int(at_x * n) :][:r, :r] = 90 + 160 * light
    flat, rows = np.zeros((n, n)), np.where(y % 8 < 3, -0.08, 0.03)
    return np.stack([flat, np.where(joints, -0.14, 0.04), rows, grain]).astype(np.float32), stars


class _Canvas:
    """A scene painted at `_FINER` times the size, n x n, for all renderings."""

    def __init__(self, scene: Scene, size: int) -> None:
        if size < 1:
            raise ValueError(f"the size of a picture must be at least 1, got {size}")
        self.scene, self.size, self.n = scene, size, size * _FINER
        self.place = (np.arange(self.n, dtype=np.float32) + 0.5) / self.n
        parts = [(part, i) for i, shape in enumerate(scene.shapes) for part in shape.parts]
        self.ids = self.fill(parts)  # the number of the shape at each pixel
        self.kinds: _Array = np.array([_KINDS[shape.material] for shape in scene.shapes])[self.ids]
        self.boxes: _Array = np.array([_box(shape) for shape in scene.shapes], np.float32).T

    def fill(self, outlines: Iterable[tuple[_Outline, int]]) -> _Array:
        """Outlines filled with their numbers, in order, on 0: uint8 [n, n]."""
        canvas = Image.new("L", (self.n, self.n))
        for outline, value in outlines:
            points = [(x * self.n, y * self.n) for x, y in outline]
            ImageDraw.Draw(canvas).polygon(points, fill=value)
        return np.asarray(canvas)

    def paint(self, top: int, bottom: int) -> _Array:
        """Every shape shaded from one of `_COLOURS` at its top to another below: [n, n, 3]."""
        start, end = self.boxes[1], self.boxes[3]
        down = (self.place[:, None] - start[self.ids]) / (end - start)[self.ids]
        step = (_COLOURS[bottom] - _COLOURS[top])[self.kinds]
        colours: _Array = _COLOURS[top][self.kinds] + step * down[..., None]
        return colours

    def light(self) -> _Array:
        """The brightness that texture and the side towards the sun (or moon) give: [n, n]."""
        left, right = self.boxes[0], self.boxes[2]
        turned = np.tanh((left + right - 2 * self.scene.sun[0]) * 2) / (right - left)
        lean = turned[self.ids] * (((left + right) / 2)[self.ids] - self.place)
        texture = np.choose(_TEXTURE[self.kinds].astype(np.intp), _textures(self.size)[0])
        brightness: _Array = 1 + _RELIEF[self.kinds] * lean + texture
        return brightness

    def halo(self, reach: float) -> _Array:
        """How close the sky is to the sun, from 1 there down to 0, and 0 off the sky: [n, n, 1]."""
        x, y = (np.exp(-(((self.place - at) / reach) ** 2)) for at in self.scene.sun)
        closeness: _Array = np.outer(y, x) * (self.ids == 0)
        return closeness[..., None]

    def shrink(self, pixels: _Array) -> Image.Image:
        """Pixels of 0..255, clipped and averaged down to the size asked for."""
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).reduce(_FINER)


def draw_labels(scene: Scene, size: int) -> Image.Image:
    """Draw the scene as a label map, RGB, size x size, with one flat colour per kind of object.

    Raises:
        ValueError: size is below 1; the other drawings raise it too.
    """
    canvas = _Canvas(scene, size)
    return canvas.shrink(_COLOURS[0][canvas.kinds])


def draw_day(scene: Scene, size: int) -> Image.Image:
    """Draw the scene by day, RGB, size x size, with sunlight, textures and shadows."""
    canvas = _Canvas(scene, size)
    shadow = canvas.fill((outline, 1) for outline in scene.shadows) * _FLOOR[canvas.kinds]
    pixels = canvas.paint(1, 2) * (canvas.light() * (1 - 0.3 * shadow))[..., None]
    return canvas.shrink(pixels + canvas.halo(0.22) * np.array([90, 70, 20], np.float32))


def draw_edges(scene: Scene, size: int) -> Image.Image:
    """Draw the outlines of all objects, RGB, size x size, black on white."""
    canvas = _Canvas(scene, size)
    half = max(1, round(canvas.n / 128))  # of a line's width
    wide = np.pad(canvas.ids, half, mode="edge")
    across = wide[half:-half, 2 * half :] != wide[half:-half, : -2 * half]
    along = wide[2 * half :, half:-half] != wide[: -2 * half, half:-half]
    return canvas.shrink(np.where(across | along, 0, 255)).convert("RGB")


def draw_night(scene: Scene, size: int) -> Image.Image:
    """Draw the scene at night, RGB, size x size, with moon, stars, lit windows and street lamps."""
    canvas = _Canvas(scene, size)
    (x, y), r = scene.sun, _box(scene.shapes[1])[2] - scene.sun[0]
    bite = canvas.fill([(_ellipse(x + 0.45 * r, y - 0.1 * r, r * 0.8, r * 0.85), 1)])
    in_moon = (bite == 1) & (canvas.ids == 1)  # the moon is a crescent: the rest is sky
    canvas.ids, canvas.kinds = np.where(in_moon, 0, canvas.ids), np.where(in_moon, 0, canvas.kinds)
    lamps = np.maximum(_LAMP[canvas.kinds] * 255, canvas.fill((pool, 150) for pool in scene.pools))
    bloom = canvas.shrink(lamps).filter(ImageFilter.GaussianBlur(size / 26))
    spread = np.asarray(bloom.resize(lamps.shape, Image.Resampling.BILINEAR))[..., None]
    warm = spread * np.array([1.35, 1.0, 0.5], np.float32) / 255
    moonlight = np.array([0.22, 0.27, 0.46], np.float32)
    glows = _GLOWS[canvas.kinds][..., None]
    light = np.where(glows, 1, canvas.light()[..., None] * (moonlight + warm))
    pixels = canvas.paint(3, 4) * light + 40 * warm * glows
    pixels += canvas.halo(0.16) * np.array([60, 64, 80], np.float32)
    return canvas.shrink(pixels + (_textures(size)[1] * (canvas.ids == 0))[..., None])


def _require_known(task: str) -> None:
    if task not in SCENE_TASKS:
        raise ValueError(f"unknown scene task {task!r}; choose one of {', '.join(SCENE_TASKS)}")


def draw_pair(task: str, scene: Scene, size: int) -> tuple[Image.Image, Image.Image]:
    """Draw input and target of a task, both RGB, size x size; ValueError for a task not in SCENE_TASKS."""
    _require_known(task)
    draw_a = {"labels2scene": draw_labels, "edges2scene": draw_edges, "day2night": draw_day}[task]
    draw_b = draw_night if task == "day2night" else draw_day
    return draw_a(scene, size), draw_b(scene, size)


def write_dataset(folder: Path, task: str, *, train: int, test: int, size: int, seed: int) -> None:
    """Write `train` and `test` pairs as folder/train/0000.png... and folder/test/0000.png...

    Each file is RGB, 2*size x size, the input on the left. The same task and seed give the same
    files; every file has its own random stream, so that train and test never share a scene and a
    longer data set starts with the shorter one. Raises ValueError for an unknown task, a negative
    count or seed, or a size below 1, and FileExistsError where train or test already contains images
    that would not be replaced; nothing is written then.
    """
    _require_known(task)
    if min(train, test, seed) < 0 or size < 1:
        raise ValueError(
            f"need counts and a seed >= 0, size >= 1: {train=} {test=} {seed=} {size=}"
        )
    splits = {
        folder / name: [f"{i:04d}.png" for i in range(count)]
        for name, count in (("train", train), ("test", test))
    }
    for split, names in splits.items():
        if strange := sorted({path.name for path in split.glob("*.png")} - set(names)):
            raise FileExistsError(f"{split} already holds other pictures: {strange[0]}")
    for number, (split, names) in enumerate(splits.items()):
        split.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            stream = np.random.default_rng([seed, SCENE_TASKS.index(task), number, i])
            pair = Image.new("RGB", (2 * size, size))
            for column, half in enumerate(draw_pair(task, random_scene(stream), size)):
                pair.paste(half, (column * size, 0))
            pair.save(split / name)
