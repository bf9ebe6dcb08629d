"""pbgan experiment: compare lifelong strategies on a sequence of tasks."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import tyro

from piggyback_gan.cli.arguments import optional, parse
from piggyback_gan.cli.signals import stopped_by_signals
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Device


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train and evaluate strategies on a sequence of tasks that a file describes (docs/experiments.md).

    Run the same command again to continue after the last finished task of each part. `pbgan report DIR`
    makes a page of the results, at any time.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """TOML file of tasks, strategies, seeds and options."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of results."""
    jobs: int = 1
    """Number of parts to run at once, each in its own process."""
    part: Annotated[str | None, optional("NAME")] = None
    """Run this part only, such as in an array job of a cluster."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only list the parts, their state and the parts they need."""
    data: Annotated[Path | None, optional("DIR")] = None
    """Folder of the tasks' data, if not beside the file."""
    features: Annotated[str | None, optional("SPEC")] = None
    """Feature network of Frechet and kernel distances, instead of the file's."""
    distance: Annotated[str | None, optional("SPEC")] = None
    """Network of the perceptual distance, instead of the file's."""
    recogniser: Annotated[str | None, optional("SPEC")] = None
    """Network that segments outputs made from label maps, instead of the file's."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""


def run(arguments: list[str]) -> int:
    """Run or list the parts of an experiment."""
    given = parse(Arguments, "experiment", arguments)
    if given.jobs < 1:
        raise PiggybackError(f"--jobs must be 1 or more, found {given.jobs}")
    from piggyback_gan.experiments.run.parallel import ENDS_WITH_PARENT, run_side_by_side
    from piggyback_gan.experiments.run.part import Stopped
    from piggyback_gan.experiments.run.runner import Runner
    from piggyback_gan.experiments.settings import read_experiment
    from piggyback_gan.system.device import choose_device

    experiment = read_experiment(
        given.file,
        data=given.data,
        features=given.features,
        distance=given.distance,
        recogniser=given.recogniser,
    )
    device = cast(Device, choose_device(given.device))
    whole = ["experiment", *_shared(arguments)]
    runner = Runner(experiment, given.out, device)
    if given.list:
        runner.check()
        for part in runner.names:
            needs = ", ".join(map(str, part.needs))
            state = "done" if runner.is_done(part) else "open"
            state = "runs" if runner.is_running(part) else state
            print(f"{state}  {part}" + (f"  needs {needs}" if needs else ""))
        return 0
    runner.begin(shlex.join(["pbgan", *whole]))
    with stopped_by_signals() as stop:
        try:
            if given.part is not None:
                parent = os.getppid() if ENDS_WITH_PARENT in os.environ else None
                runner.run(
                    runner.part(given.part),
                    _say(given.part),
                    lambda: stop.asked() or parent not in (None, os.getppid()),
                )
            elif given.jobs > 1:
                run_side_by_side(runner, whole, given.jobs, _say(None), stop.asked)
            else:
                for part in runner.names:
                    runner.run(part, _say(str(part)), stop.asked)
        except Stopped as end:
            print(f"pbgan: {end}; run the same command to continue", file=sys.stderr)
            return stop.status
    if given.part is None:
        print(f"all parts are done; to see the results: pbgan report {given.out}")
    return 0


def _shared(arguments: list[str]) -> list[str]:
    """Return the arguments that all processes of an experiment have in common."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in ("--jobs", "--part", "--list"):
            kept.append(argument)
        skip = argument in ("--jobs", "--part")
    return kept


def _say(name: str | None) -> Callable[[str], None]:
    """Return a callback that prints a line, prefixed with the part's name."""
    begin = "" if name is None else f"{name}: "
    return lambda words: print(begin + words, flush=True)
