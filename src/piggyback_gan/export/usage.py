"""The example beside an export: a short program that translates an image without this library."""

from collections.abc import Mapping
from typing import NamedTuple

from piggyback_gan.export.contract import INPUT_NAME, OUTPUT_NAME, ImageContract
from piggyback_gan.export.rendering import rendered
from piggyback_gan.images.encode import tiff_options
from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.names import ExportFormat
from piggyback_gan.networks.config import (
    RESNET_BLOCKS,
    UNET_LEVELS,
    Architecture,
    CustomGeneratorConfig,
)

_PILLOW_CHANNELS = (1, 3, 4)
_WEIGHTS = "weights.py.jinja"


class _Way(NamedTuple):
    """How a format's example runs the model; `loaded` is the expression that loads the file."""

    template: str
    modules: tuple[str, ...] = ()
    loaded: str = ""


_WAYS: Mapping[ExportFormat, _Way] = {
    "safetensors": _Way(
        _WEIGHTS, ("torch", "safetensors.torch"), "safetensors.torch.load_file(FILE)"
    ),
    "onnx": _Way("onnx.py.jinja", ("onnxruntime",)),
    "torch-export": _Way("program.py.jinja", ("torch",), "torch.export.load(FILE).module()"),
    "torchscript": _Way("program.py.jinja", ("torch",), "torch.jit.load(FILE)"),
    "state-dict": _Way(_WEIGHTS, ("torch",), "torch.load(FILE, weights_only=True)"),
    "triton": _Way("triton.py.jinja"),
}


def usage_example(format: ExportFormat, contract: ImageContract, file: str) -> str:
    """Return the example program for a file or folder of this name."""
    way = _WAYS[format]
    generator = contract.generator
    return rendered(
        way.template,
        task=contract.task,
        direction=contract.direction,
        file=file,
        imports="\n".join(_imports(way, contract)),
        defines_network=not isinstance(generator, CustomGeneratorConfig),
        loaded=way.loaded,
        build=_build(generator),
        generator=generator,
        unet_levels=UNET_LEVELS.get(generator.name),
        resnet_blocks=RESNET_BLOCKS.get(generator.name),
        size_multiple=generator.size_multiple,
        minimum_size=generator.minimum_size,
        input=contract.input,
        output=contract.output,
        output_range=[f"{end:g}" for end in FULL_RANGE.get(contract.output.depth, (0, 0))],
        pillow_in=_pillow_holds(contract.input),
        pillow_out=_pillow_holds(contract.output),
        tiff_options=tiff_options(contract.output.channels),
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
    )


def _imports(way: _Way, contract: ImageContract) -> list[str]:
    """Return sorted import lines."""
    modules = {"numpy as np", *way.modules}
    names = []
    if way.template == _WEIGHTS:
        is_custom = isinstance(contract.generator, CustomGeneratorConfig)
        module, _, attribute = (contract.generator.name if is_custom else "torch:nn").partition(":")
        names.append(f"from {module} import {attribute.partition('.')[0]}")
    if _pillow_holds(contract.input):
        names.append("from PIL import Image, ImageOps")
    else:
        modules.add("imagecodecs")
    if not _pillow_holds(contract.output):
        modules.add("tifffile")
    elif not _pillow_holds(contract.input):
        names.append("from PIL import Image")
    return [f"import {module}" for module in sorted(modules)] + sorted(names)


def _build(generator: Architecture) -> str:
    """Return the call that builds the network."""
    if not isinstance(generator, CustomGeneratorConfig):
        return "network()"
    given = {
        "input_channels": generator.input_channels,
        "output_channels": generator.output_channels,
        **generator.arguments,
    }
    return f"{generator.name.partition(':')[2]}(**{given!r})"


def _pillow_holds(format: ImageFormat) -> bool:
    """Return whether Pillow reads and writes such images exactly; else imagecodecs and tifffile do."""
    return format.depth == "uint8" and (format.labels or format.channels in _PILLOW_CHANNELS)
