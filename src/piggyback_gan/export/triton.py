"""A folder that NVIDIA Triton Inference Server serves as a model: its configuration, and which folder is one."""

from pathlib import Path

from piggyback_gan.export.contract import CONTRACT_KEY, INPUT_NAME, OUTPUT_NAME, ImageContract
from piggyback_gan.export.rendering import rendered

MODEL, CONFIG, CLIENT = "1/model.onnx", "config.pbtxt", "client.py"
"""All files of such a folder, from it."""
MODEL_NAMES = "[A-Za-z0-9][A-Za-z0-9._-]*"
"""What a model, and so its folder, may be called: it stands in addresses."""

_MARK = "Written by pbgan export"
_MAX_BATCH_SIZE = 8


def model_config(contract: ImageContract, name: str) -> str:
    """The text of a model's config.pbtxt: a ModelConfig of Triton's model_config.proto.

    Args:
        contract: what the model says of itself.
        name: the model's, which is that of its folder.
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
    """Whether an export wrote all that is in a folder: nothing of anybody's is lost with it."""
    if path.is_symlink() or not path.is_dir():
        return False
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if files != {MODEL, CONFIG, CLIENT}:
        return False
    return (path / CONFIG).read_bytes().startswith(f"# {_MARK}".encode())
