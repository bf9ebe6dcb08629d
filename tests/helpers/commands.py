"""The command line in this process: as `banks.pbgan`, without the seconds that a new process takes."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from piggyback_gan.cli.main import main
from piggyback_gan.system import user_code


def run_here(*arguments: str | Path, columns: int = 120) -> subprocess.CompletedProcess[str]:
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
