"""Claims about images as tensors and on a screen: round trips, resizing, display, grids."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_files import DEPTHS, classes, form, noise, smooth
from piggyback_gan.images.display import display, grid
from piggyback_gan.images.encode import to_pil
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.tensors import normalize, resize, to_pixels, to_tensor


def test_8_bit_values_are_the_floats_that_they_always_were() -> None:
    pixels = noise()
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 127.5 - 1
    assert torch.equal(to_tensor(pixels, form(3)), expected)
    assert (expected.dtype, expected.shape) == (torch.float32, (3, 24, 30))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_every_integer_goes_through_a_tensor_unchanged(depth: Any, channels: int) -> None:
    side = 16 if depth == "uint8" else 256
    values = np.arange(side * side, dtype=depth).reshape(side, side, 1)
    pixels = np.concatenate([np.roll(values, i, 0) for i in range(channels)], axis=2)
    tensor = to_tensor(pixels, form(channels, depth))
    assert (tensor.dtype, tensor.min(), tensor.max()) == (torch.float32, -1, 1)
    back = to_pixels(tensor, form(channels, depth))
    assert back.dtype == depth
    assert np.array_equal(back, pixels)


@settings(deadline=None)
@given(low=st.integers(0, 65000), width=st.integers(1, 65535), seed=st.integers(0, 2**32 - 1))
def test_16_bits_go_through_unchanged_whatever_the_range(low: int, width: int, seed: int) -> None:
    format = form(1, "uint16", low=float(low), high=float(low + width))
    pixels = noise(20, 20, 1, seed, "uint16")
    tensor = to_tensor(pixels, format)
    assert np.array_equal(to_pixels(tensor, format), pixels)
    inside = (pixels >= low) & (pixels <= low + width)
    assert np.array_equal(inside[..., 0], (tensor[0].abs() <= 1 + 1e-6).numpy())


@settings(deadline=None)
@given(
    low=st.floats(-1e30, 1e30, allow_subnormal=False),  # which other tests flush
    width=st.floats(1e-3, 1e30),
    seed=st.integers(0, 2**32 - 1),
)
def test_floats_come_back_as_near_as_a_tensor_can_hold_them(
    low: float, width: float, seed: int
) -> None:
    width = max(width, abs(low) * 1e-3)
    format = form(1, "float32", low=low, high=low + width)
    shares = np.random.default_rng(seed).random((8, 8, 1))
    pixels = (low + width * shares).astype(np.float32)
    back = to_pixels(to_tensor(pixels, format), format)
    assert back.dtype == np.float32
    error = np.abs(back.astype(np.float64) - pixels) / (abs(low) + width)
    assert error.max() < 3e-7


def test_floats_are_not_rounded_and_may_lie_beyond_the_range() -> None:
    format = form(1, "float32", low=-10.0, high=10.0)
    pixels = np.array([[[-20.0], [0.25], [12.5]]], dtype=np.float32)
    tensor = to_tensor(pixels, format)
    assert tensor.ravel().tolist() == [-2.0, pytest.approx(0.025), 1.25]
    assert np.array_equal(to_pixels(tensor, format), pixels)


def test_outputs_are_rounded_and_clipped() -> None:
    for depth, top in (("uint8", 255), ("uint16", 65535)):
        half = top / 2
        steps = torch.tensor([-9.0, -1.0, -1 + 0.4 / half, -1 + 0.6 / half, 1.0, 9.0])
        pixels = to_pixels(steps.reshape(1, 1, 6).requires_grad_(), form(1, depth))
        assert pixels.dtype == depth
        assert pixels.ravel().tolist() == [0, 0, 0, 1, top, top]


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_classes_become_one_hot_and_come_back(depth: Any) -> None:
    format = classes(5, depth)
    indices = np.random.default_rng(0).integers(0, 5, (6, 7, 1)).astype(depth)
    tensor = to_tensor(indices, format)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (5, 6, 7))
    for index in range(5):
        assert torch.equal(tensor[index] == 1, torch.from_numpy(indices[..., 0] == index))
    assert set(tensor.unique().tolist()) == {-1.0, 1.0}
    back = to_pixels(tensor * 0.3, format)
    assert back.dtype == depth
    assert np.array_equal(back, indices)


@pytest.mark.parametrize("format", [form(3), form(2, "uint16"), form(1, "float32"), classes(4)])
def test_a_batch_has_the_values_of_its_images(format: ImageFormat) -> None:
    channels = format.stored_channels
    images = [noise(5, 6, channels, seed, format.depth) % 4 for seed in range(3)]
    batch = normalize(np.stack([image.transpose(2, 0, 1) for image in images]), format)
    assert torch.equal(batch, torch.stack([to_tensor(image, format) for image in images]))
    none = normalize(np.empty((0, channels, 5, 6), format.depth), format)
    assert none.shape == (0, format.channels, 5, 6)


def test_resizing_is_bicubic_and_leaves_what_fits() -> None:
    square = noise(20, 20)
    assert np.array_equal(resize(square, 20), square)
    for pixels in (smooth(), smooth()[:, :, :1]):
        resized = resize(pixels, 17)
        assert resized.shape == (17, 17, pixels.shape[2])
        expected = to_pil(pixels).resize((17, 17), Image.Resampling.BICUBIC)
        assert np.array_equal(resized, np.asarray(expected).reshape(resized.shape))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_every_format_is_resized_alike(depth: Any, channels: int) -> None:
    rough = noise(24, 30, channels, depth=depth)
    resized = resize(rough, 17)
    assert (resized.dtype, resized.shape) == (depth, (17, 17, channels))
    for i in range(channels):
        plane = Image.fromarray(rough[..., i].astype(np.float32))
        expected = np.asarray(plane.resize((17, 17), Image.Resampling.BICUBIC), np.float64)
        if depth != "float32":  # where bicubic swings beyond what integers hold, they end there
            expected = expected.round().clip(0, np.iinfo(depth).max)
        assert np.abs(resized[..., i] - expected).max() <= (1 if depth == "uint8" else 0)


def test_label_maps_are_resized_to_indices_that_are_there() -> None:
    indices = np.zeros((8, 8, 1), np.uint8)
    indices[:, 4:] = 9
    assert np.array_equal(resize(indices, 4, labels=True), indices[::2, ::2])
    assert np.array_equal(resize(indices, 16, labels=True), indices.repeat(2, 0).repeat(2, 1))
    assert set(np.unique(resize(indices, 5, labels=True))) == {0, 9}


def test_8_bit_gray_and_rgb_are_displayed_as_they_are() -> None:
    assert np.array_equal(display(noise(), form(3)), noise())
    gray = noise(channels=1)
    assert np.array_equal(display(gray, form(1)), gray.repeat(3, axis=2))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_format_is_displayed_as_8_bit_rgb(depth: Any, channels: int) -> None:
    shown = display(noise(channels=channels, depth=depth), form(channels, depth))
    assert (shown.dtype, shown.shape) == (np.uint8, (24, 30, 3))
    assert shown.std() > 10


def test_what_is_displayed_goes_from_low_to_high() -> None:
    values = np.array([[[90.0], [100.0], [150.0], [200.0], [300.0]]])
    for depth in ("uint16", "float32"):
        shown = display(values.astype(depth), form(1, depth, low=100.0, high=200.0))
        assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_transparent_pixels_are_displayed_on_white() -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert display(pixels, form(4)).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]


def test_every_class_is_displayed_in_a_colour_of_its_own() -> None:
    indices = np.arange(40, dtype=np.uint8).reshape(5, 8, 1)
    shown = display(indices, classes(40))
    assert (shown.dtype, shown.shape) == (np.uint8, (5, 8, 3))
    assert len({tuple(color) for color in shown.reshape(-1, 3).tolist()}) == 40
    assert np.array_equal(shown, display(indices, classes(40)))


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
