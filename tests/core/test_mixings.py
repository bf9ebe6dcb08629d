"""Ways to mix: what each can make of its bank, that tasks start where they should, and stay as they are."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from banks import CONFIG, card, evenly, images, network
from piggyback_gan import FilterOptions, PiggybackNetwork
from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.store import Store
from piggyback_gan.core.layer_filters import LayerFilters
from piggyback_gan.core.mixings import (
    MIXING,
    SELECTED,
    FullMixing,
    LowRankMixing,
    Mixing,
    SelectedMixing,
    mixing_from_card,
    most_relevant,
)
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import STORAGES

MIXINGS: dict[str, Mixing] = {
    "full": FullMixing(),
    "low-rank": LowRankMixing(rank=2),
    "selected": SelectedMixing(bank_filters=3),
}
FREE, MIXED, LENGTH, ROWS = 2, 5, 11, (7, 0, 4)
BANK = sum(ROWS)


@pytest.fixture(params=MIXINGS)
def mixing(request: pytest.FixtureRequest) -> Mixing:
    return MIXINGS[request.param]


def parts_of(mixing: Mixing, seed: int = 0) -> LayerFilters:
    """Random filters of a layer, mixed so."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    values = {name: random(*shape) for name, shape in mixing.shapes(MIXED, BANK).items()}
    if SELECTED in values:
        values[SELECTED] = torch.tensor([1, 6, 9], dtype=torch.int32)
    start = random(MIXED, LENGTH) if mixing.adds else None
    return LayerFilters(mixing, random(FREE, LENGTH), values, random(BANK, LENGTH), ROWS, start)


def written_out(parts: LayerFilters, values: dict[str, Tensor]) -> Tensor:
    """The mixed filters by the formulas of the docs, in the type of the values."""
    bank = parts.bank_KD.to(values[next(iter(values))].dtype)
    if parts.rule.kind == "low-rank":
        return values["mixing_up"] @ (values["mixing_down"] @ bank)
    return values[MIXING] @ (bank[parts.values[SELECTED]] if SELECTED in values else bank)


def added(parts: LayerFilters) -> Tensor:
    """The mixed filters without those of the start that they are added to."""
    mixed = parts.compose(exact=True)[FREE:]
    return mixed if parts.start_PD is None else mixed - parts.start_PD


# --- one layer ---


def test_both_ways_to_compose_are_the_formula(mixing: Mixing) -> None:
    parts = parts_of(mixing)
    double = {n: t if n == SELECTED else t.double() for n, t in parts.values.items()}
    expected = written_out(parts, double)
    if parts.start_PD is not None:
        expected = expected + parts.start_PD
    whole = torch.cat([parts.unconstrained_UD.double(), expected])
    for exact in (True, False):
        torch.testing.assert_close(parts.compose(exact=exact).double(), whole, rtol=0, atol=2e-5)


def test_what_is_mixed_lies_in_the_span_of_what_it_is_mixed_from(mixing: Mixing) -> None:
    parts = parts_of(mixing)
    bank = parts.bank_KD.double()[:8]  # fewer than a filter has values, or they would span all
    values = {n: t[:, :8] if t.shape[1:] == (BANK,) else t for n, t in parts.values.items()}
    if SELECTED in values:
        values[SELECTED] = torch.tensor([0, 3, 6], dtype=torch.int32)
    few = LayerFilters(
        mixing, parts.unconstrained_UD, values, parts.bank_KD[:8], (7, 0, 1), parts.start_PD
    )
    mixed = added(few).double()
    of = bank[few.values[SELECTED]] if SELECTED in few.values else bank
    basis = torch.linalg.qr(of.T).Q
    outside = mixed - mixed @ basis @ basis.T
    assert len(of) < LENGTH and outside.norm() < 1e-5 * mixed.norm()
    if isinstance(mixing, LowRankMixing):
        assert torch.linalg.matrix_rank(mixed, rtol=1e-4) == mixing.rank


