"""Download a file once, check its hash, and keep it in the cache folder."""

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
    """Return the cache folder: PIGGYBACK_GAN_CACHE if set, else ~/.cache/piggyback-gan."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "piggyback-gan"


def fetch(url: str, sha256: str, path: Path) -> Path:
    """Download a file to `path`, unless it is there with this SHA-256 (hexadecimal) already; return `path`.

    The file appears at `path` complete and checked, or not at all.

    Raises:
        PiggybackError: it can't be downloaded, has another hash, or can't be written.
    """
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
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
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise PiggybackError(
            f"{url} has another content than expected: expected SHA-256 {sha256}, found {found}; it was not kept"
        )
    atomic_write(path, content)
    return path
