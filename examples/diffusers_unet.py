"""A U-Net of diffusers as an image-to-image generator, with a fixed time step.

    python examples/diffusers_unet.py
    pbgan train bank maps --data data/maps --image-size 64 --budget 0.2 \
        --generator examples.diffusers_unet:build --generator-arguments '{"width": 32}'

Its group norms, time embedding and attention layers are not conv filters: every task has its own, and they
exceed the default budget of 0.1.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn


class DiffusersUnet(nn.Module):
    """Map images (B, C, H, W) in [-1, 1] to images of the same shape with a UNet2DModel at time step 0."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.unet(images, timestep=0).sample)


def build(input_channels: int, output_channels: int, width: int = 16) -> nn.Module:
    """Build the generator; --generator names this function."""
    return DiffusersUnet(
        UNet2DModel(
            in_channels=input_channels,
            out_channels=output_channels,
            block_out_channels=(width, 2 * width, 2 * width),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
    )


if __name__ == "__main__":
    from two_tasks import edges, masks, teach_two

    teach_two(build(1, 1), {"masks": masks(16, 24), "edges": edges(16, 24)})
