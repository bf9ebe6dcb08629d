"""What a task's images are: channels, bit depth, value range, label maps. Nothing here imports torch."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from piggyback_gan.errors import PiggybackError

Depth = Literal["uint8", "uint16", "float32"]

DEPTHS = get_args(Depth)
FULL_RANGE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """What the files of one side of a task hold, and how they become values of a network.

    Attributes:
        channels: of the network's tensor: 1 gray, 3 RGB, 4 RGBA, any other number as it is; for label
            maps the number of classes.
        depth: the type of a file's values.
        low, high: the file's values that become -1 and 1; those between follow linearly, those beyond
            lie beyond. By default all that the depth can hold.
        labels: the files are label maps: one channel of class indices from 0 on, which become one-hot
            tensors of -1 and 1.
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
            raise PiggybackError(f"there can be no such image format: {self}")
        if self.labels and self.depth == "float32":
            raise PiggybackError("label maps hold integers, not float32")

    @property
    def stored_channels(self) -> int:
        """Channels of a file: 1 for label maps, else those of the network's tensor."""
        return 1 if self.labels else self.channels

    @property
    def summary(self) -> str:
        """What files of the format hold, in a few words."""
        if self.labels:
            return f"label map of {self.channels} classes"
        channels = {1: "gray", 3: "RGB", 4: "RGBA"}.get(self.channels, f"{self.channels} channels")
        bits = {"uint8": "8 bit", "uint16": "16 bit"}.get(self.depth, self.depth)
        is_full = FULL_RANGE.get(self.depth) == (self.low, self.high)
        limits = "" if is_full else f" from {self.low:g} to {self.high:g}"
        return f"{channels} {bits}{limits}"

    @classmethod
    def from_card(cls, content: Any) -> "ImageFormat":
        """The format that a task's card describes (`dataclasses.asdict` of one).

        Raises:
            PiggybackError: it is none that this version knows.
        """
        try:
            return cls(**content)
        except (TypeError, PiggybackError) as error:
            raise PiggybackError(
                f"an image format that this version does not know: {error}"
            ) from None
