"""Options of a server: limits, batching, access. Does not import torch, for a fast command line."""

from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Device
from piggyback_gan.system.checks import check_positive

_MOST = 2**40


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of a server.

    Attributes:
        device: where to compute.
        max_tasks_in_memory: most composed networks in memory; the least recently used is evicted first.
        max_batch: most images, of one task and size, per batch.
        batch_wait: how long an image waits for others if nothing else is to be done, in milliseconds.
        max_queue: most images in the queue, including those being translated; more are refused with 429.
        max_bytes: most bytes of a request's body.
        max_pixels: most pixels of an image.
        whole_pixels: most pixels of a batch; larger images are translated in tiles.
        max_files: most files in a request.
        timeout: seconds for a request's body to arrive, again for its translation, and again for the
            response to be read.
        token_file: a file of bearer tokens, one per line; None allows every client.
        allowed_hosts: host names to accept; () accepts those of loopback on loopback, else every name.
        samples: a folder of images whose translations are the tasks' sample pictures, as for ``pbgan push``.
        training_samples: use pictures from training for tasks without a sample picture. They show validation
            images, which the user may not want others to see.

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
    """Read a file with one token per line; blank lines and lines that begin with # are ignored.

    Raises:
        PiggybackError: the file can't be read, has no token, or has one that is not valid in a header.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PiggybackError(
            f"{path} is not a text file: give a file with one token per line"
        ) from None
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise PiggybackError(f"{path} has no token: write one per line, of letters and digits")
    for number, token in enumerate(tokens, 1):
        if len(token) < 16 or not all("!" <= letter <= "~" for letter in token):
            raise PiggybackError(
                f"{path}: token {number} is too short or has characters not allowed in a header: use 16 or "
                "more of A-Z, a-z and 0-9"
            )
    return tokens
