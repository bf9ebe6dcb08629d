"""Seeds derived from a place in a training (seed, step, rank), so that any step can be reproduced by itself."""

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """Derive a 63-bit seed from non-negative integers, such as a seed, a step and a rank."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def generator_at(*place: int) -> torch.Generator:
    """Return a random number generator on the CPU, seeded with `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*place))
