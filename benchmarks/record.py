"""Record an experiment's settings and figures, without weights and images.

    python benchmarks/record.py DIR NAME [--clone CLONE]

DIR is the folder of a `pbgan experiment`. Its settings and all stages go to docs/results/NAME.json, tables
as CSV and plots as PNG to docs/results/NAME/. The commit of each part is recorded, too: that of this repository, or
of a CLONE at the commit of other parts. Parts from any other source are refused.
"""

import argparse
import shlex
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from lifelong import RESULTS, machine
from piggyback_gan.experiments.report.page import write_report
from piggyback_gan.experiments.results import Results, read_table, to_json
from piggyback_gan.experiments.run.record import source_sha256


def without_places(command: str) -> str:
    """Return a command with absolute paths reduced to their names, which don't depend on the machine."""
    words = shlex.split(command)
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("name")
    parser.add_argument("--clone", type=Path, action="append", default=[])
    given = parser.parse_args()
    commits = {source_sha256(): machine()["commit"]}
    for clone in given.clone:
        package = clone / "src" / "piggyback_gan"
        commits[source_sha256(package)] = machine(clone)["commit"]
    results = Results.read(given.folder)
    parts = {}
    for part in sorted(given.folder.glob("parts/*/*/part.json")):
        source = read_table(part, "damaged")["source_sha256"]
        if source not in commits:
            sys.exit(f"{part.parent} was run from another source than this: give a --clone of it")
        parts["/".join(part.parts[-3:-1])] = commits[source]
    content = {
        "commits": parts,
        "experiment": {
            **results.experiment,
            "command": without_places(results.experiment["command"]),
        },
        "stages": [asdict(stage) for stage in results.stages],
        "tried": [asdict(stage) for stage in results.tried],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{given.name}.json").write_bytes(to_json(content))
    beside = RESULTS / given.name
    shutil.rmtree(beside, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        report = write_report(given.folder, Path(temporary) / "report").parent
        for pattern in ("tables/*.csv", "plots/*.png"):
            for file in sorted(report.glob(pattern)):
                beside.mkdir(exist_ok=True)
                shutil.copy(file, beside / file.name)
    print(f"{RESULTS / given.name}.json and {beside} are written")


if __name__ == "__main__":
    main()
