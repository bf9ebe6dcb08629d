"""Composed tasks in memory: so many at most, and the least recently used goes first."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from torch import nn

from piggyback_gan.serve.catalogue import Way
from piggyback_gan.serve.metrics import Metrics


class TaskMemory:
    """Networks that were composed on demand. Used from one event loop alone."""

    def __init__(
        self,
        compose: Callable[[Way], nn.Module],
        limit: int,
        executor: Executor,
        metrics: Metrics,
    ) -> None:
        """With nothing in it.

        Args:
            compose: makes a task's network; it runs in the executor.
            limit: how many networks there may be, with one that is being composed.
            executor: of one thread.
            metrics: told what is in memory.
        """
        self._compose = compose
        self._limit = limit
        self._executor = executor
        self._metrics = metrics
        self._networks: OrderedDict[Way, nn.Module] = OrderedDict()

    def __contains__(self, way: Way) -> bool:
        return way in self._networks

    def use(self, way: Way) -> nn.Module:
        """A network that is in memory; from now on it is the one that was used last."""
        self._networks.move_to_end(way)
        return self._networks[way]

    def make_room(self, busy: Way | None) -> bool:
        """Let networks go until there is room for one more, but not the one that is at work.

        Returns:
            Whether there is room.
        """
        for way in [way for way in self._networks if way != busy]:
            if len(self._networks) < self._limit:
                break
            del self._networks[way]
        self._tell()
        return len(self._networks) < self._limit

    async def load(self, way: Way) -> None:
        """Compose a network that is not in memory, and for which there is room.

        Raises:
            PiggybackError: a file of the bank is missing or damaged.
        """
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        network = await loop.run_in_executor(self._executor, self._compose, way)
        self._metrics.composed.observe(time.perf_counter() - begun)
        self._networks[way] = network
        self._tell()

    def _tell(self) -> None:
        self._metrics.tasks_in_memory.set(len(self._networks))
        self._metrics.memory_of_tasks.set(sum(map(_bytes, self._networks.values())))


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
