"""Model folders for NVIDIA Triton Inference Server: configuration and recognition."""

from pathlib import Path

from piggyback_gan.export.contract import CONTRACT_KEY, INPUT_NAME, OUTPUT_NAME, ImageContract
from piggyback_gan.export.rendering import rendered

MODEL, CONFIG, CLIENT = "1/model.onnx", "config.pbtxt", "client.py"
"""All files of such a folder, relative to it."""
MODEL_NAMES = "[A-Za-z0-9][A-Za-z0-9._-]*"
"""Allowed names of a model and its folder, which are part of URLs."""

_MARK = "Written by pbgan export"
_MAX_BATCH_SIZE = 8


def model_config(contract: ImageContract, name: str) -> str:
    """Return a model's config.pbtxt: a ModelConfig of Triton's model_config.proto.

    Args:
        contract: the model's image contract.
        name: of the model and its folder.
    """
    return rendered(
        "config.pbtxt.jinja",
        mark=_MARK,
        contract=contract,
        contract_key=CONTRACT_KEY,
        name=name,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        max_batch_size=_MAX_BATCH_SIZE,
    )


def is_model_folder(path: Path) -> bool:
    """Return whether an export wrote all files in a folder, so that it can be replaced."""
    if path.is_symlink() or not path.is_dir():
        return False
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if files != {MODEL, CONFIG, CLIENT}:
        return False
    return (path / CONFIG).read_bytes().startswith(f"# {_MARK}".encode())
