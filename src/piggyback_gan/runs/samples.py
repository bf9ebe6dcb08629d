"""Sample pictures of a run: a row for each of the first images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.evaluation.evaluate import Generate
from piggyback_gan.images.display import display, grid
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.tensors import to_pixels


@torch.inference_mode()
def sample_grid(
    generators: Sequence[Generate],
    dataset: PairedDataset | UnpairedDataset,
    count: int,
    device: torch.device,
) -> NDArray[np.uint8]:
    """Draw input | output | target for a paired task, or image | translated | back for both sides.

    Args:
        generators: in eval mode, on `device`: the forward one, and for an unpaired task the backward one.
        dataset: images without crops, of which the first `count` are drawn, a row each.

    Returns:
        An RGB picture, uint8 (H, W, 3).
    """
    pairs = [dataset.pair(index) for index in range(min(count, len(dataset)))]
    first, second = (torch.stack(images).to(device) for images in zip(*pairs, strict=True))
    one, two = dataset.formats
    columns: list[tuple[Tensor, ImageFormat]]
    if len(generators) == 1:
        columns = [(first, one), (generators[0](first), two), (second, two)]
    else:
        forward, backward = generators
        to_two, to_one = forward(first), backward(second)
        columns = [(first, one), (to_two, two), (backward(to_two), one)]
        columns += [(second, two), (to_one, one), (forward(to_one), two)]
    rows = zip(
        *([display(to_pixels(i, f), f) for i in images] for images, f in columns), strict=True
    )
    return grid(rows)
