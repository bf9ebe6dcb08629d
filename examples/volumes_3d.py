"""A 3-D U-Net for volumes, such as scans: Conv3d and ConvTranspose3d share filters like Conv2d layers.

    python examples/volumes_3d.py

`pbgan train` reads images; use a network for volumes from Python, with PiggybackNetwork.
"""

import torch
from torch import Tensor, nn

from two_tasks import edges, masks, teach_two


def block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with instance norm."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride, padding=1),
        nn.InstanceNorm3d(channels_out, affine=True),
        nn.LeakyReLU(0.1),
    )


class VolumeUnet(nn.Module):
    """Map volumes (B, 1, D, H, W) to volumes of the same shape in [-1, 1]; sides are multiples of 4."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.top = block(1, width)
        self.middle = block(width, 2 * width, stride=2)
        self.bottom = block(2 * width, 4 * width, stride=2)
        self.up_to_middle = nn.ConvTranspose3d(4 * width, 2 * width, 2, stride=2)
        self.up_to_top = nn.ConvTranspose3d(4 * width, width, 2, stride=2)
        self.head = nn.Conv3d(2 * width, 1, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        top = self.top(volumes)
        middle = self.middle(top)
        up = torch.cat([middle, self.up_to_middle(self.bottom(middle))], 1)
        return torch.tanh(self.head(torch.cat([top, self.up_to_top(up)], 1)))


if __name__ == "__main__":
    teach_two(VolumeUnet(), {"masks": masks(16, 16, 16), "edges": edges(16, 16, 16)})
