"""Distributed training: join the process group, sum and broadcast tensors over its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from piggyback_gan.errors import PartnerEnded, PiggybackError, ReportedElsewhere
from piggyback_gan.system.launch import find_place

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

# Rank 0 validates while the others wait.
_TIMEOUT = timedelta(hours=24)
# Processes of one launch start within seconds; queues hand out machines before that.
_JOIN_TIMEOUT = timedelta(minutes=5)
# What fails in all processes alike fails at about the same time.
_REPORT_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True)
class Processes:
    """The process group as seen by this process, `rank` of `world`.

    Gradients are summed over all processes in one all-reduce before each step, as DistributedDataParallel
    does, but without its rules on how often a network may be called in a step. Every process weighs its
    gradients by its share of the batch, so a last batch that does not divide evenly gives the same gradients
    as in one process.

    Every method that communicates raises PartnerEnded if another process has ended.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and messages."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter], flag: bool = False) -> bool:
        """Sum the gradients over all processes in place; return whether `flag` is true in any of them."""
        if self.world == 1:
            return flag
        parameters = list(parameters)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flags = gradients[0].new_full((1,), float(flag))
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), flags])
        self.sum_all(flat)
        parts = torch.split(flat[:-1], [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return bool(flat[-1] > 0)

    def sum_all(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes in place, and return it."""
        if self.world > 1:
            with _together():
                dist.all_reduce(values)
        return values

    def gather(self, images: Tensor, counts: Sequence[int]) -> Tensor:
        """Concatenate the processes' images (counts[rank], ...) to (sum of counts, ...) in every process."""
        if self.world == 1:
            return images
        whole = images.new_zeros((sum(counts), *images.shape[1:]))
        first = sum(counts[: self.rank])
        whole[first : first + len(images)] = images
        return self.sum_all(whole)

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value in every process; it must be picklable."""
        if self.world == 1:
            return value
        box = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast_buffers(self, networks: Iterable[nn.Module]) -> None:
        """Broadcast rank 0's buffers, such as batch norm's running statistics: once for each dtype."""
        if self.world == 1:
            return
        every = [buffer for network in networks for buffer in network.buffers()]
        for kind in dict.fromkeys(buffer.dtype for buffer in every):
            buffers = [buffer for buffer in every if buffer.dtype == kind]
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
            "another process of this training ended: see its error message"
        ) from error


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the process group of this launch while the block runs.

    A group that is already initialized, as by an outer block, is used and kept. Tensors on a GPU are sent
    with NCCL, all others with gloo.

    Raises:
        PiggybackError: the other processes can't be reached.
        ReportedElsewhere: in place of a PiggybackError of the block that rank 0 raises, too.
    """
    place = find_place()
    rank, world = place.rank, place.count
    is_joined = dist.is_available() and dist.is_initialized()
    if is_joined or world == 1:
        yield Processes(dist.get_rank(), dist.get_world_size()) if is_joined else Processes()
        return
    store = _join(rank, world)
    try:
        yield Processes(rank, world)
    except PiggybackError as error:
        if _is_reported_elsewhere(store, rank, world, error):
            raise ReportedElsewhere(str(error)) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def idle_cores() -> str | None:
    """Return a hint if cores are left idle, as torchrun starts processes with one thread each."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    each = len(os.sched_getaffinity(0)) // local if hasattr(os, "sched_getaffinity") else 1
    if torch.cuda.is_available() or local == 1 or each < 2 or torch.get_num_threads() > 1:
        return None
    return f"each process computes in 1 thread: OMP_NUM_THREADS={each} would use all cores here"


def _join(rank: int, world: int) -> Store:
    # Imported late: some builds of torch lack them. torch imports the first when it creates an optimizer, and its
    # functions keep the process group of that moment as their default, and with it threads that could outlive
    # the interpreter, which then aborts. So import it before there is a group.
    import torch.distributed.nn
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store: Store
        store, _, _ = next(rendezvous("env://", rank, world, timeout=_JOIN_TIMEOUT))
        store.set_timeout(_TIMEOUT)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0]
        raise PiggybackError(
            f"process {rank} of {world} can't reach the others: {words}; start all of them with "
            "torchrun or accelerate launch"
        ) from None
    return PrefixStore("piggyback-gan errors", store)


def _is_reported_elsewhere(store: Store, rank: int, world: int, error: PiggybackError) -> bool:
    """Share an error with the other processes; return whether rank 0 reports it or its cause."""
    try:
        store.set_timeout(_REPORT_TIMEOUT)
        if rank > 0:
            first = store.get("0").decode()
            store.set(str(rank), "")
            return first == str(error) or isinstance(error, PartnerEnded)
        store.set("0", str(error))
        # The others stop waiting for this process and then read its error.
        dist.destroy_process_group()
        store.wait([str(other) for other in range(1, world)])
    except RuntimeError:
        pass  # no answer: the other process ended for another reason, so this error is new
    return False
