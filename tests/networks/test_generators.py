"""Claims about the generators: the public network's structure, sizes, gradients, initial weights."""

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piggyback_gan import GeneratorOptions, PiggybackError
from piggyback_gan.networks.config import GENERATOR_NAMES, INITS, NORMS, GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.networks.layers import init_weights

RESNETS = [name for name in GENERATOR_NAMES if name.startswith("resnet")]


def tiny(name: str, **fields: object) -> GeneratorConfig:
    return GeneratorConfig(**{"name": name, "ngf": 2, **fields})


def full_size(config: GeneratorConfig) -> nn.Module:
    """The network without storage: for its keys and shapes."""
    with torch.device("meta"):
        return build_generator(config)


def weight_and_bias(*layers: str) -> list[str]:
    return [f"{layer}.{field}" for layer in layers for field in ("weight", "bias")]


def conv_weights(network: nn.Module) -> int:
    convs = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    return sum(conv.weight.numel() for conv in convs)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# --- structure ---


@pytest.mark.parametrize(("dropout", "second"), [(False, 5), (True, 6)])
def test_resnet_9_has_the_keys_of_the_public_network(dropout: bool, second: int) -> None:
    blocks = [f"model.{n}.conv_block.{conv}" for n in range(10, 19) for conv in (1, second)]
    outside = ("model.19", "model.22", "model.26")
    expected = weight_and_bias("model.1", "model.4", "model.7", *blocks, *outside)
    assert list(full_size(GeneratorConfig(dropout=dropout)).state_dict()) == expected
    assert len(expected) == 48


def test_resnet_6_has_three_blocks_fewer() -> None:
    keys = list(full_size(GeneratorConfig(name="resnet-6")).state_dict())
    assert len(keys) == 36
    assert "model.15.conv_block.5.weight" in keys
    assert keys[-6:] == weight_and_bias("model.16", "model.19", "model.23")


def test_a_batch_norm_resnet_has_biases_on_its_last_conv_only() -> None:
    state = full_size(GeneratorConfig(norm="batch")).state_dict()
    norms = {key.removesuffix(".running_mean") for key in state if key.endswith("running_mean")}
    biases = {key.removesuffix(".bias") for key in state if key.endswith(".bias")}
    assert {"model.2", "model.5", "model.8", "model.20", "model.23"} < norms
    assert {"model.10.conv_block.2", "model.10.conv_block.6"} < norms
    assert biases - norms == {"model.26"}
    assert len(state) == 24 + 1 + 5 * 23  # convs, a bias, norms


def test_resnet_9_has_the_shapes_of_the_public_network() -> None:
    config = GeneratorConfig(input_channels=1, output_channels=2)
    shapes = {key: tuple(value.shape) for key, value in full_size(config).state_dict().items()}
    assert shapes["model.1.weight"] == (64, 1, 7, 7)
    assert shapes["model.4.weight"] == (128, 64, 3, 3)
    assert shapes["model.7.weight"] == (256, 128, 3, 3)
    assert shapes["model.10.conv_block.1.weight"] == (256, 256, 3, 3)
    assert shapes["model.19.weight"] == (256, 128, 3, 3)
    assert shapes["model.22.weight"] == (128, 64, 3, 3)
    assert shapes["model.26.weight"] == (2, 64, 7, 7)


def unet_convs(levels: int) -> list[str]:
    """The public U-Net's convolutions in state_dict order: down the levels, then up again."""
    inner = ["model.model.1" + ".model.3" * n + ".model" for n in range(levels - 1)]
    down = ["model.model.0", *(f"{level}.1" for level in inner)]
    up = [f"{level}.5" for level in inner[:-1]] + [f"{inner[-1]}.3"]
    return [*down, *reversed(up), "model.model.3"]


@pytest.mark.parametrize(("name", "levels"), [("unet-64", 6), ("unet-128", 7), ("unet-256", 8)])
@pytest.mark.parametrize("dropout", [False, True])
def test_a_unet_has_the_keys_of_the_public_network(name: str, levels: int, dropout: bool) -> None:
    keys = list(full_size(GeneratorConfig(name=name, dropout=dropout)).state_dict())
    assert keys == weight_and_bias(*unet_convs(levels))
    assert len(keys) == 4 * levels


def test_a_batch_norm_unet_has_the_keys_of_the_public_network() -> None:
    state = full_size(GeneratorConfig(name="unet-256", norm="batch")).state_dict()
    norms = {key.removesuffix(".running_mean") for key in state if key.endswith("running_mean")}
    biases = {key.removesuffix(".bias") for key in state if key.endswith(".bias")}
    innermost = "model.model.1" + ".model.3" * 6 + ".model"
    assert {"model.model.1.model.2", "model.model.1.model.6"} < norms
    assert f"{innermost}.4" in norms and f"{innermost}.2" not in norms
    assert biases - norms == {"model.model.3"}
    assert len(state) == 16 + 1 + 5 * 13 == 82  # convs, a bias, norms


