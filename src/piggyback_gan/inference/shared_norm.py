"""Instance norm for an image that is seen in tiles: one set of statistics, so that all tiles agree.

Instance norm takes mean and variance of each feature over the image, tile by tile that is over each tile:
neighbours differ, and so do their colours. Here the statistics come from windows spread over the
image, which go through the network together: every norm layer pools its features over all windows,
normalises them by that, and keeps it for the tiles. So each layer's statistics are those of features
which were normalised by the final statistics of the layers before; pooling what tiles make of themselves
lacks that, and repeating it does not converge in practice (docs/results).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piggyback_gan.system.device import device_of


@dataclass(frozen=True)
class Window:
    """A part of an image whose features are counted.

    Attributes:
        image: (C, h, w) in [-1, 1]; all windows have one size.
        rows, columns: (h,) and (w,), how much each counts.
    """

    image: Tensor
    rows: Tensor
    columns: Tensor


def with_shared_norms(generator: nn.Module, windows: Sequence[Window]) -> nn.Module:
    """A generator whose instance norms have one set of statistics, pooled over windows of an image.

    Args:
        generator: left as it is; the result shares its parameters.
        windows: parts of one image.

    Returns:
        The same generator if it has no instance norm: any other norm is the same in every tile.
    """
    shared = copy.deepcopy(
        generator,
        {id(tensor): tensor for tensor in (*generator.parameters(), *generator.buffers())},
    )
    norms = _replace_norms(shared)
    if not norms:
        return generator
    device = device_of(generator)
    rows = torch.stack([window.rows for window in windows]).to(device)
    columns = torch.stack([window.columns for window in windows]).to(device)
    with torch.inference_mode():
        for norm in norms:
            norm.counting = (rows, columns)
        shared(torch.stack([window.image for window in windows]).to(device))
        for norm in norms:
            norm.counting = None
    return shared


class _SharedNorm(nn.Module):
    """Instance norm that pools its statistics over the batch while it is counting, and then keeps them."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.counting: tuple[Tensor, Tensor] | None = None
        self.mean = torch.empty(0)
        self.var = torch.empty(0)

    def forward(self, features: Tensor) -> Tensor:
        if self.counting is not None:
            rows, columns = (
                _shrunk(weights, size)
                for weights, size in zip(self.counting, features.shape[2:], strict=True)
            )
            total = rows.sum(1) @ columns.sum(1)
            parts = list(zip(features, rows, columns, strict=True))
            # One window after the other: the squares of all at once would be another set of features.
            self.mean = torch.stack([(x @ c) @ r for x, r, c in parts]).sum(0) / total
            centre = self.mean[:, None, None]
            squares = [((x - centre).square_() @ c) @ r for x, r, c in parts]
            self.var = torch.stack(squares).sum(0) / total
        return F.batch_norm(features, self.mean, self.var, self.weight, self.bias, eps=self.eps)


def _replace_norms(network: nn.Module) -> list[_SharedNorm]:
    norms = []
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d) and not child.track_running_stats:
                norm = _SharedNorm(child)
                setattr(module, name, norm)
                norms.append(norm)
    return norms


def _shrunk(weights: Tensor, size: int) -> Tensor:
    """(B, pixels) -> (B, size): the weights of a layer's features, which may be fewer than pixels."""
    return F.adaptive_avg_pool1d(weights[:, None], size)[:, 0]
