"""Export formats: how each writes a folded generator and reads it back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as fx_config

from piggyback_gan.core.filter_banks import STORED_TYPES
from piggyback_gan.errors import PiggybackError
from piggyback_gan.export.contract import CONTRACT_KEY, ImageContract
from piggyback_gan.export.onnx_file import OnnxGenerator, quiet, require, write_onnx
from piggyback_gan.export.triton import (
    CLIENT,
    CONFIG,
    MODEL,
    MODEL_NAMES,
    is_model_folder,
    model_config,
)
from piggyback_gan.export.usage import usage_example
from piggyback_gan.names import ExportFormat
from piggyback_gan.networks.generators import build_outline

_CONTRACT_FILE = "image_contract.json"  # in archives that hold files

Write = Callable[[nn.Module, ImageContract, Path], None]
Read = Callable[[Path, ImageContract], nn.Module]


@dataclass(frozen=True)
class Companion:
    """A text file that is written with an export."""

    ending: str
    """End of its path, after the export's path: ".py" is beside a file, "/x" in a folder."""
    says: str
    text: Callable[[ImageContract, str], str]
    """(contract, name of the export) -> its text."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One export format: a file, or a folder with a model file.

    Attributes:
        suffix: of the export's default path.
        write: (generator in float32, contract, file): writes it in the contract's precision.
        read: (file, contract) -> a module that runs the file, with float32 inputs and outputs.
        companions: further files: the example first, and the contract where the format can't store it.
        file: the model file in a folder, as an ending of the folder's path.
        is_onnx: whether that is an ONNX file.
        names: regular expression of names that its readers accept.
        names_rule: the same for users.
        replaces: whether an export may overwrite the existing path.
    """

    suffix: str
    write: Write
    read: Read
    companions: tuple[Companion, ...]
    file: str = ""
    is_onnx: bool = False
    names: str = "(?s).+"
    names_rule: str = ""
    replaces: Callable[[Path], bool] = Path.is_file


class _Narrow(nn.Module):
    """A network that computes in another dtype, with float32 inputs and outputs."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.network(images.to(self.dtype))
        return output.float()


def _graph(generator: nn.Module, contract: ImageContract) -> nn.Module:
    """Return the module to write, in the contract's precision."""
    # What is to be in 8 bits is so only when it is written.
    dtype = STORED_TYPES.get(contract.precision, torch.float32)
    return generator if dtype == torch.float32 else _Narrow(generator, dtype).eval()


def _example(contract: ImageContract) -> Tensor:
    """Return an example input; no size in it is 1, which exporters would take for a constant."""
    multiple, least = contract.generator.size_multiple, contract.generator.minimum_size
    return torch.zeros(2, contract.input.channels, 2 * least, 2 * least + multiple)


def _program(generator: nn.Module, contract: ImageContract) -> ExportedProgram:
    """Export the generator for any batch size and any valid height and width."""
    multiple, least = contract.generator.size_multiple, contract.generator.minimum_size
    height, width = (multiple * Dim(n, min=least // multiple) for n in ("rows", "columns"))
    axes = {0: Dim("batch", min=1), 2: height, 3: width}
    # Else the smallest size, whose innermost feature map is of one pixel in a U-Net, is ruled out.
    one_is_no_other_size = fx_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with quiet(), torch.no_grad(), one_is_no_other_size:
        return torch.export.export(
            _graph(generator, contract), (_example(contract),), dynamic_shapes=(axes,)
        )


def _write_onnx(generator: nn.Module, contract: ImageContract, path: Path) -> None:
    if contract.precision == "bf16":
        raise PiggybackError(
            "onnxruntime can't compute in bf16 on a CPU, so that nothing could be checked: choose fp16, or "
            "another format"
        )
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module)
    write_onnx(_program(generator, contract), contract, path)


def _write_program(generator: nn.Module, contract: ImageContract, path: Path) -> None:
    with quiet():
        torch.export.save(
            _program(generator, contract), path, extra_files={_CONTRACT_FILE: contract.to_json()}
        )


def _read_program(path: Path, contract: ImageContract) -> nn.Module:
    with quiet():
        module = torch.export.load(path).module()
    assert isinstance(module, nn.Module)
    return module


def _write_script(generator: nn.Module, contract: ImageContract, path: Path) -> None:
    with quiet(), torch.no_grad():
        # Not scripted: that takes a subset of Python, and a generator may be anybody's.
        script = torch.jit.trace(  # type: ignore[no-untyped-call]
            _graph(generator, contract), _example(contract), check_trace=False
        )
        torch.jit.save(script, path, _extra_files={_CONTRACT_FILE: contract.to_json()})


def _read_script(path: Path, contract: ImageContract) -> nn.Module:
    with quiet():
        script: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return script


def _weights(generator: nn.Module, contract: ImageContract) -> dict[str, Tensor]:
    dtype = STORED_TYPES[contract.precision]
    return {
        key: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor
        for key, tensor in generator.state_dict().items()
    }


def _with_weights(contract: ImageContract, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a network from these weights alone, as a reader of the file does."""
    network = build_outline(contract.generator)
    widened = {k: t.float() if t.is_floating_point() else t for k, t in weights.items()}
    network.load_state_dict(widened, assign=True)
    return network.eval()


def _write_safetensors(generator: nn.Module, contract: ImageContract, path: Path) -> None:
    metadata = {CONTRACT_KEY: contract.to_json()}
    path.write_bytes(safetensors.torch.save(_weights(generator, contract), metadata))


def _use(format: ExportFormat, ending: str = ".py") -> Companion:
    return Companion(
        ending, "an example program that does not need this library", partial(usage_example, format)
    )


FORMATS: Mapping[ExportFormat, Format] = {
    "safetensors": Format(
        suffix=".safetensors",
        write=_write_safetensors,
        read=lambda path, contract: _with_weights(contract, safetensors.torch.load_file(path)),
        companions=(_use("safetensors"),),
    ),
    "onnx": Format(
        suffix=".onnx",
        write=_write_onnx,
        read=lambda path, contract: OnnxGenerator(path),
        companions=(_use("onnx"),),
        is_onnx=True,
    ),
    "torch-export": Format(
        suffix=".pt2",
        write=_write_program,
        read=_read_program,
        companions=(_use("torch-export"),),
        names=r"(?s).+\.pt2",
        names_rule="torch reads torch-export files that end in .pt2 alone",
    ),
    "torchscript": Format(
        suffix=".ts",
        write=_write_script,
        read=_read_script,
        companions=(_use("torchscript"),),
    ),
    "state-dict": Format(
        suffix=".pth",
        write=lambda generator, contract, path: torch.save(_weights(generator, contract), path),
        read=lambda path, contract: _with_weights(
            contract, torch.load(path, map_location="cpu", weights_only=True)
        ),
        companions=(
            _use("state-dict"),
            Companion(
                ".json",
                "the format of its images",
                lambda contract, name: contract.to_json() + "\n",
            ),
        ),
    ),
    "triton": Format(
        suffix="",
        write=_write_onnx,
        read=lambda path, contract: OnnxGenerator(path),
        companions=(
            _use("triton", f"/{CLIENT}"),
            Companion(f"/{CONFIG}", "what Triton and its users must know", model_config),
        ),
        file=f"/{MODEL}",
        is_onnx=True,
        names=MODEL_NAMES,
        names_rule="the folder's name is the model's: a letter or a digit, then these, '.', '_' and '-'",
        replaces=is_model_folder,
    ),
}
