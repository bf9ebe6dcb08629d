"""pbgan report: write an experiment's results as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import parse


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an experiment's report: a page, its plots, and its tables as CSV and LaTeX. Works offline."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The experiment's folder; it may be unfinished."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the report; DIR/report by default. An earlier report there is replaced."""
    standalone: Annotated[str | None, tyro.conf.arg(metavar="LABEL")] = None
    """Strategy to compare with; by default the first of kind standalone."""


def run(arguments: list[str]) -> int:
    """Write the report and print its path."""
    given = parse(Arguments, "report", arguments)
    from piggyback_gan.experiments.report.page import write_report

    print(write_report(given.folder, given.out, given.standalone))
    return 0
