"""GAN losses of discriminator and generator, and the gradient penalty of WGAN-GP."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import GAN_LOSSES
from piggyback_gan.system.checks import check_choice


def discriminator_loss(kind: str, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return the loss, a scalar, that teaches a discriminator to tell real from fake.

    With r and f the scores, and each mean over everything:

    - lsgan: (mean (r - 1)^2 + mean f^2) / 2 (Mao et al., ICCV 2017)
    - vanilla: (mean -log sigmoid(r) + mean -log(1 - sigmoid(f))) / 2 (Goodfellow et al., 2014)
    - wgan-gp: mean f - mean r, to which callers add `gradient_penalty` (Gulrajani et al., 2017)
    - hinge: mean max(0, 1 - r) + mean max(0, 1 + f) (Miyato et al., ICLR 2018)

    Halving lsgan and vanilla is pix2pix's way to slow the discriminator (Isola et al., CVPR 2017).

    Args:
        kind: one of `GAN_LOSSES`.
        real_scores: the discriminator's scores of real images, of any shape, unbounded.
        fake_scores: its scores of generated images, without gradient to the generator (the
            images detached); of any shape.

    Raises:
        PiggybackError: ``kind`` is not one of `GAN_LOSSES`.
    """
    check_choice("GAN loss", kind, GAN_LOSSES)
    if kind == "lsgan":
        return 0.5 * (_mean_square(real_scores - 1) + _mean_square(fake_scores))
    if kind == "vanilla":
        # softplus(-s) is -log sigmoid(s), without overflow at either end.
        return 0.5 * (F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean())
    if kind == "wgan-gp":
        return fake_scores.mean() - real_scores.mean()
    return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()


def generator_loss(kind: str, fake_scores: Tensor) -> Tensor:
    """Return the loss, a scalar, that teaches a generator to have its images scored as real.

    With f the scores: lsgan mean (f - 1)^2, vanilla mean -log sigmoid(f) (the non-saturating form),
    wgan-gp and hinge -mean f. Sources as for `discriminator_loss`.

    Args:
        kind: one of `GAN_LOSSES`.
        fake_scores: the discriminator's scores of generated images, of any shape, unbounded.

    Raises:
        PiggybackError: ``kind`` is not one of `GAN_LOSSES`.
    """
    check_choice("GAN loss", kind, GAN_LOSSES)
    if kind == "lsgan":
        return _mean_square(fake_scores - 1)
    if kind == "vanilla":
        return F.softplus(-fake_scores).mean()
    return -fake_scores.mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return WGAN-GP's penalty, mean (|gradient| - 1)^2, a scalar; callers multiply it by 10.

    The gradient is that of an image's score (its scores' sum, for a PatchGAN) at a random point
    between a real and a generated image. It can be differentiated with respect to the
    discriminator's parameters; ``real`` and ``fake`` get no gradient from it. Batch norm in the
    discriminator would mix the images' gradients: use instance norm or none.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, equation 3.

    Args:
        discriminator: maps images (B, C, H, W) to scores (B, ...). For a conditional one, let it
            append the condition.
        real: real images (B, C, H, W) in [-1, 1].
        fake: generated images of the same shape.
        generator: draws the random points; it must be on the images' device. Torch's global one
            if None.

    Raises:
        PiggybackError: ``real`` and ``fake`` differ in shape.
    """
    if real.shape != fake.shape:
        raise PiggybackError(
            f"real and fake images differ in shape: found {tuple(real.shape)} and "
            f"{tuple(fake.shape)}, give as many of the same size"
        )
    share = torch.rand(
        (real.shape[0],) + (1,) * (real.dim() - 1),
        generator=generator,
        device=real.device,
        dtype=real.dtype,
    )
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    scores = discriminator(between)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return _mean_square(length - 1)


def _mean_square(values: Tensor) -> Tensor:
    return values.square().mean()
