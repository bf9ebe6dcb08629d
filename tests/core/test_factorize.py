"""Claims about finished networks made tasks of a bank: least squares, the worst filters free, nothing forgotten."""

import copy
import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from banks import evenly
from piggyback_gan.core.factorize import (
    conv_weights,
    factorize,
    layer_fits,
    least_squares,
    relative_error,
)
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.free_tasks import factorize_task, pull_to_bank
from piggyback_gan.core.mixings import LowRankMixing
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import TaskState
from piggyback_gan.errors import PiggybackError

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 12, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 10, 4, stride=2),
        nn.Conv2d(10, 3, 3),
    ).eval()


def with_first(seed: int = 0) -> PiggybackNetwork:
    network = PiggybackNetwork(module(seed)).eval()
    network.restore_task(factorize(network, "first", module(seed), unconstrained=0.25))
    return network


def tensors_of(state: TaskState, layer: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{layer}."): tensor
        for key, tensor in state.tensors.items()
        if key.startswith(f"{layer}.")
    }


def test_a_first_task_enters_bit_for_bit() -> None:
    network = with_first()
    network.set_task("first")
    assert torch.equal(network(IMAGES), module(0)(IMAGES))
    assert network.parameter_count("first").share == 1


def test_the_fit_is_the_least_squares_one_and_the_worst_filters_are_free() -> None:
    network, given = with_first(), module(1)
    state = factorize(network, "second", given, unconstrained=0.25)
    rows = given[0].weight.detach().reshape(16, -1)
    bank = network.bank_filters("0")
    solution = torch.linalg.lstsq(bank.T.double(), rows.T.double()).solution.T
    errors = (rows.double() - solution @ bank.double()).square().sum(1)
    worst = sorted(errors.argsort(descending=True)[:4].tolist())
    found = tensors_of(state, "0")
    assert found["unconstrained_places"].tolist() == worst
    assert torch.equal(found["unconstrained_filters"], rows[worst])
    others = [i for i in range(16) if i not in worst]
    torch.testing.assert_close(found["mixing_weights"], solution[others].float())
    assert found["mixing_weights"].dtype == torch.float32


