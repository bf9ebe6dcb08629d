"""Training steps as in the public pix2pix and CycleGAN trainers, as a baseline of benchmarks.

Source: the steps of Isola et al., CVPR 2017, and Zhu et al., ICCV 2017, in the order of their public
PyTorch trainers: separate forward passes, fp32, contiguous, not compiled, plain Adam.
"""

import itertools

import torch
from torch import Tensor, nn

from piggyback_gan.networks.config import DiscriminatorConfig
from piggyback_gan.networks.discriminators import build_discriminator
from piggyback_gan.system.seeding import generator_at
from piggyback_gan.training.image_pool import ImagePool


def _judged(scores: Tensor, real: bool) -> Tensor:
    return nn.functional.mse_loss(scores, torch.full_like(scores, float(real)))


def _require(networks: list[nn.Module], needed: bool) -> None:
    for network in networks:
        for parameter in network.parameters():
            parameter.requires_grad_(needed)


class PlainPaired:
    """Step of pix2pix: discriminator on fake and on real, then the generator with GAN and L1 loss."""

    def __init__(self, generator: nn.Module, config: DiscriminatorConfig, device: torch.device):
        self.generator = generator.to(device).train()
        self.discriminator = build_discriminator(config).to(device).train()
        self.of_generator = torch.optim.Adam(self.generator.parameters(), 2e-4, (0.5, 0.999))
        self.of_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), 2e-4, (0.5, 0.999)
        )

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        fake = self.generator(inputs)
        _require([self.discriminator], True)
        self.of_discriminator.zero_grad()
        of_fake = _judged(self.discriminator(torch.cat([inputs, fake], 1).detach()), False)
        of_real = _judged(self.discriminator(torch.cat([inputs, targets], 1)), True)
        ((of_fake + of_real) * 0.5).backward()
        self.of_discriminator.step()
        _require([self.discriminator], False)
        self.of_generator.zero_grad()
        gan = _judged(self.discriminator(torch.cat([inputs, fake], 1)), True)
        (gan + 100 * nn.functional.l1_loss(fake, targets)).backward()
        self.of_generator.step()


class PlainUnpaired:
    """Step of CycleGAN: six separate generator passes, then each discriminator on real and pooled fakes."""

    def __init__(
        self,
        generators: tuple[nn.Module, nn.Module],
        config: DiscriminatorConfig,
        device: torch.device,
    ):
        self.forward, self.backward = (g.to(device).train() for g in generators)
        self.of_a, self.of_b = (build_discriminator(config).to(device).train() for _ in "AB")
        both = itertools.chain(self.forward.parameters(), self.backward.parameters())
        self.of_generators = torch.optim.Adam(both, 2e-4, (0.5, 0.999))
        judges = itertools.chain(self.of_a.parameters(), self.of_b.parameters())
        self.of_discriminators = torch.optim.Adam(judges, 2e-4, (0.5, 0.999))
        self.pools = ImagePool(50), ImagePool(50)
        self.steps = 0

    def step(self, real_a: Tensor, real_b: Tensor) -> None:
        l1 = nn.functional.l1_loss
        fake_b, fake_a = self.forward(real_a), self.backward(real_b)
        back_a, back_b = self.backward(fake_b), self.forward(fake_a)
        _require([self.of_a, self.of_b], False)
        self.of_generators.zero_grad()
        identity = l1(self.forward(real_b), real_b) + l1(self.backward(real_a), real_a)
        gan = _judged(self.of_b(fake_b), True) + _judged(self.of_a(fake_a), True)
        cycle = l1(back_a, real_a) + l1(back_b, real_b)
        (gan + 10 * cycle + 5 * identity).backward()
        self.of_generators.step()
        _require([self.of_a, self.of_b], True)
        self.of_discriminators.zero_grad()
        for side, judge, real, fake in (
            (0, self.of_b, real_b, fake_b),
            (1, self.of_a, real_a, fake_a),
        ):
            shown = self.pools[side].query(fake.detach(), generator_at(0, self.steps, side))
            of_real, of_fake = _judged(judge(real), True), _judged(judge(shown), False)
            ((of_real + of_fake) * 0.5).backward()
        self.of_discriminators.step()
        self.steps += 1