def test_coefficients_are_the_same_as_plain_mixing_weights(mixing: Mixing) -> None:
    parts = parts_of(mixing)
    found = parts.coefficients() @ parts.bank_KD
    torch.testing.assert_close(found, added(parts), rtol=0, atol=2e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_gradients_are_those_of_the_formula(mixing: Mixing, exact: bool) -> None:
    parts = parts_of(mixing)
    trained = {n: t.requires_grad_() for n, t in parts.values.items() if t.is_floating_point()}
    parts.unconstrained_UD.requires_grad_()
    weight = torch.randn(FREE + MIXED, LENGTH)
    (parts.compose(exact=exact) * weight).sum().backward()
    found = [parts.unconstrained_UD.grad, *(t.grad for t in trained.values())]
    expected = torch.autograd.grad(
        (
            torch.cat([parts.unconstrained_UD, written_out(parts, dict(parts.values))]) * weight
        ).sum(),
        [parts.unconstrained_UD, *trained.values()],
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_mixing_has_the_same_bits_on_any_number_of_threads(mixing: Mixing) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(parts_of(mixing).compose(exact=True))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


def test_a_layer_mixes_fully_where_that_costs_no_more() -> None:
    assert LowRankMixing(rank=4).of_layer(8, 8) == FullMixing()
    assert LowRankMixing(rank=3).of_layer(8, 8) == LowRankMixing(rank=3)
    by_layer = LowRankMixing(rank=3, ranks={"a": 4, "b": 2})
    assert by_layer.of_layer(8, 8, "a") == FullMixing()
    assert by_layer.of_layer(8, 8, "b") == LowRankMixing(rank=2)
    assert by_layer.of_layer(8, 8, "c") == LowRankMixing(rank=3)
    assert mixing_from_card(by_layer.as_card()) == by_layer
    assert SelectedMixing(bank_filters=8).of_layer(8, 8) == FullMixing()
    assert SelectedMixing(bank_filters=6).of_layer(8, 8) == SelectedMixing(bank_filters=6)
    assert SelectedMixing(bank_filters=6).of_layer(6, 7) == FullMixing()  # the indices cost, too


def test_a_card_gives_the_mixing_back(mixing: Mixing) -> None:
    assert mixing_from_card(mixing.as_card()) == mixing


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"kind": "high-rank"}, "unknown mixing 'high-rank'"),
        ({"kind": "low-rank", "rank": 0}, "rank"),
        ({"kind": "low-rank", "rank": "4"}, "rank"),
        ({"kind": "low-rank", "size": 4}, "unknown options"),
        ({"kind": "low-rank", "ranks": [4]}, "a table of layers"),
        ({"kind": "low-rank", "ranks": {"model.1": 0}}, "rank"),
        ({}, "unknown mixing None"),
        ([], "a table"),
        (None, "a table"),
    ],
)
def test_an_odd_card_is_refused(odd: Any, words: str) -> None:
    with pytest.raises(PiggybackError, match=words):
        mixing_from_card(odd)


# --- which filters are selected ---


def test_the_filters_that_made_a_gradient_are_found() -> None:
    torch.manual_seed(0)
    bank = torch.randn(20, 40)
    planted = [3, 11, 17]
    gradient = torch.randn(6, 3) @ bank[planted]
    assert most_relevant(gradient, bank, 3).tolist() == planted
    assert set(planted) < set(most_relevant(gradient, bank, 6).tolist())


def test_what_others_span_already_is_selected_last() -> None:
    torch.manual_seed(0)
    bank = torch.randn(5, 40)
    bank = torch.cat([bank, 2 * bank[:1] + bank[1:2], bank[:1]])
    gradient = torch.randn(6, 5) @ bank[:5]
    chosen = most_relevant(gradient, bank, 5).tolist()
    assert torch.linalg.matrix_rank(bank[chosen]) == 5
    assert most_relevant(gradient, bank, 7).tolist() == list(range(7))
    assert most_relevant(torch.zeros(6, 40), torch.zeros(4, 40), 3).tolist() == [0, 1, 2]


# --- a network ---


def mixed_by(share: float, mixing: Mixing, **how: Any) -> FilterOptions:
    """Options of the same share in every layer, and the others mixed so."""
    card = mixing.as_card()
    return evenly({"*": share}, mixing=card.pop("kind"), **card, **how)


def learn(
    learner: PiggybackNetwork, name: str, mixing: Mixing = MIXINGS["full"], **how: Any
) -> tuple[Tensor, nn.Module]:
    """Add and finish a task; its output while it was in training, evaluated, and its folded network."""
    learner.add_task(name, mixed_by(0.25, mixing, **how))
    generator = torch.Generator().manual_seed(len(learner.tasks))
    with torch.no_grad():
        for parameter in learner.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        learner.train()(images(2, 16, 16, seed=1))
        before = learner.eval()(images(2, 16, 16))
    learner.finish_task()
    return before, learner.fold(name)


def outputs(learner: PiggybackNetwork) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: learner.fold(name)(images(2, 16, 16)) for name in learner.tasks}