def test_what_the_bank_spans_is_mixed_without_error_and_without_new_filters() -> None:
    network, given = with_first(), module(1)
    with torch.no_grad():
        for name, weight in conv_weights(module(0)).items():
            layout = network.layouts[name]
            mixing = torch.randn(layout.filters, layout.filters) / layout.filters
            rows = mixing @ layout.to_filters(weight)
            given.get_submodule(name).weight.copy_(layout.to_weight(rows))
    state = factorize(network, "second", given, max_error=1e-5)
    network.restore_task(state)
    counts = {plan.name: plan.unconstrained for plan in network.plan_of("second")}
    assert counts == {"0": 0, "3": 0, "5": 0, "6": 0}
    torch.testing.assert_close(network.fold("second")(IMAGES), given(IMAGES), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("max_error", [0.0, 0.1, 0.5, 1.0])
def test_an_error_is_kept_to_with_as_few_new_filters_as_can_be(max_error: float) -> None:
    network, given = with_first(), module(1)
    network.restore_task(factorize(network, "second", given, max_error=max_error))
    layers = conv_weights(given)
    for fit in layer_fits(network, "second", given):
        assert fit.error <= max_error + 1e-6
        rows = network.layouts[fit.layer].to_filters(layers[fit.layer]).double()
        bank = with_first().bank_filters(fit.layer)
        _, errors = least_squares(rows, bank)
        if fit.unconstrained and len(bank) < rows.shape[1]:
            left = errors.sort().values[: fit.filters - fit.unconstrained + 1].sum()
            assert left > (max_error**2) * rows.square().sum()  # one fewer would be too few
    if max_error == 0:
        assert torch.equal(network.fold("second")(IMAGES), given(IMAGES))


def test_a_layer_whose_filters_are_shorter_than_the_bank_is_long_is_free() -> None:
    network = PiggybackNetwork(nn.Sequential(nn.Conv2d(1, 16, 3), nn.Conv2d(16, 9, 3)))
    torch.manual_seed(0)
    one, two = (nn.Sequential(nn.Conv2d(1, 16, 3), nn.Conv2d(16, 9, 3)) for _ in range(2))
    network.restore_task(factorize(network, "one", one, unconstrained=0.5))
    state = factorize(network, "two", two, unconstrained=0.0)
    assert state.filters.shares == {"0": 1.0, "1": 0.0}


def test_outputs_of_earlier_tasks_stay_and_a_restored_task_gives_the_same_bits() -> None:
    network = with_first()
    before = network.fold("first")(IMAGES)
    state = factorize(network, "second", module(1), unconstrained=0.25)
    network.restore_task(state)
    assert torch.equal(network.fold("first")(IMAGES), before)
    again = with_first()
    again.restore_task(network.task_state("second"))
    assert torch.equal(again.fold("second")(IMAGES), network.fold("second")(IMAGES))
    assert again.task_state("second").tensors.keys() == state.tensors.keys()


def test_a_task_can_be_trained_on_from_where_it_was_fitted() -> None:
    network, given = with_first(), module(1)
    network.restore_task(factorize(network, "fitted", given, unconstrained=0.25))
    trained = with_first()
    trained.train_task(factorize(trained, "fitted", given, unconstrained=0.25))
    assert trained.task_in_training == "fitted"
    trained.train()
    trained.module.eval()
    assert torch.equal(trained(IMAGES), network.fold("fitted")(IMAGES))
    optimizer = torch.optim.Adam(trained.trainable_parameters(), 1e-3)
    target = given(IMAGES).detach()
    losses = []
    for _ in range(20):
        loss = (trained(IMAGES) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained.eval()
    output = trained(IMAGES).detach()
    trained.finish_task()
    assert torch.equal(trained.fold("fitted")(IMAGES), output)
    assert torch.equal(trained.fold("first")(IMAGES), network.fold("first")(IMAGES))


@pytest.mark.parametrize("how", [{}, {"mixing": "low-rank", "rank": 2}])
def test_a_later_task_can_start_from_one_whose_free_filters_are_in_other_places(
    how: dict[str, Any],
) -> None:
    network = with_first()
    network.restore_task(factorize(network, "second", module(1), unconstrained=0.25))
    network.add_task("third", evenly({"*": 0.3}, init="second", **how))
    third = network.eval()(IMAGES)
    torch.testing.assert_close(third, network.fold("second")(IMAGES), atol=1e-5, rtol=1e-4)
    network.finish_task()
    assert torch.equal(network(IMAGES), third)


def test_layers_of_other_channels_are_the_tasks_own() -> None:
    network, given = with_first(), module(1)
    given[0] = nn.Conv2d(1, 16, 3, padding=1)
    given[6] = nn.Conv2d(10, 5, 3)
    state = factorize(network, "gray", given, unconstrained=0.25)
    assert state.filters.shares.keys() == {"3", "5"}
    network.train_task(state)
    network.finish_task()
    folded = network.fold("gray")
    assert torch.equal(folded[0].weight, given[0].weight)
    assert folded(IMAGES[:, :1]).shape == given(IMAGES[:, :1]).shape


def test_filters_are_kept_in_the_type_that_was_asked_for() -> None:
    network = with_first()
    state = factorize(network, "half", module(1), unconstrained=0.25, storage="bf16")
    kept = tensors_of(state, "3")
    assert kept["unconstrained_filters"].dtype == kept["mixing_weights"].dtype == torch.bfloat16
    assert kept["unconstrained_places"].dtype == torch.int32
    network.restore_task(state)
    assert network.task_state("half").tensors["3.mixing_weights"].dtype == torch.bfloat16


def test_only_one_of_share_and_error_is_taken() -> None:
    network = with_first()
    for options in ({}, {"unconstrained": 0.2, "max_error": 0.1}, {"max_error": 1.5}):
        with pytest.raises(PiggybackError, match="error"):
            factorize(network, "second", module(1), **options)
    with pytest.raises(PiggybackError, match="its layers differ"):
        factorize(network, "second", nn.Sequential(nn.Conv2d(3, 16, 3)), unconstrained=0.2)


@pytest.mark.parametrize(
    "places",
    [[3, 2, 1, 0], [0, 1, 2, 16], [-1, 0, 1, 2], [0, 1, 1, 2], [0.0, 1.0, 2.0, 3.0], [0, 1, 2]],
    ids=str,
)
def test_places_that_are_none_are_refused_and_nothing_is_added(places: list[float]) -> None:
    network = with_first()
    state = factorize(network, "second", module(1), unconstrained=0.25)
    state.tensors["0.unconstrained_places"] = torch.tensor(places)
    for add in (network.restore_task, network.train_task):
        with pytest.raises(PiggybackError, match="unconstrained_places"):
            add(state)
    assert network.tasks == ("first",)


def test_places_do_not_go_with_mixing_that_adds_to_a_start() -> None:
    network = with_first()
    network.add_task("second", evenly({"*": 0.25}, mixing="low-rank", rank=1))
    network.finish_task()
    state = copy.deepcopy(network.task_state("second"))
    state.tensors["5.unconstrained_places"] = torch.tensor([0, 1, 4], dtype=torch.int32)
    with pytest.raises(PiggybackError, match="fully mixed"):
        with_first().restore_task(state)


@settings(max_examples=30, deadline=None)
@given(
    filters=st.integers(1, 12),
    length=st.integers(1, 20),
    bank=st.integers(1, 15),
    seed=st.integers(0, 9),
)
def test_least_squares_agrees_with_an_independent_solver(
    filters: int, length: int, bank: int, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    rows = torch.randn(filters, length, generator=chance)
    bank_KD = torch.randn(bank, length, generator=chance)
    bank_KD[-1] = bank_KD[0]  # of less than full rank
    weights, errors = least_squares(rows, bank_KD)
    solution = torch.linalg.lstsq(bank_KD.T.double(), rows.T.double(), driver="gelsd").solution.T
    expected = (rows.double() - solution @ bank_KD.double()).square().sum(1)
    torch.testing.assert_close(errors, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        weights @ bank_KD.double(), solution @ bank_KD.double(), atol=1e-4, rtol=1e-4
    )


def test_a_relative_error_is_a_share_of_what_was_given() -> None:
    assert relative_error([torch.tensor([3.0, 4.0])], [torch.tensor([0.0, 4.0])]) == 0.75
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert relative_error([torch.ones(2)], [torch.zeros(2)]) == float("inf")


# --- tasks that are trained free ---


def trained_free(seed: int, **options: Any) -> PiggybackNetwork:
    """A network with a first task, and one that is trained free, with another network's weights."""
    network = with_first()
    network.add_task("free", FilterOptions(learn="free", **options))
    given = module(seed)
    with torch.no_grad():
        for name, layout in network.layouts.items():
            layer = network.module.get_submodule(name)
            weight = given.get_submodule(name).weight
            layer.unconstrained_filters.copy_(layout.to_filters(weight))  # type: ignore[operator, union-attr]
            layer.bias.copy_(given.get_submodule(name).bias)  # type: ignore[operator, union-attr]
    return network


# They vary slowly, as real images do.
SAMPLES = F.interpolate(
    torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(1)), size=12
).split(4)


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 0.6},
        {"budget": 0.6, "init": "standalone"},
        {"budget": 0.6, "rank": 2},
        {"budget": 0.6, "mixing": "full", "storage": "bf16"},
        {"unconstrained": 0.25},
    ],
    ids=str,
)
def test_a_free_task_is_factorized_onto_the_bank_and_nothing_else_changes(
    options: dict[str, Any],
) -> None:
    network = trained_free(1, **options)
    network.train()
    given = network.fold("free")
    before = network.task_state("first")
    planned = network.parameter_count("free")
    assert not network.plan_of("free")[0].piggyback or planned.mixing
    change = factorize_task(network, SAMPLES).change
    assert network.training and network.to_factorize is None
    images = SAMPLES[-1]  # that were not fitted
    with torch.no_grad():
        expected = given(images)
        made = network.fold("free")(images)
    assert change == pytest.approx(float((made - expected).abs().mean() / expected.std()), rel=1e-4)
    if "budget" in options:
        assert network.parameter_count("free").share <= options["budget"]
    network.finish_task()
    filters = conv_weights(network.fold("free"))
    for plan in network.plan_of("free"):
        bank = network.bank_filters(plan.name)[: plan.bank]
        rows = network.layouts[plan.name].to_filters(filters[plan.name])
        if plan.piggyback and not plan.unconstrained:
            _, errors = least_squares(rows, bank)
            assert errors.sum() < 1e-6 * rows.double().square().sum()
    after = network.task_state("first")
    assert all(torch.equal(after.tensors[key], before.tensors[key]) for key in before.tensors)


