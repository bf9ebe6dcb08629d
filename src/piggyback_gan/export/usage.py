"""The example beside an export: a short program that translates an image without this library."""

from collections.abc import Mapping
from dataclasses import dataclass

from piggyback_gan.export.contract import INPUT_NAME, OUTPUT_NAME, ImageContract
from piggyback_gan.export.rendering import rendered
from piggyback_gan.images.encode import tiff_options
from piggyback_gan.images.format import FULL_RANGE, ImageFormat
from piggyback_gan.names import ExportFormat
from piggyback_gan.networks.config import RESNET_BLOCKS, UNET_LEVELS, CustomGeneratorConfig

_PILLOW_CHANNELS = (1, 3, 4)
_WEIGHTS = "weights.py.jinja"


@dataclass(frozen=True)
class _Way:
    """How a format's example runs the model.

    Attributes:
        template: its template.
        modules: the modules that it imports.
        loaded: the expression that loads the file, where formats share a template.
    """

    template: str
    modules: frozenset[str] = frozenset()
    loaded: str = ""


_TORCH = frozenset({"torch"})
_WAYS: Mapping[ExportFormat, _Way] = {
    "safetensors": _Way(
        _WEIGHTS, _TORCH | {"safetensors.torch"}, "safetensors.torch.load_file(FILE)"
    ),
    "onnx": _Way("onnx.py.jinja", frozenset({"onnxruntime"})),
    "torch-export": _Way("program.py.jinja", _TORCH, "torch.export.load(FILE).module()"),
    "torchscript": _Way("program.py.jinja", _TORCH, "torch.jit.load(FILE)"),
    "state-dict": _Way(_WEIGHTS, _TORCH, "torch.load(FILE, weights_only=True)"),
    "triton": _Way("triton.py.jinja"),
}


def usage_example(format: ExportFormat, contract: ImageContract, file: str) -> str:
    """Return the example program.

    Args:
        format: of the export.
        contract: its image contract.
        file: name of the file or folder.
    """
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
        build=_build(contract),
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
        names.append(_import_of_network(contract))
    if _pillow_holds(contract.input):
        names.append("from PIL import Image, ImageOps")
    else:
        modules.add("imagecodecs")
    if not _pillow_holds(contract.output):
        modules.add("tifffile")
    elif not _pillow_holds(contract.input):
        names.append("from PIL import Image")
    return [f"import {module}" for module in sorted(modules)] + sorted(names)


def _import_of_network(contract: ImageContract) -> str:
    """Return the import of the network's code: torch, or the user's own."""
    if isinstance(contract.generator, CustomGeneratorConfig):
        module, _, attribute = contract.generator.name.partition(":")
        return f"from {module} import {attribute.partition('.')[0]}"
    return "from torch import nn"


def _build(contract: ImageContract) -> str:
    """Return the call that builds the network."""
    generator = contract.generator
    if not isinstance(generator, CustomGeneratorConfig):
        return "network()"
    _, _, attribute = generator.name.partition(":")
    given = {
        "input_channels": generator.input_channels,
        "output_channels": generator.output_channels,
        **generator.arguments,
    }
    return f"{attribute}(**{given!r})"


def _pillow_holds(format: ImageFormat) -> bool:
    """Return whether Pillow reads and writes such images exactly; else imagecodecs and tifffile do."""
    return format.depth == "uint8" and (format.labels or format.channels in _PILLOW_CHANNELS)
