"""Every example runs as it says, learns two tasks, and forgets neither."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "two_tasks")
)
def test_an_example_learns_two_tasks_and_forgets_neither(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), "3"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second, last = done.stdout.splitlines()
    assert re.search(r"adds [\d,]+ parameters, 1\.000 of a network, [\d,]+ of them private", first)
    share = re.search(r", (0\.\d+) of a network", second)
    assert share is not None and float(share[1]) <= 0.2
    assert last.endswith("True")
