"""The Hugging Face hub as a place for banks: a thin side of huggingface_hub, whose errors become one line."""

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
_NOT_THERE = f"there is no such repository, or you may not see it: {_LOG_IN}"

_MAIN = "main"
_MADE_WITH = {".gitattributes"}
"""What the hub puts in a new repository."""


def is_address(place: str | Path) -> bool:
    """Whether this means a place on the hub, and no directory.

    Raises:
        PiggybackError: it is an address of another kind.
    """
    text = str(place)
    if "://" in text and not text.startswith(_SCHEME):
        raise PiggybackError(f"{text} is no address of a bank: give a directory or hf://OWNER/NAME")
    # A Path has one of the slashes.
    return text.startswith(("hf://", "hf:/"))


class HubSite:
    """A bank in a repository of the hub, as it was when it was first looked at: one commit.

    The library takes the hub's address and the token from where it always does: HF_ENDPOINT, HF_TOKEN.

    Args:
        address: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`.

    Raises:
        PiggybackError: it is no such address, or huggingface_hub is not installed.
    """

    def __init__(self, address: str) -> None:
        matched = _ADDRESS.fullmatch(address)
        if matched is None:
            raise PiggybackError(f"{address} is no hub address: give hf://OWNER/NAME[@REVISION]")
        self.name = address
        self._repository, self._revision = matched[1], matched[2]
        self._api = _library()

    @property
    def address(self) -> str:
        """Where everybody finds it."""
        return self.name

    @cached_property
    def _info(self) -> Any:
        """What the hub says of the repository; None where there is none, or none that this user may see."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with self._in_one_line():
            try:
                return self._api.repo_info(self._repository, revision=self._revision)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None

    def require(self) -> None:
        """Refuse an address where there is nothing.

        Raises:
            PiggybackError: there is no such repository, or none that this user may see.
        """
        if not self.exists():
            raise PiggybackError(f"{self.name}: {_NOT_THERE}")

    def exists(self) -> bool:
        """Whether there is such a repository."""
        return self._info is not None

    def is_private(self) -> bool:
        """Whether only its owner sees it."""
        return bool(self._info.private)

    def names(self) -> frozenset[str]:
        """The paths of all its files."""
        files = self._info.siblings if self.exists() else ()
        return frozenset(file.rfilename for file in files or ())

    def read(self, path: str) -> bytes | None:
        """A file in it; None if there is none. Nothing is kept on this machine.

        Raises:
            PiggybackError: it can't be had.
        """
        if path not in self.names():
            return None
        with self._in_one_line(), tempfile.TemporaryDirectory() as folder:
            file = self._api.hf_hub_download(
                self._repository, path, revision=self._info.sha, cache_dir=folder
            )
            return Path(file).read_bytes()

    def create(self, private: bool) -> None:
        """Make the repository, which was not there.

        Raises:
            PiggybackError: the address has a branch, which a new repository has not; the hub refuses; or
                somebody else made it meanwhile and began to fill it.
        """
        if self._revision not in (None, _MAIN):
            raise PiggybackError(
                f"{self.name}: no such repository is there to have a branch {self._revision!r}: push to "
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
        """Change files in one commit, on the one that was looked at; None removes a file.

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
