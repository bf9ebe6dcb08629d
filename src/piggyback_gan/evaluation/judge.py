"""Evaluate a task on all held-out images: pixel, feature and recognition metrics with 95 % intervals."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.bootstrap import (
    NORMAL,
    frechet_standard_error,
    interval_of_sums,
    mean_interval,
)
from piggyback_gan.evaluation.distances import frechet_distance, kernel_distance
from piggyback_gan.evaluation.evaluate import (
    BATCH_SIZE,
    Generate,
    Judged,
    both_ways,
    image_hashes,
    translated,
)
from piggyback_gan.evaluation.feature_cache import cached_features
from piggyback_gan.evaluation.feature_networks import (
    DistanceNetwork,
    FeatureNetwork,
    Recogniser,
    require_visible,
)
from piggyback_gan.evaluation.metrics import joined
from piggyback_gan.images.format import ImageFormat

Images = Callable[[], Iterator[Tensor]]
"""Returns an iterator of batches (B, C, H, W) in [-1, 1], from the first on."""

# Shapes: N images, K classes.


@dataclass(frozen=True)
class Figure:
    """A metric's value and its 95 % interval, from `low` to `high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Judgement(Judged):
    """Result of an evaluation.

    Attributes:
        figures: by name, with `_AtoB` or `_BtoA` behind it for an unpaired task: l1, psnr, ssim,
            cycle_l1 (unpaired only; with `_A` or `_B`), perceptual_distance, frechet_distance,
            kernel_distance, pixel_accuracy, mean_iou; those that the task and the networks allow.
        warnings: about figures that are not reliable.
    """

    figures: dict[str, Figure]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    """One direction of a task: the real images to compare outputs with, and the formats.

    `partners`: each output has its target among the real images, in the same order.
    """

    real: Images
    formats: tuple[ImageFormat, ImageFormat]
    partners: bool


class Judge:
    """Evaluator of generators on data sets; results do not depend on the networks' batch sizes.

    Args:
        features: for Frechet and kernel distances between outputs and real images.
        distance: for a perceptual distance between outputs and targets.
        recogniser: for pixel accuracy and mean IoU of outputs whose inputs are label maps.
        cache: a folder for real images' features; None disables caching.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        features: FeatureNetwork | None = None,
        distance: DistanceNetwork | None = None,
        recogniser: Recogniser | None = None,
        cache: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.features = features
        self.distance = distance
        self.recogniser = recogniser
        self.cache = cache
        self.seed = seed

    def judge(
        self,
        generators: Sequence[Generate],
        dataset: PairedDataset | UnpairedDataset,
        device: torch.device,
        *,
        direction: str = "AtoB",
        paired: bool = True,
        between: Callable[[], None] = lambda: None,
    ) -> Judgement:
        """Evaluate a task's generators, each on all held-out images of its side.

        Frechet and kernel distances are to the held-out images of the other side.

        Args:
            generators, dataset, device, direction, paired, between: as for `evaluate`.

        Raises:
            PiggybackError: a network can't process the images, there is a recogniser and no inputs are
                label maps, or there are too few images for a distance.
        """
        ways = _ways(dataset, direction, paired)
        self._check(ways.values())
        hashes: list[str] = []
        values: list[dict[str, Tensor]] = []
        features: dict[str, list[Tensor]] = {way: [] for way in ways}
        overlaps: dict[str, list[Tensor]] = {way: [] for way in ways}
        for batch in translated(generators, dataset, device, direction, paired, between):
            hashes += image_hashes(batch.outputs)
            values.append(batch.metrics())
            if self.distance and batch.targets is not None:
                distances = self.distance(batch.outputs, batch.targets)
                values.append({batch.named("perceptual_distance"): distances})
            if self.features:
                features[batch.way].append(self.features(batch.outputs))
            if self.recogniser and ways[batch.way].formats[0].labels:
                classes = batch.inputs.shape[1]
                recognised, labels = self.recogniser(batch.outputs, classes), batch.inputs.argmax(1)
                overlaps[batch.way].append(class_overlaps(recognised, labels, classes))
        figures = {name: self._mean(found) for name, found in joined(values).items()}
        warnings = []
        if self.distance and not any(way.partners for way in ways.values()):
            warnings.append(
                "no perceptual distance: the held-out images of the two sides are not pairs"
            )
        for name, way in ways.items():
            suffix = f"_{name}" if name else ""
            if self.features:
                made = torch.cat(features[name])
                real = cached_features(self.features, way.real, self.cache)
                figures |= self._distances(made, real, way.partners, suffix)
                warnings += _too_few(self.features.name, made, real, suffix)
            if overlaps[name]:
                figures |= self._recognition(torch.cat(overlaps[name]), suffix)
        return Judgement(figures=figures, output_hashes=tuple(hashes), warnings=tuple(warnings))

    def _check(self, ways: Iterable[_Way]) -> None:
        """Raise PiggybackError if the networks can't evaluate these formats."""
        for way in ways:
            if self.features or self.distance or (self.recogniser and way.formats[0].labels):
                require_visible(way.formats[1])
        if self.recogniser and not any(way.formats[0].labels for way in ways):
            raise PiggybackError(
                "a recogniser's classes are compared with label maps, but the task's inputs are not label maps: "
                "leave the recogniser out"
            )

    def _mean(self, values: Tensor) -> Figure:
        values = values.double()
        return Figure(values.mean().item(), *mean_interval(values, self.seed))

    def _distances(
        self, made_NF: Tensor, real_MF: Tensor, partners: bool, suffix: str
    ) -> dict[str, Figure]:
        frechet = frechet_distance(made_NF, real_MF)
        # The bootstrap's spread, not its percentiles: see `frechet_standard_error`.
        reach = NORMAL * frechet_standard_error(made_NF, real_MF, partners=partners, seed=self.seed)
        of_features = Figure(frechet, max(0.0, frechet - reach), frechet + reach)
        kernel, error = kernel_distance(made_NF, real_MF, partners=partners)
        of_kernel = Figure(kernel, kernel - NORMAL * error, kernel + NORMAL * error)
        return {f"frechet_distance{suffix}": of_features, f"kernel_distance{suffix}": of_kernel}

    def _recognition(self, overlaps_N3K: Tensor, suffix: str) -> dict[str, Figure]:
        flat = overlaps_N3K.flatten(1)
        figures = {}
        for name, figure in (("pixel_accuracy", _pixel_accuracy), ("mean_iou", _mean_iou)):
            value = figure(flat.sum(0, keepdim=True)).item()
            figures[name + suffix] = Figure(value, *interval_of_sums(flat, figure, self.seed))
        return figures