@pytest.mark.parametrize(
    "options",
    [{"budget": 0.6}, {"budget": 0.6, "mixing": "full"}, {"unconstrained": 0.25}],
    ids=str,
)
def test_filters_are_pulled_a_share_of_the_way_to_what_they_are_factorized_to(
    options: dict[str, Any],
) -> None:
    pulled, at_once = trained_free(1, **options), trained_free(1, **options)
    before = conv_weights(pulled.fold("free"))
    images, bank = SAMPLES[-1], pulled.task_state("first")
    given = pulled.fold("free")(images)
    made = pull_to_bank(pulled, SAMPLES, 0.75)
    assert pulled.to_factorize is not None  # it is still trained free
    change = factorize_task(at_once, SAMPLES).change
    target = conv_weights(at_once.fold("free"))
    for key, filters in conv_weights(pulled.fold("free")).items():
        expected = before[key] + 0.25 * (target[key] - before[key])
        torch.testing.assert_close(filters, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        moved = (pulled.fold("free")(images) - given).abs().mean() / given.std()
    assert 0 < moved < 0.6 * change
    # All the way, they are the bank's: then factorization changes nothing.
    again = pull_to_bank(pulled, SAMPLES, 0.0, made)
    assert again.mixing == made.mixing and again.shares == made.shares
    assert factorize_task(pulled, SAMPLES, made=again).change < 0.01 * change
    assert pulled.made.shares.keys() == made.shares.keys() and pulled.made.mixing == made.mixing
    after = pulled.task_state("first")
    assert all(torch.equal(after.tensors[key], bank.tensors[key]) for key in bank.tensors)


def test_only_a_task_that_is_trained_free_is_pulled() -> None:
    network = trained_free(1, budget=0.6)
    factorize_task(network, SAMPLES)
    with pytest.raises(PiggybackError, match="no task is trained free"):
        pull_to_bank(network, SAMPLES, 0.5)
    with pytest.raises(PiggybackError, match="no task is trained free"):
        network.pull_filters({}, 0.5)


def test_pulls_that_make_no_sense_are_refused() -> None:
    for left in (-0.1, 1.1, float("nan")):
        with pytest.raises(PiggybackError, match="invalid left"):
            pull_to_bank(trained_free(1, budget=0.6), SAMPLES, left)
    with pytest.raises(PiggybackError, match="give a number as the budget"):
        pull_to_bank(trained_free(1, budget="auto"), SAMPLES, 0.5)


def test_ranks_of_layers_that_do_not_exist_are_refused() -> None:
    network = trained_free(1, budget=0.6)
    factorize_task(network, SAMPLES)
    state = network.task_state("free")
    mixing = LowRankMixing(rank=1, ranks={"zzz": 4})
    state.filters = dataclasses.replace(state.filters, mixing=mixing)
    with pytest.raises(PiggybackError, match="its layers differ"):
        with_first().restore_task(state)


def test_outputs_change_less_than_with_a_fit_of_filters() -> None:
    network = trained_free(1, unconstrained=0.0)
    given, images = network.fold("free"), torch.cat(SAMPLES)
    factorize_task(network, SAMPLES)
    by_filters = with_first()
    by_filters.restore_task(factorize(by_filters, "free", given, unconstrained=0.0))
    with torch.no_grad():
        changes = [
            (n.fold("free")(images) - given(images)).abs().mean() for n in (network, by_filters)
        ]
    assert changes[0] < 0.95 * changes[1]


def test_new_filters_are_where_the_outputs_would_change_most() -> None:
    """Of two layers of one shape, one has the bank's filters, the other has others."""
    torch.manual_seed(0)
    first = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
    )
    for alike, other in (("2", "4"), ("4", "2")):
        network = PiggybackNetwork(first)
        network.add_task("first")
        network.finish_task()
        network.add_task("free", FilterOptions(learn="free", budget=0.75, init="standalone"))
        with torch.no_grad():
            for name in ("0", alike):
                bank = network.bank_filters(name)
                network.module.get_submodule(name).unconstrained_filters.copy_(bank.flip(0))  # type: ignore[operator, union-attr]
        factorize_task(network, [torch.randn(8, 8, 10, 10)])
        assert network.made.shares[alike] == 0 and network.made.shares[other] == 1


