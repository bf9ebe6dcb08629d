"""A task's own layers: other channels in a shared network, outside the filter bank."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from banks import evenly
from held_tensors import held_tensors
from piggyback_gan import PiggybackNetwork
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.training.own_layers import own_layers

ALL_LAYERS = evenly({"*": 0.5})


def stack() -> nn.Sequential:
    """Three RGB channels in and out, and between them a layer that every task shares."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 10, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(10, 3, 3, padding=1),
    )


def own(first: int | None = None, last: int | None = None) -> dict[str, nn.Module]:
    """A first and a last layer of `stack` for other channels."""
    layers: dict[str, nn.Module] = {}
    if first is not None:
        layers["0"] = nn.Conv2d(first, 12, 3, padding=1)
    if last is not None:
        layers["5"] = nn.ConvTranspose2d(10, last, 3, padding=1)
    return layers


def train(network: PiggybackNetwork, channels: int, steps: int = 3) -> None:
    optimizer = torch.optim.Adam(network.trainable_parameters(), 1e-2)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.randn(2, channels, 6, 6)) - 0.3).square().mean().backward()
        optimizer.step()


def learn(
    network: PiggybackNetwork,
    task: str,
    first: int | None = None,
    last: int | None = None,
    **how: Any,
) -> None:
    network.add_task(task, replace(ALL_LAYERS, **how), own_layers=own(first, last))
    train(network, first or 3)
    network.finish_task()


def output(network: PiggybackNetwork, task: str, channels: int = 3) -> Tensor:
    network.set_task(task)
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        result: Tensor = network.eval()(torch.randn((2, channels, 6, 6), generator=chance))
    return result


def tensors(network: PiggybackNetwork, task: str) -> dict[str, Tensor]:
    return network.task_state(task).tensors


def equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture
def network() -> PiggybackNetwork:
    """Three tasks: RGB, 5 channels to 2, RGB again."""
    torch.manual_seed(0)
    network = PiggybackNetwork(stack())
    learn(network, "rgb")
    learn(network, "wide", 5, 2)
    learn(network, "night")
    return network


# --- what they are ---


def test_own_layers_give_a_task_other_channels_in_and_out(network: PiggybackNetwork) -> None:
    assert output(network, "rgb").shape == (2, 3, 6, 6)
    assert output(network, "wide", 5).shape == (2, 2, 6, 6)
    assert output(network, "night").shape == (2, 3, 6, 6)


def test_earlier_tasks_are_bit_identical_after_one_with_own_layers(
    network: PiggybackNetwork,
) -> None:
    before = [output(network, "rgb"), output(network, "wide", 5), output(network, "night")]
    stored = [tensors(network, task) for task in network.tasks]
    learn(network, "gray", 1)
    learn(network, "last", 4, 4, init="gray")
    after = [output(network, "rgb"), output(network, "wide", 5), output(network, "night")]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(
        equal(old, tensors(network, t)) for old, t in zip(stored, network.tasks, strict=False)
    )


def test_own_layers_add_nothing_to_the_bank(network: PiggybackNetwork) -> None:
    with_own = {layer.name: layer.bank for layer in network.plan(evenly())}
    torch.manual_seed(0)
    without = PiggybackNetwork(stack())
    learn(without, "rgb")
    learn(without, "night")
    assert with_own["0"] == {layer.name: layer.bank for layer in without.plan(evenly())}["0"]
    # The layer that "wide" shares has its filters too.
    assert with_own["3"] == 10 + 5 + 5
    state = network.task_state("wide")
    assert state.filters.shares.keys() == {"3"}
    assert {key for key in state.tensors if key.startswith(("0.", "5."))} == {
        "0.weight",
        "0.bias",
        "5.weight",
        "5.bias",
    }


def test_the_parameters_of_own_layers_are_private(network: PiggybackNetwork) -> None:
    count = network.parameter_count("wide")
    first, last = 12 * 5 * 9 + 12, 10 * 2 * 9 + 2
    norm, bias = 12 + 12, 10
    assert count.private == first + last + norm + bias
    # Layer "3": 10 filters of 12 * 9 values, half of them new, the others mixed from a bank of 10.
    assert count.unconstrained == 5 * 12 * 9
    assert count.mixing == 5 * 10
    assert count.standalone == 10 * 12 * 9 + count.private
    assert (
        count.total
        == sum(t.numel() for key, t in tensors(network, "wide").items() if "running" not in key) - 1
    )  # the norm's count of batches
    assert network.parameter_count("rgb").standalone == sum(p.numel() for p in stack().parameters())


