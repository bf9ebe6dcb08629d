"""Reads the images of a request, within limits of bytes and time."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from piggyback_gan.serve.limits import ByteBudget
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.responses import FORM

_UNNAMED = "image"
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Upload:
    """An uploaded image file; its name is the client's, without folders, and must not be used as a path."""

    name: str
    content: bytes


@contextmanager
def reading(request: Request, options: ServeOptions, budget: ByteBudget) -> Iterator["Body"]:
    """Open a request's body; its bytes count against the budget inside the block."""
    body = Body(request, options, budget)
    try:
        yield body
    finally:
        budget.release(body.bytes)


class Body:
    """A request's body."""

    def __init__(self, request: Request, options: ServeOptions, budget: ByteBudget) -> None:
        self._request = request
        self._options = options
        self._budget = budget
        self.bytes = 0

    async def uploads(self) -> list[Upload]:
        """Read the body: one image, or a form with image files.

        Raises:
            Problem: too many bytes or files, too slow, no file, or a malformed form.
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
            self._budget.take(len(chunk))
            self.bytes += len(chunk)
            yield chunk

    async def _files_of_form(self) -> list[Upload]:
        # Higher limits than ours: ours are checked afterwards, for our own problems. Bytes are limited.
        parser = MultiPartParser(
            self._request.headers, self._chunks(), max_files=1000, max_fields=1000
        )
        parser.spool_max_size = self._options.max_bytes  # nothing goes to disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Problem("bad-request", f"the form can't be read: {error.message}") from None
        except (KeyError, UnicodeError):  # no boundary, or an unknown charset
            raise Problem("bad-request", "the form can't be read: invalid content type") from None
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            texts = [key for key, value in form.multi_items() if not isinstance(value, UploadFile)]
            if texts:
                raise Problem(
                    "invalid-request",
                    f"the form's field {texts[0][:40]!r} is not a file: put options into the address, as in "
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
    """Return the Content-Length of a request; 0 without a valid one."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _plain(name: str | None) -> str:
    """Strip folders and control characters from a file name, and shorten it from the front to keep the suffix."""
    last = re.split(r"[/\\]", name or "")[-1]
    plain = "".join(letter for letter in last if letter.isprintable()).strip()
    return plain.strip(".")[-_LONGEST_NAME:] or _UNNAMED
