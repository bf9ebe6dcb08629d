"""Training steps: what paired and unpaired trainers share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from piggyback_gan.core.private_tensors import load_module_state, module_state
from piggyback_gan.data.datasets import share_of
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.discriminators import build_discriminator
from piggyback_gan.system.distributed import Processes
from piggyback_gan.system.seeding import generator_at, seed_of
from piggyback_gan.training.augment import Augmentation
from piggyback_gan.training.losses import discriminator_loss, gradient_penalty
from piggyback_gan.training.options import TrainingOptions

_GRADIENT_PENALTY_WEIGHT = 10.0
# Random streams of a step, independent of each other.
_LAYERS, _AUGMENTATION, POOL = range(3)


class TrainableNetwork(Protocol):
    """A network with a task in training, such as `PiggybackNetwork`: (B, C, H, W) in [-1, 1] -> the same."""

    module: nn.Module

    def trainable_parameters(self) -> list[nn.Parameter]: ...

    def train(self, mode: bool = True) -> object: ...

    def __call__(self, images: Tensor) -> Tensor: ...


Penalty = Callable[[Tensor], Tensor | None]
"""An additional generator loss for inputs (B, C, H, W); None for none."""


@dataclass(frozen=True)
class Batch:
    """One step's images, or this process's share of them.

    Attributes:
        step: index in the whole training, from 0; with the seed it determines all random numbers of the step.
        first, second: (B, C, H, W) in [-1, 1]: inputs and targets, or the two sides of an unpaired task.
        total: images in the whole step, over all processes and accumulated batches.
    """

    step: int
    first: Tensor
    second: Tensor
    total: int


@dataclass
class Losses:
    """Losses of a step, summed over this process's images."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0

    def add(self, images: int, **losses: Tensor) -> None:
        """Add means over this number of images."""
        for name, loss in losses.items():
            total = loss.detach().float() * images
            self.sums[name] = self.sums[name] + total if name in self.sums else total


