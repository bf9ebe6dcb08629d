"""A run's checkpoint on disk: all that training goes on from. Read without running anything in it."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from piggyback_gan.errors import PiggybackError
from piggyback_gan.manifest import atomic_write


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
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None if nothing was written yet.

    Raises:
        PiggybackError: the file is damaged, or can't be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError):
        content = None
    if not isinstance(content, dict):
        raise PiggybackError(
            f"{path} is damaged: discard the run and begin anew (pbgan runs BANK --discard TASK)"
        )
    return content
