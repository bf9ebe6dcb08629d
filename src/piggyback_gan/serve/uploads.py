"""Reading the images of a request, within limits of bytes and time."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from piggyback_gan.serve.limits import Traffic
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.responses import FORM

_UNNAMED = "image"
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Upload:
    """An image file as it was sent.

    Attributes:
        name: what its sender calls it, without folders; not to be used as a path.
        content: its bytes.
    """

    name: str
    content: bytes


@contextmanager
def reading(request: Request, options: ServeOptions, traffic: Traffic) -> Iterator["Body"]:
    """A request's body, whose bytes count until the block is left."""
    body = Body(request, options, traffic)
    try:
        yield body
    finally:
        traffic.give_back(body.bytes)


class Body:
    """One request's body."""

    def __init__(self, request: Request, options: ServeOptions, traffic: Traffic) -> None:
        self._request = request
        self._options = options
        self._traffic = traffic
        self.bytes = 0

    async def uploads(self) -> list[Upload]:
        """The image that the body is, or those that are in its form.

        Raises:
            Problem: too many bytes or files, too slow, no file, or a damaged form.
        """
        if _declared(self._request) > self._options.max_bytes:
            raise self._too_large()
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            async with asyncio.timeout(self._options.timeout):
                if kind == FORM:
                    return await self._files_of_form()
                content = b"".join([chunk async for chunk in self._chunks()])
        except TimeoutError:
            raise Problem(
                "slow-upload",
                f"the body did not arrive within {self._options.timeout:g} s: send less, or in parts",
            ) from None
        if not content:
            raise Problem(
                "invalid-request", "the body is empty: send an image, or a form with image files"
            )
        return [Upload(_UNNAMED, content)]

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._request.stream():
            if self.bytes + len(chunk) > self._options.max_bytes:
                raise self._too_large()
            self._traffic.take_in(len(chunk))
            self.bytes += len(chunk)
            yield chunk

    async def _files_of_form(self) -> list[Upload]:
        # More than are allowed are read, as it takes reading to count them; the bytes are limited.
        parser = MultiPartParser(
            self._request.headers, self._chunks(), max_files=1000, max_fields=1000
        )
        parser.spool_max_size = self._options.max_bytes  # nothing goes to disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Problem("bad-request", f"the form can't be read: {error.message}") from None
        except (KeyError, UnicodeError):  # no boundary, or a charset that is none for text
            raise Problem(
                "bad-request", "the form can't be read: its content type is off"
            ) from None
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            texts = [key for key, value in form.multi_items() if not isinstance(value, UploadFile)]
            if texts:
                raise Problem(
                    "invalid-request",
                    f"the form's field {texts[0][:40]!r} is no file: options belong into the address, as in "
                    "?direction=BtoA",
                )
            if not files:
                raise Problem("invalid-request", "the form has no file: add one or more images")
            if len(files) > self._options.max_files:
                raise Problem(
                    "too-many-files",
                    f"found {len(files)} files, the limit is {self._options.max_files}: send them in parts",
                    limit=self._options.max_files,
                )
            return [Upload(_plain(file.filename), await file.read()) for file in files]
        finally:
            await form.close()

    def _too_large(self) -> Problem:
        limit = self._options.max_bytes
        return Problem(
            "too-large",
            f"the limit is {limit} bytes ({limit / 2**20:.0f} MiB): send fewer or smaller images",
            limit=limit,
        )


def _declared(request: Request) -> int:
    """How many bytes a request says that it has; 0 where it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _plain(name: str | None) -> str:
    """A file's name without folders and control characters, and not too long; its end has the suffix."""
    last = re.split(r"[/\\]", name or "")[-1]
    plain = "".join(letter for letter in last if letter.isprintable()).strip()
    return plain.strip(".")[-_LONGEST_NAME:] or _UNNAMED
