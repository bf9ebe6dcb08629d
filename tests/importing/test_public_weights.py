"""Claims about files of the public CycleGAN, pix2pix and CUT code: recognised, equal in output, or refused."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piggyback_gan.errors import PiggybackError
from piggyback_gan.importing.public_weights import read_generator, same_modules
from piggyback_gan.networks.config import DiscriminatorConfig, GeneratorConfig
from piggyback_gan.networks.discriminators import build_discriminator
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.networks.layers import BlurDown, BlurUp
from piggyback_gan.networks.options import GeneratorOptions

CONFIGS = [
    GeneratorConfig(name="resnet-9", ngf=4),
    GeneratorConfig(name="resnet-6", ngf=4, norm="batch"),
    GeneratorConfig(name="resnet-6", ngf=4, norm="batch", dropout=True),
    GeneratorConfig(name="resnet-9", ngf=4, dropout=True, input_channels=1, output_channels=5),
    GeneratorConfig(name="resnet-6", ngf=4, norm="none"),
    GeneratorConfig(name="resnet-9", ngf=4, antialias="both"),
    GeneratorConfig(name="resnet-6", ngf=4, antialias="down", norm="batch"),
    GeneratorConfig(name="resnet-6", ngf=4, antialias="up", dropout=True),
    GeneratorConfig(name="unet-64", ngf=4, norm="none"),
    GeneratorConfig(name="unet-128", ngf=4, norm="batch", input_channels=4),
    GeneratorConfig(name="unet-256", ngf=4, output_channels=1),
]


def network(config: GeneratorConfig) -> nn.Module:
    """A generator whose running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    generator = build_generator(config)
    with torch.no_grad():
        generator.train()(torch.randn(2, config.input_channels, 256, 256))
    return generator.eval()


def save(tensors: dict[str, Any], path: Path, **options: Any) -> Path:
    torch.save(tensors, path, **options)
    return path


def refusal(path: Path, options: GeneratorOptions | None = None) -> str:
    with pytest.raises(PiggybackError) as caught:
        read_generator(path, options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path)).lstrip(": ")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.norm}")
def test_a_file_gives_the_architecture_and_the_outputs_of_the_network_that_it_was_saved_from(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    original = network(config)
    read = read_generator(save(original.state_dict(), tmp_path / "latest_net_G.pth"))
    assert read.config == config
    images = torch.randn(2, config.input_channels, 256, 256)
    assert torch.equal(read.module(images), original(images))
    assert not read.module.training and all(p.requires_grad for p in read.module.parameters())


@pytest.mark.parametrize("way", ["legacy", "wrapped", "nested", "half", "safetensors"])
def test_it_does_not_matter_how_a_state_dict_was_saved(way: str, tmp_path: Path) -> None:
    original, path = network(CONFIGS[1]), tmp_path / "G.pth"
    tensors: dict[str, Any] = original.state_dict()
    match way:
        case "legacy":
            save(tensors, path, _use_new_zipfile_serialization=False)
        case "wrapped":
            save({f"module.{key}": t for key, t in tensors.items()}, path)
        case "nested":
            save({"epoch": 3, "state_dict": tensors}, path)
        case "half":
            original.half().float()
            save({k: t.half() if t.is_floating_point() else t for k, t in tensors.items()}, path)
        case "safetensors":
            safetensors.torch.save_file(tensors, path)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(read_generator(path).module(images), original(images))


def test_running_statistics_of_old_instance_norms_are_left_out_and_that_is_said(
    tmp_path: Path,
) -> None:
    original = network(CONFIGS[0])
    old = {
        f"{name}.{key}": torch.ones(layer.num_features)
        for name, layer in original.named_modules()
        if isinstance(layer, nn.InstanceNorm2d)
        for key in ("running_mean", "running_var")
    }
    read = read_generator(save({**original.state_dict(), **old}, tmp_path / "G.pth"))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(read.module(images), original(images))
    assert "running statistics" in read.dropped
    assert not read_generator(save(original.state_dict(), tmp_path / "new.pth")).dropped


def test_batch_norms_of_before_torch_0_4_1_have_counted_no_batches(tmp_path: Path) -> None:
    tensors = network(CONFIGS[1]).state_dict()
    old = {k: t for k, t in tensors.items() if not k.endswith("num_batches_tracked")}
    read = read_generator(save(old, tmp_path / "G.pth"))
    assert read.module.state_dict().keys() == tensors.keys()


def test_dropout_in_a_unet_is_told_by_the_user_and_changes_no_names(tmp_path: Path) -> None:
    path = save(network(CONFIGS[9]).state_dict(), tmp_path / "G.pth")
    assert read_generator(path, GeneratorOptions(dropout=True)).config.dropout
    assert not read_generator(path).config.dropout


def test_a_network_with_dropout_is_the_same_one_under_the_names_of_one_without(
    tmp_path: Path,
) -> None:
    original = network(CONFIGS[2])
    read = read_generator(save(original.state_dict(), tmp_path / "G.pth"))
    other = read.as_built(CONFIGS[1])
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(images), original(images))
    assert other.state_dict().keys() == network(CONFIGS[1]).state_dict().keys()
    assert same_modules(CONFIGS[1], CONFIGS[2]) is None
    assert same_modules(CONFIGS[0], CONFIGS[5]) is not None


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    save({"model.1.weight": _Runs(made)}, tmp_path / "zip.pth")
    legacy = tmp_path / "legacy.pth"
    save({"model.1.weight": _Runs(made)}, legacy, _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Runs(made)))
    for path in tmp_path.glob("*.pth"):
        assert refusal(path)
    assert not made.exists()


