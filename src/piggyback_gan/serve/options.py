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

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""
    max_tasks_in_memory: int = 8
    """Composed networks kept in memory; the least recently used is dropped first."""
    max_batch: int = 8
    """Images of one task and size translated in one batch."""
    batch_wait: float = 5.0
    """Milliseconds that an image waits for others to fill its batch while the server is idle."""
    max_queue: int = 64
    """Images that may be waiting or in translation; further ones are refused with 429."""
    max_bytes: int = 32 * 2**20
    """Size limit of a request body, in bytes."""
    max_pixels: int = 2**24
    """Size limit of an image, in pixels."""
    whole_pixels: int = 2**22
    """Pixels translated at once, all images of a batch together: limits memory; larger images go in tiles."""
    max_files: int = 32
    """Files in one request."""
    timeout: float = 120.0
    """Seconds for a request body to arrive, then for its response to be computed, then for it to be sent."""
    token_file: Path | None = None
    """File of bearer tokens, one per line, of which requests must carry one; without it, all are served."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that requests may use, such as a reverse proxy's; by default, on loopback, its names."""
    samples: Path | None = None
    """Images to show for the tasks on the page, DIR/TASK or DIR for all; without it, the bank's samples."""
    training_samples: bool = False
    """Show a training sample for tasks without another; it may contain images that are not public."""

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
