"""Which device to compute on, and how a CPU is made ready."""

import torch

from piggyback_gan.errors import PiggybackError


def choose_device(asked: str, local_rank: int = 0) -> str:
    """The device to compute on: "auto" takes CUDA, else MPS, else the CPU.

    A CPU is set to flush denormal numbers, in this thread and those started later: flat backgrounds make
    them, and they make networks several times slower. Call it before other work with torch.

    Args:
        asked: "cpu", "cuda", "cuda:1", "mps" or "auto".
        local_rank: of several processes on a machine, which this is: each gets a CUDA device of its own,
            in turn if they are more.

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
    if device == "cuda" and local_rank:
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
    return device
