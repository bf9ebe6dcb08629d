"""Claims about fits by outputs, compared with outputs of plain layers."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piggyback_gan.core import output_fits
from piggyback_gan.core.filters import FilterLayout
from piggyback_gan.core.output_fits import (
    Moments,
    filter_moments,
    output_changes,
    output_moments,
)


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 16, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 10, 3),
    ).eval()


def smooth(seed: int, count: int = 6) -> Tensor:
    """Images that vary slowly, as real ones do."""
    chance = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(count, 3, 4, 4, generator=chance), size=16, mode="bicubic")


SAMPLES = smooth(1).split(2)


def measured(name: str, bank_KD: Tensor) -> tuple[Moments, FilterLayout]:
    made = module()
    layout = FilterLayout.of(made.get_submodule(name))  # type: ignore[arg-type]
    return output_moments(made, {name: layout}, {name: bank_KD}, SAMPLES)[name], layout


def outputs(name: str, weight: Tensor | None = None) -> Tensor:
    """What the layer gives on the samples, without its bias; with another weight if given."""
    made = module()
    layer = made.get_submodule(name)
    if weight is not None:
        layer.weight.data = weight  # type: ignore[operator, union-attr]
    layer.bias.data.zero_()  # type: ignore[operator, union-attr]
    kept: list[Tensor] = []
    # What comes before the layer is as it was.
    before = module()[: int(name)]
    for batch in SAMPLES:
        with torch.no_grad():
            kept.append(layer(before(batch)))
    return torch.cat(kept)


def difference(name: str, filters_ND: Tensor, layout: FilterLayout, *, centred: bool) -> Tensor:
    """Squared differences of each output channel to the layer's own."""
    left = outputs(name, layout.to_weight(filters_ND)) - outputs(name)
    if centred:
        left = left - left.mean((2, 3), keepdim=True)
    return left.double().square().sum((0, 2, 3))


@pytest.mark.parametrize(("name", "centred"), [("0", False), ("2", True), ("5", False)])
@pytest.mark.parametrize("rank", [None, 3])
def test_errors_are_those_of_the_outputs(name: str, centred: bool, rank: int | None) -> None:
    layout = FilterLayout.of(module().get_submodule(name))  # type: ignore[arg-type]
    bank = torch.randn(8, layout.length, generator=torch.Generator().manual_seed(3)) / 10
    moments, layout = measured(name, bank)
    if rank is None:
        weights, errors = moments.weights()
    else:
        up, down, errors = moments.factors(rank)
        weights = up @ down
        assert torch.linalg.matrix_rank(weights) == rank
    found = difference(name, (weights.float() @ bank), layout, centred=centred)
    assert torch.allclose(errors, found, rtol=1e-3, atol=1e-3 * float(found.mean()))
    # No other weights do better: not those of the filters themselves.
    by_filters = filter_moments(
        layout.to_filters(module().get_submodule(name).weight.detach()), bank
    )  # type: ignore[arg-type, union-attr]
    if rank is None:
        others = difference(name, by_filters.weights()[0].float() @ bank, layout, centred=centred)
        assert (found <= others * 1.001).all() and found.sum() < 0.9 * others.sum()


def test_errors_by_rank_fall_to_that_of_the_whole_fit() -> None:
    bank = torch.randn(8, 27, generator=torch.Generator().manual_seed(3)) / 10
    moments, _ = measured("0", bank)
    errors = moments.errors_by_rank()
    assert len(errors) == 12 + 1 and (errors.diff() <= 1e-9).all()
    for rank in (2, 5):
        assert torch.isclose(
            errors[rank], (moments.factors(rank)[2] / moments.own_N).sum(), rtol=1e-3
        )
    assert torch.isclose(errors[-1], (moments.weights()[1] / moments.own_N).sum())


def test_beyond_a_start_what_is_left_to_it_is_fitted() -> None:
    bank = torch.randn(8, 27, generator=torch.Generator().manual_seed(3)) / 10
    start = torch.randn(12, 8, generator=torch.Generator().manual_seed(4))
    moments, layout = measured("0", bank)
    plain = moments.factors(2)
    moments = moments.beyond(start)
    up, down, errors = moments.factors(2)
    found = difference("0", (start + (up @ down).float()) @ bank, layout, centred=False)
    assert not torch.allclose(errors, plain[2], rtol=0.1)
    assert torch.allclose(errors, found, rtol=1e-3)
    own = outputs("0").double().square().sum((0, 2, 3))
    assert torch.allclose(moments.own_N, own, rtol=1e-3)


