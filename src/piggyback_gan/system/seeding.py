"""Where a training's chance comes from: numbers that name a place in it, so that any place can be had again."""

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """A seed that depends on all of these non-negative numbers, such as a seed, a step and a process."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def chance_at(*place: int) -> torch.Generator:
    """A generator of random numbers on the CPU that always begins alike for the same numbers."""
    return torch.Generator().manual_seed(seed_of(*place))
