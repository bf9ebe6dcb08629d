"""Banks to export tasks of, and what tests of exported files have in common."""

import contextlib
import runpy
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import fake_triton
from banks import card, evenly, network
from piggyback_gan import Exported, GeneratorConfig
from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.export.contract import CONTRACT_KEY
from piggyback_gan.export.onnx_file import require
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import ExportFormat
from piggyback_gan.networks.config import Architecture, CustomGeneratorConfig
from piggyback_gan.system.user_code import VARIABLE

RESNET = GeneratorConfig(name="resnet-6", ngf=4)
UNET = GeneratorConfig(name="unet-64", ngf=2)
PLAIN = CustomGeneratorConfig(  # a user's own; its export takes half as long as the others'
    name="custom_nets:Nets.plain", arguments={"levels": 2}, size_multiple=4, minimum_size=8
)
EIGHT_BITS = ImageFormat()


def bank_of(
    path: Path,
    config: Architecture = RESNET,
    formats: tuple[ImageFormat, ImageFormat] = (EIGHT_BITS, EIGHT_BITS),
    *,
    unpaired: bool = False,
) -> Bank:
    """A bank of two tasks, the second mixed from the first; every value of theirs is drawn."""
    channels = formats[0].channels, formats[1].channels
    config = replace(config, input_channels=channels[0], output_channels=channels[1])
    bank = open_or_new(path, config)
    networks = {"forward": network(config), "backward": bank.empty_network("backward")}
    for task in ("first", "second"):
        states = []
        for learner in networks.values():
            learner.add_task(task, evenly())
            chance = torch.Generator().manual_seed(len(learner.tasks))
            with torch.no_grad():
                for tensor in learner.trainable_parameters():
                    tensor.add_(torch.randn(tensor.shape, generator=chance), alpha=0.05)
                for name, tensor in learner.module.named_buffers():
                    if name.endswith("running_mean"):
                        tensor.add_(0.1)
            learner.finish_task()
            states.append(learner.task_state(task))
        about = card(networks["forward"], task, unpaired=unpaired, formats=formats)
        with bank.writing("test"):
            bank.add(states[0], about, states[1] if unpaired else None)
    return Bank.open(path)


MIXED = {"name": "custom_nets:Mixed", "size_multiple": 2, "minimum_size": 2}
BANKS = {
    "resnet": RESNET,
    "unet": UNET,
    "batch": replace(UNET, norm="batch", dropout=True),
    "antialias": GeneratorConfig(name="resnet-6", ngf=4, norm="none", antialias="both"),
    "plain": replace(
        PLAIN, arguments={"levels": 2, "width": 32}
    ),  # so wide that a file is mostly weights
}
DEEP = ImageFormat(channels=2, depth="uint16", high=4095.0), ImageFormat(channels=1)


@contextlib.contextmanager
def plain_may_run() -> Iterator[None]:
    """Allow the user's own network in `banks`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, PLAIN.name)
        yield


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


def photograph(path: Path, height: int = 37, width: int = 50) -> Path:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def pixels(path: Path) -> NDArray[np.int64]:
    """As integers that can be subtracted."""
    return np.asarray(Image.open(path)).astype(np.int64)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    session = require("onnxruntime").InferenceSession(path)
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


def run_alone(example: Path, *arguments: Path | str) -> None:
    """Run an example where this library can't be imported."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's
        patch.setitem(sys.modules, "piggyback_gan", None)
        patch.setattr(sys, "argv", [str(example), *map(str, arguments)])
        runpy.run_path(str(example), run_name="__main__")


def run_example(made: Exported, source: Path, out: Path) -> None:
    """Run the example of an export, a folder's with a server that serves it."""
    if made.path.is_dir():
        with fake_triton.serving(made.path.parent) as server:
            run_alone(made.beside[0], source, out, server)
    else:
        run_alone(made.beside[0], source, out)


def stored_contract(path: Path, format: ExportFormat) -> str:
    """The contract as others find it, without this library's readers."""
    if format == "triton":
        (parameter,) = fake_triton.read_config(path).parameters
        assert parameter.key == CONTRACT_KEY
        assert stored_contract(path / "1/model.onnx", "onnx") == parameter.value.string_value
        return str(parameter.value.string_value)
    if format == "onnx":
        return next(p.value for p in onnx.load(path).metadata_props if p.key == CONTRACT_KEY)
    if format == "safetensors":
        with safetensors.safe_open(path, "pt") as file:
            return str(file.metadata()[CONTRACT_KEY])
    if format == "state-dict":
        return path.with_name(f"{path.name}.json").read_text()
    archive = zipfile.ZipFile(path)
    return archive.read(next(n for n in archive.namelist() if "image_contract" in n)).decode()
