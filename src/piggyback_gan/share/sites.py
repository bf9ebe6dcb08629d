"""Where a bank lies, or can come to lie: a directory, or a place on the Hugging Face hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from piggyback_gan.bank.manifest import SAMPLES_FOLDER
from piggyback_gan.errors import PiggybackError
from piggyback_gan.share.hub import HubSite, is_address
from piggyback_gan.system.files import atomic_write, require_writable


class Site(Protocol):
    """Where a bank lies, or can come to lie."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def address(self) -> str:
        """Where its readers find it."""

    def read(self, path: str) -> bytes | None:
        """A file of the bank; None if there is none."""

    def names(self) -> frozenset[str]:
        """The paths of its sample pictures; others may be among them."""


@dataclass(frozen=True)
class FolderSite:
    """A bank's directory."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's path."""
        return str(self.path)

    @property
    def address(self) -> str:
        """Its last part: above it, others have other folders."""
        return self.path.resolve().name

    def read(self, path: str) -> bytes | None:
        """A file in it; None if there is none.

        Raises:
            PiggybackError: it can't be read.
        """
        try:
            return (self.path / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise PiggybackError(f"{self.path / path} can't be read: {error.strerror}") from None

    def names(self) -> frozenset[str]:
        """The paths of its sample pictures."""
        found = (self.path / SAMPLES_FOLDER).glob("*.png")
        return frozenset(f"{SAMPLES_FOLDER}/{path.name}" for path in found)

    def put(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and remove files, each in one moment."""
        for name, content in changes.items():
            path = self.path / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                require_writable(path.parent)
                atomic_write(path, content)


def site_at(address: str | Path) -> FolderSite | HubSite:
    """The place that an address means.

    Raises:
        PiggybackError: it is no address, or one of the hub, whose library is not installed.
    """
    return HubSite(str(address)) if is_address(address) else FolderSite(Path(address))
