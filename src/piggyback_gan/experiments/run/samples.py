"""Write pictures of held-out images and a strategy's outputs."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from piggyback_gan.data.loading import Dataset
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.images.display import display
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.tensors import to_pixels
from piggyback_gan.system.files import atomic_write


def save_held_out(
    path: Callable[[int, str], Path], task: Task, dataset: Dataset, count: int, *, partners: bool
) -> None:
    """Write the first held-out images of a task.

    Args:
        path: (number, "input" or "target") -> file.
        task: the images' task.
        dataset: its held-out images.
        count: maximum number.
        partners: whether each input has a target.
    """
    for number in range(min(count, len(dataset))):
        first, second = dataset.pair(number)
        _save(path(number, "input"), first, task.formats[0])
        if partners:
            _save(path(number, "target"), second, task.formats[1])


@torch.inference_mode()
def save_outputs(
    path: Callable[[int], Path],
    task: Task,
    generator: nn.Module,
    dataset: Dataset,
    count: int,
    device: torch.device,
) -> None:
    """Write a generator's outputs for the first held-out images of a task.

    Args:
        path: number -> file.
        task: the images' task.
        generator: in eval mode, on `device`.
        dataset: the task's held-out images.
        count: maximum number.
        device: of the generator.
    """
    for number in range(min(count, len(dataset))):
        image = dataset.pair(number)[0]
        output = generator(image.unsqueeze(0).to(device))[0].float().cpu()
        _save(path(number), output, task.formats[1])


def _save(path: Path, image: Tensor, format: ImageFormat) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, encode(display(to_pixels(image, format), format), ".png"))
