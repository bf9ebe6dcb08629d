"""Claims about image files of 8 bits: what is read, what is refused and how, and how folders are listed."""

import io
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import data_sets
from image_files import TURNED, form, luma, noise, png_chunk, read, refusal, smooth
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import SUFFIXES, encode, to_pil
from piggyback_gan.images.pixels import MAX_PIXELS
from piggyback_gan.images.read import from_pil, list_images, read_image


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels, path = noise(channels=channels), tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    assert np.array_equal(read(path, channels), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_give_back_nearly_the_same(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels, path = smooth()[:, :, :channels], tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    found = read(path, channels)
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() <= 12


def test_encode_writes_the_format_that_the_suffix_names() -> None:
    formats = {s: Image.open(io.BytesIO(encode(smooth(), s))).format for s in SUFFIXES}
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}
    assert formats == {s: kinds.get(s[1:], s[1:].upper()) for s in SUFFIXES}


def test_gray_becomes_three_equal_channels_and_rgb_becomes_luma(tmp_path: Path) -> None:
    gray, color = tmp_path / "gray.png", tmp_path / "color.png"
    Image.fromarray(noise()[:, :, 0]).save(gray)
    Image.fromarray(noise()).save(color)
    assert np.array_equal(read(gray, 1), noise()[:, :, :1])
    assert np.array_equal(read(gray, 3), np.repeat(noise()[:, :, :1], 3, axis=2))
    assert np.array_equal(read(color, 1), luma(noise()))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colors = noise(1, 8, seed=1)[0]
    indices = np.random.default_rng(2).integers(0, 8, (24, 30), dtype=np.uint8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colors.ravel().tolist())
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    assert np.array_equal(read(tmp_path / "a.png", 3), colors[indices])
    assert np.array_equal(read(tmp_path / "a.png", 1), luma(colors[indices]))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_0_and_255(tmp_path: Path, suffix: str) -> None:
    bits = noise()[:, :, 0] > 127
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    expected = bits[..., None].astype(np.uint8) * 255
    assert np.array_equal(read(tmp_path / f"a{suffix}", 1), expected)
    assert np.array_equal(read(tmp_path / f"a{suffix}", 3), expected.repeat(3, axis=2))


@pytest.mark.parametrize("orientation", TURNED)
def test_images_are_turned_as_their_exif_data_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    turn = TURNED[orientation]
    assert np.array_equal(read(tmp_path / "a.png", 3), turn(noise()))
    found = read(tmp_path / "a.jpg", 3).astype(int)
    assert np.abs(found - turn(smooth())).max() <= 12


def test_a_16_bit_ppm_under_another_name_is_refused_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"P6 4 3 65535\n" + bytes(range(72)))
    assert "not an image" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise()).convert("CMYK").save(tmp_path / f"a{suffix}")
    assert "CMYK" in refusal(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_several_pages_and_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.fromarray(noise(seed=seed)) for seed in (0, 1))
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second])
    assert "2 frames or pages" in refusal(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_real_transparency_is_refused_and_opaque_alpha_is_fine(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    alpha = np.full((24, 30, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([noise(), alpha], axis=2)).save(path, lossless=True)
    assert np.array_equal(read(path, 3), noise())
    alpha[5, 5] = 254
    Image.fromarray(np.concatenate([noise(), alpha], axis=2)).save(path, lossless=True)
    assert "transparency" in refusal(path)


def test_transparency_of_gray_and_palette_images_counts_only_where_it_is_used(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    palette = Image.fromarray(noise()).quantize(8)
    colors = np.asarray(palette.convert("RGB"))
    palette.save(path, transparency=bytes([255] * 8))
    assert np.array_equal(read(path, 3), colors)
    palette.save(path, transparency=bytes([255] * 7 + [128]))
    assert "transparency" in refusal(path)
    gray = noise()[:, :, :1].clip(10)
    to_pil(gray).save(path, transparency=9)
    assert np.array_equal(read(path, 1), gray)
    to_pil(gray).save(path, transparency=int(gray[0, 0, 0]))
    assert "transparency" in refusal(path)
    Image.fromarray(noise()[:, :, :2], "LA").save(path)
    assert "transparency" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = encode(noise(), suffix)
    for share in (0.02, 0.1, 0.5, 0.9):
        (tmp_path / f"a{suffix}").write_bytes(whole[: round(share * len(whole))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own words on damaged TIFF directories
            assert "can't be read" in refusal(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whatever_is_damaged_no_other_error_than_ours_comes_out(
    tmp_path: Path, suffix: str
) -> None:
    whole = encode(smooth(8, 8), suffix)
    path = tmp_path / f"a{suffix}"
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.randrange(3)):
            if damaged:
                damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_image(path, form(3), max_pixels=10_000)  # damaged sizes cost seconds
            except PiggybackError as error:
                refused += 1
                assert str(error).startswith(f"{path}: ")
                assert "\n" not in str(error)
    assert refused > 50


def test_text_nothing_and_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert refusal(tmp_path / "text.png") == "can't be read: not an image"
    assert refusal(tmp_path / "empty.png") == "can't be read: the file is empty"
    assert refusal(tmp_path / "missing.png") == "no such file"
    assert "directory" in refusal(tmp_path / "folder.png")


def test_pil_images_are_checked_like_files() -> None:
    assert np.array_equal(from_pil(to_pil(noise()), form(3)), noise())
    with pytest.raises(PiggybackError, match="transparency"):
        from_pil(Image.new("RGBA", (3, 3), (1, 2, 3, 4)), form(3))
    with pytest.raises(PiggybackError, match="uint16, the task takes uint8"):
        from_pil(Image.fromarray(np.full((3, 4), 40000, np.uint16)), form(1))
    with pytest.raises(PiggybackError, match="CMYK"):
        from_pil(Image.new("CMYK", (3, 3)), form(3))


@pytest.mark.parametrize(
    ("channels", "depth", "mode"),
    [
        (1, "uint8", "L"),
        (3, "uint8", "RGB"),
        (4, "uint8", "RGBA"),
        (1, "uint16", "I;16"),
        (1, "float32", "F"),
    ],
)
def test_pil_images_of_five_modes_go_in_and_out(channels: int, depth: str, mode: str) -> None:
    pixels = noise(channels=channels, depth=depth)
    image = to_pil(pixels)
    assert image.mode == mode
    back = from_pil(image, form(channels, depth))
    assert back.dtype == depth
    assert np.array_equal(back, pixels)


def test_arrays_that_pil_has_no_mode_for_are_refused() -> None:
    for pixels in (noise(channels=2), noise(depth="uint16"), noise(depth="float32")):
        with pytest.raises(PiggybackError, match="PIL has no images"):
            to_pil(pixels)


def test_images_are_listed_by_name_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "A.JPG", "c.tiff", ".d.png", "._b.png", "notes.txt", "png", "e.gif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["A.JPG", "b.png", "c.tiff"]


def test_listing_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    message = data_sets.refusal(lambda: list_images(tmp_path / "nowhere"))
    assert "nowhere can't be read: No such file" in message


def test_of_rgba_all_four_channels_are_kept_where_the_task_takes_four(tmp_path: Path) -> None:
    pixels = noise(channels=4)
    pixels[:5, :, 3] = 0  # colours under full transparency stay as well
    for suffix in (".png", ".webp", ".tif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode(pixels, suffix))
        assert np.array_equal(read(path, 4), pixels)
        assert "--input-channels or --output-channels 4" in refusal(path, 3)


def test_where_the_task_takes_four_channels_gray_and_rgb_are_opaque(tmp_path: Path) -> None:
    for channels in (1, 3):
        path = tmp_path / f"{channels}.png"
        path.write_bytes(encode(noise(channels=channels), ".png"))
        found = read(path, 4)
        assert np.array_equal(
            found[..., :3], np.broadcast_to(noise(channels=channels), (24, 30, 3))
        )
        assert (found[..., 3] == 255).all()


def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode(noise(), suffix))
        assert np.array_equal(read_image(path, form(), max_pixels=720).shape, (24, 30, 3))
        assert "give --max-pixels 720" in refusal(path, form(), max_pixels=719)


def test_a_file_that_claims_more_pixels_than_pillow_allows_is_refused_at_once(
    tmp_path: Path,
) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    for bits, color_type in ((8, 2), (16, 2), (16, 0)):
        header = side.to_bytes(4) * 2 + bytes([bits, color_type, 0, 0, 0])
        chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        assert "too many pixels: 13378x13378" in refusal(tmp_path / "a.png")


def test_the_limit_is_the_callers_not_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for suffix in (".png", ".tif", ".bmp"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode(noise(), suffix))
        assert np.array_equal(read(path), noise())


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    for suffix in (".webp", ".bmp", ".tif"):
        (tmp_path / "a.JPG").write_bytes(encode(noise(), suffix))
        assert np.array_equal(read(tmp_path / "a.JPG"), noise())


def test_names_may_be_of_any_script_and_as_long_as_the_system_allows(tmp_path: Path) -> None:
    for name in ("Übergröße 東京 🖼.PNG", "n" * 251 + ".png"):
        (tmp_path / name).write_bytes(encode(noise(), ".png"))
        assert np.array_equal(read(tmp_path / name), noise())
    assert len(list_images(tmp_path)) == 2


def test_a_tree_is_listed_once_whatever_links_go_round_in_it(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/c/3.png", "a.png", ".hidden/4.png", "b/.5.png", "b/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "b" / "c" / "round").symlink_to(tmp_path)
    (tmp_path / "b" / "again").symlink_to(tmp_path / "b" / "c")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    found = [
        path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)
    ]
    assert found == ["a.png", "b/2.png", "b/again/3.png", "self.png"]
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "self.png"]
    assert "can't be read" in refusal(tmp_path / "self.png")


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every folder"
)
def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(PiggybackError, match="locked can't be read"):
        list_images(tmp_path, recursive=True)


def test_reading_8_bit_images_loads_no_other_library(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(noise(), ".png"))
    code = (
        "import sys; from pathlib import Path; from piggyback_gan.images.read import read_image\n"
        "from piggyback_gan.images.format import ImageFormat\n"
        f"read_image(Path({str(tmp_path / 'a.png')!r}), ImageFormat())\n"
        "assert not {'tifffile', 'imagecodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tiff_tile_larger_than_its_image_counts_as_what_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.zeros((16, 16), np.uint16)
    tifffile.imwrite(path, pixels, tile=(4096, 4096), compression="zlib")
    assert "too many pixels: 4096x4096" in refusal(path, form(1, "uint16"), max_pixels=1_000_000)


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a.png").write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "broken.png"]
