"""What can have no filter banks is refused: which layer, what it is, what to do."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.ao.nn import intrinsic
from torch.ao.nn.intrinsic.qat import ConvBn2d
from torch.ao.nn.qat import Conv2d as QatConv2d
from torch.ao.nn.quantized import Conv2d as QuantisedConv2d
from torch.ao.nn.quantized import Linear as QuantisedLinear
from torch.ao.nn.quantized.dynamic import Conv2d as DynamicConv2d
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm, spectral_norm

from piggyback_gan import PiggybackError, PiggybackNetwork


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def with_a(layer: nn.Module) -> nn.Module:
    """A network with this layer in it."""
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), layer)


def refusal(layer: nn.Module) -> str:
    with pytest.raises(PiggybackError) as caught:
        PiggybackNetwork(with_a(layer))
    words = str(caught.value)
    assert "\n" not in words and "'2" in words
    return words


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in old networks
        return nn.utils.weight_norm(nn.Conv2d(3, 3, 3))


def quantised(make: Callable[..., nn.Module], *arguments: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and poor where it is dynamic
        return make(*arguments)


QAT = get_default_qat_qconfig("fbgemm")


@pytest.mark.parametrize(
    ("make", "what", "remedy"),
    [
        (
            lambda: spectral_norm(nn.Conv2d(3, 3, 3)),
            "layer '2' (Conv2d) has spectral norm instead of a plain weight",
            "torch.nn.utils.remove_spectral_norm(layer)",
        ),
        (
            old_weight_norm,
            "layer '2' (Conv2d) has weight norm instead of",
            "torch.nn.utils.remove_weight_norm(layer)",
        ),
        (
            lambda: parametrizations.spectral_norm(nn.Conv1d(3, 3, 3)),
            "has a parametrization of its weight (spectral norm)",
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
        ),
        (
            lambda: parametrizations.weight_norm(nn.ConvTranspose3d(3, 3, 3)),
            "has a parametrization of its weight (weight norm)",
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
        ),
        (
            lambda: parametrize.register_parametrization(nn.Conv2d(3, 3, 3), "bias", Doubled()),
            "layer '2' (ParametrizedConv2d) has a parametrization of its bias (Doubled)",
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'bias')",
        ),
        (
            lambda: prune.random_unstructured(nn.Conv2d(3, 3, 3), "weight", 0.5),
            "layer '2' (Conv2d) has pruning instead of",
            "torch.nn.utils.prune.remove(layer, 'weight')",
        ),
        (
            lambda: quantised(QuantisedConv2d, 3, 3, 3),
            "layer '2' (Conv2d) is quantised",
            "quantise the result of fold()",
        ),
        (lambda: quantised(DynamicConv2d, 3, 3, 3), "layer '2' (Conv2d) is quantised", "fold()"),
        (lambda: quantised(QuantisedLinear, 3, 3), "layer '2' (Linear) is quantised", "fold()"),
        (lambda: QatConv2d(3, 3, 3, qconfig=QAT), "layer '2' (Conv2d) is quantised", "fold()"),
        (lambda: ConvBn2d(3, 3, 3, qconfig=QAT), "layer '2' (ConvBn2d) is quantised", "fold()"),
        (
            lambda: nn.Conv2d(3, 3, 3, dtype=torch.complex64),
            "layer '2' (Conv2d) has complex weights",
            "the real and of the imaginary parts",
        ),
        (
            lambda: nn.Conv2d(3, 3, 3).requires_grad_(False).to(torch.float8_e4m3fn),
            "layer '2' (Conv2d) has weights of type torch.float8_e4m3fn",
            "layer.float()",
        ),
        (lambda: nn.LazyConv2d(3, 3), "'2.weight' is lazy", "call the network once"),
        (lambda: nn.LazyBatchNorm2d(), "'2.weight' is lazy", "call the network once"),
    ],
)
def test_a_layer_without_a_plain_float_weight_is_refused_by_name(
    make: Callable[[], nn.Module], what: str, remedy: str
) -> None:
    words = refusal(make())
    assert what in words
    assert remedy in words


def test_integer_weights_are_refused_by_name() -> None:
    layer = nn.Conv2d(3, 3, 3)
    layer.weight = nn.Parameter(torch.ones(3, 3, 3, 3, dtype=torch.int8), requires_grad=False)
    assert "layer '2' (Conv2d) has weights of type torch.int8, and only floats" in refusal(layer)


def test_what_the_refusal_says_to_do_helps() -> None:
    layer = remove_spectral_norm(spectral_norm(nn.Conv2d(3, 3, 3)))
    other = parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
    parametrize.remove_parametrizations(other, "weight")
    plain = nn.Sequential(layer, other)
    network = PiggybackNetwork(plain)
    network.add_task("one")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(x), plain(x))


def test_fused_layers_of_floats_have_filter_banks() -> None:
    network = PiggybackNetwork(with_a(intrinsic.ConvReLU2d(nn.Conv2d(3, 3, 3), nn.ReLU())))
    assert set(network.layouts) == {"0", "2.0"}


def test_tied_conv_weights_are_refused_by_name() -> None:
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(PiggybackError, match="'0' and '1' share one weight"):
        PiggybackNetwork(tied)


def test_a_network_that_has_filter_banks_already_is_refused() -> None:
    network = PiggybackNetwork(nn.Conv2d(3, 3, 3))
    network.add_task("one")
    with pytest.raises(PiggybackError, match="has filter banks already: wrap the plain module"):
        PiggybackNetwork(network)


def test_layers_that_are_no_convolutions_may_be_parametrized() -> None:
    network = PiggybackNetwork(
        nn.Sequential(nn.Conv1d(3, 3, 1), parametrizations.weight_norm(nn.Linear(4, 4)))
    )
    network.add_task("one")
    network(torch.zeros(1, 3, 4)).sum().backward()
    network.finish_task()
    assert network.fold("one")(torch.zeros(1, 3, 4)).shape == (1, 3, 4)
