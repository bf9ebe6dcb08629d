"""Several processes that train one task together: who they are, and the sums they make of their tensors."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from piggyback_gan.errors import PartnerEnded, PiggybackError, SaidElsewhere
from piggyback_gan.system.launch import find_place

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

# Validation is the first process's work, and the others wait for it.
_PATIENCE = timedelta(hours=24)
# Processes of one launch start within seconds; queues hand out machines before that.
_JOINING = timedelta(minutes=5)
# What fails in all processes alike fails at about the same time.
_SAYING = timedelta(seconds=5)


@dataclass(frozen=True)
class Processes:
    """This process, `rank` of `world`, and what it does together with the others.

    Gradients are summed over all processes in one all-reduce before each step. That is what
    DistributedDataParallel does, without its rules on how often a network is called in a step; and as
    every process weighs its gradients by its share of the batch, a last batch that does not divide
    evenly comes out as in one process.

    Raises:
        PartnerEnded: from every method that needs the others, when one of them is gone.
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
        self.sum_all(flat)
        start = 0
        for parameter in parameters:
            part = flat[start : start + parameter.numel()]
            parameter.grad = part.view_as(parameter)
            start += parameter.numel()
        return bool(flat[-1] > 0)

    def sum_all(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in its place."""
        if self.world > 1:
            with _together():
                dist.all_reduce(values)
        return values

    def gather(self, images: Tensor, counts: Sequence[int]) -> Tensor:
        """The processes' images (counts[rank], ...) one below the other, the same in all of them."""
        if self.world == 1:
            return images
        whole = images.new_zeros((sum(counts), *images.shape[1:]))
        first = sum(counts[: self.rank])
        whole[first : first + len(images)] = images
        return self.sum_all(whole)

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def same_buffers(self, networks: Iterable[nn.Module]) -> None:
        """Give all processes the first one's buffers, such as batch norm's running statistics.

        One broadcast for each type of number; none where there are no buffers.
        """
        if self.world == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for network in networks:
            for buffer in network.buffers():
                kinds[buffer.dtype].append(buffer)
        for buffers in kinds.values():
            flat = torch.cat([buffer.flatten() for buffer in buffers])
            with _together():
                dist.broadcast(flat, src=0)
            parts = torch.split(flat, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PartnerEnded(
            "another process of this training ended: its own message says why"
        ) from error


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the other processes that were launched with this one, for as long as the block lasts.

    Inside of another such block, and where a group was begun already, that group is used. Tensors on a
    GPU go through NCCL, all others through gloo.

    Raises:
        PiggybackError: they can't be reached.
        SaidElsewhere: in place of a PiggybackError in the block, if the first process had the same.
    """
    place = find_place()
    rank, world = place.rank, place.count
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if world == 1:
        yield Processes()
        return
    store = _join(rank, world)
    try:
        yield Processes(rank, world)
    except PiggybackError as error:
        if _is_said_elsewhere(store, rank, world, error):
            raise SaidElsewhere(str(error)) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def idle_cores() -> str | None:
    """What to do about cores that are left idle, as torchrun starts processes with one thread each."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    each = len(os.sched_getaffinity(0)) // local if hasattr(os, "sched_getaffinity") else 1
    if torch.cuda.is_available() or local == 1 or each < 2 or torch.get_num_threads() > 1:
        return None
    return f"each process computes in 1 thread: OMP_NUM_THREADS={each} would use all cores here"


def _join(rank: int, world: int) -> Store:
    # Late: some builds of torch have none. The first is for its own sake: torch imports it when it makes an
    # optimizer, and its functions keep the group of that moment as their default, and with it threads that
    # could outlive the interpreter, which aborts.
    import torch.distributed.nn
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store: Store
        store, _, _ = next(rendezvous("env://", rank, world, timeout=_JOINING))
        store.set_timeout(_PATIENCE)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0]
        raise PiggybackError(
            f"process {rank} of {world} can't reach the others: {words}; start all of them with "
            "torchrun or accelerate launch"
        ) from None
    return PrefixStore("piggyback-gan said", store)


def _is_said_elsewhere(store: Store, rank: int, world: int, error: PiggybackError) -> bool:
    """Tell the other processes of an error, and whether the first one has said what is to be said."""
    try:
        store.set_timeout(_SAYING)
        if rank > 0:
            first = store.get("0").decode()
            store.set(str(rank), "")
            return first == str(error) or isinstance(error, PartnerEnded)
        store.set("0", str(error))
        # The others stop waiting for this process, and then ask what it said.
        dist.destroy_process_group()
        store.wait([str(other) for other in range(1, world)])
    except RuntimeError:
        pass  # nobody hears or answers: it ended in another way, and this is news
    return False
