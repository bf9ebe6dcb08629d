"""Which words can name a task, and the names of ways to make filters. No torch here."""

import re
from typing import Literal, get_args

from piggyback_gan.errors import PiggybackError

STANDALONE = "standalone"
PREVIOUS = "previous"
Allocation = Literal["last", "even"]
ALLOCATIONS = get_args(Allocation)
Storage = Literal["fp32", "bf16", "fp16"]
STORAGES = get_args(Storage)
ExportFormat = Literal["safetensors", "onnx", "torch-export", "torchscript", "state-dict", "triton"]
EXPORT_FORMATS = get_args(ExportFormat)
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8"]
EXPORT_PRECISIONS = get_args(ExportPrecision)
MixingKind = Literal["full", "low-rank", "selected"]
MIXING_KINDS = get_args(MixingKind)
DEFAULT_UNCONSTRAINED = 0.25
"""Lambda, where a share of new filters is asked for and not said."""
DEFAULT_BUDGET = 0.075
"""What a later task adds at most, as a share of a network of its own, if nothing else is said."""
DEFAULT_RANK, DEFAULT_BANK_FILTERS = 16, 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str, of: str) -> None:
    """Refuse what can't be part of a file's name.

    Raises:
        PiggybackError: not `[a-z0-9][a-z0-9._-]*` of at most 64 characters.
    """
    if not _NAME.fullmatch(name):
        raise PiggybackError(
            f"{name!r} can't name {of}: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "and begin with a letter or a digit"
        )


def check_task_name(name: str) -> None:
    """Refuse what can't be a task's name: names become parts of file names.

    Raises:
        PiggybackError: not `[a-z0-9][a-z0-9._-]*` of at most 64 characters, or one of the two words
            that `init` gives a meaning of its own.
    """
    check_name(name, "a task")
    if name in (STANDALONE, PREVIOUS):
        raise PiggybackError(f"{name!r} can't name a task: it is a way to start one (init)")


Direction = Literal["AtoB", "BtoA"]


Device = Literal["auto", "cuda", "mps", "cpu"]


FORWARD = "forward"


BACKWARD = "backward"
"""The names of a bank's two networks: all tasks are in the forward one, which translates in the
direction that the task was trained in; unpaired tasks are in the backward one too."""
