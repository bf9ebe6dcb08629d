"""Claims about the discriminators: the public network's structure, patches, sizes, gradients."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from piggyback_gan.networks.config import DISCRIMINATOR_NAMES, NORMS, DiscriminatorConfig
from piggyback_gan.networks.discriminators import build_discriminator


def full_size(config: DiscriminatorConfig) -> nn.Module:
    """The network without storage: for its keys and shapes."""
    with torch.device("meta"):
        return build_discriminator(config)


def weight_and_bias(*layers: str) -> list[str]:
    return [f"{layer}.{field}" for layer in layers for field in ("weight", "bias")]


def test_the_patch_discriminator_has_the_keys_of_the_public_network() -> None:
    state = full_size(DiscriminatorConfig()).state_dict()
    assert list(state) == weight_and_bias("model.0", "model.2", "model.5", "model.8", "model.11")
    shapes = [tuple(value.shape) for key, value in state.items() if key.endswith("weight")]
    channels = [(64, 6), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert shapes == [(*pair, 4, 4) for pair in channels]


def test_with_batch_norm_only_the_first_and_last_patch_convs_have_biases() -> None:
    state = full_size(DiscriminatorConfig(norm="batch")).state_dict()
    norms = {key.removesuffix(".running_mean") for key in state if key.endswith("running_mean")}
    biases = {key.removesuffix(".bias") for key in state if key.endswith(".bias")}
    assert norms == {"model.3", "model.6", "model.9"}
    assert biases - norms == {"model.0", "model.11"}
    assert len(state) == 22


def test_the_pixel_discriminator_has_the_keys_of_the_public_network() -> None:
    state = full_size(DiscriminatorConfig(name="pixel")).state_dict()
    assert list(state) == weight_and_bias("net.0", "net.2", "net.5")
    assert [tuple(state[f"net.{n}.weight"].shape) for n in (0, 2, 5)] == [
        (64, 6, 1, 1),
        (128, 64, 1, 1),
        (1, 128, 1, 1),
    ]
    batch = list(full_size(DiscriminatorConfig(name="pixel", norm="batch")).state_dict())
    assert [key for key in batch if not key.startswith("net.3.")] == [
        "net.0.weight",
        "net.0.bias",
        "net.2.weight",
        "net.5.weight",
    ]


def test_parameter_counts_are_the_published_ones() -> None:
    def millions(config: DiscriminatorConfig) -> float:
        return round(sum(p.numel() for p in full_size(config).parameters()) / 1e6, 3)

    # What the public code prints for its CycleGAN and pix2pix defaults.
    assert millions(DiscriminatorConfig(input_channels=3)) == 2.765
    assert millions(DiscriminatorConfig(input_channels=6, norm="batch")) == 2.769


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_score_sees_a_square_patch_and_nothing_else(layers: int, patch: int) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(ndf=1, layers=layers, norm="none", init="kaiming")
    network = build_discriminator(config).double()
    images = torch.randn(1, 6, 256, 256, dtype=torch.double, requires_grad=True)
    scores = network(images)
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], images)
    rows, columns = gradient[0].abs().sum(0).nonzero().T
    assert rows.max() - rows.min() + 1 == patch
    assert columns.max() - columns.min() + 1 == patch


def test_a_pixel_score_sees_one_pixel() -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(name="pixel", ndf=2, norm="none", init="kaiming")
    images = torch.randn(1, 6, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(build_discriminator(config)(images)[0, 0, 3, 5], images)
    assert gradient[0].abs().sum(0).nonzero().tolist() == [[3, 5]]


def test_256_pixels_give_30_by_30_patch_scores_and_one_score_for_each_pixel() -> None:
    images = torch.zeros(1, 6, 256, 256)
    with torch.no_grad():
        patch = build_discriminator(DiscriminatorConfig(ndf=1))(images)
        pixel = build_discriminator(DiscriminatorConfig(name="pixel", ndf=1))(images)
        one = build_discriminator(DiscriminatorConfig(name="pixel", ndf=1, norm="none"))
    assert patch.shape == (1, 1, 30, 30)
    assert pixel.shape == (1, 1, 256, 256)
    assert one(torch.zeros(1, 6, 1, 1)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 3, 4])
def test_patch_scores_have_the_documented_size_from_the_documented_minimum(
    layers: int, norm: str
) -> None:
    network = build_discriminator(DiscriminatorConfig(ndf=1, layers=layers, norm=norm))
    minimum = 3 * 2**layers
    with torch.no_grad():
        assert network(torch.zeros(2, 6, minimum, minimum)).shape == (2, 1, 1, 1)
        odd = network(torch.zeros(2, 6, minimum + 1, 2 * minimum + 3))
        assert odd.shape == (2, 1, 1, (2 * minimum + 3) // 2**layers - 2)
        with pytest.raises((RuntimeError, ValueError)):
            network(torch.zeros(2, 6, minimum - 1, minimum - 1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", DISCRIMINATOR_NAMES)
def test_every_weight_and_the_image_get_a_gradient(name: str, norm: str) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(name=name, ndf=2, input_channels=1, norm=norm, init="kaiming")
    network = build_discriminator(config)
    images = torch.randn(2, 1, 32, 32, requires_grad=True)
    before = images.detach().clone()
    network(images).sub(1).square().mean().backward()
    assert torch.equal(images.detach(), before)
    assert images.grad is not None and images.grad.abs().max() > 0
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if parameter.dim() == 4:
            assert parameter.grad.abs().max() > 0, key


def test_weights_start_as_normal_noise_decided_by_the_global_seed() -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_discriminator(DiscriminatorConfig(ndf=16)).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["model.8.weight"], other["model.8.weight"])
    assert first["model.8.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    assert not first["model.0.bias"].any()


def test_a_config_survives_a_json_file() -> None:
    config = DiscriminatorConfig(name="pixel", norm="batch", ndf=8)
    assert DiscriminatorConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "basic", "unknown discriminator: found 'basic', choose one of patch, pixel"),
        ("norm", "group", "unknown norm: found 'group', choose one of instance, batch, none"),
        ("init", "zero", "unknown init: found 'zero', choose one of normal, xavier, kaiming"),
        ("layers", 0, "invalid layers: found 0, give an integer from 1 to 65536"),
        ("ndf", "64", "invalid ndf: found '64', give an integer from 1 to 65536"),
        ("input_channels", -3, "invalid input_channels: found -3, give an integer from 1 to 65536"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        DiscriminatorConfig(**{field: value})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
