"""Which of several processes this one is, as torchrun and `accelerate launch` tell it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from piggyback_gan.errors import PiggybackError


@dataclass(frozen=True)
class Place:
    """A process among `count`: its number in all, and its number on its machine; both from 0 on."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read RANK, WORLD_SIZE and LOCAL_RANK; without WORLD_SIZE a process is alone.

    Raises:
        PiggybackError: they are no numbers, or contradict each other.
    """
    if "WORLD_SIZE" not in environment:
        return Place()
    found = {name: environment.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    try:
        rank, count, local_rank = map(int, found.values())
    except ValueError:
        rank, count, local_rank = -1, 0, -1
    if not 0 <= rank < count or local_rank < 0:
        said = ", ".join(f"{name}={value}" for name, value in found.items())
        raise PiggybackError(
            f"the environment is that of no process among others: {said}; unset them, or start with "
            "torchrun or accelerate launch"
        )
    return Place(rank, count, local_rank)
