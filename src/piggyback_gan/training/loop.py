"""Progress of a training."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Progress:
    """What a run has done, beside the trainer's state: what its checkpoint adds to that.

    Attributes:
        epoch: the one that is trained, counted from 1; one more than there are when all are done.
        batch: how many steps of it are done.
        sums: its losses so far, summed over images.
        seen: how many images they are of.
        records: a line of the metrics file for each epoch that is done.
        best: the epoch that is kept, its metrics, and the networks' values at its end.
    """

    epoch: int = 1
    batch: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seen: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
