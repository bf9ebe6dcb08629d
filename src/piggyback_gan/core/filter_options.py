"""FilterOptions: how the filters of a later task are made, for training, experiments and the core."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import (
    ALLOCATIONS,
    DEFAULT_BUDGET,
    DEFAULT_UNCONSTRAINED,
    MIXING_KINDS,
    STANDALONE,
    STORAGES,
    Allocation,
    MixingKind,
    Storage,
)
from piggyback_gan.system.checks import check_choice, check_positive, is_number


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """How the filters of a later task are made; all filters of a first task are new.

    A task has a budget of parameters, spent on mixing first and on new filters with the rest; or, as in
    the paper, a share lambda of new filters, whatever the mixing then costs.
    """

    budget: float | None = None
    """The most that a later task may add, as a share of a network; layers for other channels come on top."""
    unconstrained: float | dict[str, float] | None = None
    """Instead of a budget: lambda, the share of new filters, 0 to 1; in TOML also by layer patterns."""
    allocation: Allocation = "last"
    """last: new filters are in the last layers; even: the same share in every layer."""
    mixing: MixingKind | None = None
    """How the other filters are made of earlier tasks' filters."""
    rank: int | None = None
    """Low-rank mixing: the rank. By a budget, as much as a third of it pays for."""
    bank_filters: int | None = None
    """Selected mixing: number of earlier filters in each layer."""
    storage: Storage = "fp32"
    """Storage dtype of a task's filters; training rounds to it (straight-through)."""
    init: str | None = None
    """Where a later task starts: an earlier task's name, previous or standalone."""

    def __post_init__(self) -> None:
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_choice("storage", self.storage, STORAGES)
        if self.mixing is not None:
            check_choice("mixing", self.mixing, MIXING_KINDS)
        for field in ("rank", "bank_filters"):
            if getattr(self, field) is not None:
                check_positive(field, getattr(self, field))
        if self.init is not None and not isinstance(self.init, str):
            raise PiggybackError(f"invalid init: found {self.init!r}, give a task's name")
        if self.budget is not None and not (is_number(self.budget) and 0 < self.budget <= 1):
            raise PiggybackError(
                f"invalid budget: found {self.budget!r}, give a number above 0 and up to 1"
            )
        if self.unconstrained is not None:
            check_unconstrained(self.unconstrained)

    def with_filter_defaults(self) -> Self:
        """Fill in the defaults of budget, share and mixing.

        Raises:
            PiggybackError: budget and share are both given, or the mixing needs a start and init is standalone.
        """
        if self.budget is not None and self.unconstrained is not None:
            raise PiggybackError(
                "a budget and a share of new filters (unconstrained) exclude each other: give one"
            )
        if self.init == STANDALONE and self.mixing not in (None, "full"):
            raise PiggybackError(
                f"{self.mixing} mixing adds to an earlier task's filters, where the task starts: "
                "leave out init standalone, or mix fully"
            )
        papers = self.unconstrained is not None or self.init == STANDALONE
        mixing: MixingKind = "full" if papers else "low-rank"
        if self.budget is not None or self.unconstrained is not None:
            return replace(self, mixing=self.mixing or mixing)
        return replace(
            self,
            mixing=self.mixing or mixing,
            unconstrained=DEFAULT_UNCONSTRAINED if papers else None,
            budget=None if papers else DEFAULT_BUDGET,
        )


def check_unconstrained(value: Any) -> None:
    """Raise PiggybackError unless this is a share in [0, 1], or a flat table of shares by pattern."""
    for pattern, share in value.items() if isinstance(value, Mapping) else [(None, value)]:
        if isinstance(share, Mapping):
            raise PiggybackError(
                f"invalid unconstrained: {pattern!r} is a table: put names with dots in quotes"
            )
        if not is_number(share) or not 0 <= share <= 1:
            where = f" for {pattern!r}" if pattern is not None else ""
            raise PiggybackError(
                f"invalid unconstrained: found {share!r}{where}, give a number from 0 to 1"
            )
