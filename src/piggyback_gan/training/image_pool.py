"""The pool of earlier fakes that CycleGAN's discriminators are shown, so that they do not chase the last one."""

import torch
from torch import Tensor


class ImagePool:
    """Up to `size` earlier images. Source: Shrivastava et al., CVPR 2017, section 2.3; CycleGAN, section 4.

    Args:
        size: how many are kept; 0 hands images through.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """For each image itself, or with probability 1/2, once the pool is full, an earlier one.

        Args:
            images: (B, C, H, W), without history.
            chance: a generator on the CPU.

        Returns:
            As many images; those that were handed out leave their places to the new ones.
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
