"""Batches, their order, and which networks are kept in memory."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from piggyback_gan import GeneratorConfig, PiggybackError, Tiling
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.inference.translate import translate_strips
from piggyback_gan.serve.batching import Batcher
from piggyback_gan.serve.catalogue import ServedDirection
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem

CONFIG = GeneratorConfig(name="resnet-6", ngf=1)
RGB = ImageFormat()
TILES = Tiling(tile=8, overlap=0)
NORMS = nn.Sequential(nn.InstanceNorm2d(3), nn.Tanh())


def served(task: str, config: GeneratorConfig = CONFIG) -> ServedDirection:
    return ServedDirection(task, f"sha of {task}", "AtoB", RGB, RGB, config)


def image(value: int = 0, size: int = 8) -> Pixels:
    return np.full((size, size, 3), value, np.uint8)


@dataclass
class Workshop:
    """Networks that invert, and what was asked of them; a gate can hold them."""

    open: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[str, int]] = field(default_factory=list)  # task and images of each forward
    composed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()

    def compose(self, served: ServedDirection) -> nn.Module:
        if served.task == "broken":
            raise PiggybackError("/secret/path is damaged")
        self.composed.append(served.task)
        return NORMS if served.task == "norms" else Inverting(served.task, self)


class Inverting(nn.Module):
    def __init__(self, task: str, workshop: Workshop) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0]))
        self.task, self.workshop = task, workshop

    def forward(self, images: Tensor) -> Tensor:
        self.workshop.calls.append((self.task, len(images)))
        assert self.workshop.open.wait(20)
        if self.task == "failing":
            raise ValueError("at /secret/path")
        if self.task == "careless":
            return images.repeat(2, 1, 1, 1)
        if self.task == "greedy":
            raise RuntimeError("[enforce fail] can't allocate memory: you tried")
        return images * self.weight


def working(
    scenario: Callable[[Batcher, Workshop], Awaitable[None]], **options: Any
) -> tuple[Workshop, Metrics]:
    """Run a scenario beside a batcher that works."""
    workshop, metrics = Workshop(), Metrics()

    async def run() -> None:
        batcher = Batcher(workshop.compose, ServeOptions(**options), metrics)
        work = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(30):
                await scenario(batcher, workshop)
            assert not work.done()
        finally:
            workshop.open.set()
            work.cancel()
            batcher.close()

    asyncio.run(run())
    return workshop, metrics


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the scenario's time limit ends it."""
    while not condition():
        await asyncio.sleep(0.001)


def in_line(batcher: Batcher) -> int:
    """How many pieces of work wait behind the one that is computed."""
    return batcher._computing._work_queue.qsize()


def test_images_of_a_task_that_come_together_are_translated_together() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [batcher.translate(served("a"), image(value), None) for value in range(6)]
        made = await asyncio.gather(*wanted)
        assert [int(pixels[0, 0, 0]) for pixels in made] == [255 - value for value in range(6)]

    workshop, _ = working(scenario, max_batch=4, batch_wait=200)
    assert workshop.calls == [("a", 4), ("a", 2)]


def test_a_batch_does_not_mix_tasks_or_sizes_and_fits_the_memory() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [batcher.translate(served("a"), image(size=size), None) for size in (8, 8, 12, 20)]
        wanted += [batcher.translate(served("a"), image(size=20), None)]
        wanted += [batcher.translate(served("b"), image(), None)]
        made = await asyncio.gather(*wanted)
        assert [len(pixels) for pixels in made] == [8, 8, 12, 20, 20, 8]

    workshop, _ = working(scenario, batch_wait=200, whole_pixels=500)
    assert sorted(workshop.calls) == [("a", 1), ("a", 1), ("a", 1), ("a", 2), ("b", 1)]


def test_thin_images_count_as_large_as_the_network_gets_them() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        unet = served("a", GeneratorConfig(name="unet-64", ngf=1))
        wanted = [batcher.translate(unet, image()[:1], None) for _ in range(4)]
        await asyncio.gather(*wanted)

    workshop, _ = working(scenario, batch_wait=200, whole_pixels=2 * 64 * 64)
    assert workshop.calls == [("a", 2), ("a", 2)]


def test_a_network_that_gives_too_many_images_fails_for_those_who_wait_alone() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        with pytest.raises(Problem) as raised:
            await batcher.translate(served("careless"), image(), None)
        assert raised.value.name == "server-error"
        assert (await batcher.translate(served("a"), image(), None))[0, 0, 0] == 255

    working(scenario, batch_wait=0)


def test_a_lone_image_waits_no_longer_than_it_should() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        await batcher.translate(served("a"), image(), None)

    workshop, _ = working(scenario, batch_wait=50)
    assert workshop.calls == [("a", 1)]


def test_the_least_recently_used_task_leaves_the_memory() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        for task in ("a", "b", "a", "c", "a", "b"):
            await batcher.translate(served(task), image(), None)

    workshop, metrics = working(scenario, max_tasks_in_memory=2, batch_wait=0)
    assert workshop.composed == ["a", "b", "c", "b"]
    assert metrics.tasks_in_memory._value.get() == 2


@pytest.mark.parametrize("room", [1, 2, 3])
def test_more_tasks_than_fit_the_memory_all_come_to_their_turn(room: int) -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        async def client(number: int) -> None:
            for turn in range(4):
                made = await batcher.translate(
                    served(f"t{(number + turn) % 5}"), image(number), None
                )
                assert made[0, 0, 0] == 255 - number
                assert len(batcher._networks) <= room

        await asyncio.gather(*(client(number) for number in range(10)))

    workshop, _ = working(scenario, max_tasks_in_memory=room, batch_wait=0)
    assert {task for task, _ in workshop.calls} == {f"t{n}" for n in range(5)}


