"""PiggybackNetwork: any module, several tasks, nothing forgotten."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from banks import evenly
from conv_layers import LayerCase, layer_cases
from held_tensors import held_tensors
from piggyback_gan import FilterOptions, PiggybackNetwork
from piggyback_gan.core.filters import FilterLayout
from piggyback_gan.core.task import TaskFilters, TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

ALL_LAYERS = evenly({"*": 0.25})


class Net(nn.Module):
    """Skips, a residual link, batch norm, biases, a deconv, a linear layer and one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(12)
        self.twice = nn.Conv2d(12, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 10, 3, groups=2, padding=1)
        self.leave = nn.Conv2d(13, 3, 1)
        self.scale = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.enter(x)))
        h = h + self.twice(torch.relu(self.twice(h)))
        h = torch.cat([self.up(h), x], 1)
        return self.leave(h) * self.scale(torch.ones(1, 1, device=x.device))


def train(network: nn.Module, parameters: list[nn.Parameter], steps: int = 4) -> None:
    optimizer = torch.optim.Adam(parameters, 1e-2)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(4, 3, 8, 8)
        (network(x) - x.flip(1)).square().mean().backward()
        optimizer.step()


def learn(network: PiggybackNetwork, task: str, options: FilterOptions = evenly()) -> None:  # noqa: B008
    network.add_task(task, options)
    train(network, network.trainable_parameters())
    network.finish_task()


def learned(*tasks: str, training: str | None = None) -> PiggybackNetwork:
    """A network that learned these tasks, with the options `ALL_LAYERS` from the second on."""
    network = PiggybackNetwork(Net())
    for task in tasks:
        learn(network, task, ALL_LAYERS if network.tasks else evenly())
    if training:
        network.add_task(training, ALL_LAYERS)
    return network


def learn_nothing(network: PiggybackNetwork, task: str) -> None:
    network.add_task(task, evenly())
    network.finish_task()


def untrained(*tasks: str) -> PiggybackNetwork:
    """A network with these tasks as they started."""
    network = PiggybackNetwork(Net())
    for task in tasks:
        learn_nothing(network, task)
    return network


def output(network: PiggybackNetwork, task: str, x: Tensor) -> Tensor:
    network.set_task(task)
    network.eval()
    with torch.no_grad():
        return network(x)


def weights(network: PiggybackNetwork) -> list[Tensor]:
    """The composed weights of the last call, as the conv layers have them."""
    return [network.module.get_submodule(name).weight for name in network.layouts]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    """Whether they are the same objects: none was composed again."""
    return all(a is b for a, b in zip(one, two, strict=True))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 8, 8)


