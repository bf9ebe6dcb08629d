"""TensorBoard events of a run: losses, validation metrics, sample pictures. The library is optional."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from piggyback_gan.errors import PiggybackError


def require_tensorboard() -> None:
    """Check that TensorBoard is installed and can be imported.

    Raises:
        PiggybackError: the library is missing, or can't be imported.
    """
    _summary_writer()


class TensorBoardLog:
    """Writes event files into a folder, to be read by ``tensorboard --logdir FOLDER``.

    Steps are training steps, counted from 1. Each process that writes makes a file of its own in the
    folder; readers show them as one run. What is logged reaches the disk with `validation`, `samples`
    and `close`, at the latest after two minutes.

    Args:
        folder: where to write; created if it does not exist.
        purge_step: the first step this process may log. What an earlier one logged from this step on,
            before it was killed, say, is no longer shown. A run resumed after step 300 gives 301, a
            new run 0, which hides an earlier try altogether.

    Raises:
        PiggybackError: TensorBoard is missing, or the folder can't be written.
    """

    def __init__(self, folder: str | Path, *, purge_step: int = 0) -> None:
        writer = _summary_writer()
        self._folder = Path(folder)
        with self._writing():
            _wait_for_a_later_second(self._folder)
            self._writer = writer(str(self._folder), purge_step=purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Log numbers as ``loss/NAME``."""
        with self._writing():
            self._scalars(step, "loss", losses)

    def validation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log numbers as ``validation/NAME``, those of a nested mapping as ``validation/OUTER/NAME``."""
        with self._writing():
            self._scalars(step, "validation", metrics)
            self._writer.flush()

    def samples(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Log a picture as ``samples``.

        Args:
            step: the training step it was made after.
            pixels: (H, W, C) uint8 with 1 (gray), 3 (RGB) or 4 (RGBA) channels.

        Raises:
            PiggybackError: the pixels are of another type or shape, or can't be written.
        """
        shape = pixels.shape
        fits = len(shape) == 3 and all(shape) and shape[2] in (1, 3, 4)
        if pixels.dtype != np.uint8 or not fits:
            raise PiggybackError(
                f"a sample picture must be uint8 (H, W, 1, 3 or 4): found {pixels.dtype} {shape}"
            )
        with self._writing():
            self._writer.add_image("samples", pixels, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Flush and close the file. Closing it again does nothing."""
        with self._writing():
            self._writer.close()

    def _scalars(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                self._scalars(step, f"{group}/{name}", value)
            else:
                self._writer.add_scalar(f"{group}/{name}", value, step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PiggybackError(
                f"TensorBoard events can't be written to {self._folder}: {error.strerror or error}"
            ) from None


def _wait_for_a_later_second(folder: Path) -> None:
    """Wait, 1 s at most, so that the next event file sorts after those that are there.

    Readers take files in the order of their names, which have the second and the process's id; of two
    files of one second, the later one could be read first, and would then purge nothing.
    """
    names = [path.name.split(".") for path in folder.glob("events.out.tfevents.*")]
    newest = max((int(parts[3]) for parts in names if parts[3].isdecimal()), default=0)
    remaining = newest + 1 - time.time()
    if 0 < remaining <= 1:  # more only if the clock was set back, and then waiting is no remedy
        time.sleep(remaining)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        # Beside an unfit protobuf or numpy it fails with other errors than ImportError.
        missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorboard"
        found = "is not installed" if missing else f"can't be used ({error})"
        raise PiggybackError(
            f"TensorBoard {found}: pip install 'piggyback-gan[tensorboard]'"
        ) from None
    return SummaryWriter
