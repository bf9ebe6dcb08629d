"""The filters of one layer, put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from piggyback_gan.core.mixings import Mixing, Values
from piggyback_gan.errors import PiggybackError


@dataclass(frozen=True)
class Added:
    """What is added to a layer's filters, as factors.

    Attributes:
        up_NR: the first factor.
        inner: the second: filters (R, D); or, if `of_outputs`, what makes them of the layer's own filters
            (R, N).
        of_outputs: which of the two it is.
    """

    up_NR: Tensor
    inner: Tensor
    of_outputs: bool


@dataclass(frozen=True)
class LayerFilters:
    """All that a task's filters of one layer are made of.

    Attributes:
        rule: how piggyback filters are mixed.
        unconstrained_UD: the task's unconstrained filters.
        values: the mixing's tensors; empty where all filters are unconstrained.
        bank_KD: the filters of all earlier tasks; they never get a gradient.
        segments: how many rows of the bank each earlier task brought, in order.
        start_PD: what the mixed filters are added to, where the rule adds.
        start_is_bank: whether these are the bank itself, filter by filter.
        places_U: which of the layer's filters the unconstrained ones are, rising; None: the first ones.
    """

    rule: Mixing
    unconstrained_UD: Tensor
    values: Values
    bank_KD: Tensor
    segments: Sequence[int]
    start_PD: Tensor | None = None
    start_is_bank: bool = False
    places_U: Tensor | None = None

    def compose(self, *, exact: bool) -> Tensor:
        """The layer's filters (N, D), [U; P] or U at its places, differentiable in U and what mixes.

        Args:
            exact: compose for use, with the same bits on every machine (`filters.compose_exactly`),
                instead of by quick matrix products. Both are in full precision, also under autocast.

        Raises:
            PiggybackError: the shapes do not fit each other.
        """
        if not self.values:
            # What is in use must not be the bank's own memory.
            return self.unconstrained_UD.clone() if exact else self.unconstrained_UD
        self._check()
        filters = self.rule.mix(self.values, self.bank_KD, self.segments, exact=exact)
        if self.start_PD is not None:
            filters = self.start_PD + filters
        if not len(self.unconstrained_UD):
            return filters
        return self.in_place(torch.cat([self.unconstrained_UD, filters]))

    def in_place(self, stacked: Tensor) -> Tensor:
        """What is there of each filter, unconstrained ones first -> the same in the layer's own order."""
        if self.places_U is None:
            return stacked
        mixed = torch.ones(len(stacked), dtype=torch.bool, device=stacked.device)
        mixed[self.places_U.long()] = False
        order = torch.cat([self.places_U.long(), mixed.nonzero().squeeze(1)])
        return stacked[order.argsort()]

    def factored(self) -> tuple[Tensor, Added] | None:
        """The start and what is added to it, where the filters are no more than that.

        A layer is linear in its filters: it may as well add up what each part makes of its input, and
        then no gradient of whole filters is needed. Where it starts from the bank itself, what the bank's
        filters make of the input is there already, and need only be mixed.
        """
        if self.start_PD is None or len(self.unconstrained_UD):
            return None
        self._check()
        if self.start_is_bank:
            factors = self.rule.weights(self.values, len(self.bank_KD))
        else:
            factors = self.rule.factors(self.values, self.bank_KD, self.segments, exact=False)
        return self.start_PD, Added(*factors, of_outputs=self.start_is_bank)

    def coefficients(self) -> Tensor:
        """What the mixing itself gives, as plain mixing weights (P, K)."""
        return self.rule.coefficients(self.values, len(self.bank_KD))

    def _check(self) -> None:
        count = len(next(iter(self.values.values())))
        expected = self.rule.shapes(count, len(self.bank_KD))
        found = {name: tuple(tensor.shape) for name, tensor in self.values.items()}
        lengths = {
            t.shape[1]
            for t in (self.unconstrained_UD, self.bank_KD, self.start_PD)
            if t is not None
        }
        if expected != found or len(lengths) > 1:
            raise PiggybackError(
                f"filters do not fit their bank: unconstrained {tuple(self.unconstrained_UD.shape)}, "
                f"{', '.join(f'{name} {shape}' for name, shape in found.items())}, "
                f"bank {tuple(self.bank_KD.shape)}"
            )
