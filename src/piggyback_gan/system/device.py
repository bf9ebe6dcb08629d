"""Choose the device to compute on, and set it up."""

import torch
from torch import nn

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.launch import find_place


def choose_device(asked: str) -> str:
    """Return the device to compute on; "auto" picks CUDA, then MPS, then the CPU.

    On the CPU, denormal numbers are flushed to zero in this thread and those started later: flat backgrounds
    produce them, and they slow networks down several times. Call it before other work with torch.

    Where several processes were launched on a machine, "cuda" is the GPU of this process's LOCAL_RANK.

    Raises:
        PiggybackError: the device is unknown or not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    device = next(name for name in available if available[name]) if asked == "auto" else asked
    if not available.get(device.partition(":")[0]):
        raise PiggybackError(f"the device {device} is not available: choose auto or cpu")
    if device == "cpu":
        torch.set_flush_denormal(True)
    place = find_place()
    if device == "cuda" and place.count > 1:
        count = torch.cuda.device_count()
        # A launcher may have hidden all but one GPU from each process.
        index = place.local_rank if count > 1 else 0
        if index >= count:
            raise PiggybackError(
                f"process {index} on this machine has no GPU: found {count} GPUs, start at most {count} "
                "processes"
            )
        torch.cuda.set_device(index)
    return device


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters; the CPU where it has none, such as onnxruntime's."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
