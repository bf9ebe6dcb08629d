"""Pydantic models of the JSON documents, and OpenAPI descriptions of requests and responses."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from piggyback_gan.images.format import Depth
from piggyback_gan.inference.tiling import NormFrom
from piggyback_gan.names import Direction
from piggyback_gan.serve.catalogue import ServedTask
from piggyback_gan.serve.problems import KINDS, MEDIA_TYPE, Problem
from piggyback_gan.serve.responses import FORM, MEDIA_TYPES, ZIP, OutputFormat

_MOST_TILE = 2**16


class Format(BaseModel):
    """The format of a task's input or output images."""

    model_config = ConfigDict(from_attributes=True)

    summary: str = Field(examples=["RGB 8 bit"])
    channels: int = Field(description="1 gray, 3 RGB, 4 RGBA; of label maps, the classes")
    depth: Depth
    low: float = Field(description="value mapped to -1 for the network")
    high: float = Field(description="value mapped to 1 for the network")
    labels: bool = Field(description="label map: one channel of class indices from 0")


class TaskDirection(BaseModel):
    """A direction in which a task translates."""

    model_config = ConfigDict(from_attributes=True)

    direction: Direction
    input: Format
    output: Format
    output_format: Literal["png", "tif"] = Field(description="file format that format=best gives")


class Task(BaseModel):
    """A task of the bank."""

    name: str = Field(examples=["maps"])
    added: str = Field(examples=["2026-11-28T10:00:00+00:00"])
    sha256: str = Field(
        description="hash of the task's file in the bank; the same hash means the same task"
    )
    mode: str = Field(examples=["paired", "unpaired"])
    image_size: int = Field(description="side of the training images, in pixels")
    description: str | None
    license: str | None
    has_sample: bool
    directions: list[TaskDirection] = Field(
        description="the trained direction, which is the default, comes first"
    )

    @classmethod
    def of(cls, task: ServedTask, has_sample: bool) -> "Task":
        """Convert a served task."""
        return cls(
            name=task.entry.name,
            added=task.entry.added,
            sha256=task.entry.sha256,
            mode=task.mode,
            image_size=task.image_size,
            description=task.notes.description,
            license=task.notes.license,
            has_sample=has_sample,
            directions=[TaskDirection.model_validate(served) for served in task.directions],
        )


class Limits(BaseModel):
    """The server's limits."""

    model_config = ConfigDict(from_attributes=True)

    max_bytes: int = Field(description="most bytes of a request's body")
    max_pixels: int = Field(
        description="most pixels of an image; of more than 4 channels, each 4 count as one"
    )
    whole_pixels: int = Field(
        description="most pixels of an image that is translated whole, not in tiles"
    )
    max_files: int = Field(description="most files in a request")
    timeout_s: float = Field(validation_alias="timeout")


class TaskList(BaseModel):
    """All tasks, in the order in which they were learned."""

    tasks: list[Task]
    limits: Limits


class Status(BaseModel):
    """The server's state."""

    status: str = Field(examples=["ok"])


class TranslateQuery(BaseModel):
    """Query options of a translation."""

    model_config = ConfigDict(extra="forbid")

    direction: Direction | None = Field(
        None, description="one of the task's directions; by default the trained one"
    )
    tile: int | None = Field(
        None,
        ge=0,
        le=_MOST_TILE,
        description="side of the tiles in pixels; 0: never in tiles; by default only large images",
    )
    overlap: int | None = Field(
        None, ge=0, le=_MOST_TILE, description="overlap of neighbouring tiles, in pixels"
    )
    norm_from: NormFrom | None = Field(
        None, description="source of instance norm's statistics: each tile, or the image"
    )
    format: OutputFormat = Field(
        "best", description="format of the output file; best: PNG, or TIFF if PNG can't hold it"
    )
    views: bool = Field(
        False,
        description="for one image: a form with output, input_view and output_view; the views are 8-bit RGB "
        "PNGs for display",
    )


class ProblemDocument(BaseModel):
    """An error (RFC 9457); some kinds have further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:pbgan:problem:unknown-task"])
    title: str
    status: int
    detail: str


_FILE = {"schema": {"type": "string", "format": "binary"}}

TRANSLATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image (jpg, png, webp, bmp, tif), or a form with one or more image files",
        "content": {
            "application/octet-stream": _FILE,
            "image/*": _FILE,
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
        },
    }
}

TRANSLATED: dict[str, Any] = {
    "description": "The translation of one image; of several images a ZIP, or a form if Accept has "
    "multipart/form-data. Of several, failed ones are NAME.problem.json, and the header Pbgan-Failed counts "
    "them.",
    "headers": {
        "Pbgan-Task-Sha256": {
            "description": "hash of the task's file in the bank",
            "schema": {"type": "string"},
        }
    },
    "content": {
        **{media_type: _FILE for media_type in MEDIA_TYPES.values()},
        ZIP: _FILE,
        FORM: _FILE,
    },
}


def problems(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for kinds of problems, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        status, title = KINDS[name]
        response = responses.setdefault(
            status, {"model": ProblemDocument, "content": {MEDIA_TYPE: {"examples": {}}}}
        )
        known = [response["description"]] if "description" in response else []
        response["description"] = "; ".join([*known, title])
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[name] = {"value": Problem(name, _EXAMPLES.get(name, f"{title}.")).document}
    return responses


_EXAMPLES = {
    "unknown-task": "the bank has no task of this name: its tasks are maps, winter",
    "not-an-image": "photo.jpg: can't be read: not an image",
    "wrong-image": "depth.png: its values are uint16, the task takes uint8",
    "queue-full": "64 images of 4194304 pixels are in the queue: try again in 7 s",
}