@pytest.mark.parametrize(("before", "after"), list(product(MIXINGS, MIXINGS)))
def test_a_task_starts_exactly_as_the_one_it_starts_from(before: str, after: str) -> None:
    learner = network()
    learn(learner, "one")
    learn(learner, "two", MIXINGS[before])
    learner.add_task("three", mixed_by(0.25, MIXINGS[after], init="two"))
    mixed = [layer for layer in learner.plan_of("three") if layer.mixing]
    assert any(layer.rule.kind == after for layer in mixed)
    learner.eval()
    with torch.no_grad():
        found, expected = learner(images(2, 16, 16)), learner.fold("two")(images(2, 16, 16))
    # What full mixing starts from another kind has no start to add to: it is that up to rounding.
    exact = MIXINGS[after].adds or not MIXINGS[before].adds
    assert torch.equal(found, expected) if exact else torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("storage", STORAGES)
def test_tasks_are_stored_as_they_were_trained_and_stay_so(
    tmp_path: Path, mixing: Mixing, storage: Any
) -> None:
    learner = network()
    path = tmp_path / "bank"
    bank = Bank.new(path, CONFIG)
    found = {}
    for name, init in (("one", None), ("two", "one"), ("three", "two"), ("four", "one")):
        how = {} if init is None else {"init": init, "mixing": mixing, "storage": storage}
        found[name], _ = learn(learner, name, **how)
        with bank.writing("test"):
            bank.add(learner.task_state(name), card(learner, name, 0.25))
    for name, output in outputs(learner).items():
        torch.testing.assert_close(output, found[name], rtol=0, atol=0)
    reopened = Bank.open(path)
    for name, output in outputs(reopened.network()).items():
        assert torch.equal(output, found[name])
        with torch.no_grad():
            assert torch.equal(reopened.generator(name)(images(2, 16, 16)), found[name])
    assert [finding.problem for finding in reopened.verify()] == [None] * 4
    stored = {state.state.name: state.state for state in Store.open(path).read()}
    wide = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[storage]
    kinds = {t.dtype for k, t in stored["three"].tensors.items() if "filters" in k or "mixing" in k}
    assert kinds - {torch.int32} == {wide}
    assert (stored["three"].filters.mixing, stored["three"].filters.storage) == (mixing, storage)


def test_earlier_tasks_do_not_depend_on_later_ones(mixing: Mixing) -> None:
    learner = network()
    learn(learner, "one")
    learn(learner, "two", mixing)
    before = outputs(learner)
    learn(learner, "three", mixing, init="two")
    learn(learner, "four", FullMixing())
    after = outputs(learner)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["low-rank", "selected"])
def test_a_mixing_that_adds_wants_a_task_to_start_from(kind: str) -> None:
    learner = network()
    learn(learner, "one")
    with pytest.raises(PiggybackError, match="leave out init standalone, or mix fully"):
        learner.add_task("two", mixed_by(0.25, MIXINGS[kind], init="standalone"))
    assert learner.tasks == ("one",)
    learn(learner, "two")


def test_selected_filters_are_those_that_gradients_ask_for() -> None:
    learner = network()
    learn(learner, "one")
    learner.add_task("two", mixed_by(0.0, SelectedMixing(bank_filters=3)))
    assert learner.selects_filters
    learner.train()
    with learner.filter_gradients() as gradients:
        for seed in (1, 2):
            learner(images(2, 16, 16, seed=seed)).square().mean().backward()
    layers = {p.name: p for p in learner.plan_of("two") if p.rule.kind == "selected" and p.mixing}
    assert gradients.keys() == layers.keys() and layers
    before = learner.eval()(images(2, 16, 16)).detach()
    learner.select_filters(gradients)
    assert torch.equal(learner(images(2, 16, 16)), before)
    state = learner.finish_task() or learner.task_state("two")
    for name in layers:
        bank = learner.task_state("one").tensors[f"{name}.unconstrained_filters"]
        chosen = most_relevant(gradients[name], bank, 3)
        assert torch.equal(state.tensors[f"{name}.{SELECTED}"], chosen)


def test_filter_gradients_are_those_of_the_composed_filters() -> None:
    learner = network()
    learn(learner, "one")
    learner.add_task("two", mixed_by(0.0, SelectedMixing(bank_filters=3)))
    free = network()
    learn(free, "one")
    free.add_task("two", mixed_by(1.0, FullMixing(), init="one"))
    with learner.train().filter_gradients() as gradients:
        learner(images(2, 16, 16, seed=1)).square().mean().backward()
    free.train()(images(2, 16, 16, seed=1)).square().mean().backward()
    for name, gradient in gradients.items():
        filters = free.module.get_submodule(name).unconstrained_filters
        torch.testing.assert_close(gradient, filters.grad, rtol=1e-4, atol=1e-6)
