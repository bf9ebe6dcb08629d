"""Read weight files of the public PyTorch CycleGAN, pix2pix and CUT generators.

This library's networks have the public ones' module names: the architecture is inferred from the tensors'
names and shapes, and tensors that only old versions stored are dropped.
"""

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.networks.config import RESNET_BLOCKS, UNET_LEVELS, Architecture, GeneratorConfig
from piggyback_gan.networks.generators import build_outline
from piggyback_gan.networks.options import GeneratorOptions

_WRAPPER = "module."  # of DataParallel
_FREE = ("dropout", "init", "input_channels", "output_channels")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BEGINNINGS = {
    b"<": "a web page or XML: was the download refused?",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself (git lfs pull)",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8": "a JPEG image",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"\x08": "an ONNX file: give the weights that it was exported from",
}
_OTHER_NETWORKS = {
    r"mlp_\d+\.": "CUT's feature network (netF): give latest_net_G.pth",
    r"model\d+\.\d+\.|layer\d+\.\d+\.conv1": "a pix2pixHD multi-scale network or a classifier",
    r"down_blocks\.|time_embed": "a diffusion model's U-Net",
    r"features\.\d+": "a classifier such as VGG",
    r"synthesis\.|mapping\.": "a StyleGAN generator",
}


@dataclass(frozen=True)
class PublicGenerator:
    """A generator read from a weight file.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        config: its architecture.
        module: the network, in eval mode.
        dropped: a description of unused tensors in the file; "" if there are none.
    """

    path: Path
    sha256: str
    config: GeneratorConfig
    module: nn.Module
    dropped: str

    def as_built(self, config: GeneratorConfig) -> nn.Module:
        """Return the network with the module names of a config that differs in dropout only."""
        names = list(build_outline(config).state_dict())
        return _filled(config, dict(zip(names, self.module.state_dict().values(), strict=True)))


def read_generator(path: Path, options: GeneratorOptions | None = None) -> PublicGenerator:
    """Read a generator's state dict, from `torch.save` of any version or safetensors.

    Files are read with `weights_only=True`: no code in them is run.

    Args:
        path: such as `latest_net_G.pth`.
        options: overrides of what is inferred from the tensors, such as dropout in a U-Net, which they
            don't show.

    Raises:
        PiggybackError: the file can't be read or is something else; the message says what it looks like.
    """
    content = _read(path)
    tensors = _tensors_of(path, content)
    config = _recognise(path, tensors, options or GeneratorOptions())
    expected = build_outline(config).state_dict()
    kept, dropped = _fitted(path, tensors, expected, config)
    for key, tensor in kept.items():
        if not torch.isfinite(tensor).all():
            raise PiggybackError(f"{path}: {key} has values that are not finite")
    sha256 = hashlib.sha256(content).hexdigest()
    return PublicGenerator(path, sha256, config, _filled(config, kept), dropped)


def describe(config: GeneratorConfig) -> str:
    """Describe an architecture in one line."""
    blurs = "" if config.antialias == "none" else f", anti-aliased ({config.antialias})"
    return (
        f"{config.summary}{', dropout' if config.dropout else ''}{blurs}, "
        f"{config.input_channels} -> {config.output_channels} channels"
    )


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    if not content:
        raise PiggybackError(f"{path} is empty")
    return content


def _tensors_of(path: Path, content: bytes) -> dict[str, Tensor]:
    """Return a file's tensors by name, without wrappers such as DataParallel's."""
    held = _unpacked(path, content)
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping):
        what = f"{type(held).__module__}.{type(held).__qualname__}"
        raise PiggybackError(f"{path} contains a {what}, not a network's state dict")
    if not held or not all(isinstance(key, str) for key in held):
        raise PiggybackError(f"{path} contains a dict without a network's tensors")
    if not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise PiggybackError(
            f"{path} looks like a whole training's checkpoint, with "
            f"{first_names(list(held), 4, ', ')}: give the generator's own "
            "state dict"
        )
    tensors = dict(held)
    if all(key.startswith(_WRAPPER) for key in tensors):
        tensors = {key.removeprefix(_WRAPPER): tensor for key, tensor in tensors.items()}
    return tensors


def _unpacked(path: Path, content: bytes) -> Any:
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        try:
            return safetensors.torch.load(content)
        except safetensors.SafetensorError as error:
            raise PiggybackError(f"{path} is a damaged safetensors file: {error}") from None
    if content[:4] == b"PK\x03\x04":
        _refuse_scripts(path, content)
    elif content[:1] != b"\x80":
        looks = (words for start, words in _BEGINNINGS.items() if content.startswith(start))
        raise PiggybackError(
            f"{path} looks like {next(looks, 'something other than PyTorch weights')}; expected a file such as "
            "latest_net_G.pth"
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error)):
            raise PiggybackError(
                f"{path} contains objects ({found[1]}) that could run code, and is not opened: save the "
                "generator's state_dict() alone"
            ) from None
        raise _damaged(path) from None
    # torch's reader raises anything on damaged bytes.
    except Exception:  # noqa: BLE001
        raise _damaged(path) from None


def _damaged(path: Path) -> PiggybackError:
    return PiggybackError(f"{path} is damaged, or was not written by torch.save: copy it again")