@given(layer_cases(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_piggyback_filters_lie_in_the_span_of_the_bank_for_every_layer_kind(
    case: LayerCase, share: float
) -> None:
    layout = FilterLayout.of(case.build())
    assume(layout.filters < layout.length)  # else any filter lies in the span
    network = PiggybackNetwork(case.build())
    network.add_task("one")
    network.finish_task()
    network.add_task("two", evenly({"*": share}, init="standalone"))
    bank = layout.to_filters(network.fold("one").weight.detach()).double()
    filters = layout.to_filters(network.fold("two").weight.detach()).double()
    piggyback = filters[network.plan(evenly({"*": share}))[0].unconstrained :]
    fit = torch.from_numpy(np.linalg.lstsq(bank.T.numpy(), piggyback.T.numpy())[0])
    residual = (bank.T @ fit - piggyback.T).norm()
    assert residual <= 1e-6 * piggyback.norm()


@given(layer_cases())
@settings(max_examples=60, deadline=None)
def test_every_kind_of_layer_gives_what_the_plain_layer_gives(case: LayerCase) -> None:
    plain = case.build()
    network = PiggybackNetwork(plain)
    network.add_task("one")
    x = case.input()
    assert torch.equal(network(x), plain(x))
    network.finish_task()
    network.add_task("two", evenly({"*": 0.5}, init="standalone"))
    network.eval()
    folded = network.fold("two")
    assert type(folded) is type(plain)
    assert torch.equal(folded(x), network(x))


def test_links_between_layers_stay_as_they_are(x: Tensor) -> None:
    plain = Net().eval()
    network = PiggybackNetwork(plain).eval()
    network.add_task("one")
    assert torch.equal(network(x), plain(x))


def test_wrapping_leaves_the_given_module_alone(x: Tensor) -> None:
    plain = Net().eval()
    before = copy.deepcopy(plain.state_dict())
    network = PiggybackNetwork(plain)
    learn(network, "one")
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


def test_earlier_tasks_are_bit_identical_after_a_new_one(x: Tensor) -> None:
    network = learned("one")
    first = output(network, "one", x)
    learn(network, "two", ALL_LAYERS)
    second = output(network, "two", x)
    assert torch.equal(output(network, "one", x), first)
    learn(network, "three", evenly({"up": 0.5, "leave": 0.0, "*": 0.1}, init="previous"))
    third = output(network, "three", x)
    for _ in range(2):  # in any order of use
        assert torch.equal(output(network, "two", x), second)
        assert torch.equal(output(network, "three", x), third)
        assert torch.equal(output(network, "one", x), first)


def test_stored_tensors_of_a_task_never_change(x: Tensor) -> None:
    network = learned("one")
    before = network.task_state("one").tensors
    learn(network, "two", ALL_LAYERS)
    learn(network, "three", replace(ALL_LAYERS, init="standalone"))
    after = network.task_state("one").tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_restored_task_is_the_same_network(x: Tensor) -> None:
    network = PiggybackNetwork(Net())
    for task, init in (("one", None), ("two", "standalone"), ("three", "two")):
        learn(network, task, replace(ALL_LAYERS, init=init))
    restored = PiggybackNetwork(Net())
    for task in network.tasks:
        restored.restore_task(network.task_state(task))
    for task in network.tasks:
        assert torch.equal(output(restored, task, x), output(network, task, x))
        assert restored.parameter_count(task) == network.parameter_count(task)


def test_a_fold_has_the_keys_of_the_original_and_shares_no_memory(x: Tensor) -> None:
    network = learned("one", "two")
    folded = network.fold("two")
    assert type(folded) is Net
    assert list(folded.state_dict()) == list(Net().state_dict())
    assert [n for n, _ in folded.named_parameters()] == [n for n, _ in Net().named_parameters()]
    before = output(network, "two", x)
    assert torch.equal(folded(x), before)
    train(folded, list(folded.parameters()))
    assert torch.equal(output(network, "two", x), before)


def test_a_task_that_is_not_active_can_be_folded(x: Tensor) -> None:
    network = learned("one")
    expected = output(network, "one", x)
    network.add_task("two", ALL_LAYERS)
    train(network, network.trainable_parameters())
    assert torch.equal(network.fold("one")(x), expected)
    assert network.active_task == "two"
    network.eval()
    assert torch.equal(network.fold("two")(x), network(x))


@pytest.mark.parametrize("source", [None, "one", "two", "three", "previous"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_warm_start_begins_with_exactly_the_earlier_task_or_else_the_first(
    x: Tensor, source: str | None, share: float
) -> None:
    network = learned("one")
    learn(network, "two", evenly({"*": 0.25}, init="standalone"))
    learn(network, "three", evenly({"*": 0.5}, init="standalone"))
    expected = output(network, {None: "one", "previous": "three"}.get(source, source), x)
    network.add_task("four", evenly({"*": share}, init=source))
    assert torch.equal(output(network, "four", x), expected)


def test_a_random_start_has_piggyback_filters_of_the_scale_of_the_others() -> None:
    plain = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ConvTranspose2d(64, 32, 3))
    for layer in plain:
        nn.init.normal_(layer.weight, 0, 0.02)
    network = PiggybackNetwork(plain)
    learn_nothing(network, "one")
    learn_nothing(network, "two")
    network.add_task("three", evenly(init="standalone"))
    folded = network.fold("three")
    for layer, module in zip(network.plan(evenly()), folded, strict=True):
        filters = FilterLayout.of(module).to_filters(module.weight.detach())
        free, piggyback = filters[: layer.unconstrained], filters[layer.unconstrained :]
        assert 0.018 < free.std() < 0.022
        assert 0.018 < piggyback.std() < 0.022


def test_a_random_start_has_fresh_private_parameters(x: Tensor) -> None:
    network = PiggybackNetwork(Net())
    given = {key: value.clone() for key, value in network.module.norm.state_dict().items()}
    learn(network, "one")
    network.add_task("two", evenly(init="standalone"))
    found = network.module.norm.state_dict()
    assert all(torch.equal(found[key], given[key]) for key in given)


def test_filters_are_composed_once_for_each_optimizer_step(x: Tensor) -> None:
    network = learned("one", training="two")
    for make in (torch.optim.Adam, torch.optim.SGD, partial(torch.optim.AdamW, fused=True)):
        optimizer = make(network.trainable_parameters(), lr=1e-3)
        network.train()
        network(x).mean().backward()
        optimizer.step()
        for _ in range(2):
            before = weights(network)
            network(x).mean().backward()
            composed = weights(network)
            assert not any(a is b for a, b in zip(before, composed, strict=True))
            with torch.no_grad():
                network(x)
            network(x).square().mean().backward()
            assert same(weights(network), composed)
            optimizer.step()
    network(x)
    assert torch.equal(
        network.module.leave.weight[: network.plan(ALL_LAYERS)[-1].unconstrained].flatten(),
        network.module.leave.unconstrained_filters.flatten(),
    )


def test_gradient_accumulation_gives_the_sum_of_the_gradients(x: Tensor) -> None:
    network = learned("one", training="two")
    network.eval()
    parameters = network.trainable_parameters()
    together = torch.autograd.grad(network(x).mean() + network(-x).mean(), parameters)
    network(x).mean().backward()
    network(-x).mean().backward()
    for parameter, expected in zip(parameters, together, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_nothing_is_composed_in_evaluation_after_the_first_call(x: Tensor) -> None:
    network = PiggybackNetwork(Net()).eval()
    learn(network, "one")
    learn(network, "two")
    network.eval()
    with torch.inference_mode():
        network(x)
    composed = weights(network)
    network(x)
    with torch.inference_mode():
        network(x)
    assert same(weights(network), composed)


def test_evaluation_in_inference_mode_does_not_spoil_training(x: Tensor) -> None:
    network = learned("one")
    network.add_task("two", evenly())
    undisturbed = copy.deepcopy(network)
    for each in (network, undisturbed):
        torch.manual_seed(1)
        for _ in range(2):
            each.eval()
            if each is network:
                with torch.inference_mode():
                    each(x)
            train(each, each.trainable_parameters(), steps=1)
    pairs = zip(network.trainable_parameters(), undisturbed.trainable_parameters(), strict=True)
    assert all(torch.equal(found, expected) for found, expected in pairs)


def test_the_bank_has_no_gradient_and_no_optimizer_state(x: Tensor) -> None:
    network = learned("one", training="two")
    parameters = network.trainable_parameters()
    count = network.parameter_count("two")
    assert sum(p.numel() for p in parameters) == count.total
    assert sum(p.numel() for p in network.parameters()) == count.total
    network(x).mean().backward()
    for name in network.layouts:
        assert not network.bank_filters(name).requires_grad
        assert network.bank_filters(name).grad is None


def test_training_works_under_autocast_with_full_precision_filters(x: Tensor) -> None:
    network = learned("one")
    network.add_task("two", replace(ALL_LAYERS, init="standalone"))
    train(network, network.trainable_parameters(), steps=1)  # else it is composed for use
    network(x)
    plain = network.module.twice.weight.detach().clone()
    with torch.no_grad():
        for parameter in network.trainable_parameters():
            parameter.add_(0)  # composed again, of the same values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(x).float().mean().backward()
    assert network.module.twice.weight.dtype == torch.float32
    assert torch.equal(network.module.twice.weight, plain)


def test_setting_another_task_while_one_trains_loses_nothing(x: Tensor) -> None:
    network = learned("one", training="two")
    train(network, network.trainable_parameters())
    network.eval()
    before = network(x).detach()
    output(network, "one", x)
    assert torch.equal(output(network, "two", x), before)
    train(network, network.trainable_parameters())
    network.set_task("one")
    network.finish_task()
    assert network.active_task == "two"


def test_the_task_in_training_is_visible_and_the_only_one_and_finished_ones_can_not_be_trained() -> (
    None
):
    network = PiggybackNetwork(Net())
    network.add_task("one")
    assert (network.tasks, network.task_in_training) == (("one",), "one")
    with pytest.raises(PiggybackError, match="'one' is in training"):
        network.add_task("two")
    network.finish_task()
    assert (network.tasks, network.task_in_training) == (("one",), None)
    for act in (network.trainable_parameters, network.finish_task, network.discard_task):
        with pytest.raises(PiggybackError, match="no task is in training"):
            act()
    assert not any(p.requires_grad for p in network.parameters())
    with pytest.raises(PiggybackError, match="never change"):
        network.add_task("one")


def test_a_discarded_task_leaves_no_trace(x: Tensor) -> None:
    network = learned("one")
    before = output(network, "one", x)
    network.add_task("two", ALL_LAYERS)
    train(network, network.trainable_parameters())
    network.discard_task()
    assert network.tasks == ("one",)
    assert network.active_task == "one"
    network.eval()
    assert torch.equal(network(x), before)
    learn(network, "two")


def test_a_task_with_values_that_are_not_finite_can_not_be_finished() -> None:
    network = PiggybackNetwork(Net())
    network.add_task("one")
    with torch.no_grad():
        network.module.twice.bias[3] = float("nan")
    with pytest.raises(PiggybackError, match=r"twice\.bias"):
        network.finish_task()
    assert network.task_in_training == "one"


@pytest.mark.parametrize(
    ("name", "standalone", "share", "later", "total"),
    [
        ("resnet-9", 11.373e6, 0.0, [0.113, 0.113, 0.113], 1.339),
        ("resnet-9", 11.373e6, 0.125, [0.224, 0.236, 0.249], 1.709),
        ("resnet-9", 11.373e6, 0.25, [0.335, 0.356, 0.377], 2.068),
        ("resnet-9", 11.373e6, 0.5, [0.557, 0.585, 0.613], 2.755),
        ("unet-256", 54.404e6, 0.25, [0.285, 0.294, 0.302], 1.881),
    ],
)
def test_parameters_of_the_built_in_networks_are_those_of_the_method(
    name: str, standalone: float, share: float, later: list[float], total: float
) -> None:
    with torch.device("meta"):
        network = PiggybackNetwork(build_generator(GeneratorConfig(name=name)))
    added = []
    for task in ("one", "two", "three", "four"):
        network.add_task(task, evenly({"*": share}))
        count = network.parameter_count(task)
        added.append(count.unconstrained + count.mixing)
        assert count.total == sum(p.numel() for p in network.trainable_parameters())
        finish_without_values(network, share)
    assert added[0] == pytest.approx(standalone, rel=1e-4)
    relative = [filters / added[0] for filters in added]
    assert [round(r, 3) for r in relative[1:]] == later
    assert round(sum(relative), 3) == total


def finish_without_values(network: PiggybackNetwork, share: float) -> None:
    """`finish_task` for tensors that have no values: it could not check them."""
    name = network.task_in_training
    tensors = {key.removeprefix("module."): t for key, t in network.state_dict().items()}
    shares = {p.name: share if p.bank else 1.0 for p in network.plan(evenly({"*": share}))}
    network.discard_task()
    network.restore_task(TaskState(name, TaskFilters(shares), tensors))


@pytest.mark.parametrize(
    ("unconstrained", "shares"),
    [
        (None, (0.25, 0.25, 0.25, 1.0)),  # small layers stay free unless a pattern names them
        ({"*": 0.25}, (0.25, 0.25, 0.25, 0.25)),
        # An exact name goes before patterns, and an earlier pattern before a later one.
        ({"t*": 0.5, "*": 0.75, "enter": 0.0, "?p": 0.1}, (0.0, 0.5, 0.75, 0.75)),
    ],
)
def test_shares_are_those_of_the_first_name_or_pattern_that_fits(
    unconstrained: dict[str, float] | None, shares: tuple[float, ...]
) -> None:
    plan = untrained("one").plan(evenly() if unconstrained is None else evenly(unconstrained))
    names = ("enter", "twice", "up", "leave")
    assert {p.name: p.share for p in plan} == dict(zip(names, shares, strict=True))


def test_a_pattern_that_matches_nothing_is_an_error_that_names_the_layers() -> None:
    network = PiggybackNetwork(Net())
    with pytest.raises(PiggybackError, match=r"'entre' matches none of the layers: enter; twice"):
        network.add_task("one", evenly({"entre": 0.5}))
    assert network.tasks == ()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_share_outside_0_to_1_is_refused(share: object) -> None:
    for unconstrained in ({"*": share}, *([] if share is None else [share])):
        with pytest.raises(PiggybackError, match="from 0 to 1"):
            PiggybackNetwork(Net()).add_task("one", FilterOptions(unconstrained=unconstrained))


@pytest.mark.parametrize(
    "name", ["", "A", "../x", "a/b", ".a", "-a", "a b", "é", "a\n", "a" * 65, "previous"]
)
def test_a_name_that_could_do_harm_is_refused(name: str) -> None:
    with pytest.raises(PiggybackError, match="can't name a task"):
        PiggybackNetwork(Net()).add_task(name)


def test_an_unknown_task_is_an_error_that_lists_the_tasks() -> None:
    network = untrained("maps", "night")
    for act in (network.set_task, network.fold, network.parameter_count, network.task_state):
        with pytest.raises(PiggybackError, match=r"no task 'map'; tasks: maps, night"):
            act("map")
    with pytest.raises(PiggybackError, match=r"standalone, previous, maps, night"):
        network.add_task("new", evenly(init="map"))
    with pytest.raises(PiggybackError, match="no earlier tasks"):
        PiggybackNetwork(Net()).add_task("new", evenly(init="maps"))


def test_a_network_without_conv_layers_is_refused() -> None:
    with pytest.raises(PiggybackError, match="Sequential has no conv layers"):
        PiggybackNetwork(nn.Sequential(nn.Linear(3, 3)))


def test_a_call_without_any_task_is_refused(x: Tensor) -> None:
    with pytest.raises(PiggybackError, match="no task yet"):
        PiggybackNetwork(Net())(x)


def test_another_dtype_is_refused_as_it_would_change_earlier_tasks() -> None:
    network = untrained("one")
    with pytest.raises(PiggybackError, match="convert the folded network"):
        network.half()
    assert network.fold("one").half().twice.weight.dtype == torch.float16


def test_a_network_can_be_copied_and_pickled_after_a_call(x: Tensor) -> None:
    network = learned("one", training="two")
    expected = output(network, "two", x)
    assert torch.equal(output(copy.deepcopy(network), "two", x), expected)
    assert torch.equal(output(pickle.loads(pickle.dumps(network)), "two", x), expected)


def test_a_task_of_another_network_or_of_other_layers_does_not_fit() -> None:
    network, other = untrained("one"), PiggybackNetwork(nn.Conv2d(3, 8, 3))
    learn_nothing(other, "two")
    mine, tensors = network.task_state("one"), other.task_state("two").tensors
    with pytest.raises(PiggybackError, match=r"does not fit the network"):
        network.restore_task(TaskState("two", mine.filters, tensors))
    assert network.tasks == ("one",)
    with pytest.raises(PiggybackError, match="its layers differ"):
        PiggybackNetwork(Net()).restore_task(TaskState("one", TaskFilters({}), mine.tensors))


def test_calls_and_edits_of_a_finished_task_do_not_change_it(x: Tensor) -> None:
    network = PiggybackNetwork(Net())
    network.add_task("one")
    optimizer = torch.optim.Adam(network.trainable_parameters(), 1e-2)
    network(x).mean().backward()
    optimizer.step()
    network.finish_task()
    network.eval()
    before = network(x)
    stored = network.task_state("one").tensors
    network.train()
    assert torch.equal(network(x), before), "a finished task runs in eval mode"
    optimizer.step()  # a stale optimizer
    with torch.no_grad():
        network.module.enter.bias.add_(1)
    assert torch.equal(network.fold("one")(x), before)
    after = network.task_state("one").tensors
    assert all(torch.equal(stored[key], after[key]) for key in stored)
    network.set_task("one")
    assert torch.equal(network(x), before)


def test_a_step_that_comes_after_a_change_of_task_does_not_move_the_finished_one(x: Tensor) -> None:
    network = learned("one")
    before = output(network, "one", x)
    network.add_task("two", ALL_LAYERS)
    optimizer = torch.optim.SGD(network.trainable_parameters(), 1.0)
    network.train()
    network(x).mean().backward()
    network.set_task("one")
    optimizer.step()
    assert torch.equal(network(x), before)


def test_a_network_that_was_only_restored_asks_for_a_task_to_be_set(x: Tensor) -> None:
    network = untrained("one")
    restored = PiggybackNetwork(Net())
    restored.restore_task(network.task_state("one"))
    with pytest.raises(PiggybackError, match="call set_task first; tasks: one"):
        restored(x)


def test_a_new_task_trains_in_training_mode_after_a_finished_one(x: Tensor) -> None:
    network = PiggybackNetwork(Net()).train()
    learn_nothing(network, "one")
    assert not network.module.norm.training
    network.add_task("two", ALL_LAYERS)
    assert network.module.norm.training
    network.set_task("one")
    assert not network.module.norm.training
    network.set_task("two")
    assert network.module.norm.training


def test_the_state_of_a_task_that_is_not_active_is_its_own(x: Tensor) -> None:
    network = learned("one")
    first = network.task_state("one").tensors
    network.add_task("two", ALL_LAYERS)
    train(network, network.trainable_parameters())
    second = network.task_state("two").tensors
    output(network, "one", x)
    for task, expected in (("one", first), ("two", second)):
        found = network.task_state(task).tensors
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not torch.equal(first["enter.bias"], second["enter.bias"])


def test_freezing_the_network_around_a_call_does_not_stop_its_training(x: Tensor) -> None:
    network = learned("one", training="two")
    network.requires_grad_(False)
    network(x)
    network.requires_grad_(True)
    network(x).mean().backward()
    assert all(p.grad is not None for p in network.trainable_parameters())


def test_gradients_of_an_earlier_task_are_gone_when_a_new_one_begins() -> None:
    network = learned("one", training="two")
    assert all(p.grad is None for p in network.trainable_parameters())


class Odd(nn.Module):
    """A parameter by our own name, buffers that are not saved, and a mask of infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.mixing_weights = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return self.conv(x) * self.mixing_weights + self.seen


def test_every_parameter_and_buffer_beside_conv_filters_is_private(x: Tensor) -> None:
    network = PiggybackNetwork(Odd())
    learn(network, "one")
    before = output(network, "one", x)
    learn(network, "two", ALL_LAYERS)
    assert torch.equal(output(network, "one", x), before)
    assert torch.equal(network.fold("one")(x), before)
    assert {"mixing_weights", "seen", "mask"} <= network.task_state("one").tensors.keys()


def test_a_warm_start_is_exact_in_training_mode_too() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    network = PiggybackNetwork(plain)
    learn_nothing(network, "one")
    network.add_task("two", evenly(init="standalone"))
    network.finish_task()
    x = torch.randn(2, 3, 9, 9)
    expected = network(x)
    network.add_task("three", evenly(init="two"))
    network.train()
    assert torch.equal(network(x), expected)
    network(x).mean().backward()
    assert all(p.grad is not None for p in network.trainable_parameters())


def test_frozen_layers_of_the_module_stay_frozen() -> None:
    plain = Net()
    plain.enter.requires_grad_(False)
    network = PiggybackNetwork(plain)
    network.add_task("one")
    names = {id(p): name for name, p in network.named_parameters()}
    trained = {names[id(p)] for p in network.trainable_parameters()}
    assert not any(name.startswith("module.enter") for name in trained)
    folded = network.fold("one")
    assert [p.requires_grad for p in folded.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]


def test_inference_mode_around_folding_and_adding_does_no_harm(x: Tensor) -> None:
    plain = PiggybackNetwork(Net())
    learn(plain, "one")
    network = copy.deepcopy(plain)
    expected = plain.fold("one")
    plain.add_task("two", ALL_LAYERS)
    with torch.inference_mode():
        folded = network.fold("one")
        network.add_task("two", ALL_LAYERS)
    for found, reference in ((folded, expected), (network, plain)):
        for each in (found, reference):
            torch.manual_seed(1)
            train(each, list(each.parameters()), steps=1)
        pairs = zip(found.parameters(), reference.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_folding_leaves_the_active_composition_alone(x: Tensor) -> None:
    network = learned("one", "two")
    network(x)
    composed = weights(network)
    network.fold("one")
    network(x)
    assert same(weights(network), composed)


class Stateful(nn.Conv2d):
    def get_extra_state(self) -> int:
        return 1


def test_extra_state_is_refused_as_it_can_not_be_kept_for_each_task() -> None:
    with pytest.raises(PiggybackError, match="'0' has extra state"):
        PiggybackNetwork(nn.Sequential(Stateful(3, 3, 3)))


def test_moving_a_network_moves_banks_and_private_tensors_that_wait_for_their_task(
    x: Tensor,
) -> None:
    network = learned("one", "two", training="three")
    network.set_task("one")
    network.to("meta")
    for task in ("one", "two", "three"):
        network.set_task(task)
        outputs = network(x.to("meta"))
        assert (outputs.device.type, outputs.shape) == ("meta", x.shape)
    assert all(tensor.is_meta for tensor in held_tensors(network))


def test_its_repr_names_the_module_and_the_tasks() -> None:
    network = PiggybackNetwork(Net())
    assert repr(network) == "PiggybackNetwork(Net; tasks: none; active: None)"
    learn_nothing(network, "one")
    network.add_task("two", ALL_LAYERS)
    words = "PiggybackNetwork(Net; tasks: one; two (in training); active: two)"
    assert repr(network) == words
    words = "start: one, storage: fp32)"
    assert repr(network.task_state("two")).endswith(words)
    assert len(repr(network.task_state("two"))) < 100
