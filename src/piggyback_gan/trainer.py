"""Training steps of a paired task: conditional GAN loss plus L1, as in pix2pix."""

import torch
from torch import Tensor

from piggyback_gan.config import GeneratorConfig
from piggyback_gan.discriminators import build_discriminator
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.objectives import discriminator_loss, generator_loss, gradient_penalty
from piggyback_gan.options import TrainingOptions

_GRADIENT_PENALTY_WEIGHT = 10.0


class PairedTrainer:
    """Trains the task in training of a network against a fresh discriminator.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017;
    the discriminator sees input and output together.

    Args:
        network: on its device, with a task in training.
        config: the generator's architecture, for its channels.
        options: resolved (`TrainingOptions.resolved`).
        device: where the network is.
    """

    def __init__(
        self,
        network: PiggybackNetwork,
        config: GeneratorConfig,
        options: TrainingOptions,
        device: torch.device,
    ) -> None:
        assert options.learning_rate is not None, "options must be resolved"
        self.network = network
        self.options = options
        self.device = device
        channels = config.input_channels + config.output_channels
        self.discriminator = build_discriminator(options.discriminator_config(channels)).to(device)
        betas = (options.beta1, 0.999)
        self._optimizers = (
            torch.optim.Adam(network.trainable_parameters(), options.learning_rate, betas),
            torch.optim.Adam(
                self.discriminator.parameters(), options.discriminator_learning_rate, betas
            ),
        )
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_factor)
            for optimizer in self._optimizers
        ]

    def _rate_factor(self, epoch: int) -> float:
        """Constant, then linear to 0: `epoch` counts from 0, the last one still has a share."""
        assert self.options.decay_epochs is not None
        left = self.options.epochs - epoch
        return min(1.0, left / (self.options.decay_epochs + 1))

    def learning_rate(self) -> float:
        """The generator's rate now."""
        rate: float = self._optimizers[0].param_groups[0]["lr"]
        return rate

    def step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One step of discriminator and generator.

        Args:
            inputs, targets: (B, C, H, W) in [-1, 1], on any device.

        Returns:
            The losses as scalar tensors without history: `discriminator`, `gan` and `l1` (unweighted).
        """
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        optimizer_generator, optimizer_discriminator = self._optimizers
        kind = self.options.gan_loss
        outputs = self.network(inputs)
        real, fake = torch.cat([inputs, targets], 1), torch.cat([inputs, outputs], 1)

        self.discriminator.requires_grad_(True)
        optimizer_discriminator.zero_grad()
        judged = discriminator_loss(
            kind, self.discriminator(real), self.discriminator(fake.detach())
        )
        if kind == "wgan-gp":
            penalty = gradient_penalty(self.discriminator, real, fake.detach())
            judged = judged + _GRADIENT_PENALTY_WEIGHT * penalty
        judged.backward()  # type: ignore[no-untyped-call]
        optimizer_discriminator.step()

        self.discriminator.requires_grad_(False)
        optimizer_generator.zero_grad()
        gan = generator_loss(kind, self.discriminator(fake))
        l1 = (outputs - targets).abs().mean()
        (gan + self.options.l1_weight * l1).backward()
        optimizer_generator.step()
        return {"discriminator": judged.detach(), "gan": gan.detach(), "l1": l1.detach()}

    def end_epoch(self) -> None:
        """Step both learning rate schedules."""
        for schedule in self._schedules:
            schedule.step()
