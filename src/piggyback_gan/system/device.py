"""Which device to compute on, and how a CPU is made ready."""

import torch
from torch import nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.launch import find_place


def choose_device(asked: str) -> str:
    """The device to compute on: "auto" takes CUDA, else MPS, else the CPU.

    A CPU is set to flush denormal numbers, in this thread and those started later: flat backgrounds make
    them, and they make networks several times slower. Call it before other work with torch.

    Where several processes were launched on a machine, "cuda" is the GPU of this process's LOCAL_RANK.

    Raises:
        PiggybackError: an unknown device, or one that is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    device = next(name for name in there if there[name]) if asked == "auto" else asked
    if not there.get(device.partition(":")[0]):
        raise PiggybackError(f"there is no {device} device here: choose auto or cpu")
    if device == "cpu":
        torch.set_flush_denormal(True)
    place = find_place()
    if device == "cuda" and place.count > 1:
        _take_own_gpu(place.local_rank)
    return device


def device_of(network: nn.Module) -> torch.device:
    """Where a network is; one without parameters, such as onnxruntime's, takes tensors on the CPU."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _take_own_gpu(local_rank: int) -> None:
    """Make "cuda" mean this process's own GPU."""
    count = torch.cuda.device_count()
    # A launcher may have hidden all but one GPU from each process.
    index = local_rank if count > 1 else 0
    if index >= count:
        raise PiggybackError(
            f"process {local_rank} of this machine has no GPU: {count} are here; start at most {count}"
        )
    torch.cuda.set_device(index)
