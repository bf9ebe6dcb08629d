"""Names, labels and directions of all metrics. No torch here."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric; `higher` is whether higher values are better."""

    label: str
    unit: str = ""
    higher: bool = False


METRICS = {
    "perceptual_distance": Metric("perceptual distance"),
    "frechet_distance": Metric("Fréchet distance"),
    "kernel_distance": Metric("kernel distance"),
    "l1": Metric("L1"),
    "psnr": Metric("PSNR", "dB", higher=True),
    "ssim": Metric("SSIM", higher=True),
    "pixel_accuracy": Metric("pixel accuracy", higher=True),
    "mean_iou": Metric("mean IoU", higher=True),
    "cycle_l1": Metric("cycle L1"),
}
"""All metrics in the order in which they are shown; the first says most of how an image looks."""

IMAGE_METRICS = ("l1", "psnr", "ssim")
"""Metrics of single images, which need no network: those of training's validation."""

_SUFFIXES = ("AtoB", "BtoA", "A", "B")


def split_metric(name: str) -> tuple[str, str]:
    """A metric's base and suffix: l1_AtoB is l1 and AtoB; the suffix of a paired task's is empty."""
    base, _, suffix = name.rpartition("_")
    return (base, suffix) if suffix in _SUFFIXES else (name, "")


def higher_is_better(name: str) -> bool:
    """Whether higher values are better; unknown metrics are taken for distances."""
    metric = METRICS.get(split_metric(name)[0])
    return metric is not None and metric.higher


def metric_label(name: str, *, unit: bool = False) -> str:
    """A metric's name for people, and its unit if asked for: psnr_AtoB is PSNR AtoB, or PSNR (dB) AtoB."""
    base, suffix = split_metric(name)
    metric = METRICS.get(base, Metric(base.replace("_", " ")))
    units = f" ({metric.unit})" if unit and metric.unit else ""
    return f"{metric.label}{units} {suffix}".rstrip()
