"""Sample pictures for a bank's model card: images that the owner chose, each beside its translation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from piggyback_gan.bank.bank import Bank
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.display import display, grid
from piggyback_gan.images.encode import encode
from piggyback_gan.images.read import list_images, read_image
from piggyback_gan.images.tensors import resize, to_pixels, to_tensor
from piggyback_gan.inference.translate import translate_batch
from piggyback_gan.share.model_card import sample_names


def sample_pictures(bank: Bank, folder: Path) -> Mapping[str, list[bytes]]:
    """Draw input | output of the first images in `folder / task`, or in `folder` for tasks without a folder.

    Each image is cropped to its middle square, resized to the training size, and translated in the
    training direction.

    Returns:
        PNG files by task, 8-bit RGB; an empty list for a task whose own folder is empty. Tasks without
        images are left out.

    Raises:
        PiggybackError: there are no images, or one does not fit its task.
    """
    if not folder.is_dir():
        raise PiggybackError(f"{folder}: no such folder of sample images")
    found = {task: chosen_images(folder, task) for task in bank.tasks}
    chosen = {task: images for task, images in found.items() if images is not None}
    if not chosen:
        raise PiggybackError(f"{folder} has no images, and no folder of images named as a task")
    return {
        task: task_pictures(bank, task, images) if images else [] for task, images in chosen.items()
    }


def chosen_images(folder: Path, task: str) -> list[Path] | None:
    """Return the images to show for a task; None if none were chosen.

    Raises:
        PiggybackError: a folder can't be read.
    """
    own = folder / task
    images = list_images(own if own.is_dir() else folder)[: len(sample_names(task))]
    return images if images or own.is_dir() else None


def task_pictures(bank: Bank, task: str, images: Sequence[Path]) -> list[bytes]:
    """Draw input | output of each image, as in `sample_pictures`.

    Raises:
        PiggybackError: an image does not fit the task, or the task can't be read.
    """
    source, target = bank.formats(task)
    config, generator = bank.generator_config(task), bank.generator(task)
    size = bank.card(task).image.size
    made = []
    for path in images:
        pixels = read_image(path, source)
        side = min(pixels.shape[:2])
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        square = resize(pixels[top : top + side, left : left + side], size, labels=source.labels)
        output = translate_batch(generator, config, to_tensor(square, source).unsqueeze(0))[0]
        pair = [display(square, source), display(to_pixels(output, target), target)]
        made.append(encode(np.ascontiguousarray(grid([pair])), ".png"))
    return made
