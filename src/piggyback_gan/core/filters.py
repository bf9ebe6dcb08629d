"""Filter layouts: a layer's weight as rows of filters.

Shape suffixes: N filters of a layer (its output channels), D length of a filter, U unconstrained
filters, P piggyback filters (U + P = N), K filters in the bank that a task mixes from.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor, nn

ConvLayer = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)


@dataclass(frozen=True)
class FilterLayout:
    """Layout of the weight of a conv or transposed conv layer as filters.

    A filter makes one output channel. `Conv` weights are (C_out, C_in/groups, *k), `ConvTranspose`
    weights (C_in, C_out/groups, *k), where a filter is a slice along the output channel axis of its
    group.
    """

    weight_shape: tuple[int, ...]
    transposed: bool
    groups: int

    @classmethod
    def of(cls, layer: ConvLayer) -> "FilterLayout":
        """Layout of a layer with a weight."""
        return cls(tuple(layer.weight.shape), layer.transposed, layer.groups)

    @property
    def filters(self) -> int:
        """N, the number of filters: the layer's output channels."""
        return self.weight_shape[1] * self.groups if self.transposed else self.weight_shape[0]

    @property
    def length(self) -> int:
        """D, the number of values in one filter."""
        return math.prod(self.weight_shape) // self.filters

    def of_filters(self, filters: int) -> "FilterLayout":
        """Layout with another number of filters; for a layer without groups."""
        assert self.groups == 1
        shape = list(self.weight_shape)
        shape[int(self.transposed)] = filters
        return replace(self, weight_shape=tuple(shape))

    def to_filters(self, weight: Tensor) -> Tensor:
        """Weight in the layer's own shape -> filters (N, D)."""
        if not self.transposed:
            return weight.reshape(self.filters, self.length)
        channels_in, channels_out, *kernel = self.weight_shape
        grouped = weight.reshape(self.groups, channels_in // self.groups, channels_out, *kernel)
        return grouped.transpose(1, 2).reshape(self.filters, self.length)

    def to_weight(self, filters_ND: Tensor) -> Tensor:
        """Filters (N, D) -> a weight in the layer's own shape. The inverse of `to_filters`."""
        if not self.transposed:
            return filters_ND.reshape(self.weight_shape)
        channels_in, channels_out, *kernel = self.weight_shape
        grouped = filters_ND.reshape(self.groups, channels_out, channels_in // self.groups, *kernel)
        # Through one dimension: otherwise strides of dimensions of size 1 could differ from a plain weight's,
        # and the convolution's kernel is chosen by strides.
        return grouped.transpose(1, 2).flatten().reshape(self.weight_shape)


def unconstrained_count(share: float, filters: int) -> int:
    """ceil(share * filters), the number of unconstrained filters of a layer, without rounding errors.

    The share is taken as the decimal that it prints as: in binary arithmetic 0.07 * 100 is a little
    more than 7, and its ceiling 8.
    """
    return math.ceil(Fraction(repr(float(share))) * filters)
