"""From an uploaded file to its translation as a file: decoded, queued, computed, encoded."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, ParamSpec, TypeVar

import numpy as np
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode_content
from piggyback_gan.images.display import display
from piggyback_gan.images.encode import best_suffix, can_hold, check_fits, encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels, TooManyPixels
from piggyback_gan.images.read import fitted
from piggyback_gan.inference.tiling import NormFrom, Tiling, padded_pixels
from piggyback_gan.inference.translate import output_shape
from piggyback_gan.serve.batching import Batcher, Place
from piggyback_gan.serve.catalogue import Way
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import MEDIA_TYPE, Problem
from piggyback_gan.serve.responses import MEDIA_TYPES, File, OutputFormat, distinct, output_name
from piggyback_gan.serve.uploads import Upload

_TILE = 512
_LARGEST_VIEW = 2048  # pixels of its longer side
_MOST_PADDING = 2  # how often the largest image's pixels an image may have when it is padded

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Wishes:
    """How an image is to be translated.

    Attributes:
        tile: side of the tiles in pixels; 0: at once; None: in tiles if it is large.
        overlap: what neighbouring tiles share.
        norm_from: what instance norm in tiles takes its statistics from.
        format: of the output file.
        views: pictures of input and output to look at, too.
    """

    tile: int | None = None
    overlap: int | None = None
    norm_from: NormFrom | None = None
    format: OutputFormat = "best"
    views: bool = False


@dataclass(frozen=True)
class Translated:
    """What became of an image.

    Attributes:
        output: the translation, or the document of a problem.
        failed: it is a problem.
        views: input and output as 8-bit RGB pictures, if they were wished for.
    """

    output: File
    failed: bool = False
    views: tuple[File, ...] = ()


class Translator:
    """Translates uploads with a batcher; decoding and encoding have threads of their own."""

    def __init__(self, batcher: Batcher, options: ServeOptions) -> None:
        self.batcher = batcher
        self._options = options
        self._images = ThreadPoolExecutor(2, "images")

    def close(self) -> None:
        """End the threads."""
        self._images.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()

    async def translate(
        self, way: Way, uploads: Sequence[Upload], wishes: Wishes
    ) -> list[Translated]:
        """Translate uploads; of several, those that fail become the documents of their problems.

        Raises:
            Problem: there is one upload and it can't be translated, or what was wished for is not possible,
                or the server has no room for them.
        """
        suffix = best_suffix(way.output) if wishes.format == "best" else f".{wishes.format}"
        if not can_hold(suffix, way.output):
            raise Problem(
                "invalid-request",
                f"{wishes.format} files can't hold {way.output.summary}: leave format out",
            )
        _check_tiles(way, wishes, self._options)
        names = distinct([output_name(upload.name, suffix) for upload in uploads])
        with self.batcher.place(len(uploads)) as place:
            few = asyncio.Semaphore(self._options.max_batch)  # else all would be decoded at once
            work = [
                self._translate(way, upload, name, wishes, place, few)
                for upload, name in zip(uploads, names, strict=True)
            ]
            if len(work) == 1:
                return [await work[0]]
            return await _all_or_none(work, names)

    async def _translate(
        self,
        way: Way,
        upload: Upload,
        name: str,
        wishes: Wishes,
        place: Place,
        few: asyncio.Semaphore,
    ) -> Translated:
        async with few:
            pixels = await self._in_thread(self._decoded, upload, way.input)
            height, width = pixels.shape[:2]
            suffix = PurePosixPath(name).suffix
            _refuse_unfit(way, upload, pixels, suffix)
            tiling = self._tiling(way, height, width, wishes)
            async with place.holding(height * width * _planes(way)):
                made = await self.batcher.translate(way, pixels, tiling)
                content = await self._in_thread(encode, made, suffix)
                output = File(name, MEDIA_TYPES[suffix], content)
                if not wishes.views:
                    return Translated(output)
                shown = [(pixels, way.input, "input.png"), (made, way.output, "output.png")]
                return Translated(
                    output, views=tuple([await self._in_thread(_view, *side) for side in shown])
                )

    async def _in_thread(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._images, lambda: function(*args, **kwargs))

    def _decoded(self, upload: Upload, format: ImageFormat) -> Pixels:
        try:
            decoded = decode_content(upload.content, max_pixels=self._options.max_pixels)
        except TooManyPixels as error:
            raise self._too_many(f"{upload.name}: found {error.found}") from None
        except PiggybackError as error:
            raise Problem("not-an-image", f"{upload.name}: {error}") from None
        try:
            return fitted(decoded, format)
        except PiggybackError as error:
            raise Problem("wrong-image", f"{upload.name}: {error}") from None

    def _tiling(self, way: Way, height: int, width: int, wishes: Wishes) -> Tiling | None:
        """How an image is cut; None: it is translated at once.

        Raises:
            Problem: it is too large to be translated at once, or thin and has to be padded too much.
        """
        whole = self._options.whole_pixels
        padded = padded_pixels(height, width, way.config)
        if padded > max(_MOST_PADDING * self._options.max_pixels, whole):
            raise self._too_many(f"found {width}x{height}, which are {padded} pixels when padded")
        if wishes.tile:
            return _sparing(Tiling.of(wishes.tile, wishes.overlap, wishes.norm_from), whole)
        if padded <= whole:
            return None
        if wishes.tile == 0:
            raise Problem(
                "too-many-pixels",
                f"found {width}x{height}, the limit of what is translated at once is {whole} pixels: leave "
                "tile out",
                limit=whole,
            )
        return automatic_tiling(way, whole)

    def _too_many(self, found: str) -> Problem:
        limit = self._options.max_pixels
        return Problem(
            "too-many-pixels", f"{found}, the limit is {limit} pixels: make it smaller", limit=limit
        )


def automatic_tiling(way: Way, whole_pixels: int) -> Tiling:
    """How a large image is cut if nothing is said: tiles that agree, of some 512 pixels."""
    multiple, least = way.config.size_multiple, way.config.minimum_size
    side = min(_TILE, math.isqrt(whole_pixels))
    tile = max(side // multiple * multiple, least)
    return _sparing(Tiling.of(tile, norm_from="image"), whole_pixels)


def _sparing(tiling: Tiling, whole_pixels: int) -> Tiling:
    """The tiling, with no more pixels in its sample than may be translated at once."""
    return replace(tiling, sample_pixels=min(whole_pixels, tiling.sample_pixels))


def _planes(way: Way) -> int:
    """How often four channels are in an input, or in an output if it has more."""
    return max(-(-side.stored_channels // 4) for side in (way.input, way.output))


def _refuse_unfit(way: Way, upload: Upload, pixels: Pixels, suffix: str) -> None:
    """Refuse an image whose translation files of this kind can't hold, before it is made.

    Raises:
        Problem: it is too large for them.
    """
    try:
        check_fits(output_shape(pixels, way.output), way.output.depth, suffix)
    except PiggybackError as error:
        raise Problem("invalid-request", f"{upload.name}: {error}") from None


def _check_tiles(way: Way, wishes: Wishes, options: ServeOptions) -> None:
    """Check what was wished for of tiles, before anything is done.

    Raises:
        Problem: the network does not take such tiles, or they are too large.
    """
    if not wishes.tile:
        for name, value in (("overlap", wishes.overlap), ("norm_from", wishes.norm_from)):
            if value is not None:
                raise Problem("invalid-request", f"{name} is about tiles: give tile too")
        return
    try:
        Tiling.of(wishes.tile, wishes.overlap, wishes.norm_from).check(way.config)
    except PiggybackError as error:
        raise Problem("invalid-request", str(error)) from None
    if wishes.tile**2 > options.whole_pixels:
        raise Problem(
            "invalid-request",
            f"invalid tile: found {wishes.tile}, the limit is {math.isqrt(options.whole_pixels)} here",
        )


async def _all_or_none(work: Sequence[Any], names: Sequence[str]) -> list[Translated]:
    """The outcomes in order; of those that failed, their problems.

    Raises:
        Problem: all failed; if not for what they are, but for what the server is, that is what is told.
    """
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    made: list[Translated] = []
    problems: list[Problem] = []
    for outcome, name in zip(outcomes, names, strict=True):
        if isinstance(outcome, Problem):
            problems.append(outcome)
            file = File(f"{name}.problem.json", MEDIA_TYPE, outcome.render())
            made.append(Translated(file, failed=True))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            made.append(outcome)
    if len(problems) == len(outcomes):
        for problem in problems:
            if problem.status >= 500 or problem.name == "queue-full":
                raise problem
        raise Problem(
            "none-translated",
            f"none of {len(outcomes)} files could be translated; the first one: {problems[0].detail}",
            problems=[problem.document for problem in problems],
        )
    return made


def _view(pixels: Pixels, format: ImageFormat, name: str) -> File:
    """An image to look at: 8-bit RGB, and not too large."""
    shown = display(pixels, format)
    image = Image.fromarray(shown)
    image.thumbnail((_LARGEST_VIEW, _LARGEST_VIEW), reducing_gap=2.0)
    return File(name, "image/png", encode(np.asarray(image), ".png"))
