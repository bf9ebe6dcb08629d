"""CycleGAN's pool of earlier generated images, which its discriminators see too."""

import torch
from torch import Tensor


class ImagePool:
    """Up to `size` earlier images. Source: Shrivastava et al., CVPR 2017, section 2.3; CycleGAN, section 4.

    Args:
        size: capacity; 0 returns images unchanged.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """Return each image itself or, with probability 1/2 once the pool is full, an earlier one.

        Args:
            images: (B, C, H, W), detached.
            chance: a random generator on the CPU.

        Returns:
            (B, C, H, W); earlier images that are returned are replaced by the new ones.
        """
        if self.size == 0:
            return images
        chosen = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image.clone())
                chosen.append(image)
                continue
            swap = bool(torch.rand((), generator=chance) < 0.5)
            place = int(torch.randint(self.size, (), generator=chance))
            if swap:
                chosen.append(self.images[place])
                self.images[place] = image.clone()
            else:
                chosen.append(image)
        return torch.stack(chosen) if chosen else images
