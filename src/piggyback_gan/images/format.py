"""Image format of one side of a task: channels, bit depth, value range, label maps. No torch."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from piggyback_gan.errors import PiggybackError

Depth = Literal["uint8", "uint16", "float32"]

DEPTHS = get_args(Depth)
FULL_RANGE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """Format of the files of one side of a task, and how their values map to those of a network.

    Attributes:
        channels: channels of the network's tensor: 1 is gray, 3 RGB, 4 RGBA, any other number has no
            colour space; for label maps the number of classes.
        depth: dtype of a file's values.
        low, high: values of a file that become -1 and 1. The mapping is linear and does not clip. By
            default the full range of the depth.
        labels: whether the files are label maps: one channel of class indices from 0, which become one-hot
            tensors of -1 and 1.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    channels: int = 3
    depth: Depth = "uint8"
    low: float = 0.0
    high: float = 255.0
    labels: bool = False

    def __post_init__(self) -> None:
        numbers = all(type(end) in (int, float) for end in (self.low, self.high))
        whole = type(self.channels) is int and type(self.labels) is bool
        fits = numbers and whole and self.depth in DEPTHS and self.channels >= 1
        if not fits or not -math.inf < self.low < self.high < math.inf:
            raise PiggybackError(f"invalid image format: {self}")
        if self.labels and self.depth == "float32":
            raise PiggybackError("label maps hold integers, not float32")

    @property
    def stored_channels(self) -> int:
        """Channels of a file: 1 for label maps, else those of the network's tensor."""
        return 1 if self.labels else self.channels

    @property
    def summary(self) -> str:
        """Short description: "RGB 8 bit", "gray float32 from 0 to 1", "label map of 12 classes"."""
        if self.labels:
            return f"label map of {self.channels} classes"
        channels = {1: "gray", 3: "RGB", 4: "RGBA"}.get(self.channels, f"{self.channels} channels")
        bits = {"uint8": "8 bit", "uint16": "16 bit"}.get(self.depth, self.depth)
        is_full = FULL_RANGE.get(self.depth) == (self.low, self.high)
        limits = "" if is_full else f" from {self.low:g} to {self.high:g}"
        return f"{channels} {bits}{limits}"

    @classmethod
    def from_card(cls, content: Any) -> "ImageFormat":
        """Create the format from its entry in a task card (`dataclasses.asdict` of a format).

        Raises:
            PiggybackError: this version does not know it.
        """
        try:
            return cls(**content)
        except (TypeError, PiggybackError) as error:
            raise PiggybackError(f"unknown image format in this version: {error}") from None


Formats = tuple[ImageFormat, ImageFormat]
"""Formats of a task's inputs and outputs."""
