"""Claims about an experiment's processes: kills, stops, parts side by side, parts that fail, one process for a part."""

import contextlib
import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

import banks
from commands import Program
from data_sets import refusal
from piggyback_gan.experiments.results import read_experiment_file
from running import start, wait_for
from tiny_experiments import HEAD, draw, figures, run, strategies_text, tasks_text, write

TWO = HEAD + tasks_text(boxes="paired", night="paired")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, two strategies."""
    return draw(tmp_path_factory.mktemp("drawn"), TWO + strategies_text("finetune", "piggyback"))


@pytest.fixture(scope="module")
def alone(file: Path) -> Path:
    """The same, done in this process without a disturbance."""
    assert run(file, file.parent / "alone") == 0
    return file.parent / "alone"


def test_a_part_killed_between_tasks_and_within_one_ends_as_one_left_alone(
    file: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    part = out / "parts/finetune/seed-0"
    # Both are written well before the next stage is: within task 2's training, and before it is measured.
    for reached in (part / "stage-1.json", part / "training-2.json"):
        process = banks.start(run, file, out)
        wait_for(reached.exists, process.is_alive)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert not (out / "parts/piggyback/seed-0/stage-1.json").exists()
    assert run(file, out) == 0
    assert figures(out) == figures(alone)


@pytest.fixture(scope="module")
def side_by_side(file: Path) -> tuple[Path, str, list[str]]:
    """Both strategies and one that fails, two at once: the folder, the error, what was printed."""
    text = file.read_text() + strategies_text("lora", rate=3e38)
    out = file.parent / "side-by-side"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        error = refusal(lambda: run(write(file.parent, text, "fails.toml"), out, "--jobs", "2"))
    return out, error, printed.getvalue().splitlines()


def test_parts_side_by_side_measure_the_same(
    side_by_side: tuple[Path, str, list[str]], alone: Path
) -> None:
    out, _, printed = side_by_side
    found = {name: f for name, f in figures(out).items() if "lora" not in name}
    assert found == figures(alone)
    assert printed[:2] == ["first/seed-0 begins", "first/seed-0 is done"]
    assert set(printed[2:4]) == {"finetune/seed-0 begins", "piggyback/seed-0 begins"}
    assert not printed[4].endswith(" begins"), "a third waits for a job"
    assert "after night: night l1" in (out / "parts/piggyback/seed-0/log.txt").read_text()


def test_a_part_that_fails_does_not_stop_the_others_and_its_log_is_named(
    side_by_side: tuple[Path, str, list[str]],
) -> None:
    out, error, printed = side_by_side
    log = out / "parts/lora/seed-0/log.txt"
    assert error == f"lora/seed-0 failed; see {log}"
    assert "lora, night: the " in log.read_text()
    assert "try a lower learning_rate (now 3e+38)" in log.read_text()
    assert {"lora/seed-0 failed", "piggyback/seed-0 is done"} < set(printed)


def test_the_record_has_the_command_that_began_the_folder_not_that_of_a_part(
    side_by_side: tuple[Path, str, list[str]], file: Path
) -> None:
    out, *_ = side_by_side
    expected = f"pbgan experiment {file.parent / 'fails.toml'} --out {out} --device cpu"
    assert read_experiment_file(out)["command"] == expected


@contextlib.contextmanager
def training(file: Path, out: Path) -> Iterator[Program]:
    """The command with two jobs, once its first part is in the midst of a long training."""
    slow = write(file.parent, file.read_text().replace("steps = 4", "steps = 100000"), "slow.toml")
    log = out / "parts/first/seed-0/log.txt"
    with start("experiment", slow, "--out", out, "--device", "cpu", "--jobs", "2") as process:
        wait_for(
            lambda: log.exists() and "epoch 2 of" in log.read_text(), lambda: process.poll() is None
        )
        yield process


def test_a_stopped_experiment_leaves_no_process_behind(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "parts/first/seed-0/log.txt"
    with training(file, tmp_path) as process:
        process.terminate()
        said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert said[1].startswith(
        "pbgan: stopped; 1 parts go on with the task they were at; run the same com"
    )
    assert re.search("first stopped while it .*; run the same command to continue", log.read_text())
    # Who runs a part holds its lock.
    with filelock.FileLock(log.with_name("part.lock"), timeout=0):
        pass


def test_parts_end_when_the_process_that_began_them_is_killed(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "parts/first/seed-0/log.txt"
    with training(file, tmp_path) as process:
        process.kill()
        process.communicate(timeout=120)
    wait_for(lambda: "first stopped while it " in log.read_text(), lambda: True)
    with filelock.FileLock(log.with_name("part.lock"), timeout=120):
        pass


def test_data_that_is_removed_meanwhile_is_named(file: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "drawn", file.read_text()).parent
    assert run(folder / "boxes.toml", tmp_path / "out", "--part", "first/seed-0") == 0
    (folder / "night").rename(folder / "gone")
    said = refusal(
        lambda: run(folder / "boxes.toml", tmp_path / "out", "--part", "finetune/seed-0")
    )
    assert str(folder / "night") in said


def test_a_part_alone_is_done_by_its_name(
    file: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = refusal(lambda: run(file, out, "--part", "piggyback/seed-0"))
    assert said == "piggyback/seed-0 needs other parts first: first/seed-0"
    for part in ("first/seed-0", "piggyback/seed-0"):
        assert run(file, out, "--part", part) == 0
    assert "all parts are done" not in capsys.readouterr().out
    expected = {name: f for name, f in figures(alone).items() if "finetune" not in name}
    assert figures(out) == expected


def test_two_processes_cannot_run_one_part(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "out/parts/first/seed-0"
    part.mkdir(parents=True)
    with filelock.FileLock(part / "part.lock"):
        said = refusal(lambda: run(file, tmp_path / "out", "--part", "first/seed-0"))
        assert run(file, tmp_path / "out", "--list") == 0
    assert said == "first/seed-0 is being run by another process"
    assert capsys.readouterr().out.startswith("runs  first/seed-0\nopen  ")


def test_the_best_learning_rate_is_searched_for_and_a_diverging_one_is_none(
    file: Path, tmp_path: Path
) -> None:
    text = TWO + strategies_text("finetune", rate=[3e38, 0.002, 1e-7])
    search = write(file.parent, text.replace("[search]", '[search]\nmetric = "l1"'), "search.toml")
    out = tmp_path / "out"
    assert run(search, out) == 0
    diverged = out / "parts/finetune/rate-3e+38/diverged.json"
    assert "night" in diverged.read_text()
    found = figures(out)
    l1 = {
        rate: found[f"parts/finetune/rate-{rate}/stage-2.json"]["figures"]["night"]["l1"]["value"]
        for rate in ("0.002", "1e-07")
    }
    assert found["parts/finetune/seed-0/stage-2.json"]["learning_rate"] == float(
        min(l1, key=l1.get)
    )
    # Of 4 training pairs 2 judge; the held-out ones are 3.
    assert found["parts/finetune/rate-0.002/stage-2.json"]["identical"]["night"] == [1, 1]


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_a_number_of_jobs_is_1_or_more(jobs: str, file: Path, tmp_path: Path) -> None:
    said = refusal(lambda: run(file, tmp_path / "out", f"--jobs={jobs}"))
    assert said == f"--jobs must be 1 or more, found {jobs}"
    assert not (tmp_path / "out").exists()
