"""Banks on the Hugging Face hub: a thin wrapper of huggingface_hub with one-line errors."""

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piggyback_gan.errors import PiggybackError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)(?:@([^@\s]+))?")
_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
_MEANWHILE = "somebody else changed it meanwhile: run this again"
_NOT_THERE = f"the repository does not exist, or you may not see it: {_LOG_IN}"

_MAIN = "main"
_MADE_WITH = {".gitattributes"}
"""What the hub puts in a new repository."""


def is_address(place: str | Path) -> bool:
    """Return whether this is an address on the hub, not a directory.

    Raises:
        PiggybackError: it is another kind of address.
    """
    text = str(place)
    if "://" in text and not text.startswith(_SCHEME):
        raise PiggybackError(f"{text} is not a bank's address: give a directory or hf://OWNER/NAME")
    # A Path has one of the slashes.
    return text.startswith(("hf://", "hf:/"))


class HubSite:
    """A bank in a repository of the hub, at the commit that was read first.

    huggingface_hub reads the hub's address and the token from HF_ENDPOINT and HF_TOKEN.

    Args:
        address: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`.

    Raises:
        PiggybackError: the address is invalid, or huggingface_hub is not installed.
    """

    def __init__(self, address: str) -> None:
        matched = _ADDRESS.fullmatch(address)
        if matched is None:
            raise PiggybackError(f"{address} is not a hub address: give hf://OWNER/NAME[@REVISION]")
        self.name = address
        self._repository, self._revision = matched[1], matched[2]
        self._api = _library()

    @property
    def address(self) -> str:
        """The address for readers."""
        return self.name

    @cached_property
    def _info(self) -> Any:
        """The hub's description of the repository; None if it does not exist or this user may not see it."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with self._in_one_line():
            try:
                return self._api.repo_info(self._repository, revision=self._revision)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None

    def require(self) -> None:
        """Check that the repository exists.

        Raises:
            PiggybackError: it does not, or this user may not see it.
        """
        if not self.exists():
            raise PiggybackError(f"{self.name}: {_NOT_THERE}")

    def exists(self) -> bool:
        """Return whether the repository exists."""
        return self._info is not None

    def is_private(self) -> bool:
        """Return whether the repository is private."""
        return bool(self._info.private)

    def names(self) -> frozenset[str]:
        """Return the paths of all files."""
        files = self._info.siblings if self.exists() else ()
        return frozenset(file.rfilename for file in files or ())

    def read(self, path: str) -> bytes | None:
        """Download a file; None if it does not exist. It is not cached.

        Raises:
            PiggybackError: it can't be downloaded.
        """
        if path not in self.names():
            return None
        with self._in_one_line(), tempfile.TemporaryDirectory() as folder:
            file = self._api.hf_hub_download(
                self._repository, path, revision=self._info.sha, cache_dir=folder
            )
            return Path(file).read_bytes()

    def create(self, private: bool) -> None:
        """Create the repository.

        Raises:
            PiggybackError: the address has a branch; the hub refuses; or somebody else created it and added
                files meanwhile.
        """
        if self._revision not in (None, _MAIN):
            raise PiggybackError(
                f"{self.name}: the repository does not exist, so it has no branch {self._revision!r}: push to "
                f"{_SCHEME}{self._repository} first"
            )
        with self._in_one_line():
            self._api.create_repo(self._repository, private=private, exist_ok=True)
        del self._info
        self.require()  # somebody else may have one of this name, which this user may not see
        # What is to be committed was planned for a place where nothing is.
        if self.names() - _MADE_WITH or (private and not self.is_private()):
            raise PiggybackError(f"{self.name}: {_MEANWHILE}")

    def commit(self, changes: Mapping[str, bytes | Path | None], title: str) -> None:
        """Change files in one commit, on top of the commit that was read; None removes a file.

        Raises:
            PiggybackError: the hub refuses, or somebody else changed the repository meanwhile.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [
            CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
            for path, content in changes.items()
        ]
        with self._in_one_line():
            self._api.create_commit(
                self._repository,
                operations,
                commit_message=title,
                revision=self._revision,
                parent_commit=self._info.sha,
            )

    @contextlib.contextmanager
    def _in_one_line(self) -> Iterator[None]:
        from huggingface_hub import errors

        # Of whatever library it talks HTTP with: the common class of that one's errors.
        transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
        try:
            yield
        except (transport, OSError, ValueError, errors.EntryNotFoundError) as error:
            raise PiggybackError(f"{self.name}: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return "its owner lets in only those who ask: ask for access on its page"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"it has no revision {self._revision!r}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            return _NOT_THERE
        if status == 403:
            return f"you may not do this there: {_LOG_IN} as somebody who may"
        if status in (409, 412):
            return _MEANWHILE
        words = " ".join(str(error).split()) or type(error).__name__
        if status is not None:
            return f"the hub refused: {getattr(error, 'server_message', None) or words}"
        # An address or a README that the library refuses; a full disk.
        plain = isinstance(error, ValueError) or getattr(error, "errno", None) is not None
        return words if plain else f"the hub can't be reached: {words}"


def _library() -> "HfApi":
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise PiggybackError(
            "the hub needs huggingface_hub: pip install 'piggyback-gan[hub]'"
        ) from None
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(library_name="piggyback-gan")
