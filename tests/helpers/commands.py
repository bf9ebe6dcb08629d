"""The command line, without the seconds that a new Python takes to import torch: in this process or a fork."""

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from unittest import mock

import banks
from paths import ROOT
from piggyback_gan.cli.main import main
from piggyback_gan.system import user_code


def run_here(*arguments: object, columns: int = 120) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal; its exit status and output."""
    words = list(map(str, arguments))
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["pbgan", *words]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.object(user_code, "_folders", []),
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main()
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


class Program:
    """A command in a process of its own, without a terminal: `subprocess.Popen` for a fork.

    Args:
        arguments: the words after `pbgan`.
        folder: its working folder.
        stdin: what it reads from its standard input.
        environment: variables that differ from this process's.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path | None = None,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._files = [tempfile.NamedTemporaryFile() for _ in range(3)]  # noqa: SIM115
        self._files[0].write(stdin)
        self._files[0].flush()
        names = [file.name for file in self._files]
        with mock.patch.dict(os.environ, environment or {}):
            self._process = banks.start(_program, list(map(str, arguments)), folder, names)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if any(error):
            self.kill()
        self.wait()

    @property
    def returncode(self) -> int | None:
        """The exit status, -n after signal n; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()

    @property
    def output(self) -> tuple[str, str]:
        """What it has written so far to stdout and stderr."""
        out, err = (Path(file.name).read_bytes().decode() for file in self._files[1:])
        return out, err

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it wrote to stdout and stderr."""
        self.wait(timeout)
        assert self.returncode is not None, "it does not end"
        return self.output


def pbgan(
    *arguments: object, columns: int = 120, folder: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own."""
    program = Program(*arguments, folder=folder, stdin=stdin, environment={"COLUMNS": str(columns)})
    out, err = program.communicate()
    return subprocess.CompletedProcess(list(arguments), program.returncode, out, err)


def _program(words: list[str], folder: Path | None, names: list[str]) -> None:
    """Be the installed program: its standard files, path, arguments and right to start processes."""
    for number, name in enumerate(names):
        file = os.open(name, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    if folder is not None:
        os.chdir(folder)
    tests = (str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/helpers"))
    sys.path[:] = [entry for entry in sys.path if entry not in tests]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["pbgan", *words]
    multiprocessing.current_process()._config["daemon"] = False
    sys.exit(main())
