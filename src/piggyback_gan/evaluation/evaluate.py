"""Evaluate generators on all held-out images, without crops or flips, and hash their outputs."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.evaluation.metric_names import IMAGE_METRICS
from piggyback_gan.evaluation.metrics import image_metrics, mean_metrics

BATCH_SIZE = 8

Generate = Callable[[Tensor], Tensor]
"""(B, C, H, W) in [-1, 1] -> the same shape and range, on the inputs' device."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Base of evaluation results: a hash for every output.

    `output_hashes` has the SHA-256 of each output's float32 values, in order: equal hashes mean
    bit-identical outputs. Of an unpaired task those of the trained direction come first.
    """

    output_hashes: tuple[str, ...]

    @property
    def images(self) -> int:
        """Number of outputs."""
        return len(self.output_hashes)

    @property
    def outputs_sha256(self) -> str:
        """One hash over all outputs."""
        return hashlib.sha256("".join(self.output_hashes).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Evaluation(Judged):
    """Means over all images, by metric."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class TranslatedBatch:
    """A batch of held-out images and their translations: float32 (B, C, H, W), on the CPU.

    Attributes:
        inputs: in [-1, 1].
        outputs: their translations.
        targets: in [-1, 1]; None if there are none.
        cycled: the outputs translated back; None for a paired task.
        way: of an unpaired task "AtoB" or "BtoA", else "".
    """

    inputs: Tensor
    outputs: Tensor
    targets: Tensor | None
    cycled: Tensor | None = None
    way: str = ""

    def named(self, figure: str) -> str:
        """A metric's full name, with the direction if there are two."""
        return f"{figure}_{self.way}" if self.way else figure

    def metrics(self) -> dict[str, Tensor]:
        """Metrics of each image, (B,), by their full names."""
        found = {}
        if self.targets is not None:
            close = image_metrics(self.outputs, self.targets)
            found = {self.named(name): values for name, values in close.items()}
        if self.cycled is not None:
            differences = (self.cycled - self.inputs).abs().flatten(1).mean(1) / 2
            found[f"cycle_l1_{self.way[0]}"] = differences
        return found

    def hashes(self) -> list[str]:
        """The SHA-256 of each output's values."""
        return image_hashes(self.outputs)


def evaluate(
    generator: Generate,
    dataset: PairedDataset,
    device: torch.device,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Compute L1, PSNR and SSIM between a generator's outputs and targets.

    Args:
        generator: on `device`.
        dataset: the held-out pairs.
        device: where the generator is.
        between: called after every batch; it may raise to stop.
    """
    return _evaluation(translated_pairs(generator, dataset, device, between), IMAGE_METRICS)


def unpaired_metric_names(direction: str, *, paired: bool) -> tuple[str, ...]:
    """Names of the metrics of `evaluate_unpaired`."""
    one, two = direction[0], direction[-1]
    cycles = (f"cycle_l1_{one}", f"cycle_l1_{two}")
    if not paired:
        return cycles
    return (
        *(f"{metric}_{way}" for way in both_ways(direction) for metric in IMAGE_METRICS),
        *cycles,
    )


def evaluate_unpaired(
    generators: tuple[Generate, Generate],
    dataset: UnpairedDataset,
    device: torch.device,
    *,
    direction: str,
    paired: bool,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate both generators of an unpaired task on the held-out images of both sides.

    `cycle_l1_A` is the mean absolute difference, as a share of the value range, between images of A and
    their cycle through B: it measures whether content is kept, not whether translations look like B. Where the
    held-out images have partners, `l1_AtoB`, `psnr_AtoB` and so on compare with them.

    Args:
        generators: of the trained direction and of the other, on `device`.
        dataset: the held-out images; the sides in the trained direction's order.
        device: where the generators are.
        direction: the trained one.
        paired: the two sides' images are partners, in order.
        between: called after every batch; it may raise to stop.
    """
    batches = translated_sides(
        generators, dataset, device, direction=direction, paired=paired, between=between
    )
    return _evaluation(batches, unpaired_metric_names(direction, paired=paired))


def both_ways(direction: str) -> tuple[str, str]:
    """The directions of an unpaired task, the trained one first."""
    one, two = direction[0], direction[-1]
    return f"{one}to{two}", f"{two}to{one}"


@torch.inference_mode()
def output_hashes(
    generators: Sequence[Generate],
    dataset: PairedDataset | UnpairedDataset,
    device: torch.device,
    between: Callable[[], None] = lambda: None,
) -> list[str]:
    """Compute the SHA-256 of each output, as in `Judged.output_hashes`, and no metrics.

    Args:
        generators: of a paired task one, of an unpaired one both, as `evaluate_unpaired` takes them.
        dataset: the held-out images.
        device: where the generators are.
        between: called after every batch; it may raise to stop.
    """
    sides: list[Iterator[Tensor]]
    if isinstance(dataset, PairedDataset):
        sides = [(inputs for inputs, _ in dataset.in_order(BATCH_SIZE))]
    else:
        sides = [dataset.in_order(BATCH_SIZE, side) for side in (0, 1)]
    hashes: list[str] = []
    for generator, side in zip(generators, sides, strict=True):
        for images in side:
            hashes += image_hashes(generator(images.to(device)).float().cpu())
            between()
    return hashes


@torch.inference_mode()
def translated_pairs(
    generator: Generate,
    dataset: PairedDataset,
    device: torch.device,
    between: Callable[[], None],
) -> Iterator[TranslatedBatch]:
    """Translate all pairs of a data set in order. Arguments as for `evaluate`."""
    for inputs, targets in dataset.in_order(BATCH_SIZE):
        outputs = generator(inputs.to(device)).float().cpu()
        yield TranslatedBatch(inputs, outputs, targets)
        between()


@torch.inference_mode()
def translated_sides(
    generators: tuple[Generate, Generate],
    dataset: UnpairedDataset,
    device: torch.device,
    *,
    direction: str,
    paired: bool,
    between: Callable[[], None],
) -> Iterator[TranslatedBatch]:
    """Translate and cycle all images of one side, then of the other, as `evaluate_unpaired` does."""
    for side, (there, back) in enumerate((generators, generators[::-1])):
        partners = dataset.in_order(BATCH_SIZE, 1 - side) if paired else None
        for images in dataset.in_order(BATCH_SIZE, side):
            outputs = there(images.to(device)).float()
            cycled = back(outputs).float().cpu()
            targets = None if partners is None else next(partners)
            yield TranslatedBatch(
                images, outputs.cpu(), targets, cycled, both_ways(direction)[side]
            )
            between()


def image_hashes(images: Tensor) -> list[str]:
    """The SHA-256 of the values of each image of a batch on the CPU."""
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]


def _evaluation(batches: Iterable[TranslatedBatch], names: Sequence[str]) -> Evaluation:
    hashes: list[str] = []
    collected = []
    for batch in batches:
        hashes += batch.hashes()
        collected.append(batch.metrics())
    means = mean_metrics(collected)
    metrics = {name: means[name] for name in names}
    return Evaluation(metrics=metrics, output_hashes=tuple(hashes))
