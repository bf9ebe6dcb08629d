"""ONNX files: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.export.contract import CONTRACT_KEY, INPUT_NAME, OUTPUT_NAME, ImageContract

OPSET = 20
_AXES = ("batch", None, "height", "width")


class OnnxGenerator(nn.Module):
    """A generator in an ONNX file, run by onnxruntime.

    Args:
        path: the file.
        device: "cpu", "cuda", or "auto": what onnxruntime has here.

    Raises:
        PiggybackError: onnxruntime is missing or has no such device, or it can't run the
            file.
    """

    output_channels: int | None = None
    """Channels that outputs must have, if known."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__()
        runtime = require("onnxruntime")
        if not path.is_file():
            raise PiggybackError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
        there = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
        providers = [p for p in there.values() if p in runtime.get_available_providers()]
        if device != "auto":
            if there.get(device) not in providers:
                raise PiggybackError(f"onnxruntime has no {device} device here: choose auto or cpu")
            providers = [there[device]]
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are for its makers
        options.intra_op_num_threads = torch.get_num_threads()  # it knows of no OMP_NUM_THREADS
        try:
            self._session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # noqa: BLE001 - its errors have no class in common
            raise PiggybackError(
                f"{path} can't be run by onnxruntime: {error_line(error)}"
            ) from None

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata."""
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Translate (B, C, H, W) in [-1, 1].

        Raises:
            PiggybackError: onnxruntime can't, or no images of this size come out.
        """
        try:
            given = {INPUT_NAME: images.contiguous().numpy()}
            output = self._session.run([OUTPUT_NAME], given)[0]
        except Exception as error:  # noqa: BLE001 - as above
            raise PiggybackError(
                f"onnxruntime can't run the network: {error_line(error)}"
            ) from None
        if not self._fits(output, images.shape):
            found = (
                f"{getattr(output, 'dtype', type(output).__name__)} {getattr(output, 'shape', '')}"
            )
            raise PiggybackError(
                f"the ONNX network should give float32 ({len(images)}, {self.output_channels or 'C'}, "
                f"{images.shape[2]}, {images.shape[3]}); found {found}"
            )
        return torch.from_numpy(output)

    def _fits(self, output: object, given: torch.Size) -> bool:
        """Return whether outputs are images of the inputs' size."""
        if not isinstance(output, np.ndarray) or output.dtype != np.float32 or output.ndim != 4:
            return False
        channels = self.output_channels or output.shape[1]
        return bool(output.shape == (given[0], channels, *given[2:]))


def write_onnx(program: ExportedProgram, contract: ImageContract, path: Path) -> None:
    """Write a program of one input and one output as an ONNX file with the contract in its metadata."""
    onnx = require("onnx")
    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=True):
            if name:
                axis.dim_param = name
    # The exporter's own names for these axes would be left in it.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def open_onnx(path: Path, device: str = "cpu") -> tuple[OnnxGenerator, ImageContract]:
    """Open a generator that `pbgan export` wrote, and its contract.

    Raises:
        PiggybackError: as `OnnxGenerator`, or another program wrote it.
    """
    generator = OnnxGenerator(path, device)
    text = generator.metadata.get(CONTRACT_KEY)
    if text is None:
        raise PiggybackError(
            f"{path} has no image contract: only ONNX files of pbgan export can be translated with"
        )
    try:
        contract = ImageContract.from_json(text)
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}") from None
    generator.output_channels = contract.output.channels
    return generator, contract


def require(module: str) -> Any:
    """Import a module of the export extra.

    Some builds of onnxruntime send telemetry: it is disabled before the import, unless
    ORT_DISABLE_TELEMETRY is set.

    Raises:
        PiggybackError: it is missing or can't be imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PiggybackError(
            f"ONNX needs {module}, which can't be imported ({error_line(error)}): pip install "
            "'piggyback-gan[export]'"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log lines of torch's exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