def test_unet_256_has_the_shapes_of_the_public_network() -> None:
    config = GeneratorConfig(name="unet-256", input_channels=1, output_channels=2)
    state = full_size(config).state_dict()
    shapes = [tuple(state[f"{conv}.weight"].shape[:2]) for conv in unet_convs(8)]
    down = [(64, 1), (128, 64), (256, 128), (512, 256)] + 4 * [(512, 512)]
    up = [(512, 512)] + 3 * [(1024, 512)] + [(1024, 256), (512, 128), (256, 64), (128, 2)]
    assert shapes == down + up


def test_dropout_is_in_every_resnet_block_and_in_the_middle_of_the_unet() -> None:
    counts = {"resnet-6": 6, "resnet-9": 9, "unet-64": 1, "unet-128": 2, "unet-256": 3}
    for name, count in counts.items():
        for dropout in (False, True):
            network = full_size(tiny(name, dropout=dropout))
            found = [m for m in network.modules() if isinstance(m, nn.Dropout)]
            assert [m.p for m in found] == [0.5] * (count if dropout else 0)
    places = dict(full_size(tiny("unet-256", dropout=True)).named_modules())
    for depth in (3, 4, 5):
        assert isinstance(places["model.model.1" + ".model.3" * depth + ".model.7"], nn.Dropout)


def test_parameter_counts_are_the_published_ones() -> None:
    resnet = full_size(GeneratorConfig())
    unet = full_size(GeneratorConfig(name="unet-256", norm="batch"))
    assert round(conv_weights(resnet) / 1e6, 3) == 11.373
    assert round(conv_weights(unet) / 1e6, 3) == 54.404
    # What the public code prints for its CycleGAN and pix2pix defaults.
    assert round(parameters(resnet) / 1e6, 3) == 11.378
    assert round(parameters(unet) / 1e6, 3) == 54.414


# --- what it computes ---


def plain_resnet(state: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """The norm-free ResNet written out, with no in-place step."""

    def padded(x: Tensor, layer: str, pad: int) -> Tensor:
        x = F.pad(x, [pad] * 4, mode="reflect")
        return F.conv2d(x, state[f"{layer}.weight"], state.get(f"{layer}.bias"))

    x = F.relu(padded(images, "model.1", 3))
    for n in (4, 7):
        x = F.relu(F.conv2d(x, state[f"model.{n}.weight"], stride=2, padding=1))
    for n in range(10, 10 + blocks):
        inner = F.relu(padded(x, f"model.{n}.conv_block.1", 1))
        x = x + padded(inner, f"model.{n}.conv_block.5", 1)
    for n in (10 + blocks, 13 + blocks):
        weight = state[f"model.{n}.weight"]
        x = F.relu(F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1))
    return torch.tanh(padded(x, f"model.{17 + blocks}", 3))


def plain_unet(state: dict[str, Tensor], images: Tensor, levels: int) -> Tensor:
    """The norm-free U-Net written out, with no in-place step: skips carry what the convs made."""
    weights = [state[f"{conv}.weight"] for conv in unet_convs(levels)]
    x = F.conv2d(images, weights[0], stride=2, padding=1)
    skips = []
    for weight in weights[1:levels]:
        skips.append(x)
        x = F.conv2d(F.leaky_relu(x, 0.2), weight, stride=2, padding=1)
    for weight in weights[levels:-1]:
        x = F.conv_transpose2d(F.relu(x), weight, stride=2, padding=1)
        x = torch.cat([skips.pop(), x], dim=1)
    bias = state["model.model.3.bias"]
    return torch.tanh(F.conv_transpose2d(F.relu(x), weights[-1], bias, stride=2, padding=1))


@pytest.mark.parametrize(
    ("name", "plain", "depth"), [("resnet-6", plain_resnet, 6), ("unet-64", plain_unet, 6)]
)
def test_output_and_gradients_are_those_of_the_written_out_network(
    name: str, plain: Callable[[dict[str, Tensor], Tensor, int], Tensor], depth: int
) -> None:
    torch.manual_seed(0)
    network = build_generator(tiny(name, norm="none", init="kaiming")).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.double) * 2 - 1
    before = images.clone()
    probe = torch.randn(2, 3, 64, 64, dtype=torch.double)
    state = dict(network.named_parameters())

    output, expected = network(images), plain(state, images, depth)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    assert output.std() > 0.01
    assert torch.equal(images, before)
    found = torch.autograd.grad((output * probe).sum(), list(state.values()))
    wanted = torch.autograd.grad((expected * probe).sum(), list(state.values()))
    for mine, written_out in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, written_out, rtol=1e-8, atol=1e-8)
        assert mine.abs().max() > 1e-6


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["resnet-6", "unet-64"])
def test_every_weight_gets_a_gradient(name: str, norm: str) -> None:
    torch.manual_seed(0)
    config = tiny(name, norm=norm, dropout=True, init="kaiming")
    network = build_generator(config)
    network(torch.rand(2, 3, 64, 64) * 2 - 1).sub(0.5).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if parameter.dim() == 4:
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", GENERATOR_NAMES)
def test_minimum_size_and_its_neighbour_multiple_keep_their_size(name: str, norm: str) -> None:
    config = tiny(name, ngf=1, norm=norm, input_channels=1, output_channels=4)
    network = build_generator(config)
    height, width = config.minimum_size, config.minimum_size + config.size_multiple
    with torch.no_grad():
        assert network(torch.zeros(1, 1, height, height)).shape == (1, 4, height, height)
        output = network(torch.rand(1, 1, height, width) * 2 - 1)
    assert output.shape == (1, 4, height, width)
    assert output.abs().max() <= 1


