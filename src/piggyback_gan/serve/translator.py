"""Translates uploaded files: decode, queue, compute, encode."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar, TypeVarTuple

import numpy as np
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.decode import decode_content
from piggyback_gan.images.display import display
from piggyback_gan.images.encode import best_suffix, can_hold, check_fits, encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels, TooManyPixels
from piggyback_gan.images.read import fitted
from piggyback_gan.inference.tiling import Tiling, padded_pixels
from piggyback_gan.inference.translate import output_shape
from piggyback_gan.serve.batching import Batcher, Place
from piggyback_gan.serve.catalogue import ServedDirection
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import MEDIA_TYPE, Problem
from piggyback_gan.serve.responses import MEDIA_TYPES, File, distinct, output_name
from piggyback_gan.serve.schemas import TranslateQuery
from piggyback_gan.serve.uploads import Upload

_TILE = 512
_LARGEST_VIEW = 2048  # longer side, in pixels
_MOST_PADDING = 2  # most pixels of a padded image, as a multiple of max_pixels

_Args = TypeVarTuple("_Args")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Translated:
    """The result for an image: the translation, or a problem document if it failed; and its views, if requested."""

    output: File
    failed: bool = False
    views: tuple[File, ...] = ()


class Translator:
    """Translates uploads with a batcher; decodes and encodes in threads."""

    def __init__(self, batcher: Batcher, options: ServeOptions) -> None:
        self.batcher = batcher
        self._options = options
        self._images = ThreadPoolExecutor(2, "images")

    def close(self) -> None:
        """End the threads."""
        self._images.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()

    async def translate(
        self, served: ServedDirection, uploads: Sequence[Upload], options: TranslateQuery
    ) -> list[Translated]:
        """Translate uploads; of several, failed ones become problem documents.

        Raises:
            Problem: a single upload or all of them failed, an option does not fit the task, or the queue
                is full.
        """
        suffix = best_suffix(served.output) if options.format == "best" else f".{options.format}"
        if not can_hold(suffix, served.output):
            raise Problem(
                "invalid-request",
                f"{options.format} files can't hold {served.output.summary}: leave format out",
            )
        _check_tiles(served, options, self._options)
        names = distinct([output_name(upload.name, suffix) for upload in uploads])
        with self.batcher.place(len(uploads)) as place:
            few = asyncio.Semaphore(self._options.max_batch)  # limits how many are decoded at once
            work = [
                self._translate(served, upload, name, options, place, few)
                for upload, name in zip(uploads, names, strict=True)
            ]
            if len(work) == 1:
                return [await work[0]]
            return await _all_or_none(work, names)

    async def _translate(
        self,
        served: ServedDirection,
        upload: Upload,
        name: str,
        options: TranslateQuery,
        place: Place,
        few: asyncio.Semaphore,
    ) -> Translated:
        async with few:
            pixels = await self._in_thread(self._decoded, upload, served.input)
            height, width = pixels.shape[:2]
            suffix = PurePosixPath(name).suffix
            try:  # before translating
                check_fits(output_shape(pixels, served.output), served.output.depth, suffix)
            except PiggybackError as error:
                raise Problem("invalid-request", f"{upload.name}: {error}") from None
            tiling = self._tiling(served, height, width, options)
            async with place.holding(height * width * _planes(served)):
                made = await self.batcher.translate(served, pixels, tiling)
                content = await self._in_thread(encode, made, suffix)
                output = File(name, MEDIA_TYPES[suffix], content)
                if not options.views:
                    return Translated(output)
                shown = [(pixels, served.input, "input.png"), (made, served.output, "output.png")]
                return Translated(
                    output, views=tuple([await self._in_thread(_view, *side) for side in shown])
                )

    async def _in_thread(self, function: Callable[[*_Args], _T], *args: *_Args) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._images, function, *args)

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

    def _tiling(
        self, served: ServedDirection, height: int, width: int, options: TranslateQuery
    ) -> Tiling | None:
        """Return how to cut an image into tiles; None translates it whole."""
        whole = self._options.whole_pixels
        padded = padded_pixels(height, width, served.config)
        if padded > max(_MOST_PADDING * self._options.max_pixels, whole):
            raise self._too_many(f"found {width}x{height}, which is {padded} pixels when padded")
        if options.tile:
            return _limited(Tiling.of(options.tile, options.overlap, options.norm_from), whole)
        if padded <= whole:
            return None
        if options.tile == 0:
            raise Problem(
                "too-many-pixels",
                f"found {width}x{height}, the limit without tiles is {whole} pixels: leave tile out",
                limit=whole,
            )
        return automatic_tiling(served, whole)

    def _too_many(self, found: str) -> Problem:
        limit = self._options.max_pixels
        return Problem(
            "too-many-pixels", f"{found}, the limit is {limit} pixels: make it smaller", limit=limit
        )


def automatic_tiling(served: ServedDirection, whole_pixels: int) -> Tiling:
    """Return the default tiling of large images: tiles of about 512 pixels with shared statistics."""
    multiple, least = served.config.size_multiple, served.config.minimum_size
    side = min(_TILE, math.isqrt(whole_pixels))
    tile = max(side // multiple * multiple, least)
    return _limited(Tiling.of(tile, norm_from="image"), whole_pixels)


def _limited(tiling: Tiling, whole_pixels: int) -> Tiling:
    # A tiling's statistics sample has no more pixels than a batch.
    return replace(tiling, sample_pixels=min(whole_pixels, tiling.sample_pixels))


def _planes(served: ServedDirection) -> int:
    """Number of groups of four channels in an input or an output, whichever has more."""
    return max(-(-side.stored_channels // 4) for side in (served.input, served.output))


def _check_tiles(served: ServedDirection, options: TranslateQuery, limits: ServeOptions) -> None:
    """Check the options of tiles, before anything is decoded."""
    if not options.tile:
        for name, value in (("overlap", options.overlap), ("norm_from", options.norm_from)):
            if value is not None:
                raise Problem("invalid-request", f"{name} needs tile: give tile too")
        return
    try:
        Tiling.of(options.tile, options.overlap, options.norm_from).check(served.config)
    except PiggybackError as error:
        raise Problem("invalid-request", str(error)) from None
    if options.tile**2 > limits.whole_pixels:
        raise Problem(
            "invalid-request",
            f"invalid tile: found {options.tile}, the limit is {math.isqrt(limits.whole_pixels)}",
        )


async def _all_or_none(work: Sequence[Any], names: Sequence[str]) -> list[Translated]:
    """Wait for all results, in order; failed ones become problem documents, unless all failed."""
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
        for problem in problems:  # failures of the server, not of an image, come first
            if problem.status >= 500 or problem.name == "queue-full":
                raise problem
        raise Problem(
            "none-translated",
            f"none of {len(outcomes)} files could be translated; the first: {problems[0].detail}",
            problems=[problem.document for problem in problems],
        )
    return made


def _view(pixels: Pixels, format: ImageFormat, name: str) -> File:
    """Make a picture for display: 8-bit RGB, scaled down if large."""
    shown = display(pixels, format)
    image = Image.fromarray(shown)
    image.thumbnail((_LARGEST_VIEW, _LARGEST_VIEW), reducing_gap=2.0)
    return File(name, "image/png", encode(np.asarray(image), ".png"))
