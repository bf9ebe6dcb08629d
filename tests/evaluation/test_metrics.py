"""Claims about the metrics: they are the written-out formulas, each image for itself."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from piggyback_gan.evaluation.metric_names import IMAGE_METRICS
from piggyback_gan.evaluation.metrics import image_metrics, mean_metrics


def images(count: int, seed: int, channels: int = 3, size: tuple[int, int] = (20, 24)) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 6, generator=chance)
    fine = torch.rand(count, channels, *size, generator=chance)
    grown = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return 1.6 * (0.7 * grown + 0.3 * fine) - 0.8


def unit(image: Tensor) -> NDArray[np.float64]:
    return (image.double().numpy() + 1) / 2


def ssim(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5, the image mirrored at its borders."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.pad(values, ((0, 0), (5, 5), (5, 5)), mode="reflect")
        views = np.lib.stride_tricks.sliding_window_view(values, (11, 11), axis=(1, 2))
        return np.einsum("chwij,ij->chw", views, window)

    x, y = local_mean(first), local_mean(second)
    xx = local_mean(first * first) - x * x
    yy = local_mean(second * second) - y * y
    xy = local_mean(first * second) - x * y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * x * y + c1) * (2 * xy + c2) / ((x * x + y * y + c1) * (xx + yy + c2))
    return float(similarity.mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_metrics_are_the_written_out_formulas(channels: int) -> None:
    outputs, targets = images(3, 0, channels), images(3, 1, channels)
    outputs[2] = targets[2] + 0.05 * (outputs[2] - targets[2])
    found = image_metrics(outputs, targets)
    assert tuple(found) == IMAGE_METRICS
    for i in range(3):
        first, second = unit(outputs[i]), unit(targets[i])
        error = first - second
        assert found["l1"][i].item() == pytest.approx(np.abs(error).mean(), rel=1e-5)
        psnr = 10 * np.log10(1 / (error**2).mean())
        assert found["psnr"][i].item() == pytest.approx(psnr, rel=1e-5)
        assert found["ssim"][i].item() == pytest.approx(ssim(first, second), abs=1e-4)
    assert found["ssim"][2] > 0.9 > found["ssim"][0]


def test_black_against_white_is_the_whole_range() -> None:
    found = image_metrics(-torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16))
    assert found["l1"].item() == 1
    assert found["psnr"].item() == 0
    assert found["ssim"].item() == pytest.approx(0, abs=1e-3)


def test_equal_images_have_no_error_100_db_and_an_ssim_of_1() -> None:
    pictures = torch.cat([images(2, 0), torch.zeros(1, 3, 20, 24), torch.ones(1, 3, 20, 24)])
    found = image_metrics(pictures, pictures.clone())
    assert found["l1"].tolist() == [0] * 4
    assert found["psnr"].tolist() == pytest.approx([100] * 4)
    assert found["ssim"].tolist() == pytest.approx([1] * 4, abs=1e-6)


def test_more_noise_is_worse_by_every_metric() -> None:
    target = images(1, 0)
    chance = torch.Generator().manual_seed(2)
    direction = torch.randn(target.shape, generator=chance)
    found = [image_metrics(target + s * direction, target) for s in (0.01, 0.05, 0.2)]
    l1, psnr, similarity = ([f[name].item() for f in found] for name in IMAGE_METRICS)
    assert l1 == sorted(l1)
    assert psnr == sorted(psnr, reverse=True)
    assert similarity == sorted(similarity, reverse=True)


def test_values_beyond_the_range_are_clipped_as_in_a_file() -> None:
    outputs, targets = 3 * images(2, 0), images(2, 1)
    clipped = image_metrics(outputs.clamp(-1, 1), targets)
    for name, values in image_metrics(outputs, targets).items():
        assert torch.equal(values, clipped[name])


def test_an_image_has_the_same_metrics_in_any_batch() -> None:
    outputs, targets = images(5, 0), images(5, 1)
    together = image_metrics(outputs, targets)
    for i in range(5):
        alone = image_metrics(outputs[i : i + 1], targets[i : i + 1])
        for name in IMAGE_METRICS:
            assert together[name].shape == (5,)
            assert alone[name].item() == pytest.approx(together[name][i].item(), rel=1e-5)


def test_means_are_over_images_not_over_batches() -> None:
    outputs, targets = images(5, 0), images(5, 1)
    whole = image_metrics(outputs, targets)
    batches = (
        image_metrics(outputs[i : i + 2], targets[i : i + 2]) for i in range(0, 5, 2)
    )  # 2, 2 and 1
    means = mean_metrics(batches)
    assert tuple(means) == IMAGE_METRICS
    for name in IMAGE_METRICS:
        assert means[name] == pytest.approx(whole[name].mean().item(), rel=1e-5)


def test_the_smallest_image_that_can_be_judged_has_11_pixels_a_side() -> None:
    pair = images(1, 0, size=(11, 11)), images(1, 1, size=(11, 11))
    found = image_metrics(*pair)["ssim"].item()
    assert found == pytest.approx(ssim(unit(pair[0][0]), unit(pair[1][0])), abs=1e-4)
