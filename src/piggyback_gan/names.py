"""Fixed words (choices of options, names of networks and metrics) and checks of names. No torch."""

import re
from typing import Final, Literal, get_args

from piggyback_gan.errors import PiggybackError

STANDALONE, PREVIOUS = "standalone", "previous"
"""Values of `init` that are not the name of a task, and the next one."""
AUTO: Final = "auto"
"""A value of `init` and of `budget`: chosen by images."""
FORWARD, BACKWARD = "forward", "backward"
"""The two networks of a bank. Every task is in the forward network, which translates in the direction that the
task was trained in; unpaired tasks are in the backward network too."""
Direction = Literal["AtoB", "BtoA"]
Device = Literal["auto", "cuda", "mps", "cpu"]
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
Budget = float | Literal["auto"]
Learn = Literal["free", "mixed"]
LEARN = get_args(Learn)
AUTO_BUDGETS = (0.05, 0.075, 0.15, 0.3)
"""Budgets that `budget="auto"` tries."""
DEFAULT_QUALITY = 1.03
DEFAULT_FREE_SHARE = 0.75
"""Default share of a training after which a freely trained network is factorized."""
DEFAULT_PULL_SHARE = 0.25
"""Default share of a training, before that, in which its filters are pulled to mixed ones."""
DEFAULT_FACTORIZED_RATE = 3.0
"""Default learning rate of a generator after factorization, relative to before."""
DEFAULT_START_NOISE = 0.5
"""Default share of noise in the start of a freely trained network."""
DEFAULT_UNCONSTRAINED = 0.25
"""Default lambda: the share of a layer's filters that a task adds unconstrained."""
DEFAULT_BUDGET = 0.1
"""Default limit of the parameters that a later task adds, as a share of a standalone network's."""
DEFAULT_RANK, DEFAULT_BANK_FILTERS = 16, 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str, of: str) -> None:
    """Raise PiggybackError unless a name of, say, "a task" matches `[a-z0-9][a-z0-9._-]{0,63}`."""
    if not _NAME.fullmatch(name):
        raise PiggybackError(
            f"{name!r} can't name {of}: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "and begin with a letter or a digit"
        )


def check_task_name(name: str) -> None:
    """Raise PiggybackError unless a task's name is valid (`check_name`) and not a reserved value of `init`."""
    check_name(name, "a task")
    if name in (STANDALONE, PREVIOUS, AUTO):
        raise PiggybackError(f"{name!r} can't name a task: it is a reserved value of init")
