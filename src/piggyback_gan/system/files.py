"""Atomic writes and staging folders."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from piggyback_gan.errors import PiggybackError

_staging_folders: set[Path] = set()


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file's content atomically: after a crash it has either the old or the new content.

    Raises:
        PiggybackError: it can't be written (full disk, read-only folder); the old file is unchanged.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to `path` when the block ends without an error.

    Raises:
        PiggybackError: it can't be written (full disk, read-only folder); the old file is unchanged.
    """
    temporary = _unused(path, ".tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise PiggybackError(
            f"{path} can't be written: {error.strerror}; what was there is unchanged"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Create a folder if needed, and check that files can be written in it.

    Raises:
        PiggybackError: they can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PiggybackError(f"{folder} can't be written to: {error.strerror}") from None


@contextlib.contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Create a folder in which to prepare `path`, on the same disk; it is removed when the block ends.

    It lies in the nearest existing parent of `path`, so a failure leaves no new folders.

    Raises:
        PiggybackError: it can't be written to (full disk, read-only folder, a file in the way).
    """
    above = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    folder = _unused(above / path.name)
    _staging_folders.add(folder)
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except OSError as error:
        raise PiggybackError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _staging_folders.discard(folder)


def remove_staging_folders() -> None:
    """Remove all staging folders of this process, before it ends without leaving its blocks."""
    for folder in tuple(_staging_folders):
        shutil.rmtree(folder, ignore_errors=True)


def _unused(path: Path, suffix: str = "") -> Path:
    """Return an unused hidden path beside `path`.

    Unlike tempfile's, the name is known before anything is created, so a signal at that moment leaves nothing
    that can't be found again.
    """
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}{suffix}")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows can't open folders and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
