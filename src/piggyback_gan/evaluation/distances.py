"""Frechet distance and kernel distance between the features of two sets of images."""

import torch
from torch import Tensor

from piggyback_gan.errors import PiggybackError

# Shapes: N, M images of the two sets, F features of an image.


def frechet_distance(first_NF: Tensor, second_MF: Tensor) -> float:
    """Compute the Frechet distance between normal distributions fitted to two sets (Heusel et al. 2017, FID).

    `|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))`, covariances with N - 1. It is biased upwards,
    the more so the fewer images there are.

    Args:
        first_NF, second_MF: float64 (N, F) and (M, F), at least two images each.

    Returns:
        At least 0, up to rounding; in squared units of the features.

    Raises:
        PiggybackError: a set with fewer than two images, or values that are not finite.
    """
    _check(first_NF, second_MF, least=2)
    ones = (torch.ones(len(x), dtype=torch.float64) for x in (first_NF, second_MF))
    return weighted_frechet_distance(first_NF, second_MF, *ones)


def weighted_frechet_distance(
    first_NF: Tensor, second_MF: Tensor, first_counts_N: Tensor, second_counts_M: Tensor
) -> float:
    """Compute `frechet_distance` of sets in which each image is repeated by its count.

    Args:
        first_NF, second_MF: float64 (N, F) and (M, F), finite.
        first_counts_N, second_counts_M: float64 (N,) and (M,), whole numbers, each with a sum above 1.
    """
    first_mean_F, first_XF = _centred(first_NF, first_counts_N)
    second_mean_F, second_YF = _centred(second_MF, second_counts_M)
    # With C1 = X'X and C2 = Y'Y, trace (C1 C2)^(1/2) is the sum of the singular values of X Y': at
    # most as large as there are images, which are mostly fewer than features.
    common = torch.linalg.svdvals(_shortened(first_XF) @ _shortened(second_YF).T).sum()
    spread = first_XF.square().sum() + second_YF.square().sum() - 2 * common
    return float((first_mean_F - second_mean_F).square().sum() + spread)


def kernel_distance(
    first_NF: Tensor, second_MF: Tensor, *, partners: bool = False
) -> tuple[float, float]:
    """Compute the squared maximum mean discrepancy with the kernel `(x.y / F + 1)^3` (Binkowski et al. 2018, KID).

    The unbiased estimate over all images at once; around 0, also below, for sets of one distribution.
    Its standard error is the jackknife's.

    Args:
        first_NF, second_MF: float64 (N, F) and (M, F), at least three images each.
        partners: row i of both is the same scene, as outputs and their targets are. Sets are taken for
            independent otherwise, and likeness of partners would pass for likeness of the distributions;
            with this, no image is compared with its partner, and the standard error leaves
            out both at a time. Equal sets then have the distance 0 exactly.

    Returns:
        The distance and its standard error.

    Raises:
        PiggybackError: a set with fewer than three images, or values that are not finite.
    """
    _check(first_NF, second_MF, least=3)
    first_NN = _without_diagonal(_kernel(first_NF, first_NF))
    second_MM = _without_diagonal(_kernel(second_MF, second_MF))
    cross_NM = _kernel(first_NF, second_MF)
    n, m = cross_NM.shape
    if partners:
        cross_NN = _without_diagonal(cross_NM)
        together_NN = first_NN + second_MM - cross_NN - cross_NN.T
        total, rows_N = together_NN.sum(), together_NN.sum(1)
        left_out_N = (total - 2 * rows_N) / ((n - 1) * (n - 2))
        return float(total / (n * (n - 1))), float(_jackknife_variance(left_out_N).sqrt())
    first, second, cross = first_NN.sum(), second_MM.sum(), cross_NM.sum()
    value = first / (n * (n - 1)) + second / (m * (m - 1)) - 2 * cross / (n * m)
    without_first_N = (first - 2 * first_NN.sum(1)) / ((n - 1) * (n - 2))
    without_first_N -= 2 * (cross - cross_NM.sum(1)) / ((n - 1) * m)
    without_second_M = (second - 2 * second_MM.sum(1)) / ((m - 1) * (m - 2))
    without_second_M -= 2 * (cross - cross_NM.sum(0)) / (n * (m - 1))
    variance = _jackknife_variance(without_first_N) + _jackknife_variance(without_second_M)
    return float(value), float(variance.sqrt())


def _check(first_NF: Tensor, second_MF: Tensor, *, least: int) -> None:
    for features in (first_NF, second_MF):
        if len(features) < least:
            raise PiggybackError(
                f"a set of {len(features)} is too small for a distance: give at least {least} images"
            )
        if not features.isfinite().all():
            raise PiggybackError("features are NaN or infinite: look at the images and the network")


def _centred(features_NF: Tensor, counts_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and rows X, without those of count 0, such that X'X is the covariance."""
    there = counts_N > 0
    rows, counts = features_NF[there], counts_N[there, None]
    mean_F = (counts * rows).sum(0) / counts.sum()
    return mean_F, (rows - mean_F) * (counts / (counts.sum() - 1)).sqrt()


def _shortened(rows_NF: Tensor) -> Tensor:
    """Return at most F rows with the same R'R."""
    if len(rows_NF) <= rows_NF.shape[1]:
        return rows_NF
    triangle: Tensor = torch.linalg.qr(rows_NF, mode="r").R
    return triangle


def _kernel(first_NF: Tensor, second_MF: Tensor) -> Tensor:
    return (first_NF @ second_MF.T / first_NF.shape[1] + 1) ** 3


def _without_diagonal(square: Tensor) -> Tensor:
    return square - square.diagonal().diag()


def _jackknife_variance(left_out_N: Tensor) -> Tensor:
    """Compute the jackknife variance of an estimate from its N leave-one-out values."""
    n = len(left_out_N)
    return (n - 1) / n * (left_out_N - left_out_N.mean()).square().sum()
