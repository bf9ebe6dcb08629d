"""A run's checkpoint on disk: all that training goes on from. Read without running anything in it.

The file is the SHA-256 of what follows, 32 bytes, and then what `torch.save` writes. PyTorch itself does not
see a flipped bit in a tensor, and a run that goes on from one would not end as it should.
"""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from piggyback_gan.errors import PiggybackError
from piggyback_gan.manifest import atomic_write

_DIGEST_BYTES = 32


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the checkpoint atomically: the last one is there until this one is whole.

    Args:
        path: the file.
        content: tensors and plain values, nested in dicts, lists and tuples.

    Raises:
        PiggybackError: it can't be written; the last one is as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    body = buffer.getvalue()
    atomic_write(path, hashlib.sha256(body).digest() + body)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None if nothing was written yet.

    Raises:
        PiggybackError: the file is damaged, or can't be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    content = None
    if hashlib.sha256(body).digest() == digest:
        # Whole, but who wrote it?
        with contextlib.suppress(RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise PiggybackError(
            f"{path} is damaged: discard the run and begin anew (pbgan runs BANK --discard TASK)"
        )
    return content
