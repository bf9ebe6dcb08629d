"""Detection of generators that make nearly the same image of every input."""

from collections.abc import Callable

import torch
from torch import Tensor

IMAGES = 8
"""Training images on which it is looked for."""
# A network that learns has a multiple of it after its first epoch, also where targets are mostly white.
_LEAST = 0.02


def has_collapsed(generator: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> bool:
    """Whether a generator's outputs for different inputs are alike, though the targets are not.

    Args:
        generator: in eval mode.
        inputs: (B, C, H, W) in [-1, 1]; of a single image it can't be told.
        targets: as many images as the outputs should be like.
    """
    with torch.no_grad():
        made = generator(inputs)
    return len(made) > 1 and _spread(made) < _LEAST * _spread(targets)


def _spread(images: Tensor) -> float:
    """Mean standard deviation of a value across images."""
    return images.float().std(0).mean().item()
