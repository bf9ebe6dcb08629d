"""The bytes of all requests and answers that are in memory, within a limit; answers are taken in time."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem

_BODIES = 16  # of the largest size, that may be in memory together
_PART = 64 * 1024


class Traffic:
    """Counts bytes: of bodies until they are translated, of answers until they are taken."""

    def __init__(self, options: ServeOptions) -> None:
        self._limit = _BODIES * options.max_bytes
        self._bytes = 0

    def take_in(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            Problem: there are too many already.
        """
        if self._bytes + count > self._limit:
            raise Problem(
                "overloaded", "too much comes and goes at once: try again in 5 s", retry_after=5
            )
        self._bytes += count

    def give_back(self, count: int) -> None:
        """Count no more what was taken in."""
        self._bytes -= count

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Count bytes that are there, until the block is left."""
        self._bytes += count
        try:
            yield
        finally:
            self._bytes -= count


class CountedAnswer(Response):
    """An answer that counts until its client has taken it; one who does not in time gets it cut off."""

    def __init__(
        self,
        content: bytes,
        media_type: str,
        headers: Mapping[str, str],
        *,
        traffic: Traffic,
        timeout: float,
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._traffic = traffic
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, part by part: the next one when the one before is on its way."""
        content = bytes(self.body)
        head = {"type": "http.response.start", "status": self.status_code}
        with self._traffic.holding(len(content)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await send({**head, "headers": self.raw_headers})
                for place in range(0, len(content), _PART):
                    part = content[place : place + _PART]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
