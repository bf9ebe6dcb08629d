"""Which images are translated together and in which order, and which tasks are kept in memory."""

import asyncio
import threading
import time
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
from piggyback_gan.serve.batching import Batcher
from piggyback_gan.serve.catalogue import Way
from piggyback_gan.serve.metrics import Metrics
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.turns import Turns

CONFIG = GeneratorConfig(name="resnet-6", ngf=1)
RGB = ImageFormat()


def way(task: str, config: GeneratorConfig = CONFIG) -> Way:
    return Way(task, f"sha of {task}", "AtoB", RGB, RGB, config)


def image(value: int = 0, size: int = 8) -> Pixels:
    return np.full((size, size, 3), value, np.uint8)


@dataclass
class Workshop:
    """Networks that invert, and what was asked of them; a gate can hold them."""

    open: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[str, int]] = field(default_factory=list)  # task and images of each forward
    composed: list[str] = field(default_factory=list)
    alive: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()

    def compose(self, way: Way) -> nn.Module:
        if way.task == "broken":
            raise PiggybackError("/secret/path is damaged")
        self.composed.append(way.task)
        return Inverting(way.task, self)


class Inverting(nn.Module):
    def __init__(self, task: str, workshop: Workshop) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0]))
        self.task, self.workshop = task, workshop

    def forward(self, images: Tensor) -> Tensor:
        assert self.workshop.open.wait(20)
        self.workshop.calls.append((self.task, len(images)))
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


def test_images_of_a_task_that_come_together_are_translated_together() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [batcher.translate(way("a"), image(value), None) for value in range(6)]
        made = await asyncio.gather(*wanted)
        assert [int(pixels[0, 0, 0]) for pixels in made] == [255 - value for value in range(6)]

    workshop, _ = working(scenario, max_batch=4, batch_wait=200)
    assert workshop.calls == [("a", 4), ("a", 2)]


def test_a_batch_does_not_mix_tasks_or_sizes_and_fits_the_memory() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [batcher.translate(way("a"), image(size=size), None) for size in (8, 8, 12, 20)]
        wanted += [batcher.translate(way("a"), image(size=20), None)]
        wanted += [batcher.translate(way("b"), image(), None)]
        made = await asyncio.gather(*wanted)
        assert [len(pixels) for pixels in made] == [8, 8, 12, 20, 20, 8]

    workshop, _ = working(scenario, batch_wait=200, whole_pixels=500)
    assert sorted(workshop.calls) == [("a", 1), ("a", 1), ("a", 1), ("a", 2), ("b", 1)]


def test_thin_images_count_as_large_as_the_network_gets_them() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        unet = way("a", GeneratorConfig(name="unet-64", ngf=1))
        wanted = [batcher.translate(unet, image()[:1], None) for _ in range(4)]
        await asyncio.gather(*wanted)

    workshop, _ = working(scenario, batch_wait=200, whole_pixels=2 * 64 * 64)
    assert workshop.calls == [("a", 2), ("a", 2)]


def test_a_network_that_gives_too_many_images_fails_for_those_who_wait_alone() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        with pytest.raises(Problem) as raised:
            await batcher.translate(way("careless"), image(), None)
        assert raised.value.name == "server-error"
        assert (await batcher.translate(way("a"), image(), None))[0, 0, 0] == 255

    working(scenario, batch_wait=0)


def test_a_lone_image_waits_no_longer_than_it_should() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        await batcher.translate(way("a"), image(), None)

    workshop, _ = working(scenario, batch_wait=50)
    assert workshop.calls == [("a", 1)]


def test_the_least_recently_used_task_leaves_the_memory() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        for task in ("a", "b", "a", "c", "a", "b"):
            await batcher.translate(way(task), image(), None)

    workshop, metrics = working(scenario, max_tasks_in_memory=2, batch_wait=0)
    assert workshop.composed == ["a", "b", "c", "b"]
    assert metrics.tasks_in_memory._value.get() == 2


@pytest.mark.parametrize("room", [1, 2, 3])
def test_more_tasks_than_fit_the_memory_all_come_to_their_turn(room: int) -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        async def client(number: int) -> None:
            for turn in range(4):
                made = await batcher.translate(way(f"t{(number + turn) % 5}"), image(number), None)
                assert made[0, 0, 0] == 255 - number
                assert len(batcher._memory._networks) <= room

        await asyncio.gather(*(client(number) for number in range(10)))

    workshop, _ = working(scenario, max_tasks_in_memory=room, batch_wait=0)
    assert {task for task, _ in workshop.calls} == {f"t{n}" for n in range(5)}


