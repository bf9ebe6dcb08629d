"""Every example runs as it says, learns two tasks, and forgets neither."""

import contextlib
import io
import os
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest

from banks import in_process
from paths import ROOT

EXAMPLES = ROOT / "examples"


def run(script: Path, folder: Path) -> tuple[str, str]:
    """What `python -W error SCRIPT 3` prints to stdout and stderr, in this process."""
    out, err = io.StringIO(), io.StringIO()
    warnings.simplefilter("error")
    os.chdir(folder)
    tests = (str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/helpers"))
    sys.path[:] = [str(script.parent), *(entry for entry in sys.path if entry not in tests)]
    sys.argv = [str(script), "3"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "two_tasks")
)
def test_an_example_learns_two_tasks_and_forgets_neither(name: str, tmp_path: Path) -> None:
    out, err = in_process(run, EXAMPLES / f"{name}.py", tmp_path)
    assert err == ""
    first, second, last = out.splitlines()
    assert re.search(r"adds [\d,]+ parameters, 1\.000 of a network, [\d,]+ of them private", first)
    share = re.search(r", (0\.\d+) of a network", second)
    assert share is not None and float(share[1]) <= 0.2
    assert last.endswith("True")