@pytest.mark.parametrize("name", GENERATOR_NAMES)
def test_a_multiple_below_the_minimum_size_is_too_small(name: str) -> None:
    config = tiny(name, ngf=1)
    network = build_generator(config)
    assert config.minimum_size % config.size_multiple == 0
    # A U-Net's minimum is one multiple: there the next smaller size is half of that.
    smaller = config.minimum_size - 4 if name in RESNETS else config.minimum_size // 2
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.zeros(1, 3, smaller, config.minimum_size))


@pytest.mark.parametrize("name", ["resnet-6", "unet-64"])
def test_a_size_off_the_multiple_does_not_come_back(name: str) -> None:
    config = tiny(name, ngf=1)
    size = config.minimum_size + config.size_multiple // 2
    try:
        output = build_generator(config)(torch.zeros(1, 3, size, size))
    except RuntimeError:
        return
    assert output.shape[-1] != size


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = build_generator(tiny("resnet-6", dropout=True, init="kaiming"))
    images = torch.rand(1, 3, 16, 16)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


# --- initial weights ---


def test_the_global_seed_decides_the_weights() -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_generator(tiny("unet-64")).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["model.model.0.weight"], other["model.model.0.weight"])


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 48, 3), nn.ConvTranspose2d(64, 48, 3)])
def test_init_schemes_have_their_standard_deviations(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    torch.manual_seed(0)
    fan_in, fan_out = layer.weight.shape[1] * 9, layer.weight.shape[0] * 9
    expected = {
        "normal": 0.02,
        "xavier": 0.02 * math.sqrt(2 / (fan_in + fan_out)),
        "kaiming": math.sqrt(2 / fan_in),
    }
    for init, deviation in expected.items():
        nn.init.ones_(layer.bias)
        init_weights(layer, init)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.03 * deviation)
        assert not layer.bias.any()


def test_orthogonal_init_makes_orthogonal_filters_of_length_one_fiftieth() -> None:
    for layer in (nn.Conv2d(8, 6, 3), nn.Linear(20, 6)):
        init_weights(layer, "orthogonal")
        filters = layer.weight.detach().flatten(1)
        torch.testing.assert_close(filters @ filters.T, 0.02**2 * torch.eye(6))
        assert not layer.bias.any()


def test_batch_norm_starts_near_one() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4000)
    nn.init.ones_(norm.bias)
    init_weights(norm, "normal")
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.002)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not norm.bias.any()


@pytest.mark.parametrize("init", INITS)
def test_a_generator_is_initialised_as_its_config_says(init: str) -> None:
    torch.manual_seed(0)
    network = build_generator(tiny("resnet-6", ngf=16, init=init))
    weight = network.get_submodule("model.7").weight
    assert weight.shape == (64, 32, 3, 3)
    deviation = {
        "normal": 0.02,
        "xavier": 0.02 * math.sqrt(2 / (9 * (32 + 64))),
        "kaiming": math.sqrt(2 / (9 * 32)),
        "orthogonal": 0.02 / math.sqrt(9 * 32),
    }[init]
    assert weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert not any(p.any() for key, p in network.named_parameters() if key.endswith("bias"))


# --- config ---


def test_a_config_survives_a_json_file() -> None:
    config = GeneratorConfig(name="unet-128", norm="batch", dropout=True, ngf=8)
    assert GeneratorConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "name",
            "resnet",
            "unknown generator: found 'resnet', choose one of resnet-6, resnet-9, unet",
        ),
        ("norm", "group", "unknown norm: found 'group', choose one of instance, batch, none"),
        (
            "init",
            None,
            "unknown init: found None, choose one of normal, xavier, kaiming, orthogonal",
        ),
        ("dropout", 0.5, "invalid dropout: found 0.5, give True or False"),
        ("input_channels", 0, "invalid input_channels: found 0, give an integer from 1 to 65536"),
        ("output_channels", True, "invalid output_channels: found True, give an integer"),
        ("ngf", 64.0, "invalid ngf: found 64.0, give an integer from 1 to 65536"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        GeneratorConfig(**{field: value})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_options_that_exclude_each_other_are_refused_when_the_bank_is_made_not_before() -> None:
    """A file may set one of two options, and the command line the other."""
    of_file = GeneratorOptions(generator="unet-256", antialias="up")
    with pytest.raises(PiggybackError, match="unet-256 has no anti-alias layers"):
        of_file.for_new_bank(256)
    assert dataclasses.replace(of_file, generator="resnet-9").for_new_bank(256).antialias == "up"
