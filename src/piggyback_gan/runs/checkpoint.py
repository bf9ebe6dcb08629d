"""A run's checkpoint on disk: all that training goes on from. Read without running anything in it.

The file is what `torch.save` writes, and its SHA-256, 32 bytes, at the end. PyTorch itself does not see a
flipped bit in a tensor, and a run that goes on from one would not end as it should.
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
from piggyback_gan.system.files import atomic_write

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
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    atomic_write(path, buffer.getvalue())


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
    body = memoryview(raw)[:-_DIGEST_BYTES]
    content = None
    if hashlib.sha256(body).digest() == raw[-_DIGEST_BYTES:]:
        # Whole, but who wrote it?
        with contextlib.suppress(RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise PiggybackError(
            f"{path} is damaged: discard the run (pbgan runs {path.parents[2]} --discard "
            f"{path.parent.name}) and begin anew"
        )
    return content
