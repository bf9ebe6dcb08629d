"""The server's JSON documents, and what OpenAPI says of its answers."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from piggyback_gan.images.encode import best_suffix
from piggyback_gan.images.format import Depth, ImageFormat
from piggyback_gan.inference.tiling import NormFrom
from piggyback_gan.names import Direction
from piggyback_gan.serve.catalogue import ServedTask, Way
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import KINDS, MEDIA_TYPE, Problem
from piggyback_gan.serve.responses import FORM, MEDIA_TYPES, ZIP, OutputFormat

_MOST_TILE = 2**16


class Format(BaseModel):
    """What the image files of one side of a task hold."""

    summary: str = Field(examples=["RGB 8 bit"])
    channels: int = Field(description="1 gray, 3 RGB, 4 RGBA; of label maps, the classes")
    depth: Depth
    low: float = Field(description="the value that becomes -1 in the network")
    high: float = Field(description="the value that becomes 1 in the network")
    labels: bool = Field(description="one channel of class indices from 0 on")

    @classmethod
    def of(cls, format: ImageFormat) -> "Format":
        """The document of a format."""
        return cls(**{**vars(format), "summary": format.summary})


class TaskDirection(BaseModel):
    """One way in which a task translates."""

    direction: Direction
    input: Format
    output: Format
    output_format: Literal["png", "tif"] = Field(description="what format=best gives")

    @classmethod
    def of(cls, way: Way) -> "TaskDirection":
        """The document of a way."""
        best: Literal["png", "tif"] = "png" if best_suffix(way.output) == ".png" else "tif"
        return cls(
            direction="AtoB" if way.direction == "AtoB" else "BtoA",
            input=Format.of(way.input),
            output=Format.of(way.output),
            output_format=best,
        )


class Task(BaseModel):
    """A task of the bank."""

    name: str = Field(examples=["maps"])
    added: str = Field(examples=["2026-11-28T10:00:00+00:00"])
    sha256: str = Field(description="of the task's file in the bank: the same file, the same task")
    mode: str = Field(examples=["paired", "unpaired"])
    image_size: int = Field(description="side of the images that it was trained on, in pixels")
    description: str | None
    license: str | None
    has_sample: bool
    directions: list[TaskDirection] = Field(
        description="the one that it was trained in, which is the default, comes first"
    )

    @classmethod
    def of(cls, task: ServedTask, has_sample: bool) -> "Task":
        """The document of a task."""
        return cls(
            name=task.entry.name,
            added=task.entry.added,
            sha256=task.entry.sha256,
            mode=task.mode,
            image_size=task.image_size,
            description=task.notes.description,
            license=task.notes.license,
            has_sample=has_sample,
            directions=[TaskDirection.of(way) for way in task.ways],
        )


class Limits(BaseModel):
    """What the server takes."""

    max_bytes: int = Field(description="of a request's body")
    max_pixels: int = Field(description="of an image; of more than 4 channels, each 4 count as one")
    whole_pixels: int = Field(description="of an image that is translated at once, not in tiles")
    max_files: int = Field(description="in one request")
    timeout_s: float

    @classmethod
    def of(cls, options: ServeOptions) -> "Limits":
        """The document of a server's limits."""
        return cls(
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            whole_pixels=options.whole_pixels,
            max_files=options.max_files,
            timeout_s=options.timeout,
        )


class TaskList(BaseModel):
    """All tasks, in the order in which they were learned."""

    tasks: list[Task]
    limits: Limits


class Status(BaseModel):
    """A word on how the server is."""

    status: str = Field(examples=["ok"])


class TranslateQuery(BaseModel):
    """How an image is to be translated."""

    model_config = ConfigDict(extra="forbid")

    direction: Direction | None = Field(
        None, description="one of the task's; by default the one that it was trained in"
    )
    tile: int | None = Field(
        None,
        ge=0,
        le=_MOST_TILE,
        description="side of the tiles in pixels; 0: at once; by default large images go in tiles",
    )
    overlap: int | None = Field(
        None, ge=0, le=_MOST_TILE, description="what neighbouring tiles share, in pixels"
    )
    norm_from: NormFrom | None = Field(
        None, description="instance norm's statistics in tiles: of each tile, or of the image"
    )
    format: OutputFormat = Field(
        "best", description="of the output file; best: PNG, or TIFF where PNG can't hold it"
    )
    views: bool = Field(
        False,
        description="of one image: a form with output, and input_view and output_view, which are 8-bit RGB "
        "PNGs to look at",
    )


class ProblemDocument(BaseModel):
    """An error (RFC 9457); some have more members."""

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
    "description": "The translation of one image; of several, a ZIP of them, or a form if Accept asks for "
    "multipart/form-data. Of several, those that failed are NAME.problem.json, and the header Pbgan-Failed "
    "counts them.",
    "headers": {
        "Pbgan-Task-Sha256": {
            "description": "of the task's file in the bank",
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
    """OpenAPI's responses for kinds of problems, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = KINDS[name]
        response = responses.setdefault(
            kind.status, {"model": ProblemDocument, "content": {MEDIA_TYPE: {"examples": {}}}}
        )
        known = [response["description"]] if "description" in response else []
        response["description"] = "; ".join([*known, kind.title])
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[name] = {"value": Problem(name, _EXAMPLES.get(name, f"{kind.title}.")).document}
    return responses


_EXAMPLES = {
    "unknown-task": "the bank has no task of this name; it has maps, winter",
    "not-an-image": "photo.jpg: can't be read: not an image",
    "wrong-image": "depth.png: its values are uint16, the task takes uint8",
    "queue-full": "64 images of 4194304 pixels wait or are at work: try again in 7 s",
}
