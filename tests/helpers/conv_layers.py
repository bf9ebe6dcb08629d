"""Random conv and deconv layers of every kind, for property tests."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

KINDS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


@dataclass(frozen=True)
class LayerCase:
    """A layer's constructor arguments and an input that fits it."""

    dimensions: int
    transposed: bool
    arguments: tuple[tuple[str, Any], ...]

    def build(self) -> nn.Module:
        return KINDS[self.dimensions, self.transposed](**dict(self.arguments))

    def input(self, batch: int = 2) -> Tensor:
        return torch.randn(batch, dict(self.arguments)["in_channels"], *[7] * self.dimensions)


@st.composite
def layer_cases(draw: st.DrawFn) -> LayerCase:
    """Any dimension, stride, padding, dilation, groups, padding mode, with or without bias."""
    dimensions = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 3))
    stride = draw(st.integers(1, 2))
    dilation = draw(st.integers(1, 2))
    arguments: dict[str, Any] = {
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 4)),
        "kernel_size": draw(st.integers(1, 3)),
        "stride": stride,
        "padding": draw(st.integers(0, 1)),
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        arguments["output_padding"] = draw(st.integers(0, max(stride, dilation) - 1))
    else:
        modes = ("zeros", "reflect", "replicate", "circular")
        arguments["padding_mode"] = draw(st.sampled_from(modes))
    return LayerCase(dimensions, transposed, tuple(sorted(arguments.items())))