def test_a_free_task_is_factorized_once_and_before_it_is_finished() -> None:
    network = trained_free(1, budget=0.6)
    with pytest.raises(PiggybackError, match="call factorize_task first"):
        network.finish_task()
    factorize_task(network, SAMPLES)
    with pytest.raises(PiggybackError, match="no task is trained free"):
        factorize_task(network, SAMPLES)
    network.finish_task()
    with pytest.raises(PiggybackError, match="no task is trained free"):
        factorize_task(network, SAMPLES)


def test_a_first_task_has_nothing_to_be_factorized_onto() -> None:
    network = PiggybackNetwork(module(0))
    network.add_task("first", FilterOptions(learn="free"))
    assert network.to_factorize is None
    network.finish_task()


def layers_of(*widths: int, side: int) -> nn.Sequential:
    torch.manual_seed(sum(widths))
    sizes = (3, *widths, 3)
    convs = [nn.Conv2d(a, b, side, padding=side // 2) for a, b in pairwise(sizes)]
    return nn.Sequential(*[layer for conv in convs for layer in (conv, nn.ReLU())][:-1]).eval()


def test_layers_whose_bank_is_longer_than_their_filters_mix_where_it_pays() -> None:
    # Filters of 1x1 layers have as few values as the layer before has filters.
    network = PiggybackNetwork(layers_of(16, 64, 64, side=1))
    network.add_task("first")
    network.finish_task()
    network.add_task("second", FilterOptions(learn="free", budget=0.4))
    found = factorize_task(network, SAMPLES)
    assert found.budget == 0.4 and network.to_factorize is None
    assert network.parameter_count("second").share <= 0.4
    network.finish_task()


def test_a_small_budget_works_after_tasks_of_large_ones() -> None:
    network = PiggybackNetwork(layers_of(16, 16, 16, side=3))
    for number, budget in enumerate([0.9] * 10 + [0.3]):
        name = f"task-{number}"
        network.add_task(name, FilterOptions(learn="free", budget=budget, init=None))
        if number:
            assert factorize_task(network, SAMPLES).budget == budget
            assert network.parameter_count(name).share <= budget
        network.finish_task()


@pytest.mark.parametrize("init", ["first", "standalone"])
@pytest.mark.parametrize("dead", ["a filter", "a layer"])
def test_outputs_that_are_always_zero_are_mixed_with_finite_weights(init: str, dead: str) -> None:
    network = PiggybackNetwork(layers_of(16, 32, side=3))
    network.add_task("first")
    network.finish_task()
    network.add_task("second", FilterOptions(learn="free", budget=0.5, init=init))
    with torch.no_grad():
        if dead == "a filter":
            network.module[2].unconstrained_filters[3] = 0  # type: ignore[index]
        else:
            network.module[0].bias.fill_(-100)  # type: ignore[operator, union-attr]
    assert factorize_task(network, SAMPLES).change < 1
    assert network.not_finite("second") is None


def test_what_can_not_be_factorized_is_said_in_a_line() -> None:
    with pytest.raises(PiggybackError, match="give samples of training inputs"):
        factorize_task(trained_free(1, budget=0.6), [])


@pytest.mark.parametrize(("accepted", "budget"), [(2, 0.15), (9, 0.3)])
def test_budgets_are_tried_from_the_smallest_until_one_is_accepted(
    accepted: int, budget: float
) -> None:
    network = PiggybackNetwork(layers_of(32, 32, 32, side=3))
    network.add_task("first")
    network.finish_task()
    network.add_task("second", FilterOptions(learn="free", budget="auto"))
    shares: list[float] = []

    def accept() -> bool:
        shares.append(network.parameter_count("second").share)
        return len(shares) == accepted

    found = factorize_task(network, SAMPLES, accept)
    assert (found.budget, found.accepted) == (budget, accepted == 2)
    assert shares == sorted(shares) and shares[-1] <= budget
    # Known from now on, for the task's card.
    assert network.options is not None and network.options.budget == budget
    network.finish_task()
