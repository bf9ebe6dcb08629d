"""Claims about translating images of any size: tensors and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from data_sets import refusal
from image_files import noise
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import read_image
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.outputs import Outcome, plan_outputs
from piggyback_gan.inference.tiling import Tiling
from piggyback_gan.inference.translate import translate_batch, translate_files
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from translated import RGB, expected_pixels, files

SIZES = [(1, 1), (5, 3), (1, 40), (37, 51), (64, 64), (130, 70)]
FITTING = {"resnet-6": [(8, 8), (12, 20), (64, 64), (132, 72)], "unet-64": [(64, 64), (128, 64)]}


def batch(height: int, width: int, channels: int = 3, count: int = 1) -> Tensor:
    chance = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(count, channels, height, width, generator=chance) * 2 - 1


def small(name: str, **settings: int) -> tuple[GeneratorConfig, nn.Module]:
    """A generator whose outputs are far from gray."""
    config = GeneratorConfig(name=name, ngf=8, init="kaiming", **settings)
    torch.manual_seed(0)
    return config, build_generator(config).eval()


# Tensors


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_of_any_size_come_back_in_their_size(name: str, size: tuple[int, int]) -> None:
    config, generator = small(name)
    images = batch(*size, count=2)
    given = images.clone()
    outputs = translate_batch(generator, config, images)
    assert (outputs.shape, outputs.dtype) == ((2, 3, *size), torch.float32)
    assert outputs.isfinite().all()
    assert outputs.abs().max() <= 1
    assert torch.equal(images, given)


@pytest.mark.parametrize(("name", "size"), [(n, size) for n in FITTING for size in FITTING[n]])
def test_what_fits_is_translated_by_the_plain_network(name: str, size: tuple[int, int]) -> None:
    config, generator = small(name)
    images = batch(*size, count=2)
    with torch.inference_mode():
        expected = generator(images)
    assert expected.std() > 0.1
    assert torch.equal(translate_batch(generator, config, images), expected)


@pytest.mark.parametrize(
    ("name", "size", "padded"),
    [
        ("resnet-6", (37, 51), ((1, 2), (0, 1))),
        ("resnet-6", (1, 3), ((3, 4), (2, 3))),
        ("unet-64", (37, 70), ((13, 14), (29, 29))),
    ],
)
def test_what_does_not_fit_is_mirrored_all_around_and_cropped_back(
    name: str, size: tuple[int, int], padded: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    config, generator = small(name)
    images = batch(*size)
    mirrored = np.pad(images.numpy(), ((0, 0), (0, 0), *padded), mode="symmetric")
    with torch.inference_mode():
        whole = generator(torch.from_numpy(mirrored))
    (top, _), (left, _) = padded
    expected = whole[:, :, top : top + size[0], left : left + size[1]]
    assert torch.equal(translate_batch(generator, config, images), expected)


def test_outputs_have_the_networks_output_channels() -> None:
    config, generator = small("resnet-6", input_channels=1, output_channels=3)
    assert translate_batch(generator, config, batch(9, 11, 1)).shape == (1, 3, 9, 11)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8), (8, 8)])
def test_wrong_channels_and_shapes_are_refused(shape: tuple[int, ...]) -> None:
    config, generator = small("resnet-6")
    message = refusal(lambda: translate_batch(generator, config, torch.zeros(shape)))
    assert message == (
        f"expected float images (B, 3, H, W) in [-1, 1], found torch.float32 {shape}"
    )


def test_outputs_carry_no_gradient_and_no_padding_along() -> None:
    config, generator = small("resnet-6")
    output = translate_batch(generator, config, batch(5, 3).requires_grad_())
    assert not output.requires_grad
    assert output.untyped_storage().nbytes() == output.numel() * 4


# Files


def test_files_of_mixed_sizes_are_translated_in_batches_of_one_size(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    sizes = [(9, 11), (9, 11), (9, 11), (5, 3), (9, 11), (9, 11)]
    for i, size in enumerate(sizes):
        Image.fromarray(noise(*size, seed=i)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    out.mkdir()
    planned = plan_outputs([tmp_path], out)
    seen: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = generator
            self.batches: list[int] = []

        def forward(self, images: Tensor) -> Tensor:
            self.batches.append(len(images))
            return self.inner(images)

    counting = Counting()
    outcomes = translate_files(counting, config, planned, RGB, batch_size=2, on_done=seen.append)
    assert outcomes == planned
    assert counting.batches == [2, 1, 1, 2]
    assert seen == [2, 3, 4, 6, 6]
    for source, output in ((o.source, o.output) for o in outcomes):
        difference = read_image(output, ImageFormat()).astype(int) - expected_pixels(
            generator, config, source
        )
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("tiling", [None, Tiling(tile=32, overlap=8)], ids=["whole", "tiled"])
@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        (ImageFormat(channels=1, depth="uint16", low=0, high=65535), ".png"),
        (ImageFormat(channels=3, depth="uint16", low=0, high=65535), ".png"),
        (ImageFormat(channels=5, depth="float32", low=-3, high=7), ".tif"),
        (ImageFormat(channels=4, labels=True), ".png"),
    ],
    ids=["gray16", "rgb16", "five floats", "labels"],
)
def test_files_of_every_format_are_taken_and_made(
    tmp_path: Path, format: ImageFormat, suffix: str, tiling: Tiling | None
) -> None:
    config, generator = small(
        "resnet-6", input_channels=format.channels, output_channels=format.channels
    )
    chance = np.random.default_rng(0)
    high = format.channels if format.labels else format.high
    pixels = chance.uniform(0, high, (40, 51, format.stored_channels)).astype(format.depth)
    source = tmp_path / f"a{suffix}"
    source.write_bytes(encode(pixels, suffix))
    (tmp_path / "out").mkdir()
    planned = plan_outputs([source], tmp_path / "out", output_format=format)
    (outcome,) = translate_files(generator, config, planned, (format, format), tiling=tiling)
    assert outcome.problem is None
    assert outcome.output.name == f"a{suffix}"
    expected = translate_batch(generator, config, to_tensor(pixels, format)[None], tiling)[0]
    found = read_image(outcome.output, format)
    assert found.dtype == format.depth
    assert np.array_equal(found, to_pixels(expected, format))


def test_an_output_that_its_kind_of_file_can_not_hold_is_one_files_problem(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    files(tmp_path, "b.webp")
    Image.fromarray(noise(1, 16384)).save(tmp_path / "a.png")
    planned = [
        Outcome(tmp_path / "a.png", tmp_path / "out.webp"),
        Outcome(tmp_path / "b.webp", tmp_path / "out.png"),
    ]
    first, second = translate_files(generator, config, planned, RGB)
    assert first.problem == (
        f"{tmp_path / 'a.png'}: .webp files can't hold 16384x1 pixels with 3 channels of uint8: "
        ".png or .tif can"
    )
    assert second.problem is None


def test_an_unreadable_file_is_said_and_the_others_are_done(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    files(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_text("hello")
    out = tmp_path / "out"
    out.mkdir()
    planned = plan_outputs([tmp_path], out)
    outcomes = translate_files(generator, config, planned, RGB, batch_size=8)
    problems = {outcome.source.name: outcome.problem for outcome in outcomes}
    assert problems.pop("b.png") == f"{tmp_path / 'b.png'}: can't be read: not an image"
    assert problems == {"a.png": None, "c.png": None}
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]


def test_an_output_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    source = files(tmp_path, "a.png") / "a.png"
    planned = [Outcome(source, tmp_path / "nowhere" / "a.png")]
    message = refusal(lambda: translate_files(generator, config, planned, RGB, batch_size=1))
    assert "nowhere/a.png can't be written" in message
