"""Judging generators on all held-out images, whole and unflipped, and fingerprinting what they make."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from piggyback_gan.data import PairedDataset, UnpairedDataset
from piggyback_gan.metrics import image_metrics, mean_metrics
from piggyback_gan.names import METRICS

_BATCH_SIZE = 8

Generate = Callable[[Tensor], Tensor]
"""(B, C, H, W) in [-1, 1] -> the same, on the device that it is called with."""


@dataclass(frozen=True)
class Evaluation:
    """Means over all images.

    `output_hashes` has the SHA-256 of each output's float32 values, in order: equal hashes mean
    bit-identical outputs. Of an unpaired task those of the trained direction come first.
    """

    metrics: dict[str, float]
    output_hashes: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many outputs were judged."""
        return len(self.output_hashes)

    @property
    def outputs_sha256(self) -> str:
        """One hash over all outputs."""
        return hashlib.sha256("".join(self.output_hashes).encode()).hexdigest()


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
    hashes: list[str] = []
    collected = []
    with torch.inference_mode():
        for inputs, targets in dataset.in_order(_BATCH_SIZE):
            outputs = generator(inputs.to(device)).float().cpu()
            hashes += _hashes(outputs)
            collected.append(image_metrics(outputs, targets))
            between()
    return Evaluation(mean_metrics(collected), tuple(hashes))


def unpaired_metric_names(direction: str, *, paired: bool) -> tuple[str, ...]:
    """What `evaluate_unpaired` measures: the names of its metrics."""
    one, two = direction[0], direction[-1]
    cycles = (f"cycle_l1_{one}", f"cycle_l1_{two}")
    if not paired:
        return cycles
    ways = (f"{one}to{two}", f"{two}to{one}")
    return (*(f"{metric}_{way}" for way in ways for metric in METRICS), *cycles)


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
    metrics: dict[str, float] = {}
    hashes: list[str] = []
    for side, (there, back) in enumerate((generators, generators[::-1])):
        one, two = (direction[0], direction[-1])[:: -1 if side else 1]
        cycles, to_partners = [], []
        partners = dataset.in_order(_BATCH_SIZE, 1 - side) if paired else None
        with torch.inference_mode():
            for images in dataset.in_order(_BATCH_SIZE, side):
                outputs = there(images.to(device)).float()
                cycled = back(outputs).float().cpu()
                cycles.append((cycled - images).abs().flatten(1).mean(1) / 2)
                hashes += _hashes(outputs.cpu())
                if partners is not None:
                    to_partners.append(image_metrics(outputs.cpu(), next(partners)))
                between()
        for name, value in mean_metrics(to_partners).items() if to_partners else ():
            metrics[f"{name}_{one}to{two}"] = value
        metrics[f"cycle_l1_{one}"] = torch.cat(cycles).double().mean().item()
    names = unpaired_metric_names(direction, paired=paired)
    return Evaluation({name: metrics[name] for name in names}, tuple(hashes))


def _hashes(outputs: Tensor) -> list[str]:
    return [hashlib.sha256(output.numpy().tobytes()).hexdigest() for output in outputs]