class Trainer(ABC):
    """Trains the tasks in training of one or two networks against fresh discriminators.

    Args:
        generators: "forward" and, of an unpaired task, "backward", on their device, each with a task in
            training.
        judged: the channels of the images that each discriminator judges, by name.
        options: resolved (`TrainingOptions.resolved`).
        device: where the networks are.
        processes: those that train together, all with the same networks; by default only this one.
        penalties: additional losses, by generator name.
    """

    def __init__(
        self,
        generators: Mapping[str, TrainableNetwork],
        judged: Mapping[str, int],
        options: TrainingOptions,
        device: torch.device,
        processes: Processes | None,
        penalties: Mapping[str, Penalty] | None,
    ) -> None:
        assert options.learning_rate is not None, "options must be resolved"
        self.options = options
        self.device = device
        # With batch norm, real and generated images would affect each other's scores.
        self._judged_together = options.discriminator_norm != "batch"
        self.processes = processes or Processes()
        self._penalties = penalties or {}
        self.generators = generators
        self.discriminators = {
            name: build_discriminator(options.discriminator_config(channels)).to(device)
            for name, channels in judged.items()
        }
        self._discriminator_parameters = [
            p for d in self.discriminators.values() for p in d.parameters()
        ]
        rate = options.discriminator_learning_rate
        judging = self._adam([{"params": self._discriminator_parameters, "lr": rate}])
        self._optimizers = (self._generator_optimizer(), judging)
        self._epoch_steps = 0
        augments = options.augment == "on"
        self._augmentation = Augmentation(options.augment_policy) if augments else None

    def _generator_optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer of what the generators train now."""
        rates = {FORWARD: self.options.learning_rate, BACKWARD: self.options.backward_learning_rate}
        trained = {
            name: network.trainable_parameters() for name, network in self.generators.items()
        }
        self._generator_parameters = [p for own in trained.values() for p in own]
        return self._adam([{"params": own, "lr": rates[name]} for name, own in trained.items()])

    def _adam(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        # Fused: one pass over each parameter, where torch supports it. A user's network may have complex
        # parameters besides its filters.
        is_real = not any(p.is_complex() for group in groups for p in group["params"])
        fused = self.device.type in ("cpu", "cuda") and is_real
        for group in groups:
            group["full_rate"] = group["lr"]
        return torch.optim.Adam(groups, betas=(self.options.beta1, 0.999), fused=fused)

    def replace_generators(
        self, change: Callable[[], None], rates: Mapping[str, float] | None = None
    ) -> None:
        """Train on after the generators' parameters were replaced; those of the same name and shape keep their moments.

        Args:
            change: replaces them.
            rates: generator -> its learning rate from now on, relative to before.
        """
        moments = {}
        for key, parameter in self._named_parameters().items():
            moments[key] = self._optimizers[0].state.get(parameter)
        before = [group["full_rate"] for group in self._optimizers[0].param_groups]
        change()
        self._optimizers = (self._generator_optimizer(), self._optimizers[1])
        groups = zip(self.generators, self._optimizers[0].param_groups, before, strict=True)
        for name, group, rate in groups:
            group["full_rate"] = rate * (rates or {}).get(name, 1.0)
        trained = set(self._generator_parameters)
        for key, parameter in self._named_parameters().items():
            kept = moments.get(key)
            if parameter in trained and kept and kept["exp_avg"].shape == parameter.shape:
                self._optimizers[0].state[parameter] = kept

    def _named_parameters(self) -> dict[tuple[str, str], nn.Parameter]:
        """The generators' parameters, by network and name."""
        return {
            (which, name): parameter
            for which, network in self.generators.items()
            for name, parameter in network.module.named_parameters()
        }

    def begin_epoch(self, steps: int) -> None:
        """Set train mode.

        Args:
            steps: in an epoch, at least 1; the learning rate schedule depends on it.
        """
        assert steps > 0
        self._epoch_steps = steps
        for network in self.generators.values():
            network.train()

    def _set_rates(self, step: int) -> None:
        """Set the learning rates of a step: constant, then linear decay to 0 at the end of training."""
        assert self.options.decay_epochs is not None
        falling = self.options.decay_epochs * self._epoch_steps
        left = self.options.epochs * self._epoch_steps - step
        factor = min(1.0, max(0, left) / falling) if falling else 1.0
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * factor

    def learning_rate(self) -> float:
        """The (forward) generator's learning rate in the last step."""
        rate: float = self._optimizers[0].param_groups[0]["lr"]
        return rate

    def step(
        self, batch: Batch, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Losses, bool]:
        """One step of discriminators and generators.

        Returns:
            The losses, as sums over this process's images, unweighted and without history; and whether any
            of the processes was asked to stop, the same in all of them.
        """
        torch.manual_seed(seed_of(self.options.seed, batch.step, _LAYERS, self.processes.rank))
        self._set_rates(batch.step)
        losses = Losses(images=len(batch.first))
        stop = self._step(batch, losses, should_stop)
        generators = (generator.module for generator in self.generators.values())
        self.processes.broadcast_buffers([*generators, *self.discriminators.values()])
        return losses, stop

    @abstractmethod
    def _step(self, batch: Batch, losses: Losses, should_stop: Callable[[], bool]) -> bool: ...

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on besides the data: tensors and plain values."""
        return {
            "generators": {n: module_state(g.module) for n, g in self.generators.items()},
            "discriminators": {n: d.state_dict() for n, d in self.discriminators.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        for name, generator in self.generators.items():
            load_module_state(generator.module, state["generators"][name])
        for name, discriminator in self.discriminators.items():
            discriminator.load_state_dict(state["discriminators"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    # Used by the steps

    def _parts(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor | None, float]]:
        """Yield micro-batches: first, second, augmentation draws, share of the step."""
        draws = None
        if self._augmentation is not None:
            chance = generator_at(self.options.seed, batch.step, _AUGMENTATION)
            part = (self.processes.rank, self.processes.world)
            draws = self._augmentation.draw(batch.total, chance)[share_of(batch.total, part)]
        for start in range(0, len(batch.first), self.options.batch_size):
            these = slice(start, start + self.options.batch_size)
            first, second = batch.first[these].to(self.device), batch.second[these].to(self.device)
            yield first, second, None if draws is None else draws[these], len(first) / batch.total

    def _computing(self) -> AbstractContextManager[object]:
        """Autocast to the precision of the networks."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"
        )

    def _run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with self._computing():
            return network(images).float()

    def _penalty(self, name: str, images: Tensor) -> Tensor | None:
        """The additional loss of a generator for these inputs, if it has one."""
        if name not in self._penalties:
            return None
        with self._computing():
            return self._penalties[name](images)

    def _augmented(
        self, sides: list[Tensor], draws: Tensor | None, coloured: Sequence[bool] | None = None
    ) -> list[Tensor]:
        """Augment images that belong together, if augmentation is on."""
        if self._augmentation is None or draws is None:
            return sides
        return self._augmentation(sides, draws, coloured=coloured)

    def _discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Compute the loss of real and detached generated images."""
        kind = self.options.gan_loss
        if self._judged_together:
            scores = self._run(discriminator, torch.cat([real, fake]))
            of_real, of_fake = scores[: len(real)], scores[len(real) :]
        else:
            of_real, of_fake = self._run(discriminator, real), self._run(discriminator, fake)
        loss = discriminator_loss(kind, of_real, of_fake)
        if kind == "wgan-gp":
            loss = loss + _GRADIENT_PENALTY_WEIGHT * gradient_penalty(discriminator, real, fake)
        return loss

    def _begin(self, *, of_discriminators: bool) -> None:
        for parameter in self._discriminator_parameters:
            parameter.requires_grad_(of_discriminators)
        self._optimizers[of_discriminators].zero_grad()

    def _end(self, *, of_discriminators: bool, flag: bool = False) -> bool:
        own = self._discriminator_parameters if of_discriminators else self._generator_parameters
        raised = self.processes.sum_gradients(own, flag)
        self._optimizers[of_discriminators].step()
        return raised
