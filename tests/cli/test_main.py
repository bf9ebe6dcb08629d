"""The command line as a whole: help without torch, errors in one line, exit statuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_here
from piggyback_gan.cli.main import COMMANDS

HELPS = {
    "": "usage: pbgan COMMAND",
    "--help": "usage: pbgan COMMAND",
    "--version": "pbgan ",
    **{f"{command} --help": f"usage: pbgan {command}" for command in COMMANDS},
}
_PRINT_HELPS = """
import contextlib, io, json, sys
from piggyback_gan.cli.main import main

helps = sys.argv[1:]
for words in helps:
    sys.argv = ["pbgan", *words.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
    assert not status and "torch" not in sys.modules, words
    print(json.dumps(out.getvalue()))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_all_help_loads_no_torch() -> None:
    done = python("-c", _PRINT_HELPS, *HELPS)
    assert done.returncode == 0, done.stderr
    for line, words in zip(map(json.loads, done.stdout.splitlines()), HELPS.values(), strict=True):
        assert words in line


def test_the_help_names_every_command() -> None:
    listed = run_here().stdout
    assert all(f"  {command} " in listed for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tran",), "unknown command 'tran'; commands: train, runs, translate"),
        (("train",), "Missing"),
        (("train", "b", "t", "--data", "x", "--epoch", "3"), "--epoch"),
        (("train", "b", "t", "--data", "x", "--epochs", "many"), "--epochs"),
        (("train", "b", "t", "--data", "x", "--epochs", "0"), "epochs"),
        (("train", "b", "t", "--data", "x", "--generator", "resnet"), "'resnet'"),
        (("tasks", "no-bank"), "no-bank is not a bank"),
        (("runs", "."), ". is not a bank: it has no bank.json"),
        (("runs", ".", "--json"), ". is not a bank: it has no bank.json"),
        (("translate", "no-bank", "maps", "a.png", "--out", "o"), "no-bank is not a bank"),
        (("remove", "no-bank", "maps", "--yes"), "no-bank is not a bank"),
        (("verify", "no-bank"), "no-bank is not a bank"),
        (("evaluate", "no-bank", "--data", "x"), "no-bank is not a bank"),
        (("demo", "--out", "/dev/null"), "/dev/null"),
        (("tasks", "no\nbank"), "no bank is not a bank"),
        (("train", "/", "t", "--data", "x"), "/ is not a bank, and the folder is not empty"),
        (("train", "b" * 300, "t", "--data", "x"), "File name too long"),
        (("train", "b", "t", "--data", "x", "--image-size", "1" + "0" * 20), "image_size"),
        (("train", "b", "t", "--data", "x", "--config"), "--config"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The first one in a process, for the program's own exit status.
    if arguments == ("tran",):
        done = python("-m", "piggyback_gan", *arguments)
    else:
        done = run_here(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("pbgan: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_error_with_a_traceback() -> None:
    command = f"{sys.executable} -m piggyback_gan --help | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m piggyback_gan --version > /dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["pbgan: error: the system: No space left on device"]


_DEAF = """
import os, sys
from pathlib import Path
from piggyback_gan.cli.signals import ended_by_signals
from piggyback_gan.system.files import staging_folder

with ended_by_signals(), staging_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("made")
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
        sum(range(1000))
    except BaseException:
        pass
    print("it went on")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_code_that_passes_over_exceptions_does_not_outlive_a_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    done = python("-c", _DEAF, str(tmp_path / "made"), str(int(number)))
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "pbgan: stopped\n"
    assert list(tmp_path.iterdir()) == []
