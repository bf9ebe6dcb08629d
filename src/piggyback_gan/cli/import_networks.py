"""pbgan import: import networks of CycleGAN, pix2pix and CUT as tasks of a bank."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from piggyback_gan.cli.arguments import SAME_GROUP, BankPath, optional, parse
from piggyback_gan.cli.console import new_progress, new_table, wide_console
from piggyback_gan.cli.option_hints import default_hint
from piggyback_gan.errors import PiggybackError
from piggyback_gan.importing.options import ImportOptions
from piggyback_gan.names import Direction
from piggyback_gan.networks.options import GeneratorOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.progress import TaskID

    from piggyback_gan.core.factorize import LayerFit
    from piggyback_gan.importing.folder import Checkpoint
    from piggyback_gan.importing.import_task import Imported

_FAR = 0.01  # L1 distance of outputs above which finetuning is worthwhile


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Import a generator of CycleGAN, pix2pix or CUT as a task; its architecture is inferred from the file.

    The first task is stored unchanged. Later ones are fitted to the bank's filters, with a share of new
    filters, and --finetune trains them on the imported network's outputs. --all imports a checkpoint folder:
    files NAME.pth, or folders NAME with latest_net_G.pth, or latest_net_G_A.pth and _B.pth.
    """

    bank: BankPath
    """The bank's directory; created if missing."""
    task: Annotated[str | None, tyro.conf.Positional, optional("TASK")] = None
    """The new task's name."""
    file: Annotated[Path | None, tyro.conf.Positional, optional("FILE")] = None
    """Weight file, such as latest_net_G.pth."""
    backward: Annotated[Path | None, optional("FILE")] = None
    """Weight file of the other direction, such as CycleGAN's latest_net_G_B.pth; the task is then unpaired."""
    all: Annotated[Path | None, optional("DIR")] = None
    """Import all networks in this checkpoint folder, instead of TASK and FILE."""
    direction: Annotated[
        Direction | None, default_hint("as train_opt.txt beside it says, else AtoB", "{AtoB,BtoA}")
    ] = None
    """Direction of FILE."""
    images: Annotated[Path | None, optional("DIR")] = None
    """Input images, or a data set as for training, to compare outputs on; with --all also DIR/TASK."""
    options: Annotated[ImportOptions, SAME_GROUP] = field(default_factory=ImportOptions)
    architecture: tyro.conf.OmitArgPrefixes[GeneratorOptions] = field(
        default_factory=GeneratorOptions
    )
    """Overrides of the architecture inferred from the file."""


def run(arguments: list[str]) -> int:
    """Import one network, or all in a folder."""
    given = parse(Arguments, "import", arguments)
    if (given.all is None) == (given.task is None or given.file is None):
        raise PiggybackError("give TASK and FILE, or --all DIR (pbgan import --help)")
    if given.all is not None and (given.task or given.backward):
        raise PiggybackError(
            "--all finds tasks and files in its folder: leave out TASK and --backward"
        )
    return _import_one(given) if given.all is None else _import_all(given)


def _import_one(given: Arguments) -> int:
    from piggyback_gan.importing.folder import with_recorded
    from piggyback_gan.importing.import_task import import_task
    from piggyback_gan.importing.public_weights import describe, read_generator

    assert given.task is not None and given.file is not None
    read = read_generator(given.file, given.architecture)
    dropped = f"; left out: {read.dropped}" if read.dropped else ""
    print(f"{given.file}: {describe(read.config)}{dropped}")
    options, direction = with_recorded(given.options, given.direction, given.file)
    with _finetuning() as stepped:
        imported = import_task(
            given.bank,
            given.task,
            read,
            options,
            backward=given.backward,
            direction=direction,
            images=given.images,
            architecture=given.architecture,
            on_step=lambda way, *progress: stepped(f"{given.task} {way}", *progress),
        )
    for way, fits in imported.fits.items():
        _print_fits(way, fits)
    print(_summary(given.task, given.bank, imported))
    _advise(given, given.task, imported)
    return 0


