"""Composition of a task's filters of one layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from piggyback_gan.core.mixings import Mixing, Values
from piggyback_gan.errors import PiggybackError


@dataclass(frozen=True)
class Added:
    """A low-rank update of a layer's filters, as two factors.

    Attributes:
        up_NR: the first factor.
        inner: the second factor: filters (R, D); or, if `of_outputs`, weights of the start's filters (R, N).
        of_outputs: whether `inner` applies to the start's filters, and so to its outputs.
    """

    up_NR: Tensor
    inner: Tensor
    of_outputs: bool


@dataclass(frozen=True)
class LayerFilters:
    """Everything that a task's filters of one layer are composed from.

    Attributes:
        rule: the mixing of piggyback filters.
        unconstrained_UD: the task's unconstrained filters.
        values: the mixing's tensors; empty where all filters are unconstrained.
        bank_KD: the filters of all earlier tasks; they never require a gradient.
        segments: numbers of bank rows by earlier task, in order.
        start_PD: the filters that the mixed ones are added to, if the rule adds.
        start_is_bank: whether these equal the bank, row by row.
        places_U: indices of the unconstrained filters in the layer, ascending; None: the first ones.
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
        """Compose the layer's filters (N, D): [U; P], or U at its places. Differentiable in U and the mixing.

        Args:
            exact: compose with the same bits on every machine (`products.compose_exactly`), instead of by
                fast matrix products. Both are in full precision, also under autocast.

        Raises:
            PiggybackError: the shapes do not fit each other.
        """
        if not self.values:
            # A copy: composed weights must not share the bank's memory.
            return self.unconstrained_UD.clone() if exact else self.unconstrained_UD
        self._check()
        filters = self.rule.mix(self.values, self.bank_KD, self.segments, exact=exact)
        if self.start_PD is not None:
            filters = self.start_PD + filters
        if not len(self.unconstrained_UD):
            return filters
        return self.in_place(torch.cat([self.unconstrained_UD, filters]))

    def in_place(self, stacked: Tensor) -> Tensor:
        """Reorder rows, unconstrained filters first, into the layer's own order."""
        if self.places_U is None:
            return stacked
        mixed = torch.ones(len(stacked), dtype=torch.bool, device=stacked.device)
        mixed[self.places_U.long()] = False
        order = torch.cat([self.places_U.long(), mixed.nonzero().squeeze(1)])
        return stacked[order.argsort()]

    def factored(self) -> tuple[Tensor, Added] | None:
        """Start and low-rank update, if the filters consist of these alone; else None.

        A layer is linear in its filters: the outputs of both parts can be added instead of the filters,
        which avoids the gradient of whole filters. If the start is the bank itself, the update applies to
        the start's outputs.
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
        """The mixing as plain mixing weights (P, K), without the start."""
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
