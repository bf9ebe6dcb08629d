"""The service behind the routes: handles a translation request from its body to its response."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from torch import nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.serve.batching import Batcher
from piggyback_gan.serve.catalogue import Catalogue, ServedDirection
from piggyback_gan.serve.limits import ByteBudget
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.previews import Previews
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.schemas import TranslateQuery
from piggyback_gan.serve.translator import Translated, Translator
from piggyback_gan.serve.uploads import reading
from piggyback_gan.system.device import choose_device

_CLIENT_LEFT = 499  # nginx's status for clients that closed the connection
_CPU_BATCH_PIXELS = 2**15
"""Larger batches are not faster on a CPU (docs/results), and all of their images wait for the last."""

_T = TypeVar("_T")


class Service:
    """State shared by all requests: catalogue, queue, limits and metrics."""

    def __init__(self, catalogue: Catalogue, options: ServeOptions) -> None:
        self.catalogue = catalogue
        self.options = options
        self.metrics = Metrics()
        self.device = choose_device(options.device)
        batch_pixels = _CPU_BATCH_PIXELS if self.device == "cpu" else None
        self.batcher = Batcher(self._compose, options, self.metrics, batch_pixels)
        self._translator = Translator(self.batcher, options)
        self.budget = ByteBudget(options)
        self.previews = Previews(options)
        self._working: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def running(self, app: object) -> AsyncIterator[None]:
        """Run the batcher inside the block."""
        self._working = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self._working.cancel()
            self._translator.close()

    def require_ready(self) -> None:
        """Check that images can be translated.

        Raises:
            Problem: the bank is missing, or the batcher has ended.
        """
        if self._working is None or self._working.done():
            raise Problem("not-ready", "the server no longer translates: restart it")
        if not self.catalogue.is_there():
            raise Problem("not-ready", "the bank is missing")

    async def translate(
        self, request: Request, name: str, query: TranslateQuery
    ) -> tuple[ServedDirection, list[Translated]]:
        """Translate the images of a request.

        Raises:
            Problem: the task or direction does not exist, or the request is invalid for another reason.
            ClientDisconnect: the client closed the connection.
        """
        begun = time.perf_counter()
        status, known = 500, ""
        try:
            task = await self.catalogue.task(name)
            known = task.entry.name
            served = task.find(query.direction)
            self.batcher.require_room()  # before the body is read
            with reading(request, self.options, self.budget) as body:
                uploads = await body.uploads()
                if query.views and len(uploads) > 1:
                    raise Problem("invalid-request", "views needs a single image: send one")
                work = self._translator.translate(served, uploads, query)
                made = await self._within_timeout(request, work)
            status = 200
            return served, made
        except Problem as problem:
            status = problem.status
            raise
        except ClientDisconnect:
            status = _CLIENT_LEFT
            raise
        finally:
            self.metrics.requests.labels(known, str(status)).inc()
            self.metrics.seconds.labels(known).observe(time.perf_counter() - begun)

    async def _within_timeout(self, request: Request, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for work, and cancel it after the timeout or when the client leaves."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                (working, leaving),
                timeout=self.options.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working.done():
                return working.result()
            if leaving.done():
                raise ClientDisconnect
            raise Problem(
                "timeout",
                f"the translation took longer than {self.options.timeout:g} s: send fewer or smaller images, or "
                "try again when the server is less busy",
                retry_after=30,
            )
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.wait((working, leaving))

    def _compose(self, served: ServedDirection) -> nn.Module:
        bank = self.catalogue.bank
        if bank.manifest.entry(served.task).sha256 != served.sha256:
            raise PiggybackError("it was removed, and another task has its name")
        return bank.generator(served.task, self.device, served.direction)


async def _disconnected(request: Request) -> None:
    """Wait until the client closes the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
