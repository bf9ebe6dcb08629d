"""pbgan runs: list a bank's training runs, their progress and how to resume them."""

import json
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest
from piggyback_gan.cli.arguments import BankPath, optional, parse
from piggyback_gan.errors import PiggybackError
from piggyback_gan.runs.run_folder import RunFolder, list_runs

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """List a bank's training runs, their progress, and how to resume those that stopped."""

    bank: BankPath
    """The bank's directory."""
    discard: Annotated[str | None, optional("TASK")] = None
    """Delete a training with its checkpoint, metrics and samples. The bank's tasks are not changed."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print everything as JSON."""


def run(arguments: list[str]) -> int:
    """List training runs on stdout, or discard one."""
    given = parse(Arguments, "runs", arguments)
    if given.discard is not None:
        folder = RunFolder(given.bank, given.discard)
        if not folder.exists:
            folder.read()  # raises before a lock file is made for a run that does not exist
        with writer_lock(given.bank, f"discard the run of {given.discard}"):
            folder.discard()
        print(f"the run of {given.discard} is discarded; the tasks in {given.bank} are not changed")
        return 0
    rows = [_row(folder) for folder in list_runs(given.bank)]
    if not rows:
        Manifest.read(given.bank)  # raises if it is no bank
    if given.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"{given.bank} has no runs")
        return 0
    from piggyback_gan.cli.console import new_table, wide_console

    table = new_table("task", "state", "epoch", "step")
    for row in rows:
        place = row["position"]
        table.add_row(
            row["task"],
            row["state"],
            f"{place['epoch']}/{place['epochs']}",
            f"{place['step']}/{place['steps']}",
        )
    console = wide_console()
    console.print(table)
    for row in rows:
        if row["problem"]:
            _say(console, f"{row['task']}: {row['problem']}")
    if on := [row["go_on"] for row in rows if row["go_on"]]:
        # Below the table, where long paths are not cut off, to be copied.
        _say(console, "\n".join(["to resume:", *on]))
    return 0


def _say(console: "Console", words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _row(folder: RunFolder) -> dict[str, Any]:
    try:
        found = folder.read()
    except PiggybackError as error:
        nowhere = {"epoch": 0, "epochs": 0, "step": 0, "steps": 0}
        return {
            "task": folder.task,
            "state": "damaged",
            "position": nowhere,
            "go_on": None,
            "problem": str(error),
        }
    state: str = found.state
    if state == "running" and not folder.is_running():
        state = "killed"  # its process ended without recording it
    go_on, problem = None, found.problem
    if state in ("running", "finished"):
        pass
    elif later := folder.later_tasks(found):
        problem = f"can't be resumed after later tasks ({', '.join(later)}): remove them or discard the run"
    else:
        go_on = shlex.join(["pbgan", "train", str(folder.bank), folder.task, "--resume"])
    return {
        **asdict(found),
        "state": state,
        "problem": problem,
        "go_on": go_on,
        "folder": str(folder.path),
    }
