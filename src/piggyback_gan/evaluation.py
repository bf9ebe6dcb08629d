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
    """Means over `images` images: `metrics` as in `metrics.image_metrics`.

    `outputs_sha256` is a hash over every float32 value of every output, in order: two equal hashes
    mean bit-identical outputs.
    """

    metrics: dict[str, float]
    images: int
    outputs_sha256: str


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
    digest = hashlib.sha256()
    collected = []
    with torch.inference_mode():
        for inputs, targets in dataset.in_order(_BATCH_SIZE):
            outputs = generator(inputs.to(device)).float().cpu()
            digest.update(outputs.contiguous().numpy().tobytes())
            collected.append(image_metrics(outputs, targets))
            between()
    return Evaluation(mean_metrics(collected), len(dataset), digest.hexdigest())
