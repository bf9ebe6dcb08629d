"""FilterOptions: how the filters of a later task are made, for training, experiments and the core."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import (
    ALLOCATIONS,
    AUTO,
    AUTO_BUDGETS,
    DEFAULT_BUDGET,
    DEFAULT_FACTORIZED_RATE,
    DEFAULT_FREE_SHARE,
    DEFAULT_PULL_SHARE,
    DEFAULT_QUALITY,
    DEFAULT_START_NOISE,
    DEFAULT_UNCONSTRAINED,
    LEARN,
    MIXING_KINDS,
    STANDALONE,
    STORAGES,
    Allocation,
    Budget,
    Learn,
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

    budget: Budget | None = None
    """The most that a later task may add, as a share of a network; layers for other channels come on top. auto: the
    least of .05, .075, .15 and .3 that keeps the quality."""
    quality: float | None = None
    """How much worse held-out figures may become by factorization, as a ratio; without a budget, budget auto."""
    unconstrained: float | dict[str, float] | None = None
    """Instead of a budget: lambda, the share of new filters, 0 to 1; in TOML also by layer patterns."""
    allocation: Allocation = "last"
    """Of learn mixed or a share of new filters. last: they are in the last layers; even: the same share in all."""
    mixing: MixingKind | None = None
    """How the other filters are made of earlier tasks' filters."""
    rank: int | None = None
    """Low-rank mixing: the rank of all layers. By a budget, what a layer needs; of learn mixed, as much as a third pays for."""
    bank_filters: int | None = None
    """Selected mixing: number of earlier filters in each layer."""
    storage: Storage = "fp32"
    """Storage dtype of a task's filters; training rounds to it (straight-through)."""
    init: str | None = None
    """Where a later task starts: an earlier task's name, previous, standalone, or auto: chosen by training images."""
    learn: Learn | None = None
    """free: train a network of the task's own first, then factorize it; mixed: mix from the start. By default
    free where images are at hand; mixed with a share of new filters, selected mixing or allocation even."""
    free_share: float = DEFAULT_FREE_SHARE
    """Share of the training before a free network is factorized."""
    pull_share: float = DEFAULT_PULL_SHARE
    """Share of the training before that, in which filters are pulled step by step to mixed ones; 0: all at once, as
    with a quality."""
    factorized_rate: float = DEFAULT_FACTORIZED_RATE
    """The generator's learning rate after factorization, relative to before: few parameters want a higher one."""
    start_noise: float = DEFAULT_START_NOISE
    """Share of random noise in the filters that a free network starts from: 0 none, 1 a random start."""

    def __post_init__(self) -> None:
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_choice("storage", self.storage, STORAGES)
        if self.mixing is not None:
            check_choice("mixing", self.mixing, MIXING_KINDS)
        if self.learn is not None:
            check_choice("learn", self.learn, LEARN)
        if not is_number(self.free_share) or not 0 <= self.free_share < 1:
            raise PiggybackError(
                f"invalid free_share: found {self.free_share!r}, give a number from 0 to below 1"
            )
        if not is_number(self.pull_share) or not 0 <= self.pull_share < 1:
            raise PiggybackError(
                f"invalid pull_share: found {self.pull_share!r}, give a number from 0 to below 1"
            )
        if not is_number(self.factorized_rate) or not 0 < self.factorized_rate < math.inf:
            raise PiggybackError(
                f"invalid factorized_rate: found {self.factorized_rate!r}, give a finite number above 0"
            )
        if not is_number(self.start_noise) or not 0 <= self.start_noise <= 1:
            raise PiggybackError(
                f"invalid start_noise: found {self.start_noise!r}, give a number from 0 to 1"
            )
        for field in ("rank", "bank_filters"):
            if getattr(self, field) is not None:
                check_positive(field, getattr(self, field))
        if self.init is not None and not isinstance(self.init, str):
            raise PiggybackError(f"invalid init: found {self.init!r}, give a task's name")
        budget: Any = self.budget
        if budget not in (None, AUTO) and not (is_number(budget) and 0 < budget <= 1):
            raise PiggybackError(
                f"invalid budget: found {budget!r}, give a number above 0 and up to 1, or {AUTO}"
            )
        if self.quality is not None and not (is_number(self.quality) and 1 <= self.quality <= 2):
            raise PiggybackError(
                f"invalid quality: found {self.quality!r}, give a number from 1 to 2"
            )
        if self.unconstrained is not None:
            check_unconstrained(self.unconstrained)

    def with_filter_defaults(self, *, factorizes: bool = False) -> Self:
        """Fill in the defaults of budget, share, mixing and way to learn.

        Args:
            factorizes: whether the caller factorizes a task that is trained free (`core.free_tasks.factorize_task`).

        Raises:
            PiggybackError: budget and share are both given, or the mixing needs a start and init is standalone,
                or can't be fitted to a free network.
        """
        learn, budget = self.learn, self.budget
        if self.quality is not None and budget is None:
            budget = AUTO
        if budget is not None and self.unconstrained is not None:
            raise PiggybackError(
                "a budget and a share of new filters (unconstrained) exclude each other: give one"
            )
        if learn is None:
            asks = self.unconstrained is not None or self.allocation == "even"
            asks = asks or self.mixing == "selected"
            learn = "free" if factorizes and not asks else "mixed"
        if learn == "mixed" and (budget == AUTO or self.quality is not None):
            raise PiggybackError(
                "budget auto and quality are for a network that is trained free and then factorized: give learn free, "
                "without selected mixing and allocation even, or a number as the budget and no quality"
            )
        if learn == "free" and self.unconstrained is not None and self.mixing == "low-rank":
            raise PiggybackError(
                "with a share of new filters a free network is mixed fully: leave out low-rank mixing, or give a budget"
            )
        if learn == "free" and self.unconstrained is None and self.allocation == "even":
            raise PiggybackError(
                "allocation even is for a share of new filters or learn mixed: a free network gets them where it "
                "needs them"
            )
        if learn == "free" and self.mixing == "selected":
            raise PiggybackError(
                "selected mixing learns which filters to mix in the bank: leave out learn free, or mix by low-rank or full"
            )
        if learn == "mixed" and self.init == STANDALONE and self.mixing not in (None, "full"):
            raise PiggybackError(
                f"{self.mixing} mixing adds to an earlier task's filters, where the task starts: "
                "leave out init standalone, or mix fully"
            )
        papers = self.unconstrained is not None or (learn == "mixed" and self.init == STANDALONE)
        mixing: MixingKind = "full" if papers else "low-rank"
        quality = DEFAULT_QUALITY if budget == AUTO and self.quality is None else self.quality
        # A subclass may fix its budget.
        found = {"budget": budget, "quality": quality}
        changed: dict[str, Any] = {k: v for k, v in found.items() if v != getattr(self, k)}
        options = replace(self, learn=learn, mixing=self.mixing or mixing, **changed)
        if budget is not None or self.unconstrained is not None:
            return options
        return replace(
            options,
            unconstrained=DEFAULT_UNCONSTRAINED if papers else None,
            budget=None if papers else DEFAULT_BUDGET,
        )

    @property
    def pulled_share(self) -> float:
        """Share of the training in which filters are pulled: none with a quality, for which the free network counts."""
        return 0.0 if self.quality else min(self.pull_share, self.free_share)

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets that a task may get, ascending; with the defaults, empty for a share of new filters."""
        if self.budget is None:
            return ()
        return (self.budget,) if isinstance(self.budget, int | float) else AUTO_BUDGETS


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
