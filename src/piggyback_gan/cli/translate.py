"""pbgan translate: images in, images out."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from piggyback_gan.cli.arguments import BankPath, TaskName, parse
from piggyback_gan.config import check_positive
from piggyback_gan.options import Device


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Translate images of any size. Outputs have the inputs' names and sizes."""

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The task's name."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Image files, and folders of them."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder for the outputs."""
    format: Literal["png", "same"] = "png"
    """png: without loss, a.jpg becomes a.png; same: each in its input's format."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace outputs that are there."""
    batch_size: int = 8
    """Images of one size that are translated at once."""
    device: Device = "auto"
    """Where to compute; auto takes what is there."""


def run(arguments: list[str]) -> int:
    """Translate; exit status 1 if some inputs could not be read."""
    given = parse(Arguments, "translate", arguments)
    check_positive("batch_size", given.batch_size)
    from rich.console import Console
    from rich.progress import Progress

    from piggyback_gan.bank import Bank
    from piggyback_gan.devices import choose_device
    from piggyback_gan.errors import PiggybackError
    from piggyback_gan.manifest import require_writable
    from piggyback_gan.translate import plan_outputs, translate_files

    if not given.inputs:
        raise PiggybackError("give at least one image or folder to translate")
    bank = Bank.open(given.bank)
    device = choose_device(given.device)
    generator = bank.generator(given.task, device)
    planned = plan_outputs(
        given.inputs, given.out, same_format=given.format == "same", overwrite=given.overwrite
    )
    require_writable(given.out)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(given.task, total=len(planned))
        outcomes = translate_files(
            generator,
            bank.config,
            planned,
            batch_size=given.batch_size,
            on_done=lambda count: progress.update(bar, completed=count),
        )
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        print(f"pbgan: {problem}", file=sys.stderr)
    failed = f", {len(problems)} could not be read" if problems else ""
    print(f"{len(outcomes) - len(problems)} images in {given.out}{failed}")
    return 1 if problems else 0
