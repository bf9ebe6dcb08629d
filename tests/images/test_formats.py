"""Claims about formats of a task's files: label maps, halves, and what is detected from a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_files import DEPTHS, classes, form, noise, png_by_hand, png_chunk, read, refusal
from piggyback_gan.data.folders import Pair
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode, naming_file
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import Source, detect_format, read_image, value_ranges


def detected(path: Path, **settings: Any) -> ImageFormat:
    asked = {"channels": None, "labels": None, "value_range": None} | settings
    with naming_file(path):
        return detect_format(decode(path), **asked)


# Label maps


def palette_png(path: Path, indices: Pixels) -> None:
    image = Image.fromarray(indices[..., 0], "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(noise(1, 16, seed=3).ravel().tolist())
    image.save(path)


def test_label_maps_are_the_indices_not_the_colours(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 12, (9, 11, 1)).astype(np.uint8)
    palette_png(tmp_path / "a.png", indices)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
    (tmp_path / "b.png").write_bytes(encode(indices, ".png"))
    (tmp_path / "c.tif").write_bytes(encode(indices, ".tif"))
    (tmp_path / "d.png").write_bytes(encode(indices.astype(np.uint16), ".png"))
    for path in sorted(tmp_path.iterdir()):
        for depth in ("uint8", "uint16"):
            found = read_image(path, classes(12, depth))
            assert found.dtype == depth
            assert np.array_equal(found, indices)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_maps_of_few_bits_are_not_stretched_to_255(tmp_path: Path, bits: int) -> None:
    indices = np.random.default_rng(0).integers(0, 2**bits, (4, 16)).astype(np.uint8)
    packed = np.packbits(
        np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(4, -1), axis=1
    )
    png_by_hand(tmp_path / "a.png", packed[..., None], 0)
    content = bytearray((tmp_path / "a.png").read_bytes())
    header = (16).to_bytes(4) + (4).to_bytes(4) + bytes([bits, 0, 0, 0, 0])
    content[8 : 8 + 25] = png_chunk(b"IHDR", header)
    (tmp_path / "a.png").write_bytes(content)
    found = read_image(tmp_path / "a.png", classes(2**bits))
    assert np.array_equal(found[..., 0], indices)
    assert np.array_equal(read(tmp_path / "a.png", 1)[..., 0], indices * (255 // (2**bits - 1)))


def test_an_index_of_no_class_is_named(tmp_path: Path) -> None:
    indices = np.zeros((4, 4, 1), np.uint8)
    indices[2, 1] = 7
    palette_png(tmp_path / "a.png", indices)
    assert read_image(tmp_path / "a.png", classes(8)).max() == 7
    assert refusal(tmp_path / "a.png", classes(7)).startswith(
        "it has class index 7, but there are 7 classes: 0 to 6"
    )


def test_what_can_be_no_label_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rgb.png").write_bytes(encode(noise(), ".png"))
    (tmp_path / "gray.jpg").write_bytes(encode(noise(channels=1), ".jpg"))
    (tmp_path / "float.tif").write_bytes(encode(noise(channels=1, depth="float32"), ".tif"))
    for path in tmp_path.iterdir():
        assert "it is not a label map" in refusal(path, classes(256))


# Halves, detection, ranges


def read_halves(path: Path, *formats: ImageFormat) -> tuple[Any, Any]:
    return Pair(path.name, path, path).read("AtoB", (formats[0], formats[1]))


def test_halves_have_formats_of_their_own(tmp_path: Path) -> None:
    gray, color = noise(channels=1).repeat(3, axis=2), noise(seed=1)
    path = tmp_path / "a.png"
    path.write_bytes(encode(np.concatenate([gray, color], axis=1), ".png"))
    left, right = read_halves(path, form(1), form(3))
    assert np.array_equal(left, gray[..., :1])
    assert np.array_equal(right, color)
    assert np.array_equal(Source(path, "left").read(form(1)), left)
    assert np.array_equal(Source(path, "right").read(form(3)), right)
    path.write_bytes(encode(noise(4, 5), ".png"))
    for call in (
        lambda: read_halves(path, form(), form()),
        lambda: Source(path, "left").read(form()),
    ):
        with pytest.raises(PiggybackError, match=r"a\.png: odd width 5"):
            call()


def test_the_transparency_of_one_half_is_no_matter_of_the_other(tmp_path: Path) -> None:
    pixels = noise(20, 40, 4)
    pixels[:, :20, 3] = 255
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, ".png"))
    left, right = read_halves(path, form(3), form(4))
    assert np.array_equal(left, pixels[:, :20, :3])
    assert np.array_equal(right, pixels[:, 20:])


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_a_format_is_detected_from_one_file(tmp_path: Path, depth: Any, channels: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(encode(noise(channels=channels, depth=depth), ".tif"))
    values = (-9.0, 9.0) if depth == "float32" else None
    if depth == "uint8" and channels == 4:
        with pytest.raises(PiggybackError, match="give --input-channels or --output-channels 4"):
            detected(path)
        assert detected(path, channels=4) == form(4)
        return
    expected = 3 if depth == "uint8" and channels in (1, 3) else channels
    found = detected(path, value_range=values)
    range_ = dict(zip(("low", "high"), values, strict=True)) if values else {}
    assert found == form(expected, depth, **range_)
    assert read_image(path, found).shape == (24, 30, expected)


def test_what_is_asked_for_is_detected_or_refused(tmp_path: Path) -> None:
    gray, deep = tmp_path / "a.png", tmp_path / "b.tif"
    gray.write_bytes(encode(noise(channels=1) % 5, ".png"))
    deep.write_bytes(encode(noise(channels=2, depth="float32"), ".tif"))
    assert detected(gray, channels=1, value_range=(0.0, 4.0)) == form(1, low=0.0, high=4.0)
    assert detected(gray, labels=5) == ImageFormat(channels=5, labels=True)
    for path, asked, message in (
        (gray, {"labels": 4}, "class index 4"),
        (gray, {"channels": 5}, "it has 1 channel of uint8, the task takes 5"),
        (deep, {}, "say which become -1 and 1"),
        (deep, {"channels": 3, "value_range": (0.0, 1.0)}, "it has 2 channels of float32"),
    ):
        with pytest.raises(PiggybackError, match=message) as caught:
            detected(path, **asked)
        assert str(caught.value).startswith(f"{path}: ")


def test_the_range_of_values_is_that_of_all_files_and_halves(tmp_path: Path) -> None:
    for number, (low, high) in enumerate([(2.0, 5.0), (-1.5, 3.0)]):
        pixels = np.full((4, 6, 1), low, np.float32)
        pixels[:, 3:] = high
        (tmp_path / f"{number}.tif").write_bytes(encode(pixels, ".tif"))
    paths = sorted(tmp_path.iterdir())
    whole, right = [[Source(path, half) for path in paths] for half in (None, "right")]
    assert value_ranges([whole, right]) == [(-1.5, 5.0), (3.0, 5.0)]
    with pytest.raises(PiggybackError, match="no range of values: all values are 3"):
        value_ranges([[Source(paths[1], "right")]])
