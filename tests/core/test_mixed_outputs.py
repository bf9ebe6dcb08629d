"""Factored training: the same outputs, gradients and steps as with composed weights, but for rounding."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from banks import evenly
from piggyback_gan import PiggybackNetwork
from piggyback_gan.core.layer_filters import Added, LayerFilters
from piggyback_gan.names import STORAGES, Storage
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

MIXINGS: dict[str, dict[str, Any]] = {
    "low-rank": {"mixing": "low-rank", "rank": 2},
    "selected": {"mixing": "selected", "bank_filters": 3},
}
mixings = pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)
# Whether the bank has more than the filters that the task starts from.
banks = pytest.mark.parametrize("grown", [False, True], ids=["start", "grown"])


class Kinds(nn.Module):
    """Conv layers in all ways that `factored` may serve."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.down = nn.Conv2d(8, 8, 4, stride=2, padding=1, bias=False)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.row = nn.Conv1d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1)
        self.normed = nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(inplace=True))
        self.bare = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.InstanceNorm2d(8))
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.wide(torch.tanh(self.down(self.first(x))))
        features = self.row(features.flatten(2)).reshape(features.shape)
        features = torch.tanh(self.up(features, output_size=x.shape[2:]))
        outputs: Tensor = self.last(self.bare(self.normed(features)))
        return outputs


FREE = "last", "model.16"
"""The layers of new filters."""


def networks(
    module: nn.Module, mixing: Mapping[str, Any], storage: Storage = "fp32", *, grown: bool = False
) -> Iterator[PiggybackNetwork]:
    """A composing and a factored network with the same task in training, beyond its start."""
    for factored in (False, True):
        torch.manual_seed(0)
        network = PiggybackNetwork(module, factored=factored)
        network.add_task("one")
        network.finish_task()
        if grown:
            network.add_task("between", evenly({"*": 0.25}))
            network.finish_task()
        shares = {"*": 0.0} | {name: 1.0 for name, _ in module.named_modules() if name in FREE}
        network.add_task("two", evenly(shares, storage=storage, **mixing))
        chance = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.trainable_parameters():
                parameter.add_(torch.randn(parameter.shape, generator=chance), alpha=0.05)
        yield network.train()


