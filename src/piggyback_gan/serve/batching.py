"""The queue of images: which one is translated next, and which ones together in a batch."""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from piggyback_gan.errors import is_out_of_memory
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.inference.tiling import Tiling, padded_pixels
from piggyback_gan.inference.translate import translate_pixels, translate_strips
from piggyback_gan.serve.catalogue import ServedDirection
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.network_cache import NetworkCache, SharedNetwork
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem

_log = logging.getLogger(__name__)

_LONG_JOBS = 2  # images in tiles that are translated side by side
_HELD_IMAGES = 4  # of the largest size may be in memory
_SECONDS_AT_FIRST = 1.0


class _GivenUp(Exception):
    """No request waits for the image any more."""


@dataclass(eq=False)
class _Job:
    """An image in the queue."""

    served: ServedDirection
    pixels: Pixels
    tiling: Tiling | None  # None translates it whole, in a batch with others
    done: asyncio.Future[Pixels]  # receives the output or a `Problem`
    arrived: float = field(default_factory=time.monotonic)


class Place:
    """The part of the queue and of the memory for images that a request occupies."""

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher = batcher
        self._pixels = 0
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def holding(self, pixels: int) -> AsyncIterator[None]:
        """Occupy memory for an image inside the block, given its pixels of four channels each.

        If none is left, a request that holds some waits until it has released some of its own.

        Raises:
            Problem: none is left, and the request holds none.
        """
        while not self._batcher.has_memory(pixels):
            if not self._pixels:
                raise self._batcher.full()
            self._freed.clear()
            await self._freed.wait()
        self._count(pixels)
        try:
            yield
        finally:
            self._count(-pixels)
            self._freed.set()

    def _count(self, pixels: int) -> None:
        self._pixels += pixels
        self._batcher.count(0, pixels)


