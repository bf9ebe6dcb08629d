"""What a server is told: limits on what it takes, how it batches, what it keeps. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Device
from piggyback_gan.system.checks import check_positive

_MOST = 2**40


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a bank is served.

    Attributes:
        device: where to compute.
        max_tasks_in_memory: composed networks that are kept, the least recently used goes first.
        max_batch: images of one task and size that are translated at once.
        batch_wait: how long an image waits for others while nothing else is to be done, in milliseconds.
        max_queue: images that may wait or be at work; more are refused with 429.
        max_bytes: of a request's body.
        max_pixels: of an image.
        whole_pixels: of what is translated at once, all of a batch together: larger images go in tiles.
        max_files: in one request.
        timeout: seconds for a request's body to arrive, again for its answer to be made, and again for it to
            be taken.
        token_file: a file of bearer tokens, one a line; None: whoever reaches the server can use it.
        allowed_hosts: names by which the server may be called; () on loopback: the names of loopback.
        samples: a folder of images whose translations stand for the tasks, as for ``pbgan push``.
        training_samples: tasks that have no sample picture show one of their training, with images that
            the user may not want others to see.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    device: Device = "auto"
    max_tasks_in_memory: int = 8
    max_batch: int = 8
    batch_wait: float = 5.0
    max_queue: int = 64
    max_bytes: int = 32 * 2**20
    max_pixels: int = 2**24
    whole_pixels: int = 2**22
    max_files: int = 32
    timeout: float = 120.0
    token_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    samples: Path | None = None
    training_samples: bool = False

    def __post_init__(self) -> None:
        for name in ("max_tasks_in_memory", "max_batch", "max_queue", "max_files"):
            check_positive(name, getattr(self, name))
        for name in ("max_bytes", "max_pixels", "whole_pixels"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise PiggybackError(f"invalid {name}: found {getattr(self, name)}, give 1 or more")
        if not 0 <= self.batch_wait <= 10_000:
            raise PiggybackError(
                f"invalid batch_wait: found {self.batch_wait:g}, give milliseconds from 0 to 10000"
            )
        if not 0 < self.timeout <= 86_400:
            raise PiggybackError(
                f"invalid timeout: found {self.timeout:g}, give seconds, up to 86400"
            )
        if self.max_files > self.max_queue:
            raise PiggybackError(
                f"invalid max_files: found {self.max_files}, but the queue holds {self.max_queue}: "
                "give at most as many"
            )


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens in a file, one a line; blank lines and those that begin with # are passed over.

    Raises:
        PiggybackError: the file can't be read, has none, or has one that no header can carry.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PiggybackError(f"{path} is no text: give a file with one token a line") from None
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise PiggybackError(f"{path} has no token: write one a line, of letters and digits")
    for number, token in enumerate(tokens, 1):
        if len(token) < 16 or not all("!" <= letter <= "~" for letter in token):
            raise PiggybackError(
                f"{path}: token {number} is too short or has letters that no header can carry: use 16 or "
                "more of A-Z, a-z and 0-9"
            )
    return tokens
