"""Composed networks: a cache of the recently used ones, and a network that several threads share."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

import torch
from torch import Tensor, nn

from piggyback_gan.serve.catalogue import ServedDirection
from piggyback_gan.serve.metrics import Metrics


class NetworkCache:
    """Networks composed on demand; the least recently used is evicted first.

    Not thread-safe: use it from one event loop.
    """

    def __init__(
        self,
        compose: Callable[[ServedDirection], nn.Module],
        limit: int,
        executor: Executor,
        metrics: Metrics,
    ) -> None:
        """Create an empty cache.

        Args:
            compose: makes a task's network; runs in the executor, which has one thread.
            limit: the most networks, including one that is being composed.
        """
        self._compose = compose
        self._limit = limit
        self._executor = executor
        self._metrics = metrics
        self._networks: OrderedDict[ServedDirection, nn.Module] = OrderedDict()

    def __contains__(self, served: ServedDirection) -> bool:
        return served in self._networks

    def __len__(self) -> int:
        return len(self._networks)

    def get(self, served: ServedDirection) -> nn.Module:
        """Return a cached network and mark it as the most recently used."""
        self._networks.move_to_end(served)
        return self._networks[served]

    def make_room(self, busy: ServedDirection | None) -> bool:
        """Evict networks, except the busy one, until one more fits; return whether it does."""
        for served in [served for served in self._networks if served != busy]:
            if len(self) < self._limit:
                break
            del self._networks[served]
        self._update_metrics()
        return len(self) < self._limit

    async def load(self, served: ServedDirection) -> None:
        """Compose a network that is not in the cache; call `make_room` first.

        Raises:
            PiggybackError: a file of the bank is missing or damaged.
        """
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        network = await loop.run_in_executor(self._executor, self._compose, served)
        self._metrics.composed.observe(time.perf_counter() - begun)
        self._networks[served] = network
        self._update_metrics()

    def _update_metrics(self) -> None:
        self._metrics.tasks_in_memory.set(len(self))
        self._metrics.memory_of_tasks.set(sum(map(_bytes, self._networks.values())))


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


class SharedNetwork(nn.Module):
    """A network whose forward passes run in an executor of one thread, in the order of submission.

    Images in tiles share the device with batches this way: a batch waits for a tile, not for a whole image.
    """

    def __init__(self, network: nn.Module, executor: Executor) -> None:
        super().__init__()
        self.network = network

        # A function, because inference in tiles deep-copies the module, and executors can't be copied.
        def run(network: nn.Module, images: Tensor) -> Tensor:
            return executor.submit(_forward, network, images).result()

        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """Wait for the network's output."""
        return self._run(self.network, images)


@torch.inference_mode()  # which is per thread
def _forward(network: nn.Module, images: Tensor) -> Tensor:
    output: Tensor = network(images)
    return output
