"""Instance norm with one set of statistics for all tiles of an image.

Instance norm takes mean and variance of each feature over its input. In tiles these differ from tile to tile,
and so do the colours. Here the statistics come from windows spread over the image, which pass through the
network as one batch: every norm layer pools its features over all windows, normalises them by the result, and
keeps it for the tiles. So each layer's statistics are those of features that were normalised by the final
statistics of the layers before. Pooling statistics of separately normalised tiles lacks that, and iterating it
does not converge in practice (docs/results).
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
    """Part of an image that norm layers take statistics from.

    Attributes:
        image: (C, h, w) in [-1, 1]; all windows have the same size.
        rows, columns: (h,) and (w,), weights of the pixels in the statistics.
    """

    image: Tensor
    rows: Tensor
    columns: Tensor


def with_shared_norms(generator: nn.Module, windows: Sequence[Window]) -> nn.Module:
    """Fix the statistics of a generator's instance norms to those pooled over windows of an image.

    Args:
        generator: not changed; the result shares its parameters and buffers.
        windows: parts of one image.

    Returns:
        A copy with fixed statistics; the generator itself if it has no instance norm, as other norms do not
        depend on the tile.
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
    """Instance norm that pools statistics over the batch while `counting` is set, and uses them afterwards."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.counting: tuple[Tensor, Tensor] | None = None
        self.mean = torch.empty(0)
        self.var = torch.empty(0)

    def forward(self, features: Tensor) -> Tensor:
        if self.counting is not None:
            # Averaged to the resolution of the layer's features.
            rows, columns = (
                F.adaptive_avg_pool1d(weights[:, None], size)[:, 0]
                for weights, size in zip(self.counting, features.shape[2:], strict=True)
            )
            total = rows.sum(1) @ columns.sum(1)
            parts = list(zip(features, rows, columns, strict=True))
            # One window after the other: all squares at once would take as much memory as the features.
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
