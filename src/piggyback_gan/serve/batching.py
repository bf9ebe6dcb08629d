"""Which images are translated next, and which of them together."""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from piggyback_gan.errors import is_out_of_memory
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.inference.tiling import Tiling, padded_pixels
from piggyback_gan.inference.translate import translate_pixels, translate_strips
from piggyback_gan.serve.catalogue import Way
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.network_cache import TaskMemory
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem

_log = logging.getLogger(__name__)

_LONG_JOBS = 2  # images in tiles that are at work side by side
_HELD_IMAGES = 4  # of the largest size, that may wait and be at work
_SECONDS_AT_FIRST = 1.0


class _GivenUp(Exception):
    """Nobody waits for an image's translation any more."""


@dataclass(eq=False)
class _Job:
    """An image that is to be translated.

    Attributes:
        pixels: (H, W, C) of what the task takes.
        tiling: in tiles, and then by itself; None: at once, with others.
        done: what becomes of it.
        arrived: on the clock of `time.monotonic`.
    """

    way: Way
    pixels: Pixels
    tiling: Tiling | None
    done: asyncio.Future[Pixels]
    arrived: float = field(default_factory=time.monotonic)


class _InTurn(nn.Module):
    """A network whose forward passes run in an executor of one thread, in the order of submission.

    An image in tiles so shares the device with batches: they wait for a tile, not for the whole image.
    """

    def __init__(self, network: nn.Module, executor: Executor) -> None:
        super().__init__()
        self.network = network
        # A function, because inference in tiles deep-copies the module, and an executor can't be copied.
        self._submit = lambda network, images: executor.submit(_forward, network, images)

    def forward(self, images: Tensor) -> Tensor:
        """Wait for the network's output."""
        output: Tensor = self._submit(self.network, images).result()
        return output


@torch.inference_mode()  # it is a mode of the thread
def _forward(network: nn.Module, images: Tensor) -> Tensor:
    output: Tensor = network(images)
    return output


