"""Quantise an ONNX file to 8 bits, weights and activations, with onnxruntime's static quantisation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.export.contract import INPUT_NAME
from piggyback_gan.export.onnx_file import quiet, require

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def quantize(path: Path, inputs: Iterable[Tensor]) -> None:
    """Replace an ONNX file by one whose convolutions compute in 8 bits, except the first and the last.

    Activations are scaled by their minimum and maximum on `inputs`, weights by output channel. The first and
    the last convolution have few weights: in 8 bits they were slower and hardly smaller.

    Args:
        path: the file.
        inputs: batches (B, C, H, W) in [-1, 1], of sizes that the network takes.
    """
    onnx = require("onnx")
    with quiet():
        quantization = require("onnxruntime.quantization")
        shapes = require("onnxruntime.quantization.shape_inference")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._batches = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT_NAME: batch.numpy()}

    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    prepared = path.with_name("prepared.onnx")
    with quiet():
        # Not all shapes of a graph with free height and width can be inferred.
        shapes.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        convolutions = [node.name for node in nodes if node.op_type in _CONVOLUTIONS]
        if len(convolutions) <= 2:
            raise PiggybackError(
                "int8 leaves the first and the last convolution as they are, and this network has no others"
            )
        quantization.quantize_static(
            prepared,
            path,
            Reader(),
            op_types_to_quantize=list(_CONVOLUTIONS),
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    prepared.unlink()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
