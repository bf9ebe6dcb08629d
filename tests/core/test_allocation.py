"""Where new filters are: in the last layers, or evenly in all."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from paths import ROOT
from piggyback_gan import PiggybackError
from piggyback_gan.core.allocation import LayerSize, Need, allot, allot_by_need, resolve_shares
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.filters import unconstrained_count
from piggyback_gan.core.mixings import FullMixing, LowRankMixing, SelectedMixing
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import TaskFilters
from piggyback_gan.experiments.strategies.low_rank import LowRank
from piggyback_gan.experiments.strategies.narrow import Narrow
from piggyback_gan.experiments.strategies.piggyback import Piggyback
from piggyback_gan.names import Allocation
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

HOW: tuple[Allocation, ...] = ("last", "even")
BENCHMARK = ROOT / "benchmarks" / "lifelong-64px.toml"
RESNET = GeneratorConfig(name="resnet-6", ngf=32)
UNET = GeneratorConfig(name="unet-64", ngf=16)


def with_a_task(network: nn.Module) -> PiggybackNetwork:
    made = PiggybackNetwork(network)
    made.add_task("one")
    made.finish_task()
    return made


def of_lambda(share: Any, allocation: Any = "last") -> FilterOptions:
    return FilterOptions(unconstrained=share, allocation=allocation).with_filter_defaults()


def filters_of(network: PiggybackNetwork, options: FilterOptions) -> TaskFilters:
    """How the filters of a next task with these options are made."""
    network.add_task("next", options)
    filters = network.task_state("next").filters
    network.discard_task()
    return filters


def allocated(network: PiggybackNetwork, share: float) -> dict[str, float]:
    return dict(filters_of(network, of_lambda(share)).shares)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("config", [RESNET, UNET], ids=["resnet", "unet"])
def test_the_last_layers_are_free_at_the_cost_of_an_even_share(
    config: GeneratorConfig, share: float
) -> None:
    network = with_a_task(build_generator(config))
    last, even = (network.plan(of_lambda(share, how)) for how in HOW)
    found, allowed = (sum(layer.parameters for layer in plan) for plan in (last, even))
    finest = max(layer.length for layer in last)
    assert allowed - finest < found <= allowed
    assert [layer.name for layer in last] == [layer.name for layer in even]
    # But for those that are always free: nothing, then at most one layer in part, then all.
    shares = [x.share for x in last if x.filters >= 8 and x.length > x.filters]
    assert shares == sorted(shares)
    assert sum(0 < share < 1 for share in shares) <= 1


def test_small_layers_and_those_that_mixing_does_not_make_smaller_are_free() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 3, 3)
    )
    assert allocated(with_a_task(module), 0.0) == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0}


def test_shares_give_back_the_number_of_filters_they_were_made_of() -> None:
    for filters in (9, 96, 100, 127, 1000):
        sizes = {"a": LayerSize(filters, 4 * filters, filters)}
        for count in range(0, filters + 1, 8 if filters == 1000 else 1):  # all 1000 take seconds
            shares, _ = allot(of_lambda(count / filters), sizes, 0)
            assert isinstance(shares, Mapping)
            found = unconstrained_count(shares["a"], filters)
            assert found in (count, count + 1)
            assert found == unconstrained_count(count / filters, filters)


@pytest.mark.parametrize("table", [{"*": 0.25}, {"model.1": 1.0}, {}])
@pytest.mark.parametrize("allocation", ["last", "even"])
def test_a_table_says_itself_where_new_filters_are(
    table: dict[str, float], allocation: str
) -> None:
    network = with_a_task(build_generator(RESNET))
    filters = {name: layout.filters for name, layout in network.layouts.items()}
    shares = filters_of(network, of_lambda(table, allocation)).shares
    assert shares == resolve_shares(table, filters)


def test_a_share_beyond_all_is_refused() -> None:
    with pytest.raises(PiggybackError, match="from 0 to 1"):
        with_a_task(build_generator(UNET)).plan(of_lambda(1.5))


def test_later_tasks_cost_hardly_more_than_the_second() -> None:
    network = build_generator(RESNET)
    last, even = (
        [
            Piggyback(unconstrained=0.25, allocation=how).predicted(network, order)
            for order in (1, 19)
        ]
        for how in HOW
    )
    assert last[1] < 1.2 * last[0]
    assert even[1] > 2 * even[0]


def test_what_is_predicted_is_what_is_added() -> None:
    strategy = Piggyback(unconstrained=0.25)
    network = with_a_task(build_generator(RESNET))
    for order, name in enumerate(("two", "three"), 1):
        network.add_task(name, of_lambda(0.25))
        added = network.parameter_count(name).total
        assert added == strategy.predicted(build_generator(RESNET), order)
        network.finish_task()


def test_the_recorded_evidence_has_new_filters_where_the_rule_puts_them() -> None:
    content = tomllib.loads(BENCHMARK.read_text())
    (table,) = [s["unconstrained"] for s in content["strategy"] if s["name"] == "piggyback"]
    network = with_a_task(build_generator(RESNET))
    filters = {name: layout.filters for name, layout in network.layouts.items()}
    assert allocated(network, 0.25) == resolve_shares(table, filters)


def test_a_task_starts_as_the_one_before_it_wherever_its_new_filters_are() -> None:
    torch.manual_seed(0)
    network = with_a_task(build_generator(UNET))
    image = torch.rand(1, 3, 64, 64)
    network.eval()
    with torch.no_grad():
        before = network(image)
        network.add_task("two", of_lambda(0.25))
        network.eval()
        assert torch.equal(network(image), before)


@pytest.mark.parametrize("channels", [(35, 3), (3, 31), (16, 16)])
def test_a_tasks_own_layers_are_no_part_of_the_budget(channels: tuple[int, int]) -> None:
    config = GeneratorConfig(
        name="resnet-6", ngf=32, input_channels=channels[0], output_channels=channels[1]
    )
    network = with_a_task(build_generator(config))
    task = build_generator(RESNET)
    own = {"model.1": task.get_submodule("model.1"), "model.23": task.get_submodule("model.23")}
    costs = []
    for how in HOW:
        network.add_task(how, of_lambda(0.25, how), own_layers=own)
        costs.append(network.parameter_count(how).total)
        network.discard_task()
    assert 0.99 * costs[1] < costs[0] <= costs[1]
    plan = network.plan(of_budget(0.05), own_layers=own)
    network.add_task("three", of_budget(0.05), own_layers=own)
    assert network.plan_of("three") == plan
    count = network.parameter_count("three")
    beside = sum(p.numel() for layer in own.values() for p in layer.parameters())
    assert count.total - beside <= 0.05 * (count.standalone - beside)


@pytest.mark.parametrize("order", [1, 2, 3, 19])
def test_rivals_at_equal_cost_are_measured_by_the_default(order: int) -> None:
    network = build_generator(RESNET)
    target = Piggyback(unconstrained=0.25).predicted(network, order)
    assert 0.99 * target < LowRank().predicted(network, order) <= target
    assert abs(Narrow(equal_parameters=True).predicted(network, order) / target - 1) < 0.06


# --- budgets ---


def of_budget(budget: float | None, **how: Any) -> FilterOptions:
    return FilterOptions(budget=budget, **how)


@pytest.mark.parametrize("how", [{}, {"allocation": "even"}, {"mixing": "selected"}, {"mixing": "full"},
                                 {"rank": 3}, {"mixing": "selected", "bank_filters": 5}], ids=str)  # fmt: skip
@pytest.mark.parametrize("config", [RESNET, UNET], ids=["resnet", "unet"])
def test_no_task_goes_beyond_its_budget(config: GeneratorConfig, how: dict[str, Any]) -> None:
    network = with_a_task(build_generator(config))
    for order, budget in enumerate((0.25, 0.4, 0.6, 0.3), 1):
        network.add_task(f"task{order}", of_budget(budget, **how))
        assert network.parameter_count(f"task{order}").share <= budget
        network.finish_task()


@pytest.mark.parametrize("budget", [0.05, 0.075, 0.1, 0.2])
@pytest.mark.parametrize("config", [RESNET, GeneratorConfig(), GeneratorConfig(name="unet-256")])
def test_a_budget_is_spent_and_the_20th_task_costs_what_the_second_does(
    config: GeneratorConfig, budget: float
) -> None:
    with torch.device("meta"):
        network = build_generator(config)
    whole = sum(p.numel() for p in network.parameters())
    second, last = (Piggyback(budget=budget).predicted(network, n) / whole for n in (1, 19))
    assert 0.95 * budget < second <= budget
    assert abs(last / second - 1) < 0.03


def test_twenty_tasks_take_less_than_three_networks() -> None:
    network = build_generator(RESNET)
    whole = sum(p.numel() for p in network.parameters())
    assert sum(Piggyback().predicted(network, order) for order in range(20)) < 3 * whole


def test_new_filters_are_in_the_last_layers_and_the_rest_of_the_budget_mixes() -> None:
    network = with_a_task(build_generator(RESNET))
    made = filters_of(network, of_budget(0.075))
    assert isinstance(made.mixing, LowRankMixing)
    assert [name for name, share in made.shares.items() if share] == [
        "model.16",
        "model.19",
        "model.23",
    ]
    assert made.mixing.rank > 8
    wider = filters_of(network, FilterOptions())
    assert wider == filters_of(network, of_budget(0.1))
    assert isinstance(wider.mixing, LowRankMixing) and wider.mixing.rank >= made.mixing.rank


def test_what_was_asked_for_is_taken() -> None:
    network = with_a_task(build_generator(RESNET))
    assert filters_of(network, FilterOptions(rank=3)).mixing == LowRankMixing(rank=3)
    selected = FilterOptions(mixing="selected", bank_filters=5)
    assert filters_of(network, selected).mixing == SelectedMixing(bank_filters=5)
    assert filters_of(network, FilterOptions(unconstrained=0.25)).mixing == FullMixing()
    of_both = FilterOptions(unconstrained=0.25, mixing="low-rank")
    assert filters_of(network, of_both).mixing == LowRankMixing(rank=16)
    assert filters_of(network, FilterOptions(init="standalone")).mixing == FullMixing()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (FilterOptions(budget=0.001), "budget 0.001 is too small: .* take 0.00"),
        (FilterOptions(budget=0.05, rank=64), "budget 0.05 is too small: .* low-rank mixing"),
        (FilterOptions(budget=0.1, mixing="full"), "full mixing .* give a larger budget"),
        (FilterOptions(budget=0.1, unconstrained=0.1), "exclude each other"),
        (FilterOptions(init="standalone", mixing="low-rank"), "leave out init standalone"),
    ],
    ids=str,
)
def test_what_can_not_be_kept_to_is_refused(options: FilterOptions, words: str) -> None:
    with pytest.raises(PiggybackError, match=words):
        with_a_task(build_generator(RESNET)).add_task("two", options)


def test_the_budget_that_a_refusal_names_is_the_least() -> None:
    network = with_a_task(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)))
    with pytest.raises(PiggybackError) as refused:
        network.plan(FilterOptions(budget=0.01))
    least = float(str(refused.value).split("take ")[1].split()[0])
    assert network.plan(FilterOptions(budget=least + 1e-4))
    with pytest.raises(PiggybackError, match=f"take {least:.4f}"):
        network.plan(FilterOptions(budget=least - 1e-4))


def test_the_budget_goes_where_least_is_lost_by_it() -> None:
    # Two layers that cost the same. What "a" loses falls with the rank, "b" loses the same with any.
    sizes = {name: LayerSize(32, 288, 32) for name in ("a", "b")}
    needs = {
        "a": Need(1.0, [2.0**-rank for rank in range(33)], 8),
        "b": Need(1.0, [1.0] * 33, 8),
    }
    options = FilterOptions(learn="free", mixing="low-rank", budget=0.6)
    shares, mixing, lost = allot_by_need(options, sizes, 0, needs)
    # One layer can be new: "b", as "a" is nearly free of loss with the rank that is left.
    assert shares == {"a": 0.0, "b": 1.0} and lost < 2.0**-8
    assert isinstance(mixing, LowRankMixing) and mixing.of_layer(32, 32, "a") == FullMixing()
    # With little to spend the rank is all there is, and "b" has no use for it.
    little = replace(options, budget=0.05)
    shares, mixing, lost = allot_by_need(little, sizes, 0, needs)
    assert shares == {"a": 0.0, "b": 0.0} and isinstance(mixing, LowRankMixing)
    spent = sum(mixing.of_layer(32, 32, name).cost(32, 32) for name in sizes)
    ranks = {name: mixing.of_layer(32, 32, name).as_card()["rank"] for name in sizes}
    assert ranks["b"] == 1 and ranks["a"] > 8
    assert mixing.ranks == {"b": 1}, "only what differs is stored"
    assert 0.9 * 0.05 * 2 * 32 * 288 < spent <= 0.05 * 2 * 32 * 288
    # A rank that is asked for is every layer's.
    shares, mixing, _ = allot_by_need(replace(little, rank=3), sizes, 0, needs)
    assert mixing == LowRankMixing(rank=3) and shares == {"a": 0.0, "b": 0.0}


def test_a_layer_without_needs_is_new_and_too_small_a_budget_is_refused() -> None:
    sizes = {"a": LayerSize(32, 288, 32), "b": LayerSize(4, 288, 4)}
    needs = {"a": Need(1.0, [1.0] * 33, 8)}
    options = FilterOptions(learn="free", mixing="low-rank", budget=0.2)
    shares, _, _ = allot_by_need(options, sizes, 0, needs)
    assert shares == {"a": 0.0, "b": 1.0}
    with pytest.raises(PiggybackError, match=r"budget 0.01 is too small"):
        allot_by_need(replace(options, budget=0.01), sizes, 0, needs)
