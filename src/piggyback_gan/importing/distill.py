"""Distillation: train a task on the outputs of a finished network, from input images alone."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.data.datasets import UnpairedDataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.metrics import image_metrics, mean_metrics
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source

BATCH_SIZE = 4
LEARNING_RATE = 1e-3
_LOAD_SHARE = 286 / 256  # as in training: crops are a little smaller than images
_EVALUATION_BATCH = 16


def distil(
    network: PiggybackNetwork,
    teacher: nn.Module,
    inputs: UnpairedDataset,
    *,
    crop: int,
    steps: int,
    seed: int,
    device: str,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a network's task on a teacher's outputs with Adam and the L1 loss.

    Unconstrained filters, mixing weights, biases and norms are trained; dropout is off and running
    statistics are fixed. In the second half of the steps the learning rate decays linearly to 0.

    Args:
        network: with a task in training; it is left in eval mode, on the CPU.
        teacher: the network to imitate.
        inputs: images; its first side is used.
        crop: side of the random crops, in pixels.
        steps: number of steps; each takes `BATCH_SIZE` crops, half of them mirrored on average.
        seed: random seed of crops and mirroring.
        device: device to train on.
        on_step: callback, called with the number of steps done and the last step's loss.

    Raises:
        PiggybackError: the loss is not finite.
    """
    network.to(device).train()
    network.module.eval()
    teacher = teacher.to(device).eval()
    optimizer = torch.optim.Adam(network.trainable_parameters(), LEARNING_RATE, fused=True)
    batches = _batches(inputs, crop, seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 2 * (1 - step / steps))
        images = next(batches).to(device)
        with torch.no_grad():
            target = teacher(images)
        loss = (network(images) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()
        if not math.isfinite(value):
            raise PiggybackError(f"finetuning gave a loss that is not finite, in step {step + 1}")
        on_step(step + 1, value)
    network.to("cpu").eval()
    teacher.to("cpu")


def load_inputs(
    sources: Sequence[Source], format: ImageFormat, size: int, *, for_crops: bool = False
) -> UnpairedDataset:
    """Decode input images and resize them to `size` x `size`, or a little larger for random crops.

    Raises:
        PiggybackError: some files can't be used; the message names them.
    """
    side = round(size * _LOAD_SHARE) if for_crops else size
    return UnpairedDataset(sources, (), formats=(format, format), size=side)


@torch.inference_mode()
def output_distance(
    made: nn.Module, given: nn.Module, inputs: UnpairedDataset, device: str
) -> dict[str, float]:
    """Compute mean L1, PSNR and SSIM between the outputs of two networks (see `image_metrics`)."""
    made, given = made.to(device), given.to(device)
    return mean_metrics(
        image_metrics(made(images).cpu(), given(images).cpu())
        for images in (batch.to(device) for batch in inputs.in_order(_EVALUATION_BATCH, 0))
    )


def _batches(inputs: UnpairedDataset, crop: int, seed: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    count, room = len(inputs.first), inputs.size - crop
    while True:
        order = torch.randint(count, (BATCH_SIZE,), generator=random).tolist()
        cuts = []
        for index in order:
            top, left = torch.randint(room + 1, (2,), generator=random).tolist()
            cut = inputs.image(0, index)[:, top : top + crop, left : left + crop]
            cuts.append(cut.flip(2) if torch.rand((), generator=random) < 0.5 else cut)
        yield torch.stack(cuts)
