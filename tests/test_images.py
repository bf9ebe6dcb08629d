"""Claims about image files: what is read, what is refused and how, and that no value changes on the way."""

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images import (
    SUFFIXES,
    Pixels,
    encode,
    from_pil,
    grid,
    list_images,
    normalize,
    open_image,
    read_image,
    resize,
    to_pil,
    to_pixels,
    to_tensor,
)


def noise(height: int = 24, width: int = 30, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int = 24, width: int = 30) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 5, 100 + rows + columns], axis=2).astype(np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """ITU-R 601 gray, in Pillow's fixed-point form."""
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return gray.astype(np.uint8)[..., None]


def png_by_hand(path: Path, bits: int, color_type: int, channels: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    values = np.full((4, channels), 40000, ">u2") if bits == 16 else np.full((4, channels), 9, "u1")
    header = struct.pack(">IIBBBBB", 4, 3, bits, color_type, 0, 0, 0)
    rows = zlib.compress((b"\0" + values.tobytes()) * 3)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def rgb_tiff_of_16_bits(path: Path) -> None:
    """Pillow can't write one: a header, one directory of nine entries, bits per channel, one strip."""
    after = 8 + 2 + 9 * 12 + 4
    length = 3 * 4 * 3 * 2
    entries = [
        (256, 3, 1, 4),
        (257, 3, 1, 3),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, after + 6),
        (277, 3, 1, 3),
        (278, 3, 1, 3),
        (279, 4, 1, length),
    ]
    directory = struct.pack("<H", len(entries))
    for entry in entries:
        directory += struct.pack("<HHII", *entry)
    bits = struct.pack("<3H", 16, 16, 16)
    strip = np.full(length // 2, 40000, "<u2").tobytes()
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + bits + strip
    )


def refusal(path: Path, channels: int = 3) -> str:
    """The error that reading ends with: one line that begins with the file."""
    with pytest.raises(PiggybackError) as caught:
        read_image(path, channels)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels, path = noise(channels=channels), tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    assert np.array_equal(read_image(path, channels), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_give_back_nearly_the_same(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels, path = smooth()[:, :, :channels], tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    read = read_image(path, channels)
    assert read.shape == pixels.shape
    assert np.abs(read.astype(int) - pixels).max() <= 12


def test_encode_writes_the_format_that_the_suffix_names() -> None:
    formats = {s: Image.open(io.BytesIO(encode(smooth(), s))).format for s in SUFFIXES}
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}
    assert formats == {s: kinds.get(s[1:], s[1:].upper()) for s in SUFFIXES}


def test_gray_becomes_three_equal_channels_and_rgb_becomes_luma(tmp_path: Path) -> None:
    gray, color = tmp_path / "gray.png", tmp_path / "color.png"
    Image.fromarray(noise()[:, :, 0]).save(gray)
    Image.fromarray(noise()).save(color)
    assert np.array_equal(read_image(gray, 1), noise()[:, :, :1])
    assert np.array_equal(read_image(gray, 3), np.repeat(noise()[:, :, :1], 3, axis=2))
    assert np.array_equal(read_image(color, 1), luma(noise()))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colors = noise(1, 8, seed=1)[0]
    indices = np.random.default_rng(2).integers(0, 8, (24, 30), dtype=np.uint8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colors.ravel().tolist())
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    assert np.array_equal(read_image(tmp_path / "a.png", 3), colors[indices])
    assert np.array_equal(read_image(tmp_path / "a.png", 1), luma(colors[indices]))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_0_and_255(tmp_path: Path, suffix: str) -> None:
    bits = noise()[:, :, 0] > 127
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    expected = bits[..., None].astype(np.uint8) * 255
    assert np.array_equal(read_image(tmp_path / f"a{suffix}", 1), expected)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}", 3), expected.repeat(3, axis=2))


TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_images_are_turned_as_their_exif_data_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    turn = TURNED[orientation]
    assert np.array_equal(read_image(tmp_path / "a.png", 3), turn(noise()))
    read = read_image(tmp_path / "a.jpg", 3).astype(int)
    assert np.abs(read - turn(smooth())).max() <= 12


def test_a_16_bit_gray_png_is_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 40000, np.uint16)).save(tmp_path / "a.png")
    assert "16 bits" in refusal(tmp_path / "a.png")
    assert "16 bits" in refusal(tmp_path / "a.png", 1)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_pngs_of_all_kinds_are_refused_not_clipped(
    tmp_path: Path, color_type: int, channels: int
) -> None:
    path = tmp_path / "a.png"
    png_by_hand(path, 16, color_type, channels)
    with Image.open(path) as image:
        image.load()  # Pillow has no objection to it
    assert "16 bits" in refusal(path)