def test_what_a_task_counts_does_not_depend_on_which_one_is_set(network: PiggybackNetwork) -> None:
    counts = []
    for active in network.tasks:
        network.set_task(active)
        counts.append([network.parameter_count(task) for task in network.tasks])
    assert counts[0] == counts[1] == counts[2]


def test_the_given_layers_are_copied_and_stay_as_they_are() -> None:
    network = PiggybackNetwork(stack())
    learn(network, "rgb")
    given = own(5)
    before = copy.deepcopy(given["0"].state_dict())
    network.add_task("wide", evenly(), own_layers=given)
    assert torch.equal(network.fold("wide").get_submodule("0").weight, before["weight"])
    train(network, 5)
    assert equal(given["0"].state_dict(), before)
    assert not torch.equal(network.fold("wide").get_submodule("0").weight, before["weight"])


def test_the_first_task_of_a_network_may_have_own_layers_and_later_ones_share_from_then_on() -> (
    None
):
    network = PiggybackNetwork(stack())
    learn(network, "wide", 5)
    assert network.plan_of("wide")[0].name == "3"
    first = output(network, "wide", 5)
    assert next(layer.bank for layer in network.plan(evenly()) if layer.name == "0") == 0
    learn(network, "rgb")  # finds no filters of layer "0" to mix: all of its own are unconstrained
    plan = {layer.name: layer for layer in network.plan_of("rgb")}
    assert (plan["0"].bank, plan["0"].unconstrained) == (0, 12)
    assert (plan["3"].bank, plan["3"].unconstrained) == (10, 5)
    learn(network, "night")
    assert {layer.name: layer.bank for layer in network.plan_of("night")}["0"] == 12
    assert torch.equal(output(network, "wide", 5), first)


def test_a_fold_is_a_plain_module_with_the_tasks_channels(network: PiggybackNetwork) -> None:
    wide = network.fold("wide")
    assert type(wide) is nn.Sequential
    first, last = wide.get_submodule("0"), wide.get_submodule("5")
    assert (type(first), type(last)) == (nn.Conv2d, nn.ConvTranspose2d)
    assert (first.in_channels, first.out_channels) == (5, 12)
    assert (last.in_channels, last.out_channels) == (10, 2)
    assert "5, 12" in repr(first) and "10, 2" in repr(last)
    assert {k: t.shape for k, t in wide.state_dict().items()}["5.bias"] == (2,)
    x = torch.randn(2, 5, 6, 6)
    network.set_task("wide")
    assert torch.equal(wide(x), network.eval()(x))
    rgb = network.fold("rgb")
    assert rgb.get_submodule("0").in_channels == 3
    assert rgb.state_dict().keys() == stack().state_dict().keys()


# --- where they start ---


def test_a_task_that_starts_from_one_with_own_layers_takes_only_what_is_shared_from_it(
    network: PiggybackNetwork,
) -> None:
    network.add_task("heir", replace(ALL_LAYERS, init="wide"))
    source, heir = network.fold("wide"), network.fold("heir")
    assert torch.equal(heir.get_submodule("3").weight, source.get_submodule("3").weight)
    assert torch.equal(heir.get_submodule("1").weight, source.get_submodule("1").weight)
    # The layers that are not shared are those of the first task that has them.
    rgb = network.fold("rgb")
    for layer in ("0", "5"):
        assert torch.equal(heir.get_submodule(layer).weight, rgb.get_submodule(layer).weight)


def test_own_layers_with_the_sources_weights_start_with_exactly_its_output(
    network: PiggybackNetwork,
) -> None:
    source = network.fold("wide")
    layers = {key: source.get_submodule(key) for key in ("0", "5")}
    network.add_task("wider", replace(ALL_LAYERS, init="wide"), own_layers=layers)
    assert torch.equal(output(network, "wider", 5), output(network, "wide", 5))


def test_a_generators_own_layers_start_as_the_sources_on_gray() -> None:
    config = GeneratorConfig(name="resnet-6", ngf=4)
    network = PiggybackNetwork(build_generator(config))
    network.add_task("rgb", evenly())
    network.finish_task()
    source = network.fold("rgb")
    layers = own_layers(config, (1, 4), seed=0, source=source)
    network.add_task("gray", evenly(init="rgb"), own_layers=layers)
    gray = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = source(gray.expand(-1, 3, -1, -1))
        found = network.eval()(gray)
        # Before the tanh each of the last layer's filters is the mean of the source's.
        torch.testing.assert_close(
            found.atanh(), expected.atanh().mean(1, keepdim=True).expand(-1, 4, -1, -1)
        )
    assert own_layers(config, (3, 3), seed=0) == {}
    assert list(own_layers(config, (1, 3), seed=0)) == ["model.1"]


