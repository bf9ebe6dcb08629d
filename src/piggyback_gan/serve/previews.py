"""Sample pictures of served tasks: from chosen images, from the bank, or from training."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from piggyback_gan.bank.bank import Bank
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode
from piggyback_gan.images.encode import encode
from piggyback_gan.runs.run_folder import RunFolder
from piggyback_gan.serve.catalogue import ServedTask
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.share.model_card import sample_names
from piggyback_gan.share.showcase import chosen_images, task_pictures

_log = logging.getLogger(__name__)

_GAP = 2  # pixels between the images of a sample picture
_COLUMNS = {"paired": 3, "unpaired": 6}


class Previews:
    """Sample pictures, made on first request: input | output, PNG, 8-bit RGB."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._made: dict[str, bytes] = {}
        self._one_at_a_time = asyncio.Lock()

    async def get(self, bank: Bank, task: ServedTask) -> bytes | None:
        """Return a task's sample picture, or None if it has none."""
        key = task.entry.sha256
        if key not in self._made:
            async with self._one_at_a_time:
                if key not in self._made:
                    picture = await asyncio.to_thread(self._make, bank, task)
                    if picture is None:  # not remembered: one may be added later
                        return None
                    self._made[key] = picture
        return self._made[key]

    def available(self, bank: Bank, tasks: Collection[ServedTask]) -> set[str]:
        """Return the names of tasks that have a sample picture, without making it."""
        return {task.entry.name for task in tasks if self._is_available(bank, task)}

    def _is_available(self, bank: Bank, task: ServedTask) -> bool:
        if task.entry.sha256 in self._made:
            return True
        try:
            stored = (bank.path / sample_names(task.entry.name)[0]).is_file()
            return stored or bool(self._chosen(task)) or self._newest(bank, task) is not None
        except (PiggybackError, OSError):
            return False

    def _make(self, bank: Bank, task: ServedTask) -> bytes | None:
        name = task.entry.name
        try:
            if chosen := self._chosen(task):
                return task_pictures(bank, name, chosen[:1])[0]
            stored = bank.path / sample_names(name)[0]
            if stored.is_file():
                return encode(decode(stored).pixels, ".png")
            newest = self._newest(bank, task)
            return None if newest is None else _first_pair(newest, task)
        except (PiggybackError, OSError, RuntimeError, MemoryError) as error:
            _log.warning("task %r has no sample picture: %s", name, error)
            return None

    def _chosen(self, task: ServedTask) -> list[Path] | None:
        folder = self._options.samples
        return None if folder is None else chosen_images(folder, task.entry.name)

    def _newest(self, bank: Bank, task: ServedTask) -> Path | None:
        if not self._options.training_samples:
            return None
        return RunFolder(bank.path, task.entry.name).newest_sample()


def _first_pair(path: Path, task: ServedTask) -> bytes:
    """Crop input and output of the first row from a sample picture written during training."""
    pixels = decode(path).pixels
    columns = _COLUMNS.get(task.mode, 3)
    width = (pixels.shape[1] + _GAP) // columns - _GAP
    height = min(width, pixels.shape[0])
    return encode(np.ascontiguousarray(pixels[:height, : 2 * width + _GAP]), ".png")
