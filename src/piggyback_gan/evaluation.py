"""Judging a generator on all held-out pairs, whole and unflipped, and fingerprinting what it makes."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from piggyback_gan.data import PairedDataset
from piggyback_gan.metrics import image_metrics, mean_metrics

_BATCH_SIZE = 8


@dataclass(frozen=True)
class Evaluation:
    """Means over all images: `metrics` as in `metrics.image_metrics`.

    `output_hashes` has the SHA-256 of each output's float32 values, in order: equal hashes mean
    bit-identical outputs.
    """

    metrics: dict[str, float]
    output_hashes: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many images were judged."""
        return len(self.output_hashes)

    @property
    def outputs_sha256(self) -> str:
        """One hash over all outputs."""
        return hashlib.sha256("".join(self.output_hashes).encode()).hexdigest()


def evaluate(
    generator: Callable[[Tensor], Tensor],
    dataset: PairedDataset,
    device: torch.device,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run a generator in eval mode over a data set.

    Args:
        generator: (B, C, H, W) in [-1, 1] -> the same, on `device`.
        dataset: the held-out pairs.
        device: where the generator is.
        between: called after every batch; it may raise to stop.
    """
    hashes: list[str] = []
    collected = []
    with torch.inference_mode():
        for inputs, targets in dataset.in_order(_BATCH_SIZE):
            outputs = generator(inputs.to(device)).float().cpu()
            hashes += [hashlib.sha256(o.numpy().tobytes()).hexdigest() for o in outputs]
            collected.append(image_metrics(outputs, targets))
            between()
    return Evaluation(mean_metrics(collected), tuple(hashes))