def _import_all(given: Arguments) -> int:
    from piggyback_gan.importing.folder import find_checkpoints, import_checkpoints

    assert given.all is not None
    rows: list[tuple[Checkpoint, Imported]] = []
    with _finetuning() as stepped:
        for item, imported in import_checkpoints(
            given.bank,
            find_checkpoints(given.all),
            given.options,
            direction=given.direction,
            images=given.images,
            architecture=given.architecture,
            on_step=lambda item, way, *progress: stepped(f"{item.task} {way}", *progress),
        ):
            if imported is None:
                print(f"pbgan: {item.task} is already in {given.bank}", file=sys.stderr)
            else:
                rows.append((item, imported))
    if rows:
        _print_folder(rows)
    for item, imported in rows:
        _advise(given, item.task, imported)
    return 0


@contextmanager
def _finetuning() -> Iterator[Callable[[str, int, int, float], None]]:
    """Show a progress bar for each finetuning inside the block, given its name, steps done, all steps and the loss."""
    bars: dict[str, TaskID] = {}
    with new_progress() as progress:

        def stepped(what: str, step: int, steps: int, loss: float) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=steps)
            progress.update(bars[what], completed=step, description=f"{what}  L1 {loss:.4f}")

        yield stepped


def _print_fits(way: str, fits: Sequence[LayerFit]) -> None:
    table = new_table(f"layer, {way}", ">filters", ">new", ">mixed from", ">error")
    for fit in fits:
        mixed_from = fit.bank if fit.unconstrained < fit.filters else 0
        counts = fit.filters, fit.unconstrained, mixed_from
        table.add_row(fit.layer, *map(str, counts), f"{fit.error:.3f}")
    wide_console().print(table)
    print(
        "error: relative error of a layer's filters after the least squares fit, before any finetuning"
    )


def _print_folder(rows: list[tuple[Checkpoint, Imported]]) -> None:
    table = new_table(
        "task", ">file, MB", ">in the bank, MB", ">share", ">L1 to original", ">before finetuning"
    )
    before = after = 0
    for item, imported in rows:
        before, after = before + item.bytes, after + imported.entry.bytes
        table.add_row(
            item.task,
            f"{item.bytes / 1e6:.2f}",
            f"{imported.entry.bytes / 1e6:.2f}",
            f"{imported.parameters.share:.3f}",
            _l1(imported.distances),
            _l1(imported.before),
        )
    table.add_section()
    table.add_row(
        "together", f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before:.3f}", "", ""
    )
    wide_console().print(table)


def _l1(distances: Mapping[str, Mapping[str, float]]) -> str:
    return " ".join(f"{distance['l1']:.4f}" for distance in distances.values()) or "-"


def _summary(task: str, bank: Path, imported: Imported) -> str:
    size = f"{imported.parameters.share:.3f} of a network, {imported.entry.bytes / 1e6:.1f} MB"
    words = [f"{task} is in {bank}: {size}"]
    for way, distance in imported.distances.items():
        was = (
            f" (before finetuning {imported.before[way]['l1']:.4f})"
            if way in imported.before
            else ""
        )
        words.append(
            f"{way}: outputs differ from the imported network's by L1 {distance['l1']:.4f} of the value "
            f"range{was}, PSNR {distance['psnr']:.1f} dB"
        )
    return "\n".join(words)


def _advise(given: Arguments, task: str, imported: Imported) -> None:
    """Suggest finetuning for a task whose outputs differ from the imported network's."""
    if given.options.finetune or not imported.parameters.mixing:
        return
    far = max((d["l1"] for d in imported.distances.values()), default=None)
    if far is None or far > _FAR:
        measured = "not measured" if far is None else f"L1 {far:.3f}"
        print(
            f"pbgan: {task} differs from the imported network ({measured}): remove it and import it with "
            "--finetune 1000 --images DIR, or keep more filters with --max-error",
            file=sys.stderr,
        )
