"""The writer's lock of a bank, and a description of its holder. Nothing here imports torch."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from piggyback_gan.bank.manifest import MANIFEST_NAME, TASKS_FOLDER, now
from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.files import atomic_write, require_writable

_LOCK_NAME = "bank.lock"
_WRITER_NAME = "bank.writer.json"
_LOCK_SECONDS = 0.5


@contextlib.contextmanager
def writer_lock(bank: Path, purpose: str) -> Iterator[None]:
    """Hold the writer's lock of a bank. The lock ends with the process, however it ends.

    Raises:
        PiggybackError: another process holds it (the message says which), the folder is read-only, or
            the disk is full.
    """
    is_new = not bank.exists()
    require_writable(bank)
    # Not at once: `current_writer` may hold it for a moment.
    lock = filelock.FileLock(bank / _LOCK_NAME, timeout=_LOCK_SECONDS)
    writer = bank / _WRITER_NAME
    try:
        lock.acquire()
    except filelock.Timeout:
        raise PiggybackError(
            f"{bank} is being written by {_describe(writer)}: wait for it"
        ) from None
    except OSError as error:
        raise PiggybackError(f"{bank} can't be locked: {error.strerror}") from None
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "purpose": purpose,
            "since": now(),
        }
        atomic_write(writer, json.dumps(holder).encode())
        yield
    finally:
        writer.unlink(missing_ok=True)
        unused = is_new and not (bank / MANIFEST_NAME).exists()
        if unused:
            # Before it is released: else this could be the lock of the next writer.
            with contextlib.suppress(OSError):
                (bank / _LOCK_NAME).unlink()
        lock.release()
        if unused:
            for folder in (bank / TASKS_FOLDER, bank):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def current_writer(bank: Path) -> Mapping[str, Any] | None:
    """Return the description of the process that is writing a bank; None if there is no such process."""
    if not (bank / _LOCK_NAME).exists():
        return None
    lock = filelock.FileLock(bank / _LOCK_NAME, timeout=0)
    try:
        with lock:
            return None
    except filelock.Timeout:
        pass
    except OSError:  # a folder that this process can't write to
        return None
    try:
        holder = json.loads((bank / _WRITER_NAME).read_text())
    except (OSError, ValueError):
        holder = None
    return holder if isinstance(holder, dict) else {}


def _describe(writer: Path) -> str:
    try:
        holder = json.loads(writer.read_text())
        return "process {pid} on {host} ({purpose}, since {since})".format_map(holder)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
