"""pbgan demo: train three tasks on drawn scenes, in a few minutes."""

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
    """Train three tasks of one bank on drawn scenes and show that nothing is forgotten."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo-out")
    """Output folder for data, bank, images and report."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier demo in this folder."""


def run(arguments: list[str]) -> int:
    """Run the demo; the exit status is 1 if an output changed."""
    given = parse(Arguments, "demo", arguments)
    from piggyback_gan.cli.console import new_table, wide_console
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
            print(f"pbgan: demo {interrupted}; start again with --overwrite", file=sys.stderr)
            return stop.status
    sheet, page = write_report(given.out, learned)
    table = new_table(HEADINGS[0], *(f">{heading}" for heading in HEADINGS[1:]))
    for row in table_rows(learned):
        table.add_row(*row)
    wide_console().print(table)
    print(f"images    {sheet}")
    print(f"page      {page}")
    print(
        f"bank      {given.out / 'bank'} (try: pbgan tasks {shlex.quote(str(given.out / 'bank'))})"
    )
    print(f"time      {(time.monotonic() - started) / 60:.1f} minutes")
    return 0 if all(task.identical for task in learned) else 1
