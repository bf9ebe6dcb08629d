"""Claims about 16-bit, float and n-channel files: read as they are stored, or refused."""

import io
import logging
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import data_sets
from image_files import DEPTHS, TURNED, classes, form, noise, png_by_hand, png_chunk, read, refusal
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import SUFFIXES, best_suffix, can_hold, encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import Source, read_image, value_ranges


def write_tiff(path: Path, pixels: Pixels, **options: Any) -> None:
    """With each channel in a plane of its own where `planarconfig` is "separate"."""
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    elif pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    else:
        options.setdefault("planarconfig", "contig")
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", "metadata": None} | options)


# Writing


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    depth=st.sampled_from(DEPTHS),
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_suffix_and_tiff_give_back_any_format_exactly(
    tmp_path: Path, depth: Any, channels: int, size: tuple[int, int], seed: int
) -> None:
    format = form(channels, depth)
    pixels = noise(*size, channels, seed, depth)
    for suffix in {best_suffix(format), ".tif", ".TIFF"}:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode(pixels, suffix))
        found = read_image(path, format)
        assert found.dtype == depth
        assert np.array_equal(found, pixels)


def test_png_is_the_best_suffix_wherever_it_can_hold_the_format() -> None:
    for depth in DEPTHS:
        for channels in range(1, 7):
            png = depth != "float32" and channels in (1, 3, 4)
            format = form(channels, depth)
            assert best_suffix(format) == (".png" if png else ".tif")
            assert can_hold(best_suffix(format), format)
    assert best_suffix(classes(19)) == ".png"
    assert not can_hold(".jpg", classes(19))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_what_a_suffix_cannot_hold_is_refused_with_one_that_can(depth: Any, channels: int) -> None:
    pixels = noise(channels=channels, depth=depth)
    for suffix in SUFFIXES:
        if can_hold(suffix, form(channels, depth)):
            assert encode(pixels, suffix)
            continue
        message = data_sets.refusal(lambda suffix=suffix: encode(pixels, suffix))
        assert message.startswith(
            f"{suffix} files can't hold 30x24 pixels with {channels} channels"
        )
        hint = ".png or .tif" if can_hold(".png", form(channels, depth)) else ".tif"
        assert message.endswith(f": {hint} can")


def test_sides_that_a_suffix_cannot_hold_are_refused() -> None:
    for suffix, side in ((".webp", 16384), (".jpg", 65501)):
        with pytest.raises(PiggybackError, match=r"can't hold .* \.png or \.tif can"):
            encode(np.zeros((1, side, 1), np.uint8), suffix)


def test_16_bit_files_really_have_16_bits() -> None:
    for channels in (1, 3, 4):
        png = encode(noise(channels=channels, depth="uint16"), ".png")
        assert png[24] == 16
        with tifffile.TiffFile(
            io.BytesIO(encode(noise(channels=channels, depth="uint16"), ".tif"))
        ) as tiff:
            assert tiff.pages.first.bitspersample == 16


def test_equal_pixels_are_equal_bytes() -> None:
    for depth in DEPTHS:
        pixels = noise(channels=5, depth=depth)
        assert encode(pixels, ".tif") == encode(pixels.copy(), ".tif")


# 16-bit PNG


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_pngs_are_read_with_all_their_bits(
    tmp_path: Path, color_type: int, channels: int, interlaced: bool
) -> None:
    pixels = noise(13, 18, channels, depth="uint16")
    png_by_hand(tmp_path / "a.png", pixels, color_type, interlaced=interlaced)
    assert np.array_equal(read(tmp_path / "a.png", channels, "uint16"), pixels)
    assert "its values are uint16, the task takes uint8" in refusal(tmp_path / "a.png")


def test_8_bit_pngs_by_the_same_hand_are_read_too(tmp_path: Path) -> None:
    png_by_hand(tmp_path / "a.png", noise(13, 18), 2, interlaced=True)
    assert np.array_equal(read(tmp_path / "a.png"), noise(13, 18))
    assert "its values are uint8, the task takes uint16" in refusal(
        tmp_path / "a.png", form(3, "uint16")
    )


def test_a_colour_of_16_bits_that_means_transparent_counts_where_it_is_used(tmp_path: Path) -> None:
    pixels = noise(13, 18, 3, depth="uint16") | 1
    path = tmp_path / "a.png"
    png_by_hand(path, pixels, 2, png_chunk(b"tRNS", bytes(6)))
    assert np.array_equal(read(path, 3, "uint16"), pixels)
    png_by_hand(path, pixels, 2, png_chunk(b"tRNS", pixels[0, 0].astype(">u2").tobytes()))
    assert "transparency" in refusal(path, form(3, "uint16"))


