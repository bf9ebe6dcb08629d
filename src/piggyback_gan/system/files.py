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

_workplaces: set[Path] = set()


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that at any moment, also after a crash, the old or the new content is there.

    Raises:
        PiggybackError: it can't be written (full disk, read-only folder); nothing is left behind.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its place in one moment, when the block ends without an error.

    Raises:
        PiggybackError: it can't be written (full disk, read-only folder); nothing is left behind.
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
    """Make a folder and check that files can be written in it.

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
def workplace(path: Path) -> Iterator[Path]:
    """A folder to make something in that is to become `path`: on the same disk, and gone with the block.

    It is in the nearest folder above that is there, so that none is made for what may fail.

    Raises:
        PiggybackError: something can't be written there (full disk, read-only folder, a file in the way).
    """
    above = next((place for place in path.absolute().parents if place.exists()), Path("/"))
    folder = _unused(above / path.name)
    _workplaces.add(folder)
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except OSError as error:
        raise PiggybackError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _workplaces.discard(folder)


def clear_workplaces() -> None:
    """Remove what this process has half made: before it ends without leaving its blocks."""
    for folder in tuple(_workplaces):
        shutil.rmtree(folder, ignore_errors=True)


def _unused(path: Path, suffix: str = "") -> Path:
    """A hidden name beside a path that nothing has.

    It is known before anything is made under it, as tempfile's names are not: a signal at that moment would
    leave what nobody knows of.
    """
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}{suffix}")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows can't open folders and needs no such thing."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
