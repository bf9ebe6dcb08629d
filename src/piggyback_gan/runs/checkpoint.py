"""Checkpoints of training runs: saved atomically, loaded without executing code, verified by SHA-256.

The file is what `torch.save` writes, followed by its SHA-256 (32 bytes). PyTorch does not detect a flipped
bit in a tensor, and a run resumed from one would end with other weights.
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
from piggyback_gan.training.loop import TrainingLoop

_DIGEST_BYTES = 32


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the checkpoint atomically by tensors and plain values, nested in dicts, lists and tuples.

    Raises:
        PiggybackError: it can't be written; the last one is unchanged.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Load a checkpoint onto the CPU; None if there is none yet.

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
        # The hash does not say who wrote it.
        with contextlib.suppress(RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise PiggybackError(
            f"{path} is damaged: discard the run (pbgan runs {path.parents[2]} --discard "
            f"{path.parent.name}) and start again"
        )
    return content


def resume_from_checkpoint(loop: TrainingLoop, path: Path) -> bool:
    """Resume a training loop from its checkpoint; return whether there is one.

    Raises:
        PiggybackError: it is damaged or of other options, or as `TrainingLoop.resume`.
    """
    content = load_checkpoint(path)
    if content is None:
        return False
    try:
        loop.resume(content)
    except PiggybackError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise PiggybackError(
            f"{path} does not fit this run, or another version wrote it ({why}): discard the run "
            f"(pbgan runs {path.parents[2]} --discard {path.parent.name})"
        ) from None
    return True
