"""Sites of banks: a directory, or a repository on the Hugging Face hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.bank.manifest import SAMPLES_FOLDER
from piggyback_gan.errors import PiggybackError
from piggyback_gan.share.hub import HubSite, is_address
from piggyback_gan.system.files import atomic_write, require_writable


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
        """The directory's name: its parent folders differ on other machines."""
        return self.path.resolve().name

    def read(self, path: str) -> bytes | None:
        """Read a file; None if it does not exist.

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
        """Return the paths of its sample pictures."""
        found = (self.path / SAMPLES_FOLDER).glob("*.png")
        return frozenset(f"{SAMPLES_FOLDER}/{path.name}" for path in found)

    def put(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and remove files, each atomically; None removes a file."""
        for name, content in changes.items():
            path = self.path / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                require_writable(path.parent)
                atomic_write(path, content)


Site = FolderSite | HubSite


def site_at(address: str | Path) -> Site:
    """Return the site of an address.

    Raises:
        PiggybackError: the address is invalid, or huggingface_hub is not installed.
    """
    return HubSite(str(address)) if is_address(address) else FolderSite(Path(address))
