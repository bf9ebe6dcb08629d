"""Training steps of a paired task, as in pix2pix."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from piggyback_gan.names import FORWARD
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.losses import generator_loss
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.trainer import Batch, Losses, Penalty, TrainableNetwork, Trainer


class PairedTrainer(Trainer):
    """Conditional GAN loss plus L1.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017;
    the discriminator sees input and output together.

    Args:
        network: the forward network, on its device, with a task in training.
        config: the task's generator, for its channels.
        options, device, processes, penalties: as for `Trainer`; the generator's name is "forward".
        labels: whether the inputs are one-hot, which have no colours to augment.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        config: Architecture,
        options: TrainingOptions,
        device: torch.device,
        processes: Processes | None = None,
        *,
        labels: bool = False,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        judged = {"discriminator": config.input_channels + config.output_channels}
        super().__init__({FORWARD: network}, judged, options, device, processes, penalties)
        self.network = network
        self.discriminator = self.discriminators["discriminator"]
        self._coloured = (not labels, True)

    def _step(self, batch: Batch, losses: Losses, should_stop: Callable[[], bool]) -> bool:
        parts = list(self._parts(batch))
        # Where batches accumulate, the outputs' histories would accumulate with them: make them twice.
        at_once = len(parts) == 1
        made = []
        self._begin(of_discriminators=True)
        for inputs, targets, draws, share in parts:
            with torch.set_grad_enabled(at_once):
                outputs = self._run(self.network, inputs)
            made.append(outputs)
            real = self._seen(inputs, targets, draws)
            fake = self._seen(inputs, outputs.detach(), draws)
            judged = self._discriminator_loss(self.discriminator, real, fake)
            (judged * share).backward()  # type: ignore[no-untyped-call]
            losses.add(len(inputs), discriminator=judged)
        self._end(of_discriminators=True)

        self._begin(of_discriminators=False)
        for (inputs, targets, draws, share), outputs in zip(parts, made, strict=True):
            if not at_once:
                outputs = self._run(self.network, inputs)
            scores = self._run(self.discriminator, self._seen(inputs, outputs, draws))
            gan = generator_loss(self.options.gan_loss, scores)
            l1 = (outputs - targets).abs().mean()
            loss, named = gan + self.options.l1_weight * l1, {"gan": gan, "l1": l1}
            if (penalty := self._penalty(FORWARD, inputs)) is not None:
                loss, named = loss + penalty, {**named, "penalty": penalty}
            (loss * share).backward()  # type: ignore[no-untyped-call]
            losses.add(len(inputs), **named)
        return self._end(of_discriminators=False, flag=should_stop())

    def _seen(self, inputs: Tensor, images: Tensor, draws: Tensor | None) -> Tensor:
        """What the discriminator sees: the input, and an image that may be its translation."""
        return torch.cat(self._augmented([inputs, images], draws, self._coloured), 1)