def _ways(
    dataset: PairedDataset | UnpairedDataset, direction: str, paired: bool
) -> dict[str, _Way]:
    """The directions in which a task translates, by name; that of a paired task has no name."""
    if isinstance(dataset, PairedDataset):
        pairs = partial(dataset.in_order, BATCH_SIZE)
        return {"": _Way(lambda: (targets for _, targets in pairs()), dataset.formats, True)}
    there, back = both_ways(direction)
    one, two = (partial(dataset.in_order, BATCH_SIZE, side) for side in (0, 1))
    return {
        there: _Way(two, dataset.formats, paired),
        back: _Way(one, dataset.formats[::-1], paired),
    }


def class_overlaps(recognised: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count the pixels of each class in both of two label maps, in the first, and in the second.

    Args:
        recognised, labels: integers (N, H, W) from 0 to `classes` - 1.
        classes: number of classes.

    Returns:
        float64 (N, 3, classes).
    """

    def counts(chosen: Tensor, where: Tensor) -> Tensor:
        found = torch.zeros(len(chosen), classes, dtype=torch.float64)
        return found.scatter_add_(1, chosen.flatten(1), where.flatten(1).double())

    everywhere = torch.ones_like(labels)
    both = counts(labels, recognised == labels)
    return torch.stack([both, counts(recognised, everywhere), counts(labels, everywhere)], 1)


def _pixel_accuracy(sums: Tensor) -> Tensor:
    both, _, labelled = sums.tensor_split(3, 1)
    return both.sum(1) / labelled.sum(1)


def _mean_iou(sums: Tensor) -> Tensor:
    """Mean intersection over union of the classes that occur in label maps or outputs."""
    both, recognised, labelled = sums.tensor_split(3, 1)
    union = recognised + labelled - both
    return (both / union.clamp_min(1)).sum(1) / (union > 0).sum(1)


def _too_few(name: str, made_NF: Tensor, real_MF: Tensor, suffix: str) -> list[str]:
    images, features = min(len(made_NF), len(real_MF)), made_NF.shape[1]
    if images >= features:
        return []
    line = (
        f"frechet_distance{suffix} is biased upwards: {images} images are fewer than the {features} "
        f"features of {name}; compare it only with distances of as many images, or use kernel_distance"
    )
    return [line]