class Place:
    """What a request takes up among those that wait and are at work."""

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher = batcher
        self._pixels = 0
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def holding(self, pixels: int) -> AsyncIterator[None]:
        """Take up memory for an image of so many pixels, of four channels each.

        Where there is none, a request waits until it has given back some of its own.

        Raises:
            Problem: there is none, and the request has none of it.
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
    """Translates images, those of one task and size together. Used from one event loop alone.

    One batch after the other is computed in a thread of its own. Next is always the task whose image has
    waited longest, of those in memory; of those that are not, the one whose image has waited longest is
    composed meanwhile, and comes to its turn before another one is composed. Images in tiles are
    worked on between the batches, tile by tile.
    """

    def __init__(
        self,
        compose: Callable[[Way], nn.Module],
        options: ServeOptions,
        metrics: Metrics,
        batch_pixels: int | None = None,
    ) -> None:
        """With nothing to do.

        Args:
            compose: makes a task's network, on the device.
            options: how large batches and the queue may be.
            metrics: told what is done.
            batch_pixels: of a batch, of more than one image; None: as many as are translated at once.
        """
        self._batch_pixels = min(batch_pixels or options.whole_pixels, options.whole_pixels)
        self._options = options
        self._metrics = metrics
        self._composing = ThreadPoolExecutor(1, "compose")
        self._computing = ThreadPoolExecutor(1, "compute")
        self._tiling = ThreadPoolExecutor(_LONG_JOBS, "tiles")
        self._memory = TaskMemory(compose, options.max_tasks_in_memory, self._composing, metrics)
        self._waiting: dict[tuple[Way, tuple[int, ...]], deque[_Job]] = {}
        self._long: deque[_Job] = deque()
        self._long_at_work = 0
        self._busy: Way | None = None
        self._loading: Way | None = None
        self._changed = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._images = 0
        self._pixels = 0
        self._seconds = _SECONDS_AT_FIRST  # for an image, as of late

    @contextlib.contextmanager
    def place(self, images: int) -> Iterator[Place]:
        """Take so many places among those who wait and are at work, for as long as the block lasts.

        Raises:
            Problem: so many are not free.
        """
        self.require_room(images)
        self.count(images, 0)
        try:
            yield Place(self)
        finally:
            self.count(-images, 0)

    def require_room(self, images: int = 1) -> None:
        """Check that so many images may be taken in.

        Raises:
            Problem: the queue is full.
        """
        if self._images + images > self._options.max_queue:
            raise self.full()

    def has_memory(self, pixels: int) -> bool:
        """Whether an image of so many pixels may be held beside those that are."""
        # One that is alone is never too large: else it could not be translated at all.
        limit = _HELD_IMAGES * self._options.max_pixels
        return not self._pixels or self._pixels + pixels <= limit

    def full(self) -> Problem:
        """What those are told for whom there is no room."""
        wait = self._retry_after()
        return Problem(
            "queue-full",
            f"{self._images} images of {self._pixels} pixels wait or are at work: try again in {wait} s",
            retry_after=wait,
        )

    def count(self, images: int, pixels: int) -> None:
        """Count what comes and goes."""
        self._images += images
        self._pixels += pixels
        self._metrics.queue.set(self._images)

    async def translate(self, way: Way, pixels: Pixels, tiling: Tiling | None) -> Pixels:
        """Translate an image, when its turn comes. To cancel it takes the image out of the queue.

        Args:
            way: the task and direction.
            pixels: (H, W, C) of what it takes.
            tiling: in tiles, or None.

        Raises:
            Problem: the task can't be read, or the memory is not enough.
        """
        job = _Job(way, pixels, tiling, asyncio.get_running_loop().create_future())
        if tiling is None:
            self._waiting.setdefault((way, pixels.shape), deque()).append(job)
        else:
            self._long.append(job)
        self._load_next()
        self._changed.set()
        try:
            made = await job.done
        finally:
            self._forget(job)
        self._metrics.images.labels(way.task).inc()
        return made

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._start_long()
            if ready := self._ready():
                await self._compute(self._memory.use(ready[0].way), ready)
                continue
            self._load_next()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._patience())

    def close(self) -> None:
        """End the threads, after what they are at work on."""
        for executor in (self._composing, self._computing, self._tiling):
            executor.shutdown(wait=False, cancel_futures=True)

    # --- what is next ---

    def _ready(self) -> list[_Job]:
        """The next batch; empty while there is none, or it is worth to wait for more images."""
        now, wait = time.monotonic(), self._options.batch_wait / 1000
        due = [
            (jobs[0].arrived, key)
            for key, jobs in self._waiting.items()
            if key[0] in self._memory
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

    def _most(self, way: Way, shape: tuple[int, ...]) -> int:
        """How many images of a task and shape are translated at once."""
        fitting = self._batch_pixels // padded_pixels(shape[0], shape[1], way.config)
        return max(1, min(self._options.max_batch, fitting))

    def _patience(self) -> float | None:
        """Seconds until a batch is due that waits for more images; None if there is none."""
        now, wait = time.monotonic(), self._options.batch_wait / 1000
        due = [
            jobs[0].arrived + wait - now
            for (way, _), jobs in self._waiting.items()
            if way in self._memory
        ]
        return max(0.0, min(due)) if due else None

    def _forget(self, job: _Job) -> None:
        """Take an image out of the queue, if it is there: it is done, or nobody waits for it."""
        key = job.way, job.pixels.shape
        if job in self._waiting.get(key, ()):
            self._waiting[key].remove(job)
            if not self._waiting[key]:
                del self._waiting[key]
        elif job in self._long:
            self._long.remove(job)

    # --- composing ---

    def _load_next(self) -> None:
        """Begin to compose the task that has waited longest, unless one is being composed or used first."""
        startable = self._startable()
        wanted = {job.way for job in startable}
        if self._loading and self._loading in self._memory and self._loading not in wanted:
            self._loading = None  # its turn came, or nobody waits for it who could be served now
        missing = [job for job in startable if job.way not in self._memory]
        if self._loading is None and missing and self._memory.make_room(self._busy):
            self._loading = min(missing, key=lambda job: job.arrived).way
            self._in_background(self._load(self._loading))

    def _queued(self) -> list[_Job]:
        """All images that are not at work and for which somebody waits."""
        waiting = itertools.chain(*self._waiting.values(), self._long)
        return [job for job in waiting if not job.done.done()]

    def _startable(self) -> list[_Job]:
        """Those that need nothing but their network: not those in tiles that others' tiles keep waiting."""
        has_lane = self._long_at_work < _LONG_JOBS
        return [job for job in self._queued() if job.tiling is None or has_lane]

    async def _load(self, way: Way) -> None:
        try:
            await self._memory.load(way)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._loading = None
            _log.error("task %r can't be composed: %s", way.task, error)
            jobs = [job for job in self._queued() if job.way == way]
            self._fail(jobs, error, "task-unreadable")
        self._changed.set()

    # --- computing ---

    async def _compute(self, network: nn.Module, jobs: list[_Job]) -> None:
        way = self._busy = jobs[0].way
        if self._loading == way:
            self._loading = None
        self._load_next()
        begun = time.perf_counter()
        images = [job.pixels for job in jobs]
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._computing,
                translate_pixels,
                network,
                way.config,
                images,
                (way.input, way.output),
            )
            pairs = list(zip(jobs, made, strict=True))  # own code may give more or fewer
            for job, pixels in pairs:
                if not job.done.done():
                    job.done.set_result(pixels)
        except Exception as error:  # noqa: BLE001 - the next batch is another one
            self._fail(jobs, error, "server-error")
        finally:
            self._busy = None
        seconds = time.perf_counter() - begun
        self._metrics.batch.observe(len(jobs))
        self._metrics.computing.inc(seconds)
        self._seconds += 0.2 * (seconds / len(jobs) - self._seconds)

    def _start_long(self) -> None:
        """Begin with images in tiles whose tasks are in memory, as many as may be at work."""
        for job in list(self._long):
            if self._long_at_work < _LONG_JOBS and job.way in self._memory:
                self._long.remove(job)
                self._long_at_work += 1
                if self._loading == job.way:
                    self._loading = None
                self._in_background(self._compute_long(self._memory.use(job.way), job))

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
        except Exception as error:  # noqa: BLE001 - it must not end the others
            self._fail([job], error, "server-error")
        self._metrics.computing.inc(time.perf_counter() - begun)
        self._long_at_work -= 1
        self._changed.set()

    def _translated_in_tiles(self, network: nn.Module, job: _Job) -> Pixels:
        def on_tile() -> None:
            if job.done.done():
                raise _GivenUp

        way = job.way
        assert job.tiling is not None
        in_turn = _InTurn(network, self._computing)
        formats = way.input, way.output
        strips = translate_strips(
            in_turn, way.config, job.pixels, formats, job.tiling, on_tile=on_tile
        )
        return np.concatenate(list(strips))

    # --- bookkeeping ---

    def _fail(self, jobs: list[_Job], error: Exception, name: str) -> None:
        """Tell those who wait that it can't be done; why is for the log, unless it is the memory."""
        if is_out_of_memory(error):
            problem = Problem(
                "overloaded",
                "the memory is not enough for this image: translate it in tiles, such as tile=512",
                retry_after=self._retry_after(),
            )
        elif name == "task-unreadable":
            problem = Problem(name, "a file of the bank can't be read; the server's log says why")
        else:
            problem = Problem(name, "the translation failed; the server's log says why")
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
