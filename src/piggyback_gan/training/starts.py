"""Choice of the earlier task that a later one starts from, by a probe on training images before the first step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.names import STANDALONE

SHORTLIST = 16
"""Of a large bank, so many tasks are compared: the first, the newest four, and others evenly between them."""
_NEWEST = 4
_SIDE = 3  # of the places of features for each pixel
RANDOM_MARGIN = 0.9
"""A random start must be better by so much: half of a task's start is noise already."""
# Directions in which features have less than this share of their mean power are damped.
_RIDGE = 1e-4


@dataclass(frozen=True)
class Start:
    """A chosen start.

    Attributes:
        init: the earlier task, or "standalone" for a random start.
        errors: candidate -> squared error of the targets predicted from its features, relative to their variance.
        tasks: number of tasks to start from, of which at most `SHORTLIST` are candidates.
    """

    init: str
    errors: Mapping[str, float]
    tasks: int


@torch.no_grad()
def choose_start(
    network: PiggybackNetwork,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    between: Callable[[], None] = lambda: None,
) -> Start:
    """Choose the start whose features predict a task's targets best, and begin the task in training anew from it.

    The features of a candidate are the inputs of its last conv layer. Each pixel of a target is predicted from 3x3 places
    of them by a linear map, fitted by least squares to one half of the images and judged on the other, and vice versa; a single image is judged by itself.
    A random start is a candidate where tasks can start so (`PiggybackNetwork.can_start_at_random`); it is chosen if its
    error is below 0.9 of the best task's.

    Args:
        network: with the earlier tasks, and the new one in training.
        inputs: batches of training images (B, C, H, W), on the network's device.
        targets: for each of them, what the features are to predict.
        between: called before each candidate; it may raise to stop.
    """
    tasks, errors = network.possible_starts, {}
    for name in shortlist(tasks):
        between()
        errors[name] = _error(network.fold(name), inputs, targets)
    if network.can_start_at_random:
        between()
        network.restart_task(STANDALONE)
        errors[STANDALONE] = _error(network.fold(str(network.task_in_training)), inputs, targets)
    best = min(errors, key=lambda name: errors[name] / (RANDOM_MARGIN if name == STANDALONE else 1))
    network.restart_task(best)
    return Start(best, errors, len(tasks))


def shortlist(tasks: Sequence[str]) -> list[str]:
    """The tasks to compare: all, or of many the first, the newest, and others evenly between them."""
    spaced = SHORTLIST - _NEWEST
    if len(tasks) <= SHORTLIST:
        return list(tasks)
    older, newest = tasks[:-_NEWEST], tasks[-_NEWEST:]
    return [*(older[i * len(older) // spaced] for i in range(spaced)), *newest]


def _error(module: nn.Module, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """Relative squared error of targets predicted from a network's features, by cross-validation in two halves."""
    halves: list[list[Tensor]] = [[], []]
    for batch, target in zip(inputs, targets, strict=True):
        features = _features(module, batch)
        for image in range(len(batch)):
            here = slice(image, image + 1)
            both = torch.cat(_neighbourhoods(features[here], target[here]), 1)
            # Places are many and features few: sums of products are all that the fits need.
            halves[len(halves[0]) > len(halves[1])].append((both.T @ both).cpu().double())
    moments = [torch.stack(half or halves[0]).sum(0) for half in halves]
    count, error, variance = targets[0].shape[1], 0.0, 0.0
    for fitted, judged in (moments, moments[::-1]):
        width = len(fitted) - count
        ridge = _RIDGE * fitted[:width, :width].diagonal().mean()
        damped = fitted[:width, :width] + ridge * torch.eye(width).to(fitted)
        weights_FC = torch.linalg.solve(damped, fitted[:width, width:])
        made = judged[:width, width:]
        powers = judged[width:, width:].diagonal()
        explained = 2 * (weights_FC * made).sum(0)
        explained -= (weights_FC * (judged[:width, :width] @ weights_FC)).sum(0)
        error += (powers - explained).sum().item()
        # The last feature is constant.
        means = made[-1] / judged[width - 1, width - 1]
        variance += (powers - means * made[-1]).sum().item()
    return max(error, 0.0) / max(variance, torch.finfo(torch.float64).tiny)


def _features(module: nn.Module, images: Tensor) -> Tensor:
    """The image-like input of the conv layer that is called last; the outputs if there is none."""
    last: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if inputs and inputs[0].dim() == images.dim() and len(inputs[0]) == len(images):
            last[:] = [inputs[0]]

    convs = [layer for layer in module.modules() if isinstance(layer, ConvLayer)]
    handles = [layer.register_forward_hook(keep) for layer in convs]
    try:
        outputs = module(images)
    finally:
        for handle in handles:
            handle.remove()
    return last[0] if last else outputs


def _neighbourhoods(features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """3x3 places of features (1, C, h, w) and a constant for pixels of a target: (P, 9 C + 1), and these pixels, (P, C')."""
    height, width = target.shape[-2:]
    padding = (features.shape[-2] - height) // 2
    if 0 < padding <= _PADDING and features.shape[-2:] == (
        height + 2 * padding,
        width + 2 * padding,
    ):
        features = features[..., padding:-padding, padding:-padding]
    if features.shape[-2:] != (height, width):
        features = F.interpolate(features, size=(height, width), mode="bilinear")
    # Of a large image every few pixels; an odd step does not meet the same phase of what was enlarged.
    pixels = torch.arange(0, height * width, height * width // _MOST_PIXELS // 2 * 2 + 1)
    around = F.pad(features, (_SIDE // 2,) * 4)[0]
    places = [
        around[:, pixels // width + down, pixels % width + right].T
        for down in range(_SIDE)
        for right in range(_SIDE)
    ]
    constant = features.new_ones(len(pixels), 1)
    return torch.cat([*places, constant], 1), target[0].flatten(1)[:, pixels].T


_PADDING = 8  # a last layer's own padding is cut off, so that features lie at their pixels
_MOST_PIXELS = 2**14
