"""A limit on the bytes of all request and response bodies in memory, and a time limit for responses."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem

_BODIES = 16  # of the largest size may be in memory together
_PART = 64 * 1024


class ByteBudget:
    """Counts the bytes of request bodies until they are translated, and of responses until they are sent."""

    def __init__(self, options: ServeOptions) -> None:
        self._limit = _BODIES * options.max_bytes
        self._bytes = 0

    def take(self, count: int) -> None:
        """Count received bytes.

        Raises:
            Problem: the limit is exceeded.
        """
        if self._bytes + count > self._limit:
            raise Problem(
                "overloaded", "too many bytes are in transfer: try again in 5 s", retry_after=5
            )
        self._bytes += count

    def release(self, count: int) -> None:
        """Stop counting bytes that were taken."""
        self._bytes -= count

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Count bytes inside the block, even over the limit: they are in memory already."""
        self._bytes += count
        try:
            yield
        finally:
            self._bytes -= count


class CountedResponse(Response):
    """A response that counts until its client has read it, and is cut off after a timeout."""

    def __init__(
        self,
        content: bytes,
        media_type: str,
        headers: Mapping[str, str],
        *,
        budget: ByteBudget,
        timeout: float,
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._budget = budget
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body in parts, each when the one before has been handed to the system."""
        content = bytes(self.body)
        head = {"type": "http.response.start", "status": self.status_code}
        with self._budget.holding(len(content)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await send({**head, "headers": self.raw_headers})
                for place in range(0, len(content), _PART):
                    part = content[place : place + _PART]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
