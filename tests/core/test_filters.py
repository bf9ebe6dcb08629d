"""The filter algebra: layout, composition, exactness."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conv_layers import LayerCase, layer_cases
from piggyback_gan.core.filters import FilterLayout, unconstrained_count
from piggyback_gan.core.layer_filters import LayerFilters
from piggyback_gan.core.mixings import MIXING, FullMixing
from piggyback_gan.core.products import compose_exactly
from piggyback_gan.errors import PiggybackError


def compose(
    free: Tensor, mixing: Tensor, bank: Tensor, segments: list[int], *, exact: bool
) -> Tensor:
    parts = LayerFilters(FullMixing(), free, {MIXING: mixing}, bank, segments)
    return parts.compose(exact=exact)


@given(layer_cases())
@settings(max_examples=80, deadline=None)
def test_filters_and_weight_are_two_views_of_the_same_values(case: LayerCase) -> None:
    layer = case.build()
    layout = FilterLayout.of(layer)
    filters = layout.to_filters(layer.weight)
    assert filters.shape == (layer.out_channels, layer.weight.numel() // layer.out_channels)
    weight = layout.to_weight(filters)
    assert torch.equal(weight, layer.weight)
    assert weight.stride() == layer.weight.stride()  # else a convolution may round otherwise


@given(layer_cases(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_filter_makes_its_own_output_channel_and_no_other(
    case: LayerCase, data: st.DataObject
) -> None:
    layer = case.build()
    layout = FilterLayout.of(layer)
    number = data.draw(st.integers(0, layout.filters - 1))
    filters = torch.zeros(layout.filters, layout.length)
    filters[number] = 1
    with torch.no_grad():
        layer.weight.copy_(layout.to_weight(filters))
        if layer.bias is not None:
            layer.bias.zero_()
        output = layer(torch.ones_like(case.input()))
    touched = output.transpose(0, 1).flatten(1).abs().amax(1) > 0
    assert touched.nonzero().flatten().tolist() == [number]


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31), st.data())
@settings(max_examples=60, deadline=None)
def test_exact_composition_does_not_depend_on_the_order_of_the_sum(
    piggyback: int, bank_size: int, length: int, seed: int, data: st.DataObject
) -> None:
    chance = torch.Generator().manual_seed(seed)
    # Values over many orders of magnitude, where plain sums differ with their order.
    scales = 10 ** torch.randint(-6, 3, (bank_size, 1), generator=chance).float()
    bank = torch.randn(bank_size, length, generator=chance) * scales
    mixing = torch.randn(piggyback, bank_size, generator=chance)
    order = torch.tensor(data.draw(st.permutations(range(bank_size))))
    straight = compose_exactly(mixing, bank, [bank_size])
    assert torch.equal(straight, compose_exactly(mixing[:, order], bank[order], [bank_size]))
    reference = mixing.double() @ bank.double()
    bound = (mixing.double().abs() @ bank.double().abs()).max() * 2**-24
    torch.testing.assert_close(straight.double(), reference, rtol=2**-23, atol=bound.item())


def test_exact_composition_has_the_same_bits_on_any_number_of_threads() -> None:
    bank, mixing = torch.randn(512, 2304) * 0.02, torch.randn(192, 512)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(compose_exactly(mixing, bank, [256, 256]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_exact_composition_is_the_float64_result_rounded_once() -> None:
    chance = torch.Generator().manual_seed(0)
    bank = torch.randn(64, 500, generator=chance) * 0.02
    mixing = torch.randn(200, 64, generator=chance) / 8
    reference = (mixing.double() @ bank.double()).float()
    assert (compose_exactly(mixing, bank, [64]) != reference).sum() <= 2  # ties at 2**-40


def test_weights_of_zero_on_later_tasks_change_no_bit() -> None:
    chance = torch.Generator().manual_seed(0)
    bank, later = torch.randn(16, 30, generator=chance), torch.randn(8, 30, generator=chance) * 1e3
    mixing = torch.randn(5, 16, generator=chance)
    wide = torch.cat([mixing, torch.zeros(5, 8)], 1)
    alone = compose_exactly(mixing, bank, [16])
    assert torch.equal(alone, compose_exactly(wide, torch.cat([bank, later]), [16, 8]))


@pytest.mark.parametrize("exact", [True, False])
def test_one_hot_mixing_gives_the_bank_filter_bit_for_bit(exact: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    # A column of huge values would swallow the small ones, were they cut to a common grid.
    bank = torch.randn(10, 40, generator=chance) * 10 ** torch.linspace(-20, 20, 10)[:, None]
    mixing = torch.eye(10)[[3, 0, 9, 3]]
    filters = compose(bank[:0], mixing, bank, [6, 4], exact=exact)
    assert torch.equal(filters, bank[[3, 0, 9, 3]])


@pytest.mark.parametrize("exact", [True, False])
def test_gradients_are_those_of_the_written_out_formula(exact: bool) -> None:
    free = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    mixing = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    bank = torch.randn(5, 6, dtype=torch.float64)

    def composed(free: Tensor, mixing: Tensor) -> Tensor:
        return compose(free, mixing, bank, [5], exact=exact)

    assert torch.autograd.gradcheck(composed, (free, mixing))
    weights = torch.randn(7, 6, dtype=torch.float64)
    ours = torch.autograd.grad((composed(free, mixing) * weights).sum(), (free, mixing))
    formula = torch.cat([free, mixing @ bank])
    theirs = torch.autograd.grad((formula * weights).sum(), (free, mixing))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_composition_allows_several_backward_passes() -> None:
    free, mixing = torch.randn(2, 4, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    filters = compose(free, mixing, torch.randn(5, 4), [5], exact=False)
    filters.sum().backward()
    once = mixing.grad.clone()
    filters.sum().backward()
    torch.testing.assert_close(mixing.grad, 2 * once)


def test_composition_is_in_full_precision_under_autocast() -> None:
    free, mixing, bank = torch.randn(2, 64), torch.randn(30, 48), torch.randn(48, 64)
    plain = compose(free, mixing, bank, [48], exact=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (mixing @ bank).dtype == torch.bfloat16, "autocast is on"
        assert torch.equal(compose(free, mixing, bank, [48], exact=False), plain)


def test_denormal_values_are_composed_to_zero() -> None:
    tiny = torch.full((1, 3), 1e-39)
    assert torch.equal(compose_exactly(torch.ones(1, 1), tiny, [1]), torch.zeros(1, 3))


def test_filters_that_do_not_fit_their_bank_are_refused() -> None:
    with pytest.raises(PiggybackError, match=r"bank \(5, 4\)"):
        compose(torch.zeros(2, 4), torch.zeros(3, 6), torch.zeros(5, 4), [5], exact=True)


@given(st.integers(0, 1000), st.integers(1, 2048))
def test_the_unconstrained_count_is_the_ceiling_of_the_decimal_share(
    thousandths: int, filters: int
) -> None:
    expected = -(-thousandths * filters // 1000)
    assert unconstrained_count(thousandths / 1000, filters) == expected
