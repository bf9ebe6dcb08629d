"""Stand-in until evaluation is merged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float