class _Whole(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 2


def _foreign(kind: str, path: Path) -> None:
    discriminator = build_discriminator(DiscriminatorConfig(ndf=4))
    match kind:
        case "discriminator":
            save(discriminator.state_dict(), path)
        case "checkpoint":
            save({"netG": {"a": torch.ones(1)}, "optimizer": {}, "epoch": 3}, path)
        case "module":
            save(discriminator, path)  # type: ignore[arg-type]
        case "script":
            torch.jit.save(torch.jit.trace(_Whole(), torch.ones(1)), str(path))  # type: ignore[no-untyped-call]
        case "tensor":
            save(torch.ones(3), path)  # type: ignore[arg-type]
        case "blocks":
            tensors = network(CONFIGS[0]).state_dict()
            save({k: t for k, t in tensors.items() if not k.startswith("model.14.")}, path)
        case "shape":
            tensors = network(CONFIGS[0]).state_dict()
            save({**tensors, "model.12.conv_block.1.weight": torch.ones(3, 3)}, path)
        case "nan":
            tensors = network(CONFIGS[0]).state_dict()
            save({**tensors, "model.1.bias": torch.full((4,), torch.nan)}, path)
        case "diffusion":
            save({"down_blocks.0.conv.weight": torch.ones(3, 3)}, path)
        case "page":
            path.write_text("<html>404</html>")
        case "pointer":
            path.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "nothing":
            path.touch()
        case "folder":
            path.mkdir()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("discriminator", "discriminator"),
        ("checkpoint", "whole training's checkpoint, with netG, optimizer, epoch"),
        ("module", "could run code"),
        ("script", "TorchScript"),
        ("tensor", "contains a torch.Tensor"),
        ("blocks", "ResNet generator of 8 blocks"),
        ("shape", "model.12.conv_block.1.weight: expected (16, 16, 3, 3), found (3, 3)"),
        ("nan", "model.1.bias has values that are not finite"),
        ("diffusion", "diffusion"),
        ("page", "web page"),
        ("pointer", "Git LFS"),
        ("nothing", "is empty"),
        ("folder", "can't be read"),
        ("missing", "can't be read"),
    ],
)
def test_another_file_is_refused_and_what_it_looks_like_is_said(
    kind: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "G.pth"
    _foreign(kind, path)
    assert words in refusal(path)


def test_an_architecture_that_is_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    path = save(network(CONFIGS[0]).state_dict(), tmp_path / "G.pth")
    assert "looks like a resnet-9, ngf 4, batch norm" in refusal(
        path, GeneratorOptions(norm="batch")
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_a_file_that_was_cut_off_anywhere_is_refused(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "G.pth"
    save(network(CONFIGS[4]).state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for size in [1, 2, 10, 100, *range(1000, len(content), len(content) // 20), len(content) - 1]:
        path.write_bytes(content[:size])
        assert re.search("damaged|looks like", refusal(path))


# --- anti-alias layers ---


def test_blurring_up_is_linear_interpolation() -> None:
    features = torch.randn(2, 3, 5, 7)
    expected = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(BlurUp(3)(features), expected)


def test_blurring_down_weighs_neighbours_one_two_one_mirrored_at_borders() -> None:
    features = torch.randn(2, 3, 6, 8)
    padded = torch.cat([features[:, :, 1:2], features, features[:, :, -2:-1]], 2)
    padded = torch.cat([padded[..., 1:2], padded, padded[..., -2:-1]], 3)
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    torch.testing.assert_close(BlurDown(3)(features), both[:, :, ::2, ::2])
