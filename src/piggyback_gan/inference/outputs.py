"""Plan which input file becomes which output file, before anything is translated."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import SUFFIXES, best_suffix, can_hold
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import list_images
from piggyback_gan.system.launch import Place

_LONGEST_NAME = 255


@dataclass(frozen=True)
class Outcome:
    """Result for one input file; `problem` is None if its output was written."""

    source: Path
    output: Path
    problem: str | None = None


def plan_outputs(
    inputs: Sequence[Path],
    out: Path,
    *,
    same_format: bool = False,
    overwrite: bool = False,
    recursive: bool = False,
    output_format: ImageFormat | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
) -> list[Outcome]:
    """Plan the output of every input file, and check the plan.

    Args:
        inputs: image files and folders of them.
        out: folder for the outputs. They keep their names, with the suffix that suits their format.
        same_format: keep the suffixes too.
        overwrite: replace existing files.
        recursive: include subfolders of the folders, and keep their tree; keep the folders in relative paths of
            files, too. Files in `out` are skipped.
        output_format: format of the outputs; by default 8-bit RGB.
        place: rank of this process; each process gets a share of the files.

    Raises:
        PiggybackError: an input does not exist, is not an image, or is a folder without images; two inputs
            have the same output; an output exists, is an input, has too long a name, or lies outside of `out`;
            or files with a suffix to be kept can't hold the output.
    """
    format = output_format or ImageFormat()
    planned: dict[Path, Path] = {}
    for source, folder in dict.fromkeys(_sources(inputs, out, recursive)):
        suffix = source.suffix if same_format else best_suffix(format)
        if not can_hold(suffix, format):
            raise PiggybackError(
                f"{source}: {suffix} files can't hold this task's outputs; {best_suffix(format)} can: "
                "leave out --format same"
            )
        output = out / folder / f"{source.stem}{suffix}"
        if planned.setdefault(output, source) != source:
            ways = "translate them apart"
            if planned[output].name != source.name:
                ways = f"give --format same, or {ways}"
            elif not recursive:
                ways = f"give their folder and --recursive, or {ways}"
            raise PiggybackError(
                f"{planned[output]} and {source} would both become {output}: {ways}"
            )
        if len(os.fsencode(output.name)) > _LONGEST_NAME:
            raise PiggybackError(
                f"{source}: with the suffix {suffix} its name has more than {_LONGEST_NAME} bytes: rename it"
            )
    _check_places(planned, inputs, out, place)
    share = list(planned.items())[place.rank :: place.count]
    # Only this process's share: another process may already be writing its own.
    existing = [output for output, _ in share if output.exists()]
    if existing and not overwrite:
        raise PiggybackError(
            f"{len(existing)} outputs exist, the first is {existing[0]}: give --overwrite or another --out"
        )
    return [Outcome(source, output) for output, source in share]


def _sources(inputs: Sequence[Path], out: Path, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the image files, each with its output's folder relative to `out`."""
    for path in inputs:
        if path.is_dir():
            found = list_images(path, recursive)
            if recursive and _is_inside(out, path):
                found = [image for image in found if not _is_inside(image, out)]
            if not found:
                below = not recursive and any(entry.is_dir() for entry in path.iterdir())
                hint = "; it has folders: give --recursive" if below else ""
                raise PiggybackError(f"{path}: there are no images in this folder{hint}")
            for image in found:
                yield image, image.parent.relative_to(path)
        elif not path.exists():
            raise PiggybackError(f"{path}: no such file or folder")
        elif path.suffix.lower() not in SUFFIXES:
            raise PiggybackError(f"{path}: not an image; known are {', '.join(SUFFIXES)}")
        else:
            # So that `find . | ...` keeps its tree.
            is_below = recursive and not path.is_absolute() and ".." not in path.parent.parts
            yield path, path.parent if is_below else Path()


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path lies below a folder; a folder does not lie below itself."""
    return _real(folder) in _real(path).parents


def _real(path: Path) -> Path:
    """Resolve links. Path.resolve would raise an error for circular links."""
    return Path(os.path.realpath(path))


def _check_places(
    planned: dict[Path, Path], inputs: Sequence[Path], out: Path, place: Place
) -> None:
    sources = {_real(source) for source in planned.values()}
    if replaced := [output for output in planned if _real(output) in sources]:
        raise PiggybackError(f"{replaced[0]} is an input: give another --out")
    whole = _real(out)
    for folder in {output.parent for output in planned}:
        if not _real(folder).is_relative_to(whole):
            raise PiggybackError(f"{folder} is a link that leads out of {out}: give another --out")
    # Other processes would take the first one's outputs for inputs.
    if place.count > 1 and any(_real(path) == whole for path in inputs):
        raise PiggybackError(f"{out} is an input folder: several processes need another --out")
