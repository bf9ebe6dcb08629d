"""Claims about tiles: positions and weights, blending, shared statistics of norm layers, memory."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from data_sets import refusal
from piggyback_gan.inference.shared_norm import Window, with_shared_norms
from piggyback_gan.inference.tiled import ReadTile, sample_windows, translated_strips
from piggyback_gan.inference.tiling import Tiling, lay_tiles
from piggyback_gan.inference.translate import translate_batch
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator


@pytest.fixture(autouse=True, scope="module")
def _without_denormal_numbers() -> Iterator[None]:
    """Flush denormals, which make untrained networks many times slower; only in this module."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


RESNET = GeneratorConfig(name="resnet-6", ngf=4, init="kaiming")
PLAIN = GeneratorConfig(name="resnet-6", ngf=4, norm="none", init="kaiming")


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw (3, H, W) of varying light and colour, so that the statistics of tiles differ."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=chance) * 2 - 1
    fine = torch.rand(3, height, width, generator=chance) * 2 - 1
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0] * 0.7 + fine * 0.3


def generator(config: GeneratorConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_generator(config).eval()


class Strided(nn.Module):
    """Strided and transposed convolution; an output depends on inputs up to 5 pixels away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


def untiled(network: nn.Module, config: GeneratorConfig, image: Tensor) -> Tensor:
    return translate_batch(network, config, image[None])[0]


def tiled(network: nn.Module, config: GeneratorConfig, image: Tensor, tiling: Tiling) -> Tensor:
    return translate_batch(network, config, image[None], tiling)[0]


def reader(image: Tensor) -> ReadTile:
    return lambda rows, columns: image[
        :, torch.from_numpy(rows)[:, None], torch.from_numpy(columns)
    ]


# Where tiles lie


@given(
    length=st.integers(1, 700),
    tile=st.integers(2, 40).map(lambda n: 4 * n),
    overlap=st.integers(0, 80),
)
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(
    length: int, tile: int, overlap: int
) -> None:
    overlap = min(overlap, tile // 2)
    line = lay_tiles(length, RESNET, Tiling(tile=tile, overlap=overlap))
    padded = len(line.indices)
    total, reached = np.zeros(padded), np.zeros(length, int)
    for index, start in enumerate(line.starts):
        assert 0 <= start <= padded - line.size
        total[start : start + line.size] += line.weights[index]
        first, last = line.reach(index)
        reached[first:last] += 1
        inner, weights = line.weights_in_reach(index)
        assert len(line.pixels(index)[inner]) == len(weights) == last - first
    assert np.allclose(total, 1, atol=1e-5)
    assert all((row >= 0).all() for row in line.weights)
    assert reached.min() >= 1
    shared = [a + line.size - b for a, b in zip(line.starts, line.starts[1:], strict=False)]
    assert all(pixels >= overlap for pixels in shared)
    if overlap % 4 == 0:
        assert all(start % 4 == 0 for start in line.starts), "out of phase with the strides"


def test_the_quarter_of_an_overlap_next_to_a_tiles_edge_does_not_count() -> None:
    line = lay_tiles(1024, RESNET, Tiling(tile=128, overlap=64))
    for weights in line.weights[1:-1]:
        assert (weights[:16] == 0).all()
        assert (weights[-16:] == 0).all()
        assert (weights[48:-48] == 1).all()
    assert (line.weights[0, :48] == 1).all(), "no edge where the image ends"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tile": 50, "overlap": 0}, "invalid tile: found 50, but resnet-6 takes multiples of 4"),
        ({"tile": 4, "overlap": 0}, "from 8 on: give 8"),
        ({"tile": 64, "overlap": 33}, "invalid overlap: found 33, give one from 0 to half"),
        ({"tile": 64, "overlap": -1}, "invalid overlap: found -1"),
        ({"tile": 0, "overlap": 0}, "invalid tile: found 0"),
        ({"tile": 64, "overlap": 0, "norm_from": "moon"}, "unknown norm_from: found 'moon'"),
        ({"tile": 64, "overlap": 0, "sample_pixels": 0}, "invalid sample_pixels: found 0"),
    ],
)
def test_tilings_that_can_not_be_are_refused_in_one_line(
    settings: dict[str, object], words: str
) -> None:
    network, image = generator(RESNET), picture(9, 9)
    assert words in refusal(lambda: tiled(network, RESNET, image, Tiling(**settings)))


# What tiles make together


@pytest.mark.parametrize("size", [(150, 201), (64, 300), (7, 131)], ids=str)
def test_without_norms_and_with_context_enough_tiled_is_untiled_everywhere(
    size: tuple[int, int],
) -> None:
    network, image = Strided(), picture(*size)
    expected = untiled(network, RESNET, image)
    # A quarter of the overlap is more than the 5 pixels that the network looks around.
    found = tiled(network, RESNET, image, Tiling(tile=64, overlap=24))
    assert expected.std() > 0.02
    assert (found - expected).abs().max() < 1e-5


def test_without_an_overlap_seams_are_seen() -> None:
    network, image = Strided(), picture(64, 256)
    bare = tiled(network, RESNET, image, Tiling(tile=64, overlap=0))
    assert (bare - untiled(network, RESNET, image)).abs().max() > 1e-2


def test_a_whole_resnet_in_tiles_is_untiled_everywhere_too() -> None:
    network, image = generator(PLAIN), picture(300, 610)
    expected = untiled(network, PLAIN, image)
    found = tiled(network, PLAIN, image, Tiling(tile=520, overlap=260))
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4


def test_an_image_within_one_tile_has_the_very_bits_of_an_untiled_one() -> None:
    network, image = generator(RESNET), picture(61, 47)
    for norm_from in ("tile", "image"):
        found = tiled(network, RESNET, image, Tiling(tile=64, overlap=16, norm_from=norm_from))
        assert torch.equal(found, untiled(network, RESNET, image))


@pytest.mark.parametrize("norm_from", ["tile", "image"])
def test_a_u_net_takes_tiles_with_any_overlap(norm_from: str) -> None:
    config = GeneratorConfig(name="unet-64", ngf=4)
    image = picture(130, 210)
    found = tiled(
        generator(config), config, image, Tiling(tile=128, overlap=32, norm_from=norm_from)
    )
    assert found.shape == (3, 130, 210)
    assert found.isfinite().all()
    assert found.std() > 0


def test_strips_come_from_top_to_bottom_and_none_is_higher_than_a_tile() -> None:
    image = picture(300, 100)
    asked: list[tuple[int, int]] = []

    def read(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Tensor:
        asked.append((len(rows), len(columns)))
        return reader(image)(rows, columns)

    strips = translated_strips(Strided(), RESNET, (300, 100), read, Tiling(tile=64, overlap=16))
    first = next(strips)
    assert len(asked) == 2, "the first strip is there when its own tiles are done"
    rest = list(strips)
    assert set(asked) == {(64, 64)}
    assert all(strip.shape[1] <= 64 for strip in (first, *rest))
    assert first.shape[1] + sum(strip.shape[1] for strip in rest) == 300


# Instance norm


def test_with_statistics_of_the_image_tiles_are_nearly_as_if_untiled() -> None:
    network, image = generator(RESNET), picture(190, 260)
    expected = untiled(network, RESNET, image)
    off = {
        norm_from: distance(
            tiled(network, RESNET, image, Tiling(tile=128, overlap=64, norm_from=norm_from)),
            expected,
        )
        for norm_from in ("tile", "image")
    }
    assert off["image"] < 0.05 * off["tile"], off


def test_with_statistics_of_a_sample_tiles_agree_as_well() -> None:
    network, image = generator(RESNET), picture(190, 260)
    own = Tiling(tile=128, overlap=64)
    sampled = Tiling(tile=128, overlap=64, norm_from="image", sample_pixels=2 * 128**2)

    windows = sample_windows(RESNET, (190, 260), reader(image), sampled)
    assert sum(window.image[0].numel() for window in windows) == 2 * 128**2
    assert all((window.rows == 0).any() or (window.columns == 0).any() for window in windows)
    # The sample is not the image, but it is the same sample for all tiles.
    expected = untiled(with_shared_norms(network, windows), RESNET, image)
    off = distance(tiled(network, RESNET, image, sampled), expected)
    assert off < 0.05 * distance(
        tiled(network, RESNET, image, own), untiled(network, RESNET, image)
    )


def test_statistics_are_those_of_instance_norm_where_the_window_is_the_whole_image() -> None:
    network, image = generator(RESNET), picture(40, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shared = with_shared_norms(network, [Window(image, torch.ones(40), torch.ones(64))])
    with torch.inference_mode():
        assert torch.allclose(shared(image[None]), network(image[None]), atol=1e-5)
        other = picture(40, 64, seed=1)
        assert not torch.allclose(shared(other[None]), network(other[None]), atol=1e-2)
    assert any(isinstance(module, nn.InstanceNorm2d) for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert next(shared.parameters()) is next(network.parameters()), "weights are not copied"


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_other_norms_need_no_statistics_of_the_image(norm: str) -> None:
    config = GeneratorConfig(name="resnet-6", ngf=4, norm=norm)
    network = generator(config)
    assert with_shared_norms(network, [Window(picture(8, 8), torch.ones(8), torch.ones(8))]) is (
        network
    )


# Memory


def test_memory_beyond_the_image_does_not_grow_with_it(tmp_path: Path) -> None:
    program = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from torch import nn
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.strips import write_strips
from piggyback_gan.inference.outputs import Outcome
from piggyback_gan.inference.tiling import Tiling
from piggyback_gan.inference.translate import translate_files
from piggyback_gan.networks.config import GeneratorConfig

def translate(side):
    source = Path(sys.argv[1]) / f"{side}.tif"
    strips = (np.full((50, side, 3), top % 251, np.uint8) for top in range(0, side, 50))
    write_strips(source, strips, (side, side, 3), "uint8")
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh())
    (outcome,) = translate_files(network, GeneratorConfig(), [Outcome(source, source.with_suffix(".png"))],
        (ImageFormat(), ImageFormat()), tiling=Tiling(tile=256, overlap=32))
    assert outcome.problem is None, outcome.problem
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

torch.set_num_threads(1)
small = translate(300)
print(translate(3000) - small)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The input takes 27 MB, as 4 bytes a pixel in Pillow 36 more. As float32, and once more as the
    # network's output, it would be 216 MB.
    assert int(done.stdout) < 27 + 36 + 60