def _refuse_scripts(path: Path, content: bytes) -> None:
    """Raise PiggybackError for a zip file that is not from torch.save."""
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile:
        raise _damaged(path) from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise PiggybackError(
            f"{path} looks like a TorchScript program: give the state dict that it was made from"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise PiggybackError(f"{path} looks like a zip archive of other files: unpack it")


def _recognise(
    path: Path, tensors: Mapping[str, Tensor], options: GeneratorOptions
) -> GeneratorConfig:
    """Infer the architecture from the tensors."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if len(shapes.get("model.model.0.weight", ())) == 4:
        found = _unet(path, shapes)
    elif "model.10.conv_block.1.weight" in shapes or "model.12.conv_block.1.weight" in shapes:
        found = _resnet(path, shapes)
    else:
        raise PiggybackError(f"{path} {_looks_like(shapes)}")
    return options.built_in(found)


Shapes = Mapping[str, tuple[int, ...]]


def _resnet(path: Path, shapes: Shapes) -> dict[str, Any]:
    numbers = [int(m[1]) for key in shapes if (m := re.match(r"model\.(\d+)\.", key))]
    blocks = sorted({int(m[1]) for k in shapes if (m := re.match(r"model\.(\d+)\.conv_block", k))})
    first, last = blocks[0], max(numbers)
    if "model.1.weight" not in shapes or f"model.{last}.weight" not in shapes:
        raise PiggybackError(f"{path} {_looks_like(shapes)}")
    names = {count: name for name, count in RESNET_BLOCKS.items()}
    if len(blocks) not in names:
        raise PiggybackError(
            f"{path} looks like a ResNet generator of {len(blocks)} blocks: those of 6 and 9 can be imported"
        )
    down, up = "model.7.filt" in shapes, f"model.{first + len(blocks)}.filt" in shapes
    return {
        "name": names[len(blocks)],
        "input_channels": shapes["model.1.weight"][1],
        "output_channels": shapes[f"model.{last}.weight"][0],
        "ngf": shapes["model.1.weight"][0],
        "norm": _norm(shapes, "model.1.bias", "model.2.weight"),
        # With dropout, the second convolution comes one place later; a batch norm there has one dimension.
        "dropout": len(shapes.get(f"model.{first}.conv_block.6.weight", ())) == 4,
        "antialias": {(0, 0): "none", (1, 0): "down", (0, 1): "up", (1, 1): "both"}[down, up],
    }


def _unet(path: Path, shapes: Shapes) -> dict[str, Any]:
    levels, prefix = 1, "model.model.1."
    while f"{prefix}model.1.weight" in shapes:
        levels, prefix = levels + 1, f"{prefix}model.3."
    names = {count: name for name, count in UNET_LEVELS.items()}
    if levels not in names or len(shapes.get("model.model.3.weight", ())) != 4:
        raise PiggybackError(
            f"{path} looks like a U-Net of {levels} levels: those of "
            f"{', '.join(map(str, sorted(names)))} can be imported"
        )
    first = shapes["model.model.0.weight"]
    return {
        "name": names[levels],
        "input_channels": first[1],
        "output_channels": shapes["model.model.3.weight"][1],
        "ngf": first[0],
        "norm": _norm(shapes, "model.model.0.bias", "model.model.1.model.2.weight"),
    }


def _norm(shapes: Shapes, bias: str, scale: str) -> str:
    """Infer the norm: convolutions before an instance norm have biases, and only a batch norm has weights."""
    if len(shapes.get(scale, ())) == 1:
        return "batch"
    return "instance" if bias in shapes else "none"


def _looks_like(shapes: Shapes) -> str:
    first = shapes.get("model.0.weight", ())
    if first[2:] == (4, 4) or (first[2:] == (1, 1) and "model.2.weight" in shapes):
        return "looks like a discriminator: give the generator's file, such as latest_net_G.pth"
    for pattern, words in _OTHER_NETWORKS.items():
        if any(re.search(pattern, key) for key in shapes):
            return f"looks like {words}; generators of CycleGAN, pix2pix and CUT can be imported"
    names = first_names(list(shapes), 4, ", ")
    return f"is not a known generator of CycleGAN, pix2pix or CUT: its tensors are {names}"


def _fitted(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    config: GeneratorConfig,
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that a network needs, and a description of those dropped."""
    kept = dict(tensors)
    statistics = [
        key
        for key in kept
        if key not in expected and config.norm != "batch" and key.endswith(_STATISTICS)
    ]
    for key in statistics:
        del kept[key]
    for key, tensor in expected.items():
        if key.endswith("num_batches_tracked"):  # missing before torch 0.4.1
            kept.setdefault(key, torch.zeros((), dtype=tensor.dtype))
    for key in sorted(expected.keys() | kept.keys()):
        shape = tuple(expected[key].shape) if key in expected else "nothing"
        found = tuple(kept[key].shape) if key in kept else "nothing"
        if shape != found:
            raise PiggybackError(
                f"{path} looks like a {describe(config)} generator, but for {key}: expected {shape}, found "
                f"{found}"
            )
    kept = {key: kept[key].to(tensor.dtype).contiguous() for key, tensor in expected.items()}
    return kept, "running statistics that instance norm does not use" if statistics else ""


def _filled(config: GeneratorConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    module = build_outline(config)
    module.load_state_dict(tensors, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module.eval()


def same_modules(first: GeneratorConfig, second: Architecture) -> str | None:
    """Describe the difference that keeps two generators from sharing filters; dropout, init and channels don't."""
    one, other = asdict(first), asdict(second)
    for key, value in one.items():
        if key not in _FREE and value != other.get(key):
            return f"{key} {value!r}, not {other.get(key)!r}"
    return None
