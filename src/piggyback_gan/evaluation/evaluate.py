"""Evaluate generators on all held-out images, without crops or flips, and hash their outputs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
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
            differences = (self.cycled - self.inputs).abs().flatten(1).mean(1)
            found[f"cycle_l1_{self.way[0]}"] = differences / 2
        return found


def evaluate(
    generators: Sequence[Generate],
    dataset: PairedDataset | UnpairedDataset,
    device: torch.device,
    *,
    direction: str = "AtoB",
    paired: bool = True,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Compute L1, PSNR and SSIM between outputs and targets, and of an unpaired task the cycle's L1.

    `cycle_l1_A` is the mean absolute difference, as a share of the value range, between images of A and
    their cycle through B: it measures whether content is kept, not whether translations look like B. Where the
    held-out images have partners, `l1_AtoB`, `psnr_AtoB` and so on compare with them.

    Args:
        generators: in eval mode, on `device`: one, or of an unpaired task that of the trained direction and
            the other.
        dataset: the held-out images; the sides of an unpaired task in the trained direction's order.
        device: where the generators are.
        direction: the trained one, of an unpaired task.
        paired: whether the two sides' images of an unpaired task are partners, in order.
        between: called after every batch; it may raise to stop.
    """
    hashes: list[str] = []
    collected = []
    for batch in translated(generators, dataset, device, direction, paired, between):
        hashes += image_hashes(batch.outputs)
        collected.append(batch.metrics())
    means = mean_metrics(collected)
    is_paired = isinstance(dataset, PairedDataset)
    names = IMAGE_METRICS if is_paired else unpaired_metric_names(direction, paired=paired)
    metrics = {name: means[name] for name in names}
    return Evaluation(metrics=metrics, output_hashes=tuple(hashes))


def unpaired_metric_names(direction: str, *, paired: bool) -> tuple[str, ...]:
    """Names of the metrics of `evaluate` for an unpaired task."""
    ways = both_ways(direction) if paired else ()
    compared = [f"{metric}_{way}" for way in ways for metric in IMAGE_METRICS]
    return (*compared, f"cycle_l1_{direction[0]}", f"cycle_l1_{direction[-1]}")


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
    """Compute `Judged.output_hashes`, and no metrics. Arguments as for `evaluate`."""
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
def translated(
    generators: Sequence[Generate],
    dataset: PairedDataset | UnpairedDataset,
    device: torch.device,
    direction: str,
    paired: bool,
    between: Callable[[], None],
) -> Iterator[TranslatedBatch]:
    """Translate all inputs in order; of an unpaired task one side there and back, then the other."""
    if isinstance(dataset, PairedDataset):
        for inputs, targets in dataset.in_order(BATCH_SIZE):
            outputs = generators[0](inputs.to(device)).float().cpu()
            yield TranslatedBatch(inputs, outputs, targets)
            between()
        return
    for side, (there, back) in enumerate((generators, generators[::-1])):
        way = both_ways(direction)[side]
        partners = dataset.in_order(BATCH_SIZE, 1 - side) if paired else None
        for images in dataset.in_order(BATCH_SIZE, side):
            outputs = there(images.to(device)).float()
            cycled = back(outputs).float().cpu()
            partner = None if partners is None else next(partners)
            yield TranslatedBatch(images, outputs.cpu(), partner, cycled, way)
            between()


def image_hashes(images: Tensor) -> list[str]:
    """The SHA-256 of the values of each image of a batch on the CPU."""
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
