"""Response bodies with translated images: a file, a ZIP, or a form."""

import io
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote

OutputFormat = Literal["best", "png", "tif", "webp", "jpg", "bmp"]

MEDIA_TYPES = {
    ".png": "image/png",
    ".tif": "image/tiff",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".bmp": "image/bmp",
}
ZIP = "application/zip"
FORM = "multipart/form-data"
NO_CACHE = {"Cache-Control": "no-cache"}
"""Clients revalidate before each use."""


@dataclass(frozen=True)
class File:
    """A file in a response; its name is derived from the uploaded image's."""

    name: str
    media_type: str
    content: bytes

    @property
    def disposition(self) -> str:
        """The Content-Disposition header (RFC 6266)."""
        plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in self.name)
        return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(self.name, safe='')}"


def output_name(name: str, suffix: str) -> str:
    """Return the name of an image's translation: its own with another suffix."""
    stem = PurePosixPath(name).stem if PurePosixPath(name).suffix else name
    return f"{stem}{suffix}"


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that would be equal on a case-insensitive disk: a.png, a-2.png."""
    made: list[str] = []
    taken: set[str] = set()
    for name in names:
        path, number = PurePosixPath(name), 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        taken.add(name.casefold())
        made.append(name)
    return made


def as_zip(files: Sequence[File]) -> bytes:
    """Pack files into a ZIP, uncompressed, with a fixed date so that equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.content)
    return buffer.getvalue()


def as_form(parts: Sequence[tuple[str, File]]) -> tuple[bytes, str]:
    """Encode (field, file) pairs as multipart/form-data; also return the media type with the boundary."""
    boundary = f"pbgan-{secrets.token_hex(16)}"
    body = io.BytesIO()
    for field, file in parts:
        # Names are escaped as by the HTML standard's form encoding.
        name = file.name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
        body.write(
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: {file.media_type}\r\n\r\n".encode(errors="replace")
        )
        body.write(file.content)
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    return body.getvalue(), f"{FORM}; boundary={boundary}"