# --- while they train ---


def test_switching_tasks_while_one_with_own_layers_trains_loses_nothing(
    network: PiggybackNetwork,
) -> None:
    twin = copy.deepcopy(network)
    for each in (network, twin):
        torch.manual_seed(1)
        each.add_task("gray", ALL_LAYERS, own_layers=own(1, 4))
    finished = output(network, "wide", 5)
    network.set_task("gray")
    optimizers = [torch.optim.Adam(n.trainable_parameters(), 1e-2) for n in (network, twin)]
    for step in range(4):
        for each, optimizer in zip((network, twin), optimizers, strict=True):
            optimizer.zero_grad()
            x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(step))
            (each.train()(x) - 0.3).square().mean().backward()
            if each is network and step % 2:
                # The step is to come still: gradients of what does not train now must survive or go, but
                # never move another task.
                each.fold("wide")
            optimizer.step()
        for task, channels in (("rgb", 3), ("wide", 5)):
            output(network, task, channels)
        network.set_task("gray")
    assert equal(tensors(network, "gray"), tensors(twin, "gray"))
    network.finish_task()
    assert torch.equal(output(network, "wide", 5), finished)


def test_a_discarded_task_takes_its_own_layers_with_it(network: PiggybackNetwork) -> None:
    before = output(network, "night")
    plan = network.plan(evenly())
    network.add_task("gray", evenly(), own_layers=own(1, 4))
    train(network, 1)
    network.discard_task()
    assert network.plan(evenly()) == plan
    assert torch.equal(output(network, "night"), before)
    learn(network, "gray", 1, 4)
    assert output(network, "gray", 1).shape == (2, 4, 6, 6)


def test_a_discarded_first_task_leaves_a_network_of_the_given_channels() -> None:
    plain = stack()
    network = PiggybackNetwork(plain)
    network.add_task("wide", evenly(), own_layers=own(5, 2))
    network.discard_task()
    network.add_task("rgb", evenly())
    assert equal(network.fold("rgb").state_dict(), plain.state_dict())


def test_a_task_with_own_layers_comes_back_bit_for_bit(network: PiggybackNetwork) -> None:
    other = PiggybackNetwork(stack())
    for task in network.tasks:
        other.restore_task(network.task_state(task))
    for task, channels in (("rgb", 3), ("wide", 5), ("night", 3)):
        assert torch.equal(output(other, task, channels), output(network, task, channels))
    assert other.parameter_count("wide") == network.parameter_count("wide")
    torch.manual_seed(3)
    learn(other, "gray", 1)
    torch.manual_seed(3)
    learn(network, "gray", 1)
    assert equal(tensors(other, "gray"), tensors(network, "gray"))


def test_moving_a_network_moves_own_layers_too(network: PiggybackNetwork) -> None:
    network.add_task("gray", evenly(), own_layers=own(1))
    parameters = network.trainable_parameters()
    network.to("cpu")
    assert [id(p) for p in network.trainable_parameters()] == [id(p) for p in parameters]
    network.to("meta")
    assert all(tensor.is_meta for tensor in held_tensors(network))
    first = network.module.get_submodule("0")
    assert first.weight.is_meta and first.in_channels == 1
    network.set_task("wide")
    assert first.weight.is_meta and first.in_channels == 5
    network.set_task("rgb")
    assert first.in_channels == 3 and first.bias.is_meta


def test_a_copy_of_a_network_has_own_layers_of_its_own(network: PiggybackNetwork) -> None:
    network.add_task("gray", evenly(), own_layers=own(1))
    before = tensors(network, "gray")
    twin = copy.deepcopy(network)
    train(twin, 1)
    assert equal(tensors(network, "gray"), before)
    assert not equal(tensors(twin, "gray"), before)
    twin.set_task("rgb")
    twin.set_task("gray")
    assert not equal(tensors(twin, "gray"), before)


def test_values_that_are_not_finite_are_found_in_own_layers(network: PiggybackNetwork) -> None:
    network.add_task("gray", evenly(), own_layers=own(1))
    with torch.no_grad():
        network.module.get_submodule("0").weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PiggybackError, match=r"'gray' can't be finished: 0\.weight"):
        network.finish_task()


