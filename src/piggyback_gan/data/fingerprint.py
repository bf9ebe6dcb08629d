"""Fingerprints of data sets: hashes of all files, and the difference of two fingerprints."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from piggyback_gan.errors import MAX_NAMES, PiggybackError, first_names

_HASHING_THREADS = 4


def fingerprint(
    paths: Sequence[Path], *, root: Path, on_progress: Callable[[int], None] = lambda count: None
) -> dict[str, str]:
    """Hash the files: SHA-256 in hexadecimal by path relative to `root`, the data set's folder.

    `on_progress` is called with the number of files read so far.

    Raises:
        PiggybackError: a file can't be read.
    """
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        hashes: dict[str, str] = {}
        for path, digest in zip(paths, pool.map(_sha256, paths), strict=True):
            hashes[path.relative_to(root).as_posix()] = digest
            on_progress(len(hashes))
    return hashes


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Describe the difference of two fingerprints in one line with up to 20 names; None if they are equal."""
    found = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(n for n in before.keys() & after.keys() if before[n] != after[n]),
    }
    parts, left = [], MAX_NAMES
    for what, names in found.items():
        if names:
            parts.append(f"{len(names)} {what}: {first_names(names, left, ', ')}")
            left = max(left - len(names), 0)
    return "; ".join(parts) or None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
