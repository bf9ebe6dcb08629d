"""Time several alternatives in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

WARM_UP = 2


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(
    sides: Mapping[str, Callable[[int], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Return each side's seconds in every round, after a warm-up."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(WARM_UP + rounds):
        for side, work in sides.items():
            seconds = timed(lambda work=work, number=number: work(number), device)  # type: ignore[misc]
            if number >= WARM_UP:
                times[side].append(seconds)
    return times


def compared(times: Mapping[str, list[float]], against: Mapping[str, str]) -> dict[str, Any]:
    """Return each side's median seconds, and median and quartiles of the ratio to its baseline."""
    rows: dict[str, Any] = {}
    for side, seconds in times.items():
        rows[side] = {"seconds": round(statistics.median(seconds), 5)}
        if (other := against.get(side)) in times:
            ratios = [a / b for a, b in zip(seconds, times[str(other)], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            rows[side] |= {
                "against": other,
                "ratio": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
            }
    return rows