def test_with_room_for_one_task_images_of_many_sizes_wait_for_their_turn() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        wanted = [batcher.translate(way("x"), image(size=size), None) for size in (8, 12, 16, 20)]
        wanted += [batcher.translate(way("y"), image(), None)]
        made = await asyncio.gather(*wanted)
        assert [len(pixels) for pixels in made] == [8, 12, 16, 20, 8]

    workshop, _ = working(scenario, max_tasks_in_memory=1, batch_wait=0)
    assert sorted(workshop.calls) == [("x", 1)] * 4 + [("y", 1)]


def test_a_busy_task_does_not_keep_others_from_being_composed() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        done = asyncio.Event()

        async def busy() -> None:
            while not done.is_set():
                await batcher.translate(way("busy"), image(), None)

        clients = [asyncio.create_task(busy()) for _ in range(3)]
        await batcher.translate(way("other"), image(), None)
        done.set()
        await asyncio.gather(*clients)

    working(scenario, max_tasks_in_memory=1, batch_wait=0)


def test_who_gave_up_is_not_translated_for() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        workshop.open.clear()
        first = asyncio.create_task(batcher.translate(way("a"), image(), None))
        while not batcher._busy:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(batcher.translate(way("a"), image(), None))
        third = asyncio.create_task(batcher.translate(way("a"), image(3), None))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(batcher._queued()) == len(*batcher._waiting.values()) == 1
        workshop.open.set()
        assert (await third)[0, 0, 0] == 252
        await first

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls == [("a", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("broken", "task-unreadable"),
        ("failing", "server-error"),
        ("greedy", "overloaded"),
    ],
)
def test_what_fails_fails_for_those_who_wait_and_for_no_one_else(
    task: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        for tiling in (None, Tiling(tile=8, overlap=0)):
            with pytest.raises(Problem) as raised:
                await batcher.translate(way(task), image(), tiling)
            assert raised.value.name == name
            assert "/secret" not in str(raised.value.document)
        assert (await batcher.translate(way("a"), image(), None))[0, 0, 0] == 255

    working(scenario, batch_wait=0)


def test_batches_go_on_between_the_tiles_of_a_large_image() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        tiling = Tiling(tile=8, overlap=0)
        large = asyncio.create_task(batcher.translate(way("large"), image(7, 240), tiling))
        while not workshop.calls:
            await asyncio.sleep(0.001)
        made = await batcher.translate(way("small"), image(), None)
        assert made[0, 0, 0] == 255 and not large.done()
        assert (await large == 248).all()

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls.count(("large", 1)) == 30 * 30


def test_large_images_in_line_keep_no_task_from_being_composed() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        tiling = Tiling(tile=8, overlap=0)
        large = [
            asyncio.create_task(batcher.translate(way(task), image(0, 320), tiling))
            for task in ("a", "b", "c", "c")
        ]
        while batcher._long_at_work < 2:
            await asyncio.sleep(0.001)
        await batcher.translate(way("small"), image(), None)
        assert not large[2].done() and not large[3].done()
        await asyncio.gather(*large)

    workshop, _ = working(scenario, batch_wait=0)
    assert workshop.calls.count(("c", 1)) == 2 * 40 * 40


def test_a_large_image_that_nobody_waits_for_is_given_up_at_its_next_tile() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        tiling = Tiling(tile=8, overlap=0)
        large = asyncio.create_task(batcher.translate(way("a"), image(0, 400), tiling))
        while not workshop.calls:
            await asyncio.sleep(0.001)
        large.cancel()
        while batcher._long_at_work:
            await asyncio.sleep(0.001)

    workshop, _ = working(scenario)
    assert len(workshop.calls) < 50 * 50


def test_a_request_waits_for_memory_that_it_holds_itself_and_others_are_refused() -> None:
    async def scenario(batcher: Batcher, workshop: Workshop) -> None:
        with batcher.place(3) as one, batcher.place(1) as other:
            async with one.holding(400):
                waiting = asyncio.create_task(hold_shortly(one, 100))
                with pytest.raises(Problem, match="try again"):
                    async with other.holding(100):
                        pass
                await asyncio.sleep(0.01)
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


def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order = Turns(), []

    def short(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=short, args=(number,)) for number in range(3)]
    with turns:
        for number, thread in enumerate(threads, 1):
            thread.start()
            while next_ticket(turns) <= number:
                time.sleep(0.001)
        turns.give_way()
        order.append(99)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 99]


def next_ticket(turns: Turns) -> int:
    return int(repr(turns._tickets)[6:-1])
