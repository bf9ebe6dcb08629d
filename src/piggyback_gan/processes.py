"""Several processes that train one task together: who they are, and the sums they make of their tensors."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.launch import find_place

# Validation is the first process's work, and the others wait for it.
_PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """This process, `rank` of `world`, and what it does together with the others.

    Gradients are summed over all processes in one all-reduce before each step. That is what
    DistributedDataParallel does, without its rules on how often a network is called in a step; and as
    every process weighs its gradients by its share of the batch, a last batch that does not divide
    evenly comes out as in one process.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter], flag: bool = False) -> bool:
        """Sum all gradients over the processes, and say whether any of them raised its flag."""
        if self.world == 1:
            return flag
        parameters = list(parameters)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flags = gradients[0].new_full((1,), float(flag))
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), flags])
        self._all_reduce(flat)
        start = 0
        for parameter in parameters:
            part = flat[start : start + parameter.numel()]
            parameter.grad = part.view_as(parameter)
            start += parameter.numel()
        return bool(flat[-1] > 0)

    def sum_all(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.world > 1:
            self._all_reduce(values)
        return values

    def gather(self, images: Tensor, counts: Sequence[int]) -> Tensor:
        """The processes' images (counts[rank], ...) one below the other, the same in all of them."""
        if self.world == 1:
            return images
        whole = images.new_zeros((sum(counts), *images.shape[1:]))
        first = sum(counts[: self.rank])
        whole[first : first + len(images)] = images
        self._all_reduce(whole)
        return whole

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        try:
            dist.broadcast_object_list(box, src=0)
        except RuntimeError as error:
            raise PiggybackError(_ENDED) from error
        return box[0]

    def same_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers, such as batch norm's running statistics."""
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def _all_reduce(self, values: Tensor) -> None:
        try:
            dist.all_reduce(values)
        except RuntimeError as error:
            raise PiggybackError(_ENDED) from error


_ENDED = "another process of this training ended: its own message says why"


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that were launched with this one, for as long as the block lasts.

    Raises:
        PiggybackError: they can't be reached.
    """
    place = find_place()
    rank, world = place.rank, place.count
    if world == 1:
        yield Processes()
        return
    begun = dist.is_initialized()
    if not begun:
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        except (ValueError, RuntimeError) as error:
            raise PiggybackError(
                f"process {rank} of {world} can't reach the others: {error}; start all of them with "
                "torchrun or accelerate launch"
            ) from None
    try:
        yield Processes(rank, world)
    finally:
        if not begun:
            dist.destroy_process_group()
