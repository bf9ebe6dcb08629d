"""A U-Net like those of segmentation libraries: max pooling, batch norm, skips, and a colour head.

    python examples/segmentation_unet.py
    pbgan train bank maps --data data/maps \
        --generator examples.segmentation_unet:build --generator-arguments '{"width": 32, "depth": 4}'
"""

import torch
from torch import Tensor, nn


def double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(nn.Conv2d(channels, channels_out, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SegmentationUnet(nn.Module):
    """Map images (B, C, H, W) in [-1, 1] to (B, C', H, W) in [-1, 1]; H and W are multiples of 2**depth."""

    def __init__(self, channels_in: int, channels_out: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [channels_in, *widths[:-1]]
        self.encoder = nn.ModuleList(map(double_conv, inputs, widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * wide, wide, 2, stride=2) for wide in widths[:-1]
        )
        self.decoder = nn.ModuleList(double_conv(2 * wide, wide) for wide in widths[:-1])
        self.head = nn.Conv2d(width, channels_out, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = images
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(features))
            features = nn.functional.max_pool2d(skips[-1], 2)
        features = self.encoder[-1](features)
        for level in reversed(range(len(skips))):
            features = torch.cat([skips[level], self.up[level](features)], 1)
            features = self.decoder[level](features)
        return torch.tanh(self.head(features))


def build(input_channels: int, output_channels: int, width: int = 8, depth: int = 3) -> nn.Module:
    """Build the generator; --generator names this function."""
    return SegmentationUnet(input_channels, output_channels, width, depth)


if __name__ == "__main__":
    from two_tasks import edges, masks, teach_two

    teach_two(build(1, 1), {"masks": masks(32, 48), "edges": edges(32, 48)})
