"""pbgan report: an experiment as a page to read, print and cite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import parse


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an experiment's report: one page, its plots, its tables as CSV and LaTeX. Needs no network."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The experiment's folder; it may be unfinished."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where to write the report; default DIR/report. An earlier report there is replaced."""
    standalone: Annotated[str | None, tyro.conf.arg(metavar="LABEL")] = None
    """The strategy to compare with; default the first of the kind standalone."""


def run(arguments: list[str]) -> int:
    """Write the report and print where it is."""
    given = parse(Arguments, "report", arguments)
    from piggyback_gan.experiments.report.page import write_report

    print(write_report(given.folder, given.out, given.standalone))
    return 0
