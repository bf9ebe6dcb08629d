"""pbgan demo: the main job on drawn scenes, in a few minutes."""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import parse
from piggyback_gan.cli.signals import stopped_by_signals


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Teach one bank three tasks on drawn scenes and show that nothing is forgotten."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo-out")
    """The folder for data, bank, pictures and page."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier demo."""


def run(arguments: list[str]) -> int:
    """Run the demo; exit status 1 if an output changed."""
    given = parse(Arguments, "demo", arguments)
    from rich import box
    from rich.table import Table

    from piggyback_gan.cli.console import wide_console
    from piggyback_gan.cli.progress import TrainingProgress
    from piggyback_gan.demo.report import HEADINGS, table_rows, write_report
    from piggyback_gan.demo.run import prepare, run_demo
    from piggyback_gan.training.callbacks import Interrupted

    prepare(given.out, overwrite=given.overwrite)
    started = time.monotonic()
    with stopped_by_signals() as stop, TrainingProgress() as progress:
        try:
            learned = run_demo(given.out, callback=progress, should_stop=stop.asked)
        except Interrupted as interrupted:
            print(f"pbgan: demo {interrupted}; begin anew with --overwrite", file=sys.stderr)
            return stop.status
    sheet, page = write_report(given.out, learned)
    table = Table(box=box.SIMPLE_HEAD)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if index else "left")
    for row in table_rows(learned):
        table.add_row(*row)
    wide_console().print(table)
    print(f"pictures  {sheet}")
    print(f"page      {page}")
    print(
        f"bank      {given.out / 'bank'} (try: pbgan tasks {shlex.quote(str(given.out / 'bank'))})"
    )
    print(f"time      {(time.monotonic() - started) / 60:.1f} minutes")
    return 0 if all(task.identical for task in learned) else 1
