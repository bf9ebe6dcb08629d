"""Who brought how many filters to which layer's bank, and which earlier tasks a task is composed with."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.core.task import Needs, TaskState
from piggyback_gan.errors import PiggybackError


@dataclass
class _Rows:
    """Of one layer's bank: the tasks that brought rows, by their places in order, and where those rows end."""

    filters: int
    places: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    owners: int = 0
    first: int | None = None
    """The first task that shares the layer: what layers start from where a task's start has its own."""


class Ledger:
    """The rows of all layers' banks, without their values.

    Sets of tasks are integers here, a bit for each task: a thousand tasks that each need all before them
    would else make a million names.

    Args:
        filters: layer -> how many filters it has.
    """

    def __init__(self, filters: Mapping[str, int]) -> None:
        self._rows = {layer: _Rows(count) for layer, count in filters.items()}
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._layers: list[frozenset[str]] = []
        self._needs: list[tuple[int, int]] = []

    def emptied(self) -> "Ledger":
        """One of the same layers, without tasks."""
        return Ledger({layer: rows.filters for layer, rows in self._rows.items()})

    def place(self, task: str) -> int:
        """How many tasks came before it; of one that is not here, all did."""
        return self._places.get(task, len(self._names))

    def before(self, layer: str, place: int | None = None) -> int:
        """How many filters the tasks before that place brought to a layer's bank; None: all tasks."""
        rows = self._rows[layer]
        return rows.ends[-1 if place is None else bisect_left(rows.places, place)]

    def segments(self, layer: str, place: int) -> list[int]:
        """The same for each of these tasks that brought any, in order."""
        rows = self._rows[layer]
        ends = rows.ends[: bisect_left(rows.places, place) + 1]
        return [end - start for start, end in pairwise(ends)]

    def first(self, layer: str) -> str | None:
        """The first task that shares a layer."""
        place = self._rows[layer].first
        return None if place is None else self._names[place]

    def add(self, task: TaskState) -> None:
        """Write down the next task; only its shares, its mixing and its start are looked at.

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
        """What a task that was added is composed with."""
        return self._named(self._needs[self._places[task]])

    def needs(self, task: TaskState) -> Needs:
        """What the next task would be composed with: other tasks may be missing, its filters are the same.

        It needs those that brought rows to a bank which it mixes from, those that it starts from where its
        mixing adds to a start, and what these need themselves, whose shapes tell whether they fit.

        Raises:
            PiggybackError: it shares a layer that is not there, or adds to a start that is none of the tasks.
        """
        return self._named(self._needed(task))

    def _needed(self, task: TaskState) -> tuple[int, int]:
        direct = bank_filters = 0
        for layer, share in task.filters.shares.items():
            if layer not in self._rows:
                raise PiggybackError(
                    f"task {task.name!r} does not fit the network: it has other layers"
                )
            rows = self._rows[layer]
            mixed = rows.filters - unconstrained_count(share, rows.filters)
            if not mixed:
                continue
            bank_filters += rows.ends[-1]
            direct |= rows.owners
            if task.filters.mixing.of_layer(mixed, rows.ends[-1]).adds:
                direct |= 1 << self._start(layer, task)
        needed, left = direct, direct
        while left:
            latest = left.bit_length() - 1
            theirs = self._needs[latest][0]
            needed |= theirs
            left &= ~(theirs | 1 << latest)  # what they need has all that it needs itself
        return needed, bank_filters

    def _start(self, layer: str, task: TaskState) -> int:
        if task.filters.start is None:
            raise PiggybackError(
                f"task {task.name!r}: {task.filters.mixing.kind} mixing adds to an earlier task's filters, "
                "and it starts from none"
            )
        if task.filters.start not in self._places:
            raise PiggybackError(
                f"task {task.name!r} starts from {task.filters.start!r}, which is not there"
            )
        place, first = self._places[task.filters.start], self._rows[layer].first
        return place if layer in self._layers[place] or first is None else first

    def _named(self, needed: tuple[int, int]) -> Needs:
        tasks, bank_filters = needed
        bits = reversed(f"{tasks:b}")
        names = (name for name, bit in zip(self._names, bits, strict=False) if bit == "1")
        return Needs(tuple(names), bank_filters)
