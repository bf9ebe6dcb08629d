"""A bank at work: what is shared by all requests, from their bodies to their translations."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from torch import nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.serve.batching import Batcher
from piggyback_gan.serve.catalogue import Catalogue, ServedTask, Way
from piggyback_gan.serve.limits import CountedAnswer, Traffic
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.previews import Pictures
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.schemas import TranslateQuery
from piggyback_gan.serve.translator import Translated, Translator, Wishes
from piggyback_gan.serve.uploads import reading
from piggyback_gan.system.device import choose_device

_CLIENT_LEFT = 499  # as nginx counts those who did not wait
_CPU_BATCH_PIXELS = 2**15
"""More at once gain nothing on a CPU (docs/results), and all of them wait for the last."""

_T = TypeVar("_T")


class Service:
    """What the addresses share."""

    def __init__(self, catalogue: Catalogue, options: ServeOptions) -> None:
        self.catalogue = catalogue
        self.options = options
        self.metrics = Metrics()
        self.device = choose_device(options.device)
        batch_pixels = _CPU_BATCH_PIXELS if self.device == "cpu" else None
        self.batcher = Batcher(self._compose, options, self.metrics, batch_pixels)
        self._translator = Translator(self.batcher, options)
        self._traffic = Traffic(options)
        self.pictures = Pictures(options)
        self._working: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def at_work(self, app: object) -> AsyncIterator[None]:
        """Work for as long as the block lasts."""
        self._working = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self._working.cancel()
            self._translator.close()

    def require_ready(self) -> None:
        """Check that requests can be answered.

        Raises:
            Problem: the bank is not there, or the work has ended.
        """
        if self._working is None or self._working.done():
            raise Problem("not-ready", "no work is done any more: start the server again")
        if not self.catalogue.is_there():
            raise Problem("not-ready", "the bank is not there")

    async def pictured(self, tasks: Collection[ServedTask]) -> set[str]:
        """Which tasks have a sample picture, as far as is known before it is made."""
        return await asyncio.to_thread(self.pictures.names, self.catalogue.bank, list(tasks))

    async def translate(
        self, request: Request, name: str, query: TranslateQuery
    ) -> tuple[Way, list[Translated]]:
        """Translate what a request brings.

        Raises:
            Problem: no such task or direction, or what else can be wrong with it.
            ClientDisconnect: nobody waits for the answer any more.
        """
        begun = time.perf_counter()
        status, known = 500, ""
        try:
            task = await self.catalogue.task(name)
            known = task.entry.name
            way = task.way(query.direction)
            self.batcher.require_room()  # before the body is read
            with reading(request, self.options, self._traffic) as body:
                uploads = await body.uploads()
                if query.views and len(uploads) > 1:
                    raise Problem("invalid-request", "views are of one image: send one")
                wishes = Wishes(
                    query.tile, query.overlap, query.norm_from, query.format, query.views
                )
                made = await self._in_time(
                    request, self._translator.translate(way, uploads, wishes)
                )
            status = 200
            return way, made
        except Problem as problem:
            status = problem.status
            raise
        except ClientDisconnect:
            status = _CLIENT_LEFT
            raise
        finally:
            self.metrics.requests.labels(known, str(status)).inc()
            self.metrics.seconds.labels(known).observe(time.perf_counter() - begun)

    def answer(self, content: bytes, media_type: str, headers: Mapping[str, str]) -> CountedAnswer:
        """An answer with a translation."""
        return CountedAnswer(
            content, media_type, headers, traffic=self._traffic, timeout=self.options.timeout
        )

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, _T]) -> _T:
        """What work gives, unless it takes too long or nobody waits for it any more.

        Raises:
            Problem: it took too long.
            ClientDisconnect: the connection was cut.
        """
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
                f"the answer was not there after {self.options.timeout:g} s: send fewer or smaller images, or "
                "try again when the server has less to do",
                retry_after=30,
            )
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.wait((working, leaving))

    def _compose(self, way: Way) -> nn.Module:
        bank = self.catalogue.bank
        if bank.manifest.entry(way.task).sha256 != way.sha256:
            raise PiggybackError("it was removed, and another one has its name")
        return bank.generator(way.task, self.device, way.direction)


async def _disconnected(request: Request) -> None:
    """Wait until a request's connection is cut; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
