"""Claims about distances between sets of features: textbook formulas, zero for equal sets, no bias."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_sets import refusal
from piggyback_gan.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    weighted_frechet_distance,
)


def features(count: int, size: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated features, as those of networks are."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(99)).double()
    return torch.randn(count, size, generator=chance).double() @ mixing + shift


def textbook_frechet(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    difference = x.mean(0) - y.mean(0)
    return float(difference @ difference + np.trace(first + second - 2 * root.real))


@pytest.mark.parametrize(("first", "second"), [(60, 50), (40, 60), (25, 30)])
def test_the_frechet_distance_is_the_textbooks(first: int, second: int) -> None:
    x, y = features(first, 20, 0), 1.5 * features(second, 20, 1, shift=0.3)
    expected = textbook_frechet(x.numpy(), y.numpy())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6)


def test_with_fewer_images_than_features_it_is_still_the_textbooks() -> None:
    x, y = features(8, 20, 0), features(11, 20, 1, shift=0.3)
    expected = textbook_frechet(x.numpy(), y.numpy())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [8, 60])
def test_identical_sets_have_distance_zero(count: int) -> None:
    x = features(count, 20, 0)
    scale = x.var(0).sum().item()
    assert abs(frechet_distance(x, x.clone())) < 1e-9 * scale
    assert kernel_distance(x, x.clone(), partners=True) == (0, 0)


def test_moving_all_features_adds_the_square_of_the_way() -> None:
    x = features(30, 20, 0)
    assert frechet_distance(x, x + 0.5) == pytest.approx(20 * 0.5**2, rel=1e-9)


def test_counts_are_repeated_images() -> None:
    x, y = features(12, 20, 0), features(9, 20, 1)
    counts = torch.tensor([3, 0, 1, 1, 2, 0, 0, 1, 1, 1, 1, 1])
    repeated = x.repeat_interleave(counts, 0)
    found = weighted_frechet_distance(x, y, counts.double(), torch.ones(9).double())
    assert found == pytest.approx(frechet_distance(repeated, y), rel=1e-9)


def kernel(x: Tensor, y: Tensor) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def slow_kernel_distance(x: Tensor, y: Tensor, *, partners: bool = False) -> float:
    n, m = len(x), len(y)
    first = [kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
    second = [kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j]
    cross = [kernel(x[i], y[j]) for i in range(n) for j in range(m) if not partners or i != j]
    return float(np.mean(first) + np.mean(second) - 2 * np.mean(cross))


@pytest.mark.parametrize(("count", "partners"), [(7, False), (9, False), (7, True)])
def test_the_kernel_distance_is_the_papers_unbiased_estimate(count: int, partners: bool) -> None:
    x, y = features(7, 5, 0), features(count, 5, 1, shift=0.2)
    value, _ = kernel_distance(x, y, partners=partners)
    assert value == pytest.approx(slow_kernel_distance(x, y, partners=partners), rel=1e-9)


def test_the_standard_error_is_the_jackknifes() -> None:
    x, y = features(6, 5, 0), features(8, 5, 1)

    def spread(values: list[float]) -> float:
        found = np.array(values)
        return float((len(found) - 1) * found.var())

    def without(z: Tensor, i: int) -> Tensor:
        return torch.cat([z[:i], z[i + 1 :]])

    apart = spread([slow_kernel_distance(without(x, i), y) for i in range(6)])
    apart += spread([slow_kernel_distance(x, without(y, i)) for i in range(8)])
    assert kernel_distance(x, y)[1] == pytest.approx(apart**0.5, rel=1e-9)
    y = y[:6]
    pairs = [slow_kernel_distance(without(x, i), without(y, i), partners=True) for i in range(6)]
    found = kernel_distance(x, y, partners=True)[1]
    assert found == pytest.approx(spread(pairs) ** 0.5, rel=1e-9)


def test_the_kernel_distance_has_no_bias_and_its_error_is_its_scatter() -> None:
    found = [
        kernel_distance(features(20, 8, seed), features(20, 8, 1000 + seed, shift=0.5))
        for seed in range(200)
    ]
    values, errors = map(np.array, zip(*found, strict=True))
    many, _ = kernel_distance(features(3000, 8, 5000), features(3000, 8, 5001, shift=0.5))
    assert values.mean() == pytest.approx(many, abs=3 * values.std() / 200**0.5)
    assert np.mean(errors**2) ** 0.5 == pytest.approx(values.std(), rel=0.3)


def test_partners_that_look_alike_do_not_hide_that_their_sets_differ() -> None:
    scenes = [features(30, 8, seed) for seed in range(100)]
    apart = [kernel_distance(scene, 1.3 * scene, partners=True)[0] for scene in scenes]
    hidden = [kernel_distance(scene, 1.3 * scene)[0] for scene in scenes]
    many, _ = kernel_distance(features(3000, 8, 5000), 1.3 * features(3000, 8, 5001))
    assert np.mean(apart) == pytest.approx(many, abs=3 * np.std(apart) / 10)
    assert np.mean(hidden) < many - 3 * np.std(hidden) / 10


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_what_has_no_distance_is_refused(distance: Callable[[Tensor, Tensor], object]) -> None:
    x = features(5, 4, 0)
    assert "a set of 1 is too small for a distance" in refusal(lambda: distance(x, x[:1]))
    assert "NaN" in refusal(lambda: distance(x, x / 0))
