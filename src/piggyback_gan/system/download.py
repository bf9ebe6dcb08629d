"""Files from the network: fetched only when asked for, checked before use, kept in a cache folder."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.files import atomic_write, require_writable

CACHE_VARIABLE = "PIGGYBACK_GAN_CACHE"
_SECONDS = 30


def cache_folder() -> Path:
    """Where files are kept for later: PIGGYBACK_GAN_CACHE where set, else ~/.cache/piggyback-gan."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "piggyback-gan"


def fetch(url: str, sha256: str, path: Path) -> Path:
    """The file at `path`, downloaded if it is not there or is not what it should be.

    Args:
        url: where it is.
        sha256: of its content.
        path: where it is kept; it appears there whole and checked.

    Returns:
        `path`.

    Raises:
        PiggybackError: it can't be had, is another file than it should be, or can't be written.
    """
    if path.is_file() and _is(path.read_bytes(), sha256):
        return path
    require_writable(path.parent)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise PiggybackError(
            f"{url} can't be downloaded ({reason}): fetch it elsewhere and put it at {path}"
        ) from None
    if not _is(content, sha256):
        raise PiggybackError(
            f"{url} is not what it was: expected SHA-256 {sha256}, found "
            f"{hashlib.sha256(content).hexdigest()}; it was not kept"
        )
    atomic_write(path, content)
    return path


def _is(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256
