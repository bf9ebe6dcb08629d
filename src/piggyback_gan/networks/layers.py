"""Norms, blur layers and weight initialization of generators and discriminators."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GAIN = 0.02
_WEIGHTS: dict[str, Callable[[Tensor], object]] = {
    "normal": partial(nn.init.normal_, std=_GAIN),
    "xavier": partial(nn.init.xavier_normal_, gain=_GAIN),
    "kaiming": nn.init.kaiming_normal_,
    "orthogonal": partial(nn.init.orthogonal_, gain=_GAIN),
}


class BlurDown(nn.Module):
    """Anti-aliased downsampling: blur with a 3x3 binomial kernel, then take every other pixel.

    Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial([1.0, 2.0, 1.0]).repeat(channels, 1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, C, H / 2, W / 2)."""
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=len(self.filt))


class BlurUp(nn.Module):
    """Anti-aliased upsampling: double the size with a 4x4 binomial kernel; source as `BlurDown`."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", 4 * _binomial([1.0, 3.0, 3.0, 1.0]).repeat(channels, 1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, C, 2 H, 2 W)."""
        padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
        grown = F.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=len(self.filt))
        return grown[:, :, 1:-1, 1:-1]


def _binomial(row: list[float]) -> Tensor:
    """Return the outer product of a row with itself, normalized: a kernel (1, 1, k, k)."""
    values = torch.tensor(row)
    kernel = torch.outer(values, values)
    return (kernel / kernel.sum())[None, None]


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return a norm layer for feature maps of shape (B, channels, H, W).

    ``"instance"`` has neither parameters nor running statistics, ``"batch"`` has both, ``"none"``
    is the identity. ``norm`` is one of `NORMS`, which the configs validate.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.Identity()


def needs_bias(norm: str) -> bool:
    """Return whether the public networks' convolutions have a bias before this norm."""
    # Instance norm subtracts the mean, so that biases have no effect; the public checkpoints have them
    # all the same. "none" has no bias there either.
    return norm == "instance"


def init_weights(module: nn.Module, init: str) -> None:
    """Initialize a network in place, as pix2pix does, from torch's global random state.

    Weights of convolutions and linear layers follow ``init`` with gain 0.02 (``"normal"``:
    N(0, 0.02); ``"kaiming"`` has no gain), their biases are 0. Batch norm weights are
    N(1, 0.02), their biases 0.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
    CVPR 2017, section 6.2.

    Args:
        module: the network; other kinds of layers are unchanged.
        init: one of `INITS`.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _WEIGHTS[init](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, _GAIN)
            nn.init.zeros_(layer.bias)
