"""Handle Ctrl-C and SIGTERM: stop after the current step, or at once and without leftovers."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from piggyback_gan.system.files import remove_staging_folders


class Stop:
    """Signal handler that records the first signal; a second one ends the process at once."""

    signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number

    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """Conventional exit status after the signal; SIGTERM's if only another process received one."""
        return 128 + (self.signal or signal.SIGTERM)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process inside the block and delete its staging folders.

    No exception is raised: libraries at work there could swallow it, or crash, as one does during its import.
    """

    def end(number: int, frame: FrameType | None) -> None:
        remove_staging_folders()
        with contextlib.suppress(OSError):
            os.write(2, b"pbgan: stopped\n")  # print may be in the middle of a line
        os._exit(128 + number)

    with _handled(end):
        yield


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM request a stop inside the block, instead of ending the process."""
    stop = Stop()
    with _handled(stop):
        yield stop
