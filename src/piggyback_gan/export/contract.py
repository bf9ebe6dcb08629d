"""The image contract: metadata of an exported file, mostly on its images. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import EXPORT_PRECISIONS, Direction, check_task_name
from piggyback_gan.networks.config import Architecture, read_architecture
from piggyback_gan.system.checks import check_choice, check_positive

CONTRACT_KEY = "image_contract"
"""The key of the contract in a file's metadata."""
INPUT_NAME, OUTPUT_NAME = "image", "translated"
"""The names of an exported graph's input and output."""

_FORMAT = "piggyback-gan export"
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ImageContract:
    """How to use an exported generator.

    It takes float32 (B, C, H, W), H and W multiples of the generator's `size_multiple` and at least its
    `minimum_size`, and returns the same size. `ImageFormat` describes how file values become tensor values.

    Attributes:
        task: its name in the bank.
        direction: "AtoB" or "BtoA".
        input, output: formats of the image files.
        image_size: side of the training crops, in pixels.
        precision: of the stored weights; a graph computes in it too.
        generator: the architecture.
        task_sha256: of the task's file in the bank.
        library_version: the version that exported it.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    task: str
    direction: str
    input: ImageFormat
    output: ImageFormat
    image_size: int
    precision: str
    generator: Architecture
    task_sha256: str
    library_version: str

    def __post_init__(self) -> None:
        check_task_name(self.task)
        check_choice("direction", self.direction, get_args(Direction))
        check_choice("precision", self.precision, EXPORT_PRECISIONS)
        check_positive("image_size", self.image_size)

    @property
    def formats(self) -> tuple[ImageFormat, ImageFormat]:
        """The formats of input and output."""
        return self.input, self.output

    def to_json(self) -> str:
        """Return a JSON object, which includes what is the same for all files, for readers."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "layout": "NCHW float32",
            "tensor_range": [-1, 1],
            "size_multiple": self.generator.size_multiple,
            "minimum_size": self.generator.minimum_size,
        }
        return json.dumps(content | asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ImageContract":
        """The inverse of `to_json`.

        Raises:
            PiggybackError: it is not a contract, or a newer version wrote it.
        """
        try:
            content: Mapping[str, Any] = json.loads(text)
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                raise PiggybackError("its image contract was not written by pbgan export")
            if content["format_version"] > _FORMAT_VERSION:
                raise PiggybackError(
                    "a newer version wrote its image contract: update piggyback-gan"
                )
            contract = cls(
                **{key: str(content[key]) for key in _WORDS},
                input=ImageFormat.from_card(content["input"]),
                output=ImageFormat.from_card(content["output"]),
                image_size=int(content["image_size"]),
                generator=read_architecture(content["generator"]),
            )
            # Other programs read the fields that this one ignores: they must agree.
            if json.loads(contract.to_json()) != content:
                raise PiggybackError("its image contract contradicts itself")
            return contract
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if isinstance(error, PiggybackError):
                raise
            raise PiggybackError(f"its image contract can't be read: {error_line(error)}") from None


_WORDS = ("task", "direction", "precision", "task_sha256", "library_version")
