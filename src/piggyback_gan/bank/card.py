"""Task cards: what describes a task in its file. They have no times or paths: equal runs give equal files.

Nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from piggyback_gan.bank.manifest import TaskEntry, damaged_card
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.names import Budget, Direction


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """The folder of images that a task was trained on; all None for an imported task.

    Attributes:
        name: the folder's name when the run began.
        layout: how the images lie in it.
        train_pairs, held_out_pairs: numbers of pairs, of a paired task.
        train_a, train_b, held_out_a, held_out_b: numbers of images, of an unpaired task.
    """

    name: str | None = None
    layout: str | None = None
    train_pairs: int | None = None
    held_out_pairs: int | None = None
    train_a: int | None = None
    train_b: int | None = None
    held_out_a: int | None = None
    held_out_b: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageCard:
    """A task's images: side of the training crops in pixels, formats in the trained direction."""

    size: int
    size_multiple: int | None = None
    input: ImageFormat
    output: ImageFormat

    def __post_init__(self) -> None:
        if self.size < 1:
            raise PiggybackError(f"its image size is {self.size}")


@dataclass(frozen=True, kw_only=True)
class ParameterCard:
    """How many parameters a task adds: `core.task.ParameterCount` with its `total` and `share`."""

    unconstrained: int
    mixing: int
    private: int
    standalone: int
    total: int
    share: float


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """A file of weights that was imported: its name, SHA-256 and architecture."""

    name: str
    sha256: str
    network: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ImportCard:
    """How a task was imported, by direction.

    Attributes:
        files: the weights.
        distances: metrics of the task's outputs against those of the imported network.
    """

    files: Mapping[str, ImportedFile] = field(default_factory=dict)
    distances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass
class _ReadOptions:
    """The options that readers of cards use."""

    direction: Direction = "AtoB"
    seed: int | None = None
    val_fraction: float | None = None
    unconstrained: float | dict[str, float] | None = None
    max_error: float | None = None
    budget: Budget | None = None
    allocation: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """What describes a task.

    Attributes:
        library_version: the version that trained or imported it.
        mode: unpaired tasks translate in both directions.
        data: the training images.
        image: sizes and formats.
        options: all options, resolved, as JSON values.
        effective_batch: images per step.
        epoch: the epoch whose weights were kept.
        parameters: what the task adds to the bank.
        validation: held-out metrics of that epoch.
        imported: for an imported task.
    """

    library_version: str | None = None
    mode: Literal["paired", "unpaired"]
    data: DataCard = field(default_factory=DataCard)
    image: ImageCard
    options: Mapping[str, Any]
    effective_batch: int | None = None
    epoch: int | None = None
    parameters: ParameterCard
    validation: Mapping[str, float] | None = None
    imported: ImportCard | None = None

    def __post_init__(self) -> None:
        msgspec.convert(self.options, type=_ReadOptions)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions in which the task translates; the one that it was trained in first."""
        both: tuple[Direction, Direction] = ("AtoB", "BtoA")
        trained = self.options.get("direction", "AtoB")
        ordered = both if trained == "AtoB" else both[::-1]
        return ordered if self.mode == "unpaired" else ordered[:1]

    @property
    def formats(self) -> tuple[ImageFormat, ImageFormat]:
        """What input and output files hold, in the direction that the task was trained in."""
        return self.image.input, self.image.output

    def to_json(self) -> dict[str, Any]:
        """Return JSON values. Fields that a task does not have are left out, but for its validation."""
        content = _without_none(asdict(self))
        content["data"] = _without_none(content["data"])
        content["image"] = _without_none(content["image"]) | {"tensor_range": [-1, 1]}
        return content | {"validation": self.validation}


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def parse_card(content: Mapping[str, Any], bank: Path, entry: TaskEntry) -> TaskCard:
    """Validate the JSON of a task's card; keys that this version does not know are ignored.

    Args:
        content: as `manifest.read_card` gives it.
        bank: the bank's directory.
        entry: the task.

    Raises:
        PiggybackError: a value is missing or of another type, or an image format is not known.
    """
    try:
        card = msgspec.convert(content, type=TaskCard)
        for side in ("input", "output"):
            # A key of a newer version can change what the values mean.
            ImageFormat.from_card(content["image"][side])
        return card
    except (msgspec.ValidationError, PiggybackError, RecursionError) as error:
        raise damaged_card(bank, entry, str(error)) from None
