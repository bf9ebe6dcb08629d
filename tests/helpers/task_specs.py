"""Task specs for strategies: tiny tasks, learned through the real trainers."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from piggyback_gan import TrainingOptions
from piggyback_gan.bank.card import ImageCard, ParameterCard, TaskCard
from piggyback_gan.core.free_tasks import factorize_task
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.experiments.strategies.base import Strategy, TaskSpec
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.trainer import Batch
from piggyback_gan.training.unpaired import UnpairedTrainer

RESNET = GeneratorConfig(name="resnet-6", ngf=4)
UNET = GeneratorConfig(name="unet-64", ngf=4)
BATCH_NORM = GeneratorConfig(name="resnet-6", ngf=4, norm="batch", dropout=True)
PAIRED = TrainingOptions(
    epochs=4,
    decay_epochs=0,
    batch_size=1,
    image_size=16,
    discriminator_layers=1,
    ndf=2,
    learning_rate=2e-3,
    backward_learning_rate=2e-3,
    device="cpu",
)
BOTH = ("forward", "backward")
CPU = torch.device("cpu")


def images(side: int = 16) -> Tensor:
    """(1, 3, side, side) in [-1, 1], the same each time."""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def fresh(config: GeneratorConfig = RESNET, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_generator(config)


def task_spec(
    task: str, config: GeneratorConfig = RESNET, directions: Sequence[str] = ("forward",)
) -> TaskSpec:
    networks = {which: fresh(config, seed) for seed, which in enumerate(directions)}
    mode = "unpaired" if len(networks) == 2 else "paired"

    def card(parameters: ParameterCount) -> TaskCard:
        image = ImageCard(size=16, input=ImageFormat(), output=ImageFormat())
        parameter_card = ParameterCard(**parameters.as_card())
        return TaskCard(mode=mode, options={}, image=image, parameters=parameter_card)

    return TaskSpec(task, networks, config, card)


def train(learners: Mapping[str, nn.Module], config: GeneratorConfig, level: float) -> list[float]:
    """Four epochs of a step: every image is to become a plain one of this level.

    Returns:
        The L1 loss of each step, if the task is paired.
    """
    mode = "unpaired" if len(learners) == 2 else "paired"
    options = dataclasses.replace(PAIRED, mode=mode).resolved(earlier=(), device="cpu")
    trainer = (
        UnpairedTrainer(learners["forward"], learners["backward"], config, options, CPU)
        if mode == "unpaired"
        else PairedTrainer(learners["forward"], config, options, CPU)
    )
    inputs = images(64 if config is UNET else 16)
    l1 = []
    for epoch in range(1, options.epochs + 1):
        trainer.begin_epoch(steps=1)
        for learner in learners.values():
            if hasattr(learner, "begin_epoch"):
                learner.begin_epoch(epoch, options.epochs)
        if epoch == options.epochs:
            trainer.replace_generators(lambda: factorize(learners, inputs))
        batch = Batch(epoch - 1, inputs, torch.full_like(inputs, level), 1)
        losses, _ = trainer.step(batch)
        l1.append(float(losses.sums["l1"]) if mode == "paired" else 0.0)
    for learner in learners.values():
        learner.eval()
    return l1


def factorize(learners: Mapping[str, nn.Module], inputs: Tensor) -> None:
    """Factorize those networks that are trained free, as a training does after most of its steps."""
    for learner in learners.values():
        if isinstance(learner, PiggybackNetwork) and learner.to_factorize:
            factorize_task(learner, [inputs])


def learn(
    strategy: Strategy, folder: Path, taught: TaskSpec, config: GeneratorConfig = RESNET
) -> list[float]:
    """Begin, train and finish one task."""
    learners = strategy.begin(folder, taught)
    level = 0.9 - 0.6 * len(strategy.tasks(folder))
    l1 = train(learners, config, level)
    strategy.finish(folder, taught, learners)
    return l1


def take(strategy: Strategy, folder: Path, taught: TaskSpec) -> None:
    """Begin and finish one task without training."""
    learners = strategy.begin(folder, taught)
    factorize(learners, images(64 if taught.config.name == "unet-64" else 16))
    strategy.finish(folder, taught, learners)


@torch.no_grad()
def output(
    strategy: Strategy,
    folder: Path,
    task: str,
    which: str = "forward",
    config: GeneratorConfig = RESNET,
) -> Tensor:
    """What a task's generator, as kept in the folder, makes of `images`."""
    generator = strategy.generator(folder, task, which, fresh(config, seed=9))
    made: Tensor = generator(images(64 if config is UNET else 16))
    return made