# --- what is refused ---


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"7": nn.Conv2d(5, 12, 3)}, "no conv layer '7'"),
        ({"1": nn.BatchNorm2d(12)}, "no conv layer '1'"),
        ({"0": nn.Conv2d(5, 12, 5)}, "like the network's except for its channels"),
        ({"0": nn.Conv1d(5, 12, 3)}, "like the network's except for its channels"),
        ({"0": nn.Conv2d(5, 12, 3, bias=False)}, "does not fit: expected"),
    ],
)
def test_a_layer_that_can_not_stand_in_its_place_is_refused_and_nothing_is_begun(
    network: PiggybackNetwork, layers: dict[str, nn.Module], words: str
) -> None:
    before = output(network, "night")
    with pytest.raises(PiggybackError, match=words):
        network.add_task("odd", evenly(), own_layers=layers)
    assert network.task_in_training is None and "odd" not in network.tasks
    assert torch.equal(output(network, "night"), before)


def test_a_bias_where_the_network_has_none_is_refused() -> None:
    network = PiggybackNetwork(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)))
    with pytest.raises(PiggybackError, match="does not fit: expected"):
        network.add_task("one", evenly(), own_layers={"0": nn.Conv2d(5, 8, 3)})
    network.add_task("one", evenly(), own_layers={"0": nn.Conv2d(5, 8, 3, bias=False)})
    assert network.parameter_count("one").private == 8 * 5 * 9


def test_own_layers_in_the_place_of_groups_are_refused() -> None:
    network = PiggybackNetwork(nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)))
    with pytest.raises(PiggybackError, match="'0' must be like"):
        network.add_task("one", evenly(), own_layers={"0": nn.Conv2d(2, 8, 3)})


def test_a_stored_own_layer_of_another_kernel_does_not_fit(network: PiggybackNetwork) -> None:
    state = network.task_state("wide")
    state.tensors["0.weight"] = torch.randn(12, 5, 5, 5)
    other = PiggybackNetwork(stack())
    other.restore_task(network.task_state("rgb"))
    with pytest.raises(PiggybackError, match="own layer '0' must be like"):
        other.restore_task(state)
    assert other.tasks == ("rgb",)
    other.restore_task(network.task_state("wide"))
    assert torch.equal(output(other, "wide", 5), output(network, "wide", 5))


# --- any stack, any order ---


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[tuple[bool, int]], list[dict[int, int]]]:
    """(transposed, channels) of each layer; and for some tasks, channels by layer border."""
    depth = draw(st.integers(1, 4))
    layers = [(draw(st.booleans()), draw(st.integers(1, 9))) for _ in range(depth)]
    border = st.dictionaries(st.sampled_from([0, depth]), st.integers(1, 6), max_size=2)
    return layers, draw(st.lists(border, min_size=2, max_size=4))


@given(stacks(), st.sampled_from([None, "previous", "standalone"]))
@settings(max_examples=30, deadline=None)
def test_no_task_forgets_and_each_has_its_channels_whatever_layers_are_whose_own(
    case: tuple[list[tuple[bool, int]], list[dict[int, int]]], init: str | None
) -> None:
    layers, tasks = case
    widths = [3, *(width for _, width in layers)]

    def layer(index: int, channels: list[int]) -> nn.Module:
        kind = nn.ConvTranspose2d if layers[index][0] else nn.Conv2d
        return kind(channels[index], channels[index + 1], 3, padding=1)

    network = PiggybackNetwork(nn.Sequential(*(layer(i, widths) for i in range(len(layers)))))
    seen: list[tuple[str, int, Tensor]] = []
    for number, borders in enumerate(tasks):
        channels = [borders.get(i, width) for i, width in enumerate(widths)]
        others = {
            str(i): layer(i, channels)
            for i in range(len(layers))
            if channels[i : i + 2] != widths[i : i + 2]
        }
        name = f"task-{number}"
        start = init if number or init == "standalone" else None
        network.add_task(name, replace(ALL_LAYERS, init=start), own_layers=others)
        train(network, channels[0], steps=1)
        network.finish_task()
        result = output(network, name, channels[0])
        assert result.shape[1] == channels[-1]
        seen.append((name, channels[0], result))
    restored = PiggybackNetwork(nn.Sequential(*(layer(i, widths) for i in range(len(layers)))))
    for name, first, result in seen:
        restored.restore_task(network.task_state(name))
        assert torch.equal(output(network, name, first), result)
        assert torch.equal(output(restored, name, first), result)


def test_own_layers_follow_the_banks_network_where_only_one_side_differs() -> None:
    config = GeneratorConfig(name="unet-64", ngf=4, input_channels=1)
    wanted = replace(config, output_channels=5)
    layers = own_layers(config, (1, 5), seed=1)
    assert len(layers) == 1
    (name,) = layers
    shape = dict(build_generator(wanted).named_modules())[name].weight.shape
    assert layers[name].weight.shape == shape
