"""Differentiable augmentation of a discriminator's inputs, drawn for each step.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020. The
discriminator is shown augmented images only, real and generated ones, in its own step and in the
generator's, whose gradient comes through the augmentation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import AUGMENTATIONS
from piggyback_gan.system.checks import check_choice

_SHIFT = 1 / 8  # largest translation, as a share of the side
_CUTOUT = 1 / 2  # side of the square that is cut out, as a share of the image's
_PLACES = 4  # numbers for the geometric parts: translation y, x and cutout y, x
_COLOURS = 3  # numbers for each side's colour: brightness, saturation, contrast


class Augmentation:
    """A policy of differentiable augmentations, applied in the order color, translation, cutout.

    - ``"color"``: brightness plus -.5 to .5, saturation times 0 to 2 (images of 3 channels only),
      contrast times .5 to 1.5. Values may leave [-1, 1], for real and generated images alike.
    - ``"translation"``: a shift by whole pixels, up to 1/8 of each side, filled with 0.
    - ``"cutout"``: a square of half the side, its centre anywhere in the image, is set to 0.

    Args:
        policy: any of `AUGMENTATIONS`, each at most once; an empty policy is the identity.

    Raises:
        PiggybackError: a name is unknown or listed twice.

    Example::

        augmentation = Augmentation(["color", "translation"])
        draws = augmentation.draw(len(inputs), generator)
        fake = torch.cat(augmentation([inputs, outputs], draws), 1)
    """

    def __init__(self, policy: Sequence[str]) -> None:
        for name in policy:
            check_choice("augmentation", name, AUGMENTATIONS)
        if len(set(policy)) < len(policy):
            raise PiggybackError(
                f"an augmentation is listed twice: found {', '.join(policy)}, give each once"
            )
        self.policy = tuple(name for name in AUGMENTATIONS if name in policy)

    def draw(self, count: int, generator: torch.Generator, *, sides: int = 2) -> Tensor:
        """Draw random numbers for `count` images, a row for each: float32 (count, 4 + 3 * sides) in [0, 1).

        Rows are independent of each other and of the policy: a batch that is split over processes
        is augmented as the whole one if each draws for the whole and takes the rows of its part.

        Args:
            count: number of images, from 0 on.
            generator: on the CPU.
            sides: the most images that belong together in a call; two for input and output.
        """
        return torch.rand((count, _PLACES + _COLOURS * sides), generator=generator)

    def __call__(
        self, sides: Sequence[Tensor], draws: Tensor, *, coloured: Sequence[bool] | None = None
    ) -> list[Tensor]:
        """Augment images that belong together, such as the input and the output of a translation.

        All sides of one image are translated and cut out alike; each has a colour of its own.

        Args:
            sides: tensors (B, C, H, W) in [-1, 1], on one device, of the same B, H and W; C may differ.
            draws: from `draw`, B rows, for as many sides as there are or more.
            coloured: which sides are images; the others, such as one-hot labels, keep their values
                under ``"color"``. All are images if None.

        Returns:
            Tensors of the same shapes, dtypes and device, differentiable (twice, too) with respect
            to `sides`, which stay as they are. The same draws give the same result; whether images
            come together or apart matters to "color" only, by the rounding of a mean.

        Raises:
            PiggybackError: sides and draws do not fit together.
        """
        coloured = [True] * len(sides) if coloured is None else coloured
        _check(sides, draws, coloured)
        augmented = list(sides)
        if not len(draws):
            return augmented
        if "color" in self.policy:
            for index, (side, is_image) in enumerate(zip(sides, coloured, strict=True)):
                first = _PLACES + _COLOURS * index
                if is_image:
                    augmented[index] = _colour(side, draws[:, first : first + _COLOURS])
        if "translation" in self.policy:
            augmented = [_translate(side, draws[:, :2]) for side in augmented]
        if "cutout" in self.policy:
            augmented = [_cut_out(side, draws[:, 2:4]) for side in augmented]
        return augmented


def _check(sides: Sequence[Tensor], draws: Tensor, coloured: Sequence[bool]) -> None:
    shapes = ", ".join(str(tuple(side.shape)) for side in sides)
    if len({(side.shape[0], *side.shape[2:]) for side in sides}) != 1:
        raise PiggybackError(
            f"sides of an image must have the same height and width, and be as many: found {shapes}"
        )
    if len(coloured) != len(sides):
        raise PiggybackError(f"coloured says {len(coloured)} sides, found {len(sides)}: {shapes}")
    rows, columns = len(sides[0]), _PLACES + _COLOURS * len(sides)
    if draws.dim() != 2 or draws.shape[0] != rows or draws.shape[1] < columns:
        raise PiggybackError(
            f"draws don't fit {len(sides)} sides of {rows} images: found {tuple(draws.shape)}, "
            f"give draw({rows}, generator, sides={len(sides)})"
        )


def _colour(images: Tensor, draws: Tensor) -> Tensor:
    """Images (B, C, H, W) with other brightness, saturation and contrast, by draws (B, 3)."""
    draws = draws.to(images.device, images.dtype)[:, :, None, None, None]
    brightness, saturation, contrast = draws.unbind(1)
    images = images + (brightness - 0.5)
    if images.shape[1] == 3:
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _translate(images: Tensor, draws: Tensor) -> Tensor:
    """Images (B, C, H, W) shifted down and to the right by whole pixels, by draws (B, 2)."""
    reaches = [round(side * _SHIFT) for side in images.shape[2:]]
    shifts = [
        [int(share * (2 * reach + 1)) - reach for share, reach in zip(row, reaches, strict=True)]
        for row in draws.tolist()
    ]
    # Padding by less than nothing crops: what is filled at one rim leaves at the other.
    moved = [
        F.pad(image, (right, -right, down, -down))
        for image, (down, right) in zip(images.unbind(), shifts, strict=True)
    ]
    return torch.stack(moved)


def _cut_out(images: Tensor, draws: Tensor) -> Tensor:
    """Images (B, C, H, W) with a rectangle of half their sides at 0, by draws (B, 2)."""
    cut = torch.ones(())
    for dimension, share in enumerate(draws.double().unbind(1)):
        side = images.shape[2 + dimension]
        length = int(side * _CUTOUT)
        first = (share * side).floor() - length // 2
        place = torch.arange(side) - first[:, None]
        inside = ((place >= 0) & (place < length)).unsqueeze(2 - dimension)
        cut = cut * inside
    return images * (1 - cut)[:, None].to(images.device, images.dtype)
