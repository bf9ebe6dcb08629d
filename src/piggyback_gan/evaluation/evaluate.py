"""Judging generators on all held-out images, whole and unflipped, and fingerprinting what they make."""

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
"""(B, C, H, W) in [-1, 1] -> the same, on the device that it is called with."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Something that was found out about all outputs of a task.

    `output_hashes` has the SHA-256 of each output's float32 values, in order: equal hashes mean
    bit-identical outputs. Of an unpaired task those of the trained direction come first.
    """

    output_hashes: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many outputs were judged."""
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
    """A batch of held-out images and what generators made of them: float32 (B, C, H, W), on the CPU.

    Attributes:
        inputs: in [-1, 1].
        outputs: their translations.
        targets: what those should be, in [-1, 1]; None where that is not known.
        cycled: the way back from the outputs; None in a paired task.
        way: of an unpaired task "AtoB" or "BtoA", else "".
    """

    inputs: Tensor
    outputs: Tensor
    targets: Tensor | None
    cycled: Tensor | None = None
    way: str = ""

    def named(self, figure: str) -> str:
        """What a figure is called: with its way, where there are two."""
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
    """Run a generator in eval mode over pairs: L1, PSNR and SSIM to the targets.

    Args:
        generator: on `device`.
        dataset: the held-out pairs.
        device: where the generator is.
        between: called after every batch; it may raise to stop.
    """
    return _evaluation(translated_pairs(generator, dataset, device, between), IMAGE_METRICS)


def unpaired_metric_names(direction: str, *, paired: bool) -> tuple[str, ...]:
    """What `evaluate_unpaired` measures: the names of its metrics."""
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
    """Run both generators of an unpaired task over the held-out images of both sides.

    `cycle_l1_A` is the mean absolute difference, as a share of the value range, between images of A and
    their way to B and back: it says that content is kept, not that translations look like B. Where the
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
    """The SHA-256 of each output, as `Judged.output_hashes` has them, where nothing else is to be known.

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
    """All pairs of a data set in order, translated. Arguments as of `evaluate`."""
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
    """All images of one side, then those of the other, each translated and back, as `evaluate_unpaired`."""
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