@pytest.mark.parametrize("orientation", TURNED)
def test_deep_images_are_turned_upright_too(tmp_path: Path, orientation: int) -> None:
    pixels = noise(depth="uint16")
    exif = Image.Exif()
    exif[274] = orientation
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    png_by_hand(tmp_path / "a.png", pixels, 2, png_chunk(b"eXIf", content))
    write_tiff(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, orientation, True)])
    expected = TURNED[orientation](pixels)
    assert np.array_equal(read(tmp_path / "a.png", 3, "uint16"), expected)
    assert np.array_equal(read(tmp_path / "a.tif", 3, "uint16"), expected)


# TIFF


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_tiffs_of_n_channels_are_read_however_they_are_packed(
    tmp_path: Path, compression: str | None, planarconfig: str, depth: Any
) -> None:
    for number, options in enumerate(
        [{}, {"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}, {"rowsperstrip": 5}]
    ):
        pixels = noise(channels=5, depth=depth, seed=number)
        path = tmp_path / f"{number}.tif"
        write_tiff(path, pixels, compression=compression, planarconfig=planarconfig, **options)
        found = read(path, 5, depth)
        assert found.dtype == np.dtype(depth)
        assert np.array_equal(found, pixels)


@pytest.mark.parametrize("depth", DEPTHS)
def test_gray_rgb_and_rgba_tiffs_are_read(tmp_path: Path, depth: Any) -> None:
    path, rgb = tmp_path / "a.tif", {"photometric": "rgb"}
    for channels, options in ((1, {}), (3, rgb), (4, rgb | {"extrasamples": ["unassalpha"]})):
        for predictor in (False, True):
            pixels = noise(channels=channels, depth=depth)
            write_tiff(path, pixels, compression="lzw", predictor=predictor, **options)
            assert np.array_equal(read(path, channels, depth), pixels)


@pytest.mark.parametrize("depth", ["uint16", "float32"])
def test_gray_becomes_three_channels_and_no_other_deep_image_changes(
    tmp_path: Path, depth: Any
) -> None:
    path = tmp_path / "a.tif"
    gray = noise(channels=1, depth=depth)
    path.write_bytes(encode(gray, ".tif"))
    assert np.array_equal(read(path, 3, depth), gray.repeat(3, axis=2))
    path.write_bytes(encode(noise(depth=depth), ".tif"))
    for channels in (1, 2, 4, 5):
        assert f"it has 3 channels of {depth}, the task takes {channels}" in refusal(
            path, form(channels, depth)
        )


@pytest.mark.parametrize("depth", DEPTHS)
def test_opaque_alpha_is_left_out_and_any_other_is_refused(tmp_path: Path, depth: Any) -> None:
    pixels = noise(channels=4, depth=depth)
    pixels[..., 3] = 1 if depth == "float32" else np.iinfo(depth).max
    path = tmp_path / "a.tif"
    path.write_bytes(encode(pixels, ".tif"))
    assert np.array_equal(read(path, 3, depth), pixels[..., :3])
    pixels[3, 3, 3] = 0
    path.write_bytes(encode(pixels, ".tif"))
    assert "transparency" in refusal(path, form(3, depth))
    assert np.array_equal(read(path, 4, depth), pixels)


def test_colours_multiplied_by_alpha_are_refused(tmp_path: Path) -> None:
    write_tiff(
        tmp_path / "a.tif",
        noise(channels=4, depth="uint16"),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    assert "straight alpha" in refusal(tmp_path / "a.tif", form(4, "uint16"))


@pytest.mark.parametrize("kind", ["float64", "float16", "int32", "int16", "int8", "uint32"])
def test_other_types_of_values_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    write_tiff(tmp_path / "a.tif", noise(channels=1).astype(kind))
    assert f"its values are {kind} of " in refusal(tmp_path / "a.tif", form(1, "float32"))


def test_12_bits_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", noise(channels=1, depth="uint16") >> 4, bitspersample=12)
    assert "uint16 of 12 bits" in refusal(tmp_path / "a.tif", form(1, "uint16"))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_white_as_zero_is_turned_into_black_as_zero(tmp_path: Path, depth: Any) -> None:
    pixels = noise(channels=1, depth=depth)
    write_tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif", 1, depth), np.iinfo(depth).max - pixels)


def test_a_tiff_whose_zero_is_white_is_no_label_map(tmp_path: Path) -> None:
    for depth in ("uint8", "uint16"):
        pixels = noise(channels=1, depth=depth) % 4
        write_tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
        assert "it is not a label map" in refusal(tmp_path / "a.tif", classes(4, depth))


@pytest.mark.parametrize("photometric", ["cielab", "separated"])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_other_colour_spaces_are_refused(tmp_path: Path, photometric: str, depth: Any) -> None:
    channels = 4 if photometric == "separated" else 3
    write_tiff(tmp_path / "a.tif", noise(channels=channels, depth=depth), photometric=photometric)
    message = refusal(tmp_path / "a.tif", form(channels, depth))
    assert ("CMYK" if channels == 4 else "LAB") in message


def test_ycbcr_tiffs_are_read_where_they_hold_a_jpeg_and_refused_otherwise(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression="jpeg", quality=95)
    assert np.abs(read(tmp_path / "a.tif").astype(int) - pixels).max() <= 8
    Image.fromarray(pixels).convert("YCbCr").save(tmp_path / "b.tif")
    assert "YCbCr" in refusal(tmp_path / "b.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    pixels = noise(channels=2, depth="float32")
    pixels[4, 5, 1] = value
    path = tmp_path / "a.tif"
    path.write_bytes(encode(pixels, ".tif"))
    assert "1 of its values are NaN or infinite" in refusal(path, form(2, "float32"))
    with pytest.raises(PiggybackError, match="NaN or infinite"):
        value_ranges([[Source(path)]])


def test_several_pages_are_refused_and_smaller_copies_are_not(tmp_path: Path) -> None:
    pixels = noise(channels=3, depth="uint16")
    for copies in (False, True):
        path = tmp_path / f"{copies}.tif"
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(pixels, photometric="rgb", metadata=None)
            small = np.ascontiguousarray(pixels[::2, ::2])
            tiff.write(small, photometric="rgb", metadata=None, subfiletype=int(copies))
    assert "it has 2 frames or pages" in refusal(tmp_path / "False.tif", form(3, "uint16"))
    assert np.array_equal(read(tmp_path / "True.tif", 3, "uint16"), pixels)
    tifffile.imwrite(
        tmp_path / "stack.tif",
        noise(20, 20, 5, depth="uint16"),
        imagej=True,
        metadata={"axes": "ZYX"},
    )
    assert "frames or pages" in refusal(tmp_path / "stack.tif", form(5, "uint16"))


# Damage


DAMAGED = {
    "png": (".png", form(3, "uint16"), {}),
    "strips": (".tif", form(3, "uint16"), {"rowsperstrip": 4}),
    "lzw": (".tif", form(5, "float32"), {"compression": "lzw", "rowsperstrip": 4}),
    "tiles": (".tif", form(5, "uint8"), {"compression": "zlib", "tile": (16, 16)}),
    "planes": (".tif", form(5, "uint16"), {"planarconfig": "separate"}),
}


def whole(path: Path, format: ImageFormat, options: dict[str, Any]) -> bytes:
    pixels = noise(channels=format.channels, depth=format.depth)
    if path.suffix == ".png":
        return encode(pixels, ".png")
    write_tiff(path, pixels, **options)
    return path.read_bytes()


@pytest.mark.parametrize("kind", DAMAGED)
def test_truncated_deep_files_are_refused_wherever_they_end(tmp_path: Path, kind: str) -> None:
    suffix, format, options = DAMAGED[kind]
    path = tmp_path / f"a{suffix}"
    content = whole(path, format, options)
    for end in range(1, len(content) - 1, len(content) // 60):
        path.write_bytes(content[:end])
        assert "can't be read" in refusal(path, format)


def test_strips_that_were_never_written_are_not_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for compression in ("zlib", None):
        write_tiff(
            path, noise(depth="uint16"), compression=compression, rowsperstrip=4, photometric="rgb"
        )
        with tifffile.TiffFile(path) as tiff:
            places = [tiff.pages.first.tags[code].valueoffset for code in (273, 279)]
            sizes = [tiff.pages.first.tags[code].dtype.value for code in (273, 279)]
        content = bytearray(path.read_bytes())
        for place, kind in zip(places, sizes, strict=True):
            width = 4 if kind == 4 else 2
            content[place + width : place + 2 * width] = bytes(width)
        path.write_bytes(content)
        assert "parts are missing" in refusal(path, form(3, "uint16"))


@pytest.mark.parametrize("kind", DAMAGED)
def test_whatever_is_damaged_no_other_error_than_ours_comes_out(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    suffix, format, options = DAMAGED[kind]
    path = tmp_path / f"a{suffix}"
    content = whole(path, format, options)
    chance = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(1 + chance.randrange(3)):
            damaged[chance.randrange(min(len(damaged), 400))] = chance.randrange(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_image(path, format, max_pixels=10_000)
            except PiggybackError as error:
                assert str(error).startswith(f"{path}: ")
                assert "\n" not in str(error)


def test_large_tiffs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    pixels = np.zeros((200, 200, 9), np.uint16)
    write_tiff(tmp_path / "a.tif", pixels, compression="zlib")
    message = refusal(tmp_path / "a.tif", form(9, "uint16"), max_pixels=119_999)
    assert message.startswith("too many pixels: 200x200 with 9 channels, the limit is 119999")
    assert message.endswith("give --max-pixels 120000")
    assert (
        read_image(tmp_path / "a.tif", form(9, "uint16"), max_pixels=120_000).shape == pixels.shape
    )
