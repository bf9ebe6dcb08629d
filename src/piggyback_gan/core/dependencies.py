"""Row ranges of each filter bank by task, and task dependencies."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.core.task import Needs, TaskState
from piggyback_gan.errors import PiggybackError


@dataclass
class _Rows:
    """Rows of one layer's bank: the indices of the tasks that added rows, and where their rows end."""

    filters: int
    places: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    owners: int = 0
    first: int | None = None
    """The first task that shares the layer: tasks whose start has an own layer here start from it."""


class Ledger:
    """Row ranges of all layers' banks by task, without the values, and the dependencies of each task.

    Sets of tasks are stored as integers with one bit per task: a thousand tasks that each need all earlier
    ones would otherwise take a million names.

    Args:
        filters: layer -> number of filters.
    """

    def __init__(self, filters: Mapping[str, int]) -> None:
        self._rows = {layer: _Rows(count) for layer, count in filters.items()}
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._layers: list[frozenset[str]] = []
        self._needs: list[tuple[int, int]] = []

    def emptied(self) -> "Ledger":
        """A ledger of the same layers, without tasks."""
        return Ledger({layer: rows.filters for layer, rows in self._rows.items()})

    def place(self, task: str) -> int:
        """Number of tasks before this one; for an unknown task, the number of all tasks."""
        return self._places.get(task, len(self._names))

    def before(self, layer: str, place: int | None = None) -> int:
        """Number of filters that the first `place` tasks added to a layer's bank; None: all tasks."""
        rows = self._rows[layer]
        return rows.ends[-1 if place is None else bisect_left(rows.places, place)]

    def segments(self, layer: str, place: int) -> list[int]:
        """Numbers of filters of each of these tasks that added any, in order."""
        rows = self._rows[layer]
        ends = rows.ends[: bisect_left(rows.places, place) + 1]
        return [end - start for start, end in pairwise(ends)]

    def first(self, layer: str) -> str | None:
        """The first task that shares a layer."""
        place = self._rows[layer].first
        return None if place is None else self._names[place]

    def add(self, task: TaskState) -> None:
        """Append a task; only how its filters are made is read.

        Raises:
            PiggybackError: as `needs`.
        """
        needs, place = self._needed(task), len(self._names)
        for layer, share in task.filters.shares.items():
            rows = self._rows[layer]
            rows.first = place if rows.first is None else rows.first
            if count := unconstrained_count(share, rows.filters):
                rows.places.append(place)
                rows.ends.append(rows.ends[-1] + count)
                rows.owners |= 1 << place
        self._names.append(task.name)
        self._places[task.name] = place
        self._layers.append(frozenset(task.filters.shares))
        self._needs.append(needs)

    def needs_of(self, task: str) -> Needs:
        """Dependencies of a task that was added."""
        return self._named(self._needs[self._places[task]])

    def needs(self, task: TaskState) -> Needs:
        """Dependencies of a next task: its filters do not depend on any other tasks.

        These are the tasks that added rows to a bank it mixes from, the start of a mixing that adds to one,
        and their own dependencies, whose shapes determine whether they fit.

        Raises:
            PiggybackError: the task has an unknown layer, or its mixing adds to a start that does not exist.
        """
        return self._named(self._needed(task))

    def _needed(self, task: TaskState) -> tuple[int, int]:
        direct = bank_filters = 0
        for layer, share in task.filters.shares.items():
            if layer not in self._rows:
                raise PiggybackError(
                    f"task {task.name!r} does not fit the network: its layers differ"
                )
            rows = self._rows[layer]
            mixed = rows.filters - unconstrained_count(share, rows.filters)
            if not mixed:
                continue
            bank_filters += rows.ends[-1]
            direct |= rows.owners
            adds = task.filters.mixing.of_layer(mixed, rows.ends[-1], layer).adds
            if adds and task.filters.start is not None:
                direct |= 1 << self._start(layer, task.name, task.filters.start)
        needed, left = direct, direct
        while left:
            latest = left.bit_length() - 1
            theirs = self._needs[latest][0]
            needed |= theirs
            left &= ~(theirs | 1 << latest)  # what they need has all that it needs itself
        return needed, bank_filters

    def _start(self, layer: str, name: str, start: str) -> int:
        if start not in self._places:
            raise PiggybackError(f"task {name!r} starts from {start!r}, which does not exist")
        place, first = self._places[start], self._rows[layer].first
        return place if layer in self._layers[place] or first is None else first

    def _named(self, needed: tuple[int, int]) -> Needs:
        tasks, bank_filters = needed
        bits = reversed(f"{tasks:b}")
        names = (name for name, bit in zip(self._names, bits, strict=False) if bit == "1")
        return Needs(tuple(names), bank_filters)