class Batcher:
    """Translates images in batches of one task and size. Not thread-safe: use it from one event loop.

    One thread computes, a batch at a time. Of the tasks in memory, the one whose image has waited longest is
    next. Meanwhile the missing task whose image has waited longest is composed, and gets its turn before another
    one is composed. Images in tiles are computed between the batches, tile by tile.
    """

    def __init__(
        self,
        compose: Callable[[ServedDirection], nn.Module],
        options: ServeOptions,
        metrics: Metrics,
        batch_pixels: int | None = None,
    ) -> None:
        """Create an empty queue.

        Args:
            compose: makes a task's network, on the device.
            options: limits of batches and of the queue.
            metrics: counts images and batches.
            batch_pixels: the most pixels of a batch of several images; None is `options.whole_pixels`.
        """
        self._batch_pixels = min(batch_pixels or options.whole_pixels, options.whole_pixels)
        self._options = options
        self._metrics = metrics
        self._composing = ThreadPoolExecutor(1, "compose")
        self._computing = ThreadPoolExecutor(1, "compute")
        self._tiling = ThreadPoolExecutor(_LONG_JOBS, "tiles")
        self._networks = NetworkCache(
            compose, options.max_tasks_in_memory, self._composing, metrics
        )
        self._waiting: dict[tuple[ServedDirection, tuple[int, ...]], deque[_Job]] = {}
        self._long: deque[_Job] = deque()
        self._long_at_work = 0
        self._busy: ServedDirection | None = None
        self._loading: ServedDirection | None = None
        self._changed = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._images = 0
        self._pixels = 0
        self._seconds = _SECONDS_AT_FIRST  # per image, a moving average

    @contextlib.contextmanager
    def place(self, images: int) -> Iterator[Place]:
        """Occupy places in the queue inside the block.

        Raises:
            Problem: the queue is full.
        """
        self.require_room(images)
        self.count(images, 0)
        try:
            yield Place(self)
        finally:
            self.count(-images, 0)

    def require_room(self, images: int = 1) -> None:
        """Check that the queue has room for more images.

        Raises:
            Problem: the queue is full.
        """
        if self._images + images > self._options.max_queue:
            raise self.full()

    def has_memory(self, pixels: int) -> bool:
        """Whether an image of this many pixels fits beside those in memory."""
        # A single image always fits: else it could never be translated.
        limit = _HELD_IMAGES * self._options.max_pixels
        return not self._pixels or self._pixels + pixels <= limit

    def full(self) -> Problem:
        """Return the problem for requests that do not fit."""
        wait = self._retry_after()
        return Problem(
            "queue-full",
            f"{self._images} images of {self._pixels} pixels are in the queue: try again in {wait} s",
            retry_after=wait,
        )

    def count(self, images: int, pixels: int) -> None:
        """Add to the number of images in the queue and of their pixels in memory."""
        self._images += images
        self._pixels += pixels
        self._metrics.queue.set(self._images)

    async def translate(
        self, served: ServedDirection, pixels: Pixels, tiling: Tiling | None
    ) -> Pixels:
        """Queue an image and wait for its translation. Cancelling removes it from the queue.

        Args:
            served: the task and direction.
            pixels: (H, W, C), in the task's input format.
            tiling: None translates the image whole.

        Raises:
            Problem: the task can't be read, there is not enough memory, or the network fails.
        """
        job = _Job(served, pixels, tiling, asyncio.get_running_loop().create_future())
        if tiling is None:
            self._waiting.setdefault((served, pixels.shape), deque()).append(job)
        else:
            self._long.append(job)
        self._load_next()
        self._changed.set()
        try:
            made = await job.done
        finally:
            self._forget(job)
        self._metrics.images.labels(served.task).inc()
        return made

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._start_long()
            if ready := self._ready():
                await self._compute(self._networks.get(ready[0].served), ready)
                continue
            self._load_next()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._patience())

    def close(self) -> None:
        """End the threads after their current work."""
        for executor in (self._composing, self._computing, self._tiling):
            executor.shutdown(wait=False, cancel_futures=True)

    # --- choosing a batch ---

    def _ready(self) -> list[_Job]:
        """Return the next batch; empty if there is none, or if it should wait for more images."""
        now, wait = time.monotonic(), self._options.batch_wait / 1000
        due = [
            (jobs[0].arrived, key)
            for key, jobs in self._waiting.items()
            if key[0] in self._networks
            and (len(jobs) >= self._most(*key) or now - jobs[0].arrived >= wait)
        ]
        if not due:
            return []
        _, key = min(due, key=lambda pair: pair[0])
        jobs = self._waiting[key]
        batch = [jobs.popleft() for _ in range(min(self._most(*key), len(jobs)))]
        if not jobs:
            del self._waiting[key]
        return batch

    def _most(self, served: ServedDirection, shape: tuple[int, ...]) -> int:
        """The most images of a task and shape in a batch."""
        fitting = self._batch_pixels // padded_pixels(shape[0], shape[1], served.config)
        return max(1, min(self._options.max_batch, fitting))

    def _patience(self) -> float | None:
        """Seconds until a batch that waits for more images is due; None if there is none."""
        now, wait = time.monotonic(), self._options.batch_wait / 1000
        due = [
            jobs[0].arrived + wait - now
            for (served, _), jobs in self._waiting.items()
            if served in self._networks
        ]
        return max(0.0, min(due)) if due else None

    def _forget(self, job: _Job) -> None:
        """Remove an image that is done or cancelled from the queue, if it is there."""
        key = job.served, job.pixels.shape
        if job in self._waiting.get(key, ()):
            self._waiting[key].remove(job)
            if not self._waiting[key]:
                del self._waiting[key]
        elif job in self._long:
            self._long.remove(job)

    # --- composing ---

    def _load_next(self) -> None:
        """Compose the missing task that has waited longest, unless another one is composed or not yet used."""
        startable = self._startable()
        wanted = {job.served for job in startable}
        if self._loading and self._loading in self._networks and self._loading not in wanted:
            self._loading = None  # it had its turn, or no image that can start waits for it
        missing = [job for job in startable if job.served not in self._networks]
        if self._loading is None and missing and self._networks.make_room(self._busy):
            self._loading = min(missing, key=lambda job: job.arrived).served
            self._in_background(self._load(self._loading))

    def _queued(self) -> list[_Job]:
        """All images that wait and are not cancelled."""
        waiting = itertools.chain(*self._waiting.values(), self._long)
        return [job for job in waiting if not job.done.done()]

    def _startable(self) -> list[_Job]:
        """Waiting images that could start with their network in memory: of those in tiles, only a few at a time."""
        has_lane = self._long_at_work < _LONG_JOBS
        return [job for job in self._queued() if job.tiling is None or has_lane]

    async def _load(self, served: ServedDirection) -> None:
        try:
            await self._networks.load(served)
        except Exception as error:  # noqa: BLE001 - the waiting requests must end, whatever it is
            self._loading = None
            _log.error("task %r can't be composed: %s", served.task, error)
            jobs = [job for job in self._queued() if job.served == served]
            self._fail(jobs, error, "task-unreadable")
        self._changed.set()

    # --- computing ---

    async def _compute(self, network: nn.Module, jobs: list[_Job]) -> None:
        served = self._busy = jobs[0].served
        if self._loading == served:
            self._loading = None
        self._load_next()
        begun = time.perf_counter()
        images = [job.pixels for job in jobs]
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._computing,
                translate_pixels,
                network,
                served.config,
                images,
                (served.input, served.output),
            )
            pairs = list(zip(jobs, made, strict=True))  # custom networks may return more or fewer
            for job, pixels in pairs:
                if not job.done.done():
                    job.done.set_result(pixels)
        except Exception as error:  # noqa: BLE001 - other batches go on
            self._fail(jobs, error, "server-error")
        finally:
            self._busy = None
        seconds = time.perf_counter() - begun
        self._metrics.batch.observe(len(jobs))
        self._metrics.computing.inc(seconds)
        self._seconds += 0.2 * (seconds / len(jobs) - self._seconds)

    def _start_long(self) -> None:
        """Start images in tiles whose tasks are in memory, up to the limit."""
        for job in list(self._long):
            if self._long_at_work < _LONG_JOBS and job.served in self._networks:
                self._long.remove(job)
                self._long_at_work += 1
                if self._loading == job.served:
                    self._loading = None
                self._in_background(self._compute_long(self._networks.get(job.served), job))

    async def _compute_long(self, network: nn.Module, job: _Job) -> None:
        begun = time.perf_counter()
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._tiling, self._translated_in_tiles, network, job
            )
            if not job.done.done():
                job.done.set_result(made)
        except _GivenUp:
            pass
        except Exception as error:  # noqa: BLE001 - other images go on
            self._fail([job], error, "server-error")
        finally:
            self._metrics.computing.inc(time.perf_counter() - begun)
            self._long_at_work -= 1
            self._changed.set()

    def _translated_in_tiles(self, network: nn.Module, job: _Job) -> Pixels:
        def on_tile() -> None:
            if job.done.done():
                raise _GivenUp

        served = job.served
        assert job.tiling is not None
        shared = SharedNetwork(network, self._computing)
        formats = served.input, served.output
        strips = translate_strips(
            shared, served.config, job.pixels, formats, job.tiling, on_tile=on_tile
        )
        return np.concatenate(list(strips))

    # --- bookkeeping ---

    def _fail(self, jobs: list[_Job], error: Exception, name: str) -> None:
        """Answer waiting requests with a problem; the reason goes to the log unless memory ran out."""
        if is_out_of_memory(error):
            problem = Problem(
                "overloaded",
                "not enough memory for this image: translate it in tiles, such as tile=512",
                retry_after=self._retry_after(),
            )
        elif name == "task-unreadable":
            problem = Problem(name, "a file of the bank can't be read: see the server's log")
        else:
            problem = Problem(name, "the translation failed: see the server's log")
            _log.error("a translation failed", exc_info=error)
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(problem)

    def _retry_after(self) -> int:
        return min(60, max(1, math.ceil(self._seconds * self._images)))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
