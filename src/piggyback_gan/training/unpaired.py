"""Training steps of an unpaired task, as in CycleGAN."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from piggyback_gan.data.datasets import share_of
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.config import Architecture
from piggyback_gan.system.distributed import Processes
from piggyback_gan.system.seeding import generator_at
from piggyback_gan.training.image_pool import ImagePool
from piggyback_gan.training.losses import generator_loss
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.trainer import POOL, Batch, Losses, Penalty, TrainableNetwork, Trainer


class UnpairedTrainer(Trainer):
    """GAN losses in both directions, plus cycle and identity L1.

    Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
    ICCV 2017. In each step every generator translates its own side and the other side (for the identity
    loss) in one pass where the norm lets images of a batch alone, then goes back; filters are composed
    once for all of it.

    Args:
        forward, backward: the networks, on their device, each with the task in training.
        config: the task's forward generator.
        options, device, processes, penalties: as for `Trainer`.
    """

    def __init__(
        self,
        forward: TrainableNetwork,
        backward: TrainableNetwork,
        config: Architecture,
        options: TrainingOptions,
        device: torch.device,
        processes: Processes | None = None,
        *,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        one, two = options.direction[0], options.direction[-1]
        self.sides = one, two
        judged = {one: config.input_channels, two: config.output_channels}
        generators = {FORWARD: forward, BACKWARD: backward}
        super().__init__(generators, judged, options, device, processes, penalties)
        self.pools = {side: ImagePool(options.pool_size) for side in self.sides}
        self._together = config.is_batch_independent

    def state(self) -> dict[str, Any]:
        """As `Trainer.state`, with the pools."""
        pools = {side: pool.images for side, pool in self.pools.items()}
        return super().state() | {"pools": pools}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """As `Trainer.load_state`, with the pools."""
        super().load_state(state)
        for side, pool in self.pools.items():
            pool.images = [image.to(self.device) for image in state["pools"][side]]

    def _step(self, batch: Batch, losses: Losses, should_stop: Callable[[], bool]) -> bool:
        one, two = self.sides
        forward, backward = self.generators[FORWARD], self.generators[BACKWARD]
        parts = list(self._parts(batch))
        fakes: dict[str, list[Tensor]] = {side: [] for side in self.sides}

        self._begin(of_discriminators=False)
        for real_one, real_two, draws, share in parts:
            fake_two, same_two = self._translate(forward, real_one, real_two)
            fake_one, same_one = self._translate(backward, real_two, real_one)
            back_one, back_two = self._run(backward, fake_two), self._run(forward, fake_one)
            gan_two = self._fooled(two, fake_two, draws)
            gan_one = self._fooled(one, fake_one, draws)
            cycle_one, cycle_two = _l1(back_one, real_one), _l1(back_two, real_two)
            loss = gan_one + gan_two + self.options.cycle_weight * (cycle_one + cycle_two)
            named = {
                f"gan_{one}to{two}": gan_two,
                f"gan_{two}to{one}": gan_one,
                f"cycle_{one}": cycle_one,
                f"cycle_{two}": cycle_two,
            }
            if same_one is not None and same_two is not None:
                identity_one, identity_two = _l1(same_one, real_one), _l1(same_two, real_two)
                assert self.options.identity_weight is not None
                loss = loss + self.options.identity_weight * (identity_one + identity_two)
                named |= {f"identity_{one}": identity_one, f"identity_{two}": identity_two}
            for name, images in ((FORWARD, real_one), (BACKWARD, real_two)):
                if (penalty := self._penalty(name, images)) is not None:
                    loss, named = loss + penalty, {**named, f"penalty_{name}": penalty}
            (loss * share).backward()  # type: ignore[no-untyped-call]
            losses.add(len(real_one), **named)
            fakes[one].append(fake_one.detach())
            fakes[two].append(fake_two.detach())
        stop = self._end(of_discriminators=False, flag=should_stop())

        self._begin(of_discriminators=True)
        shown = {side: self._from_pool(side, batch, fakes[side]) for side in self.sides}
        start = 0
        for real_one, real_two, draws, share in parts:
            these = slice(start, start + len(real_one))
            start = these.stop
            for side, real in ((one, real_one), (two, real_two)):
                seen, fake = self._seen(real, draws), self._seen(shown[side][these], draws)
                judged = self._discriminator_loss(self.discriminators[side], seen, fake)
                (judged * share).backward()  # type: ignore[no-untyped-call]
                losses.add(len(real), **{f"discriminator_{side}": judged})
        self._end(of_discriminators=True)
        return stop

    def _translate(
        self, generator: TrainableNetwork, images: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Translate a generator's own side, and the other side for the identity loss."""
        if not self.options.identity_weight:
            return self._run(generator, images), None
        if self._together:
            translated, same = self._run(generator, torch.cat([images, others])).chunk(2)
            return translated, same
        return self._run(generator, images), self._run(generator, others)

    def _fooled(self, side: str, fake: Tensor, draws: Tensor | None) -> Tensor:
        """Compute a generator's GAN loss for images of this side."""
        scores = self._run(self.discriminators[side], self._seen(fake, draws))
        return generator_loss(self.options.gan_loss, scores)

    def _seen(self, images: Tensor, draws: Tensor | None) -> Tensor:
        return self._augmented([images], draws)[0]

    def _from_pool(self, side: str, batch: Batch, fakes: list[Tensor]) -> Tensor:
        """Query the pool for the discriminator's images. All processes hold the same pool, so their number may change on resume."""
        world = self.processes.world
        counts = [len(range(batch.total)[share_of(batch.total, (r, world))]) for r in range(world)]
        # A process may have no images in a step.
        none = (batch.first if side == self.sides[0] else batch.second)[:0].to(self.device)
        own = torch.cat(fakes) if fakes else none
        everyones = self.processes.gather(own, counts)
        chance = generator_at(self.options.seed, batch.step, POOL, self.sides.index(side))
        shown = self.pools[side].query(everyones, chance)
        return shown[share_of(batch.total, (self.processes.rank, world))]


def _l1(images: Tensor, targets: Tensor) -> Tensor:
    return (images - targets).abs().mean()
