"""Mixings: how piggyback filters are computed from a filter bank.

Shape suffixes as in `filters.py`, and R the rank, M the number of selected bank filters.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.products import product
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import DEFAULT_BANK_FILTERS, DEFAULT_RANK
from piggyback_gan.system.checks import check_positive

MIXING = "mixing_weights"
MIXING_UP = "mixing_up"
MIXING_DOWN = "mixing_down"
SELECTED = "selected_filters"
MIXING_TENSORS = (MIXING, MIXING_UP, MIXING_DOWN, SELECTED)

Values = Mapping[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Mixing(ABC):
    """Computes piggyback filters (P, D) from a filter bank (K, D).

    Fields are options. A task stores, for each layer, the tensors named in `shapes`; float ones are trained.
    """

    kind: ClassVar[str]
    """Its name in options and files."""

    adds: ClassVar[bool] = True
    """Whether mixed filters are added to those of the earlier task that the task starts from."""

    @abstractmethod
    def shapes(self, piggyback: int, bank: int) -> dict[str, Shape]:
        """Shapes of a layer's tensors for P piggyback filters and K bank filters."""

    @abstractmethod
    def begin(self, piggyback: int, bank_KD: Tensor) -> dict[str, Tensor]:
        """Initialize a layer's tensors; mixings that add to a start begin with an update of 0."""

    @abstractmethod
    def factors(
        self, values: Values, bank_KD: Tensor, segments: Sequence[int], *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        """Factors of the mixed filters: (P, R) and inner filters (R, D).

        `exact` and `segments` as in `products.compose_exactly`.
        """

    def mix(
        self, values: Values, bank_KD: Tensor, segments: Sequence[int], *, exact: bool
    ) -> Tensor:
        """Compute the mixed filters (P, D), differentiable in the mixing's tensors."""
        up_PR, inner_RD = self.factors(values, bank_KD, segments, exact=exact)
        rows = segments if inner_RD is bank_KD else [len(inner_RD)]
        return product(up_PR, inner_RD, rows, exact=exact)

    @abstractmethod
    def weights(self, values: Values, bank: int) -> tuple[Tensor, Tensor]:
        """Factors of the mixing weights (P, K): (P, R) and (R, K)."""

    def coefficients(self, values: Values, bank: int) -> Tensor:
        """The mixing as plain mixing weights (P, K)."""
        up_PR, down_RK = self.weights(values, bank)
        return up_PR @ down_RK

    def of_layer(self, piggyback: int, bank: int, layer: str = "") -> "Mixing":
        """Mixing of one layer: full mixing unless this one has fewer parameters."""
        full = FullMixing()
        return self if self.cost(piggyback, bank) < full.cost(piggyback, bank) else full

    def cost(self, piggyback: int, bank: int) -> int:
        """Number of values that a task stores for a layer's mixing."""
        return sum(math.prod(shape) for shape in self.shapes(piggyback, bank).values())

    def as_card(self) -> dict[str, Any]:
        """Convert to the table in a task's file."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class FullMixing(Mixing):
    """W @ B, each piggyback filter a combination of all bank filters, as in the paper (section 3.2)."""

    kind: ClassVar[str] = "full"
    adds: ClassVar[bool] = False

    def shapes(self, piggyback: int, bank: int) -> dict[str, Shape]:
        return {MIXING: (piggyback, bank)}

    def begin(self, piggyback: int, bank_KD: Tensor) -> dict[str, Tensor]:
        weights = torch.randn(piggyback, len(bank_KD), dtype=bank_KD.dtype)
        return {MIXING: weights.to(bank_KD.device)}

    def factors(
        self, values: Values, bank_KD: Tensor, segments: Sequence[int], *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        return values[MIXING], bank_KD

    def weights(self, values: Values, bank: int) -> tuple[Tensor, Tensor]:
        mixing = values[MIXING]
        return mixing, torch.eye(bank, dtype=mixing.dtype, device=mixing.device)

    def coefficients(self, values: Values, bank: int) -> Tensor:
        return values[MIXING]


@dataclass(frozen=True, kw_only=True)
class LowRankMixing(Mixing):
    """F_start + up @ (down @ B): mixing weights of rank R, added to the start's filters.

    The update lies in the span of the bank, unlike LoRA's on the filters (Hu et al., ICLR 2022).

    Attributes:
        rank: R.
        ranks: layer -> its rank, where it has another one.
    """

    kind: ClassVar[str] = "low-rank"
    rank: int = DEFAULT_RANK
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, Mapping):
            raise PiggybackError(f"invalid ranks: found {self.ranks!r}, give a table of layers")
        for rank in (self.rank, *self.ranks.values()):
            check_positive("rank", rank)

    def of_layer(self, piggyback: int, bank: int, layer: str = "") -> Mixing:
        own = LowRankMixing(rank=self.ranks.get(layer, self.rank))
        return super(LowRankMixing, own).of_layer(piggyback, bank)

    def as_card(self) -> dict[str, Any]:
        ranks = {"ranks": dict(self.ranks)} if self.ranks else {}
        return {"kind": self.kind, "rank": self.rank, **ranks}

    def shapes(self, piggyback: int, bank: int) -> dict[str, Shape]:
        return {MIXING_UP: (piggyback, self.rank), MIXING_DOWN: (self.rank, bank)}

    def begin(self, piggyback: int, bank_KD: Tensor) -> dict[str, Tensor]:
        count = len(bank_KD)
        down = torch.randn(self.rank, count, dtype=bank_KD.dtype).to(bank_KD.device)
        # Inner filters of the scale of bank filters, so that `up` has the scale of mixing weights.
        return {
            MIXING_UP: bank_KD.new_zeros(piggyback, self.rank),
            MIXING_DOWN: down / math.sqrt(count),
        }

    def factors(
        self, values: Values, bank_KD: Tensor, segments: Sequence[int], *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        inner_RD = product(values[MIXING_DOWN], bank_KD, segments, exact=exact)
        return values[MIXING_UP], inner_RD

    def weights(self, values: Values, bank: int) -> tuple[Tensor, Tensor]:
        return values[MIXING_UP], values[MIXING_DOWN]


@dataclass(frozen=True, kw_only=True)
class SelectedMixing(Mixing):
    """F_start + W @ B[selected]: each layer mixes from at most M filters of its bank.

    `PiggybackNetwork.select_filters` chooses them; until then they are the first M.

    Attributes:
        bank_filters: M.
    """

    kind: ClassVar[str] = "selected"
    bank_filters: int = DEFAULT_BANK_FILTERS

    def __post_init__(self) -> None:
        check_positive("bank_filters", self.bank_filters)

    def shapes(self, piggyback: int, bank: int) -> dict[str, Shape]:
        return {MIXING: (piggyback, self.bank_filters), SELECTED: (self.bank_filters,)}

    def of_layer(self, piggyback: int, bank: int, layer: str = "") -> Mixing:
        return super().of_layer(piggyback, bank) if self.bank_filters < bank else FullMixing()

    def begin(self, piggyback: int, bank_KD: Tensor) -> dict[str, Tensor]:
        return {
            MIXING: bank_KD.new_zeros(piggyback, self.bank_filters),
            SELECTED: torch.arange(self.bank_filters, dtype=torch.int32, device=bank_KD.device),
        }

    def factors(
        self, values: Values, bank_KD: Tensor, segments: Sequence[int], *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        return values[MIXING], bank_KD[values[SELECTED]]

    def weights(self, values: Values, bank: int) -> tuple[Tensor, Tensor]:
        mixing, selected = values[MIXING], values[SELECTED].long()
        return mixing, F.one_hot(selected, bank).to(mixing.dtype)


def most_relevant(gradient_PD: Tensor, bank_KD: Tensor, count: int) -> Tensor:
    """Select bank filters by a gradient (orthogonal matching pursuit; Pati et al., 1993).

    Each step takes the filter that explains most of the part of the gradient that the filters chosen
    before do not span.

    Args:
        gradient_PD: gradient of the filters that are to be mixed.
        bank_KD: the filters to choose from, at least `count` of them.
        count: number of filters to select.

    Returns:
        Indices in ascending order, int32 (count,).
    """
    left_KD = bank_KD.double()
    along_KP = left_KD @ gradient_PD.double().T
    sizes = left_KD.norm(dim=1)
    chosen: list[int] = []
    for _ in range(count):
        norms = left_KD.norm(dim=1)
        # Of a filter that is spanned already only rounding errors remain.
        scores = torch.where(norms > 1e-6 * sizes, along_KP.norm(dim=1) / norms, -1)
        scores[chosen] = -2
        best = int(scores.argmax())
        chosen.append(best)
        if scores[best] >= 0:
            direction_D, share_P = left_KD[best] / norms[best], along_KP[best] / norms[best]
            inner_K = left_KD @ direction_D
            left_KD = left_KD - torch.outer(inner_K, direction_D)
            along_KP = along_KP - torch.outer(inner_K, share_P)
    return torch.tensor(sorted(chosen), dtype=torch.int32, device=bank_KD.device)


MIXINGS: Mapping[str, type[Mixing]] = {
    rule.kind: rule for rule in (FullMixing, LowRankMixing, SelectedMixing)
}


def mixing_of(options: FilterOptions, number: int | None = None) -> Mixing:
    """Mixing of options whose defaults are filled in.

    Args:
        options: the options.
        number: the rank or number of bank filters to use if the options do not set it.
    """
    if options.mixing == LowRankMixing.kind:
        return LowRankMixing(rank=options.rank or number or DEFAULT_RANK)
    if options.mixing == SelectedMixing.kind:
        return SelectedMixing(bank_filters=options.bank_filters or number or DEFAULT_BANK_FILTERS)
    assert options.mixing == FullMixing.kind, "options must have their defaults"
    return FullMixing()


def mixing_from_card(card: Mapping[str, Any]) -> Mixing:
    """The inverse of `Mixing.as_card`.

    Raises:
        PiggybackError: the kind of mixing or one of its options is unknown.
    """
    if not isinstance(card, Mapping):
        raise PiggybackError(f"a mixing must be a table of its kind and options, not {card!r}")
    rule = MIXINGS.get(str(card.get("kind")))
    options = {key: value for key, value in card.items() if key != "kind"}
    if rule is None:
        known = ", ".join(MIXINGS)
        raise PiggybackError(f"unknown mixing {card.get('kind')!r}: choose one of {known}")
    try:
        return rule(**options)
    except TypeError:
        raise PiggybackError(f"unknown options of mixing {rule.kind!r}: {options}") from None