def test_changes_of_outputs_are_measured_and_the_network_is_left_as_it_was() -> None:
    made, before = module(), copy.deepcopy(module().state_dict())
    weights = {name: torch.zeros_like(made.get_submodule(name).weight) for name in ("0", "5")}  # type: ignore[arg-type]
    changes = output_changes(made, weights, SAMPLES)
    assert all(torch.equal(made.state_dict()[key], before[key]) for key in before)
    made[5].weight.data.zero_()  # type: ignore[operator, union-attr]
    images = torch.cat(SAMPLES)
    with torch.no_grad():
        expected = (made(images) - module()(images)).square().mean().item()
    assert changes["5"] == pytest.approx(expected) and changes["0"] > 0


def test_of_large_outputs_every_few_places_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = torch.randn(8, FilterLayout.of(module()[2]).length) / 10
    whole, _ = measured("2", bank)
    # 40 x 40 places of each image; an even step would meet one of four phases alone.
    monkeypatch.setattr(output_fits, "_MOST_PLACES", 250)
    some, _ = measured("2", bank)
    assert not torch.equal(whole.bank_KK, some.bank_KK)
    for name in ("bank_KK", "both_NK", "fitted_N"):
        found, expected = getattr(some, name), getattr(whole, name)
        assert (found - expected).norm() < 0.2 * expected.norm()


def test_layers_that_are_called_by_keyword_are_measured_alike() -> None:
    class ByKeyword(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.layer(input=images)
            return made

    layer = module()[0]
    layout, bank = FilterLayout.of(layer), torch.randn(8, 27)
    (plain,) = output_moments(nn.Sequential(layer), {"0": layout}, {"0": bank}, SAMPLES).values()
    by_word = output_moments(ByKeyword(layer), {"layer": layout}, {"layer": bank}, SAMPLES)
    assert torch.equal(plain.both_NK, by_word["layer"].both_NK)


def test_a_bank_longer_than_its_filters_is_measured_alike() -> None:
    bank = torch.randn(40, FilterLayout.of(module()[0]).length) / 10
    long, _ = measured("0", bank)
    short, _ = measured("0", bank[:20])
    torch.testing.assert_close(long.bank_KK[:20, :20], short.bank_KK, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(long.both_NK[:, :20], short.both_NK, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(long.fitted_N, short.fitted_N)


def test_layers_are_measured_on_as_many_images_as_they_need() -> None:
    """The first two have many places in an image; of the last there are few."""
    made = module()
    made.append(nn.Conv2d(10, 9, 3, stride=15))
    layers = ["0", "2", "6"]
    banks = {n: torch.randn(9, FilterLayout.of(made[int(n)]).length) / 10 for n in layers}
    layouts = {n: FilterLayout.of(made[int(n)]) for n in layers}
    calls: list[int] = []
    made.register_forward_hook(lambda *_: calls.append(1))
    batches = smooth(2, 60).split(4)
    found = output_moments(
        made, {n: layouts[n] for n in layers[:2]}, {n: banks[n] for n in layers[:2]}, batches
    )
    assert len(calls) == 2, "eight images"
    calls.clear()
    all_found = output_moments(made, layouts, banks, batches)
    assert len(calls) > 10, "the last layer needs them"
    for name in layers[:2]:
        assert torch.equal(all_found[name].both_NK, found[name].both_NK)
    calls.clear()
    assert output_moments(made, {}, {}, batches) == {} and not calls


def test_all_calls_of_a_layer_count_however_samples_are_split() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.layer(100 * self.layer(images))
            return made

    layer, images = Twice().layer, smooth(3, 8)
    layout, bank = FilterLayout.of(layer), torch.randn(8, 27)
    # Eight calls are enough, but those of a whole batch count.
    for size, measured_images in ((1, 4), (4, 4), (8, 8)):
        found = output_moments(Twice(), {"layer": layout}, {"layer": bank}, images.split(size))
        with torch.no_grad():
            inputs = [images[:measured_images], 100 * layer(images[:measured_images])]
            calls = [F.conv2d(each, layer.weight, padding=1) for each in inputs]
        powers = sum(made.double().square().sum((0, 2, 3)) for made in calls)
        torch.testing.assert_close(found["layer"].own_N, powers, rtol=1e-5, atol=0.0)


def test_a_norm_with_running_statistics_leaves_means() -> None:
    torch.manual_seed(0)
    tracked = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True))
    plain = nn.Sequential(tracked[0], nn.InstanceNorm2d(8))
    layout, bank = FilterLayout.of(tracked[0]), torch.randn(8, 27)
    powers = [
        output_moments(each.eval(), {"0": layout}, {"0": bank}, [SAMPLES[0] + 3])["0"].fitted_N
        for each in (tracked, plain)
    ]
    assert powers[0].sum() > 2 * powers[1].sum()
