"""Ctrl-C and SIGTERM: finish the step, say where things stand, end; or end at once and leave nothing."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from piggyback_gan.system.files import remove_staging_folders


class Stop:
    """Remembers the signal that asked for an end; a second one ends at once."""

    signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended, by custom; SIGTERM if another one was told."""
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
    """Let Ctrl-C and SIGTERM end the process inside the block, with its staging folders removed.

    Nothing is raised for it: the libraries at work there would pass over an exception out of nowhere, or
    crash, as one does in the midst of its import.
    """

    def end(number: int, frame: FrameType | None) -> None:
        remove_staging_folders()
        with contextlib.suppress(OSError):
            os.write(2, b"pbgan: stopped\n")  # print may be at work on another line
        os._exit(128 + number)

    with _handled(end):
        yield


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM ask for an end rather than end the process where it stands."""
    stop = Stop()
    with _handled(stop):
        yield stop
