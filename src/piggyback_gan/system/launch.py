"""Rank of this process, from the environment that torchrun and `accelerate launch` set."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from piggyback_gan.errors import PiggybackError


@dataclass(frozen=True)
class Place:
    """Rank of a process among `count` processes, and its rank among those on its machine; both from 0."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read RANK, WORLD_SIZE and LOCAL_RANK; without WORLD_SIZE there is one process.

    Raises:
        PiggybackError: they are not numbers, or are inconsistent.
    """
    if "WORLD_SIZE" not in environment:
        return Place()
    found = {name: environment.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    try:
        rank, count, local_rank = map(int, found.values())
    except ValueError:
        rank, count, local_rank = -1, 0, -1
    if not 0 <= rank < count or local_rank < 0:
        values = ", ".join(f"{name}={value}" for name, value in found.items())
        raise PiggybackError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are inconsistent: found {values}; unset them, or start with "
            "torchrun or accelerate launch"
        )
    return Place(rank, count, local_rank)