def test_the_same_png_with_8_bits_is_read(tmp_path: Path) -> None:
    png_by_hand(tmp_path / "a.png", 8, 2, 3)
    assert np.array_equal(read_image(tmp_path / "a.png", 3), np.full((3, 4, 3), 9))


def test_a_16_bit_tiff_is_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 40000, np.uint16)).save(tmp_path / "gray.tif")
    rgb_tiff_of_16_bits(tmp_path / "rgb.tif")
    assert "16 bits" in refusal(tmp_path / "gray.tif")
    assert "16 bits" in refusal(tmp_path / "rgb.tif")


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_float_and_32_bit_tiffs_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.full((3, 4), 7, kind)).save(tmp_path / "a.tif")
    assert "32 bits" in refusal(tmp_path / "a.tif")


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
    assert np.array_equal(read_image(path, 3), noise())
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
    assert np.array_equal(read_image(path, 3), colors)
    palette.save(path, transparency=bytes([255] * 7 + [128]))
    assert "transparency" in refusal(path)
    gray = noise()[:, :, :1].clip(10)
    to_pil(gray).save(path, transparency=9)
    assert np.array_equal(read_image(path, 1), gray)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # damaged sizes would cost seconds
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
                read_image(path, 3)
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
    assert refusal(tmp_path / "empty.png") == "can't be read: not an image"
    assert refusal(tmp_path / "missing.png") == "no such file"
    assert "directory" in refusal(tmp_path / "folder.png")


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 30 // 2 - 1)
    assert refusal(tmp_path / "a.png") == "too many pixels"


def test_images_are_read_with_1_or_3_channels_only() -> None:
    for channels in (0, 2, 4):
        with pytest.raises(PiggybackError, match=f"1 or 3 channels, not {channels}"):
            from_pil(Image.fromarray(noise()), channels)


def test_pil_images_are_checked_like_files() -> None:
    assert np.array_equal(from_pil(to_pil(noise()), 3), noise())
    with pytest.raises(PiggybackError, match="transparency"):
        from_pil(Image.new("RGBA", (3, 3), (1, 2, 3, 4)), 3)
    with pytest.raises(PiggybackError, match="I;16"):
        from_pil(Image.fromarray(np.full((3, 4), 40000, np.uint16)), 1)


def test_open_image_gives_a_decoded_image_whose_file_is_closed(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert np.array_equal(np.asarray(image), noise())


def test_images_are_listed_by_name_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "A.JPG", "c.tiff", ".d.png", "._b.png", "notes.txt", "png", "e.gif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["A.JPG", "b.png", "c.tiff"]


def test_listing_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PiggybackError, match=r"nowhere can't be read: No such file") as caught:
        list_images(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_value_of_8_bits_goes_through_a_tensor_unchanged(channels: int) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pixels = np.concatenate([values, values.T.reshape(16, 16, 1), values[::-1]], axis=2)
    pixels = pixels[:, :, :channels]
    tensor = to_tensor(pixels)
    assert (tensor.dtype, tensor.shape) == (torch.uint8, (channels, 16, 16))
    assert torch.equal(tensor[0], torch.arange(256, dtype=torch.uint8).reshape(16, 16))
    normal = normalize(tensor)
    assert (normal.dtype, normal.min(), normal.max()) == (torch.float32, -1, 1)
    assert np.array_equal(to_pixels(normal), pixels)


def test_outputs_are_rounded_and_clipped() -> None:
    steps = torch.tensor([-9.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.0, 9.0])
    pixels = to_pixels(steps.reshape(1, 1, 6).requires_grad_())
    assert pixels.dtype == np.uint8
    assert pixels.ravel().tolist() == [0, 0, 0, 1, 255, 255]


def test_resizing_is_bicubic_and_leaves_what_fits() -> None:
    square = noise(20, 20)
    assert np.array_equal(resize(square, 20), square)
    for pixels in (smooth(), smooth()[:, :, :1]):
        resized = resize(pixels, 17)
        assert resized.shape == (17, 17, pixels.shape[2])
        expected = to_pil(pixels).resize((17, 17), Image.Resampling.BICUBIC)
        assert np.array_equal(resized, np.asarray(expected).reshape(resized.shape))


def test_a_grid_has_rows_of_rgb_images_with_white_gaps_between() -> None:
    gray, color = noise(5, 7, 1), noise(5, 7, 3)
    picture = grid([[gray, color, color], [color, gray, color]], gap=2)
    assert picture.shape == (2 * 5 + 2, 3 * 7 + 2 * 2, 3)
    assert np.array_equal(picture[:5, :7], gray.repeat(3, axis=2))
    assert np.array_equal(picture[7:, :7], color)
    assert np.array_equal(picture[7:, 18:], color)
    assert (picture[5:7] == 255).all()
    assert (picture[:, 7:9] == 255).all()
    assert grid([[color]]).shape == (5, 7, 3)
