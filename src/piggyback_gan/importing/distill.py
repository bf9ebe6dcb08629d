"""Distillation: a task in training learns to give what a finished network gives, from input images alone."""

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
_JUDGED_AT_ONCE = 16


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
    """Train a network's task on another network's outputs: Adam on their L1 distance, the rate falling to 0.

    All that the task trains is trained: unconstrained filters, what mixes, biases and norms. Dropout and
    running statistics are as in use. The rate falls in the second half of the steps.

    Args:
        network: with a task in training; it is left in eval mode, on the CPU.
        teacher: what to learn from.
        inputs: images, of its first side.
        crop: side of the random crops of them.
        steps: how many, of `BATCH_SIZE` crops, half of them mirrored.
        seed: of all chance.
        device: where to compute.
        on_step: told how many steps are done, and the loss of the last one.

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
    """Input images, decoded and resized; a little larger than `size`, if crops of that are to be taken.

    Raises:
        PiggybackError: names all files that can't be used.
    """
    side = round(size * _LOAD_SHARE) if for_crops else size
    return UnpairedDataset(sources, (), formats=(format, format), size=side)


@torch.inference_mode()
def output_distance(
    made: nn.Module, given: nn.Module, inputs: UnpairedDataset, device: str
) -> dict[str, float]:
    """How far the outputs of two networks are from each other on images: L1, PSNR, SSIM (`image_metrics`)."""
    made, given = made.to(device), given.to(device)
    return mean_metrics(
        image_metrics(made(images).cpu(), given(images).cpu())
        for images in (batch.to(device) for batch in inputs.in_order(_JUDGED_AT_ONCE, 0))
    )


def _batches(inputs: UnpairedDataset, crop: int, seed: int) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    count, room = len(inputs.first), inputs.size - crop
    while True:
        order = torch.randint(count, (BATCH_SIZE,), generator=chance).tolist()
        cuts = []
        for index in order:
            top, left = torch.randint(room + 1, (2,), generator=chance).tolist()
            cut = inputs.image(0, index)[:, top : top + crop, left : left + crop]
            cuts.append(cut.flip(2) if torch.rand((), generator=chance) < 0.5 else cut)
        yield torch.stack(cuts)