def step(network: PiggybackNetwork, *, passes: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and the gradients of a loss of them."""
    x = torch.rand((2, 3, 12, 12), generator=torch.Generator().manual_seed(2), requires_grad=True)
    outputs = network(x)
    for _ in range(passes):
        network(x).square().sum().backward()
    named = network.module.named_parameters()
    found = {name: p.grad for name, p in named if p.grad is not None}
    assert x.grad is not None
    return outputs.detach(), found | {"x": x.grad}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max())
        )


@pytest.mark.parametrize("storage", STORAGES)
@banks
@mixings
def test_outputs_and_gradients_are_those_of_composed_weights(
    mixing: Mapping[str, Any], grown: bool, storage: Storage
) -> None:
    torch.manual_seed(0)
    composed, factored = networks(Kinds(), mixing, storage, grown=grown)
    (expected, slow), (found, quick) = step(composed), step(factored)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    close(quick, slow)
    assert set(composed.module._modules) == set(Kinds()._modules)


@banks
@mixings
def test_several_passes_go_through_one_composition(
    monkeypatch: pytest.MonkeyPatch, mixing: Mapping[str, Any], grown: bool
) -> None:
    torch.manual_seed(0)
    composed, factored = networks(Kinds(), mixing, grown=grown)
    expected = step(composed, passes=3)[1]
    made: list[object] = []
    real = LayerFilters.factored

    def counting(parts: LayerFilters) -> tuple[Tensor, Added] | None:
        made.append(parts)
        return real(parts)

    monkeypatch.setattr(LayerFilters, "factored", counting)
    close(step(factored, passes=3)[1], expected)
    assert len(made) == 8


@banks
@mixings
def test_no_whole_filters_get_a_gradient_and_no_bias_asks_for_one(
    mixing: Mapping[str, Any], grown: bool
) -> None:
    torch.manual_seed(0)
    _, factored = networks(Kinds(), mixing, grown=grown)
    step(factored)
    factored(torch.rand(1, 3, 12, 12))
    for name in ("first", "down", "wide", "row", "up"):
        layer = factored.module.get_submodule(name)
        assert not layer.weight.requires_grad and "forward" in vars(layer)
    last = factored.module.get_submodule("last")
    assert last.weight.requires_grad and "forward" not in vars(last)


def test_where_a_norm_comes_next_no_further_feature_map_is_kept() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential()
    for _ in range(2):
        layers.extend([nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU(inplace=True)])
    layers.add_module("last", nn.Conv2d(8, 8, 3, padding=1))
    x = torch.rand(1, 8, 16, 16)
    maps = []
    for network in networks(layers, MIXINGS["low-rank"]):
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            kept[tensor.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(x)
        maps.append(sum(tensor.numel() == x.numel() for tensor in kept.values()))
    # The first layer's input is not needed, as its whole filters have no gradient.
    assert maps[1] == maps[0] - 1


@pytest.mark.parametrize("grown", [False, True])
def test_in_bfloat16_it_is_as_near_to_float32_as_composed_weights_are(grown: bool) -> None:
    torch.manual_seed(0)
    composed, factored = networks(Kinds(), MIXINGS["low-rank"], grown=grown)
    exact = step(composed)[1]
    far = []
    for network in (composed, factored):
        with torch.autocast("cpu", torch.bfloat16):
            network.module.zero_grad()
            found = step(network)[1]
        far.append(
            {name: (found[name] - exact[name]).norm() / exact[name].norm() for name in exact}
        )
    assert max(far[1].values()) < 2 * max(far[0].values())


@mixings
def test_in_evaluation_and_once_finished_weights_are_composed_exactly(
    mixing: Mapping[str, Any],
) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 12, 12)
    composed, factored = networks(Kinds(), mixing)
    factored(x)
    for network in (composed, factored):
        network.eval()
    assert torch.equal(factored(x), composed(x))
    assert not any("forward" in vars(layer) for layer in factored.module.modules())
    for network in (composed, factored):
        network.train()(x)
        network.finish_task()
    assert torch.equal(factored(x), composed(x))
    assert torch.equal(factored.fold("two")(x), factored(x))


def test_a_network_in_training_can_be_folded_copied_and_pickled() -> None:
    torch.manual_seed(0)
    _, network = networks(Kinds(), MIXINGS["low-rank"])
    x = torch.rand(1, 3, 12, 12)
    expected = network(x)
    network.fold("one")
    assert torch.equal(network(x), expected)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other(x), expected)
        step(other)


class Centred(nn.Conv2d):
    """Not linear in its filters, as its own forward may be anything."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight / self.weight.norm(), self.bias)


def halved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(x, layer.weight / 2, layer.bias, padding=1)


def test_layers_that_may_not_be_linear_in_their_filters_are_composed() -> None:
    torch.manual_seed(0)
    patched = nn.Conv2d(8, 8, 3, padding=1)
    patched.forward = MethodType(halved, patched)  # type: ignore[method-assign]
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Centred(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), patched
    )
    layers.add_module("last", nn.Conv2d(8, 8, 3, padding=1))
    composed, factored = networks(layers, MIXINGS["low-rank"])
    (expected, slow), (found, quick) = step(composed), step(factored)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    close(quick, slow)
    factored(torch.rand(1, 3, 12, 12))
    x = torch.rand(1, 8, 6, 6)
    # Factored layers have the start's weight, the others the composed one.
    starts = zip(factored.module.children(), factored.fold("one").children(), strict=True)
    ours = [torch.equal(layer.weight, start.weight) for layer, start in starts]
    assert ours == [True, False, False, False, False]
    layer = factored.module.get_submodule("3")
    assert isinstance(layer, nn.Conv2d) and torch.equal(layer(x), halved(layer, x))


def test_where_a_task_starts_the_output_is_still_that_of_the_other_task() -> None:
    torch.manual_seed(0)
    network = PiggybackNetwork(Kinds(), factored=True)
    network.add_task("one")
    network.finish_task()
    x = torch.rand(1, 3, 12, 12)
    expected = network(x)
    network.add_task("two", evenly({"*": 0.0}, **MIXINGS["low-rank"]))
    assert torch.equal(network.train()(x), expected)


@mixings
def test_a_generator_learns_the_same_either_way(mixing: Mapping[str, Any]) -> None:
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig(name="resnet-6", ngf=8))
    trained = []
    for network in networks(generator, mixing):
        optimizer = torch.optim.SGD(network.trainable_parameters(), 1e-3)
        x = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(3))
        for _ in range(4):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
        network.finish_task()
        trained.append(network.task_state("two").tensors)
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-3, atol=1e-5)
