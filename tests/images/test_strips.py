"""Claims about files that are written strip by strip: their content, and what a failure leaves behind."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode
from piggyback_gan.images.encode import SUFFIXES, encode, fits
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.strips import write_strips

HELD = [
    (suffix, depth, channels)
    for suffix in SUFFIXES
    for depth in ("uint8", "uint16", "float32")
    for channels in (1, 2, 3, 4, 5)
    if fits(suffix, depth, channels)
]


def pixels(depth: str, channels: int, height: int = 150, width: int = 37) -> Pixels:
    """Half smooth, half noise, so that every kind of PNG filter is the best one somewhere."""
    chance = np.random.default_rng(channels)
    y, x, c = np.indices((height, width, channels))
    smooth = (x * 3 + y * (c + 1)) % 251
    values = np.where((y // 10) % 2, smooth, chance.integers(0, 251, smooth.shape))
    return (values * (257 if depth == "uint16" else 1)).astype(depth)


def strips(whole: Pixels, rows: int) -> Iterator[Pixels]:
    return (whole[top : top + rows] for top in range(0, len(whole), rows))


@pytest.mark.parametrize("rows", [1, 64, 149])
@pytest.mark.parametrize(("suffix", "depth", "channels"), HELD)
def test_what_strips_make_is_what_they_were(
    tmp_path: Path, suffix: str, depth: str, channels: int, rows: int
) -> None:
    whole, path = pixels(depth, channels), tmp_path / f"a{suffix.upper()}"
    write_strips(path, strips(whole, rows), whole.shape, depth)
    if suffix in (".jpg", ".jpeg"):
        assert path.read_bytes() == encode(whole, suffix)
        return
    found = decode(path).pixels
    assert found.dtype == depth
    # WebP has no gray: it comes back as three equal channels.
    assert np.array_equal(found if suffix != ".webp" else found[..., :channels], whole)


def test_other_readers_understand_the_files(tmp_path: Path) -> None:
    whole = pixels("uint8", 3)
    for suffix in (".png", ".tif"):
        write_strips(tmp_path / f"a{suffix}", strips(whole, 40), whole.shape, "uint8")
        with Image.open(tmp_path / f"a{suffix}") as image:
            image.verify()
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert np.array_equal(np.asarray(image), whole)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_large_images_are_decoded_as_small_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, mode: str
) -> None:
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(pixels("uint8", 4)).convert(mode)
    exif = Image.Exif()
    exif[274] = 6
    transparency = {"transparency": 9} if (suffix, mode) == (".png", "L") else {}
    image.save(path, exif=exif, **transparency)
    small = decode(path)
    monkeypatch.setattr("piggyback_gan.images.pixels.LARGE", 20)
    large = decode(path)
    assert small.pixels.shape[:2] == (37, 150)
    assert np.array_equal(small.pixels, large.pixels)
    assert (small.alpha, small.color) == (large.alpha, large.color)
    assert (small.indices is None) == (large.indices is None)
    assert small.indices is None or np.array_equal(small.indices, large.indices)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_failure_between_strips_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("before")

    def failing() -> Iterator[Pixels]:
        yield pixels("uint8", 3)[:20]
        raise PiggybackError("no more")

    with pytest.raises(PiggybackError, match="no more"):
        write_strips(path, failing(), (150, 37, 3), "uint8")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