def test_with_room_for_one_task_images_of_many_sizes_wait_for_their_turn() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [
            batcher.translate(served("x"), image(size=size), None) for size in (8, 12, 16, 20)
        ]
        wanted += [batcher.translate(served("y"), image(), None)]
        made = await asyncio.gather(*wanted)
        assert [len(pixels) for pixels in made] == [8, 12, 16, 20, 8]

    workshop, _ = working(scenario, max_tasks_in_memory=1, batch_wait=0)
    assert sorted(workshop.calls) == [("x", 1)] * 4 + [("y", 1)]


def test_a_busy_task_does_not_keep_others_from_being_composed() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        done = asyncio.Event()

        async def busy() -> None:
            while not done.is_set():
                await batcher.translate(served("busy"), image(), None)

        clients = [asyncio.create_task(busy()) for _ in range(3)]
        await batcher.translate(served("other"), image(), None)
        done.set()
        await asyncio.gather(*clients)

    working(scenario, max_tasks_in_memory=1, batch_wait=0)


def test_who_gave_up_is_not_translated_for() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        workshop.open.clear()
        first = asyncio.create_task(batcher.translate(served("a"), image(), None))
        await until(lambda: batcher._busy)
        second = asyncio.create_task(batcher.translate(served("a"), image(), None))
        third = asyncio.create_task(batcher.translate(served("a"), image(3), None))
        await until(lambda: len(batcher._queued()) == 2)
        second.cancel()
        await asyncio.wait([second])
        assert len(batcher._queued()) == len(*batcher._waiting.values()) == 1
        workshop.open.set()
        assert (await third)[0, 0, 0] == 252
        await first

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls == [("a", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("task", "name"),
    [("broken", "task-unreadable"), ("failing", "server-error"), ("greedy", "overloaded")],
)
def test_what_fails_fails_for_those_who_wait_and_for_no_one_else(
    task: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        for tiling in (None, TILES):
            with pytest.raises(Problem) as raised:
                await batcher.translate(served(task), image(), tiling)
            assert raised.value.name == name
            assert "/secret" not in str(raised.value.document)
        assert (await batcher.translate(served("a"), image(), None))[0, 0, 0] == 255

    working(scenario, batch_wait=0)


def test_a_batch_waits_for_one_tile_and_large_images_take_turns() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        workshop.open.clear()
        one = asyncio.create_task(batcher.translate(served("one"), image(7, 24), TILES))
        await until(lambda: workshop.calls)
        two = asyncio.create_task(batcher.translate(served("two"), image(8, 24), TILES))
        await until(lambda: in_line(batcher) == 1)
        small = asyncio.create_task(batcher.translate(served("small"), image(), None))
        await until(lambda: in_line(batcher) == 2)
        workshop.open.set()
        assert (await small)[0, 0, 0] == 255
        assert (await one == 248).all() and (await two == 247).all()

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls[:3] == [("one", 1), ("two", 1), ("small", 1)]
    assert workshop.calls.count(("one", 1)) == workshop.calls.count(("two", 1)) == 3 * 3


def test_large_images_in_line_keep_no_task_from_being_composed() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        workshop.open.clear()
        large = [
            asyncio.create_task(batcher.translate(served(task), image(0, 24), TILES))
            for task in ("a", "b", "c", "c")
        ]
        await until(lambda: batcher._long_at_work == 2 and in_line(batcher) == 1)
        small = asyncio.create_task(batcher.translate(served("small"), image(), None))
        await until(lambda: in_line(batcher) == 2)
        workshop.open.set()
        await asyncio.gather(small, *large)

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls.count(("c", 1)) == 2 * 3 * 3
    assert workshop.calls.index(("small", 1)) < workshop.calls.index(("c", 1))


def test_a_large_image_that_nobody_waits_for_is_given_up_at_its_next_tile() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        workshop.open.clear()
        large = asyncio.create_task(batcher.translate(served("a"), image(0, 24), TILES))
        await until(lambda: workshop.calls)
        large.cancel()
        await asyncio.wait([large])
        workshop.open.set()
        await until(lambda: not batcher._long_at_work)

    workshop, _ = working(scenario)
    assert len(workshop.calls) == 1


def test_large_images_share_their_norms_statistics() -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    tiling = Tiling(tile=32, overlap=8, norm_from="image")

    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        made = await batcher.translate(served("norms"), values, tiling)
        strips = translate_strips(NORMS, CONFIG, values, (RGB, RGB), tiling)
        assert np.array_equal(made, np.concatenate(list(strips)))

    working(scenario)


def test_a_request_waits_for_memory_that_it_holds_itself_and_others_are_refused() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        with batcher.place(3) as one, batcher.place(1) as other:
            async with one.holding(400):
                waiting = asyncio.create_task(hold_shortly(one, 100))
                with pytest.raises(Problem, match="try again"):
                    async with other.holding(100):
                        pass
                await asyncio.sleep(0)  # it runs until it waits
                assert not waiting.done()
            await waiting
            with pytest.raises(Problem, match="try again"), batcher.place(61):
                pass
        async with asyncio.timeout(5):
            with batcher.place(1) as alone:
                async with alone.holding(1000):
                    pass

    async def hold_shortly(place: Any, pixels: int) -> None:
        async with place.holding(pixels):
            pass

    working(scenario, max_pixels=100)
