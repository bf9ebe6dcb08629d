"""Claims about 95 % intervals: they hold what they should, as often as they should."""

import pytest
import torch

from piggyback_gan.evaluation.bootstrap import (
    NORMAL,
    frechet_standard_error,
    interval_of_sums,
    mean_interval,
    resampled_counts,
)


def normal(*shape: int, seed: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def test_a_resample_has_as_many_images_as_there_are() -> None:
    counts = resampled_counts(7, 50, seed=0)
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()
    assert len(counts.unique(dim=0)) > 40


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = normal(30, seed=1)
    assert mean_interval(values, 3) == mean_interval(values.clone(), 3)
    assert mean_interval(values, 3) != mean_interval(values, 4)


def test_a_means_interval_is_about_two_standard_errors_each_way() -> None:
    values = normal(200, seed=0)
    low, high = mean_interval(values, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * NORMAL * values.std().item() / 200**0.5, rel=0.15)


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says() -> None:
    intervals = [mean_interval(normal(40, seed=seed), 0) for seed in range(100)]
    assert 86 <= sum(low < 0 < high for low, high in intervals) <= 100


def test_images_without_differences_have_an_interval_without_width() -> None:
    assert mean_interval(torch.full((5,), 0.25, dtype=torch.float64), 0) == (0.25, 0.25)


def test_a_figure_of_sums_is_resampled_as_a_whole() -> None:
    values = torch.stack([normal(50, seed=0) + 5, normal(50, seed=1) + 5], 1)
    low, high = interval_of_sums(values, lambda sums: sums[:, 0] / sums[:, 1], 0)
    assert low < (values[:, 0].sum() / values[:, 1].sum()).item() < high
    twice = interval_of_sums(2 * values, lambda sums: sums[:, 0] / sums[:, 1], 0)
    assert twice == pytest.approx((low, high))


def test_the_frechet_distances_error_is_its_scatter_over_sets() -> None:
    from piggyback_gan.evaluation.distances import frechet_distance

    sets = [(normal(60, 4, seed=s), normal(60, 4, seed=s + 500) + 0.5) for s in range(60)]
    scatter = torch.tensor([frechet_distance(*pair) for pair in sets]).std().item()
    errors = [frechet_standard_error(*pair, partners=False, seed=0) for pair in sets[:20]]
    assert sum(errors) / 20 == pytest.approx(scatter, rel=0.3)


def test_partners_that_are_alike_move_together() -> None:
    made = normal(50, 4, seed=0)
    real = made + 0.01 * normal(50, 4, seed=1)
    together = frechet_standard_error(made, real, partners=True, seed=0)
    assert together < frechet_standard_error(made, real, partners=False, seed=0) / 10
