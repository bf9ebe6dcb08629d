"""pbgan runs: what is said of trainings in every state, how to go on, and what a discard removes."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banks import writer
from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, teach
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.cli import main as command_line
from piggyback_gan.cli import runs as runs_command
from piggyback_gan.runs.run_folder import RunFolder, training_purpose
from piggyback_gan.training.options import TrainingOptions
from running import GENERATOR, OPTIONS, bank_files, files, run_folder, run_state, stop

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_pairs(tmp_path / "boxes", train=2, test=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with the task one, and a run of two that was stopped after its first step."""
    folder = tmp_path_factory.mktemp("made")
    data = draw_pairs(folder / "boxes", train=2, test=1)
    teach(folder / "bank", "one", data, ONE_EPOCH, GENERATOR)
    # After the choice between the two starts.
    stop(3, folder / "bank", "two", data, OPTIONS)
    return folder / "bank"


@pytest.fixture
def bank(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(made, tmp_path / "my bank")


ONE_EPOCH = TrainingOptions(**vars(OPTIONS) | {"epochs": 1})


def rows(bank: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What `pbgan runs BANK --json` says, by task."""
    capsys.readouterr()
    assert runs_command.run([str(bank), "--json"]) == 0
    return {row["task"]: row for row in json.loads(capsys.readouterr().out)}


def set_state(bank: Path, task: str, state: str) -> None:
    path = run_folder(bank, task) / "run.json"
    path.write_text(json.dumps({**run_state(bank, task), "state": state}))


def test_stopped_and_finished_runs_are_told_apart(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(bank, capsys)
    assert {task: row["state"] for task, row in found.items()} == {
        "one": "finished",
        "two": "interrupted",
    }
    assert found["two"]["position"] == {"epoch": 1, "epochs": 2, "step": 1, "steps": 2}
    assert found["one"]["go_on"] is None
    runs_command.run([str(bank)])
    listed = capsys.readouterr().out
    assert found["two"]["go_on"] in listed
    assert "interrupted" in listed


def test_the_printed_command_goes_on_as_it_stands(
    bank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = shlex.split(rows(bank, capsys)["two"]["go_on"])
    assert command[0] == "pbgan"
    monkeypatch.setattr(sys, "argv", command)
    assert command_line.main() == 0
    assert rows(bank, capsys)["two"]["state"] == "finished"
    assert Bank.open(bank).tasks == ("one", "two")


def test_a_run_is_running_while_its_process_holds_the_bank_and_killed_after(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_state(bank, "two", "running")
    process = writer(bank, training_purpose("two"))
    row = rows(bank, capsys)["two"]
    assert (row["state"], row["go_on"]) == ("running", None)
    before = files(run_folder(bank, "two"))
    with pytest.raises(PiggybackError, match=rf"written by process {process.pid} .*train two"):
        runs_command.run([str(bank), "--discard", "two"])
    assert files(run_folder(bank, "two")) == before
    process.kill()
    process.join()
    row = rows(bank, capsys)["two"]
    assert row["state"] == "killed"
    assert row["go_on"].endswith("two --resume")


def test_while_another_task_is_trained_a_killed_run_is_not_called_running(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_state(bank, "two", "running")
    with writer_lock(bank, training_purpose("three")):
        assert rows(bank, capsys)["two"]["state"] == "killed"


@pytest.mark.trains
def test_a_failed_run_says_why(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = TrainingOptions(**vars(OPTIONS) | {"learning_rate": 3e38, "epochs": 5})
    with pytest.raises(PiggybackError, match="held-out images is nan"):
        teach(tmp_path / "bank", "one", data, wild, GENERATOR)
    row = rows(tmp_path / "bank", capsys)["one"]
    assert row["state"] == "failed"
    assert "try a lower --learning-rate" in row["problem"]
    runs_command.run([str(tmp_path / "bank")])
    assert "try a lower --learning-rate" in capsys.readouterr().out


def test_discarding_removes_the_run_alone(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, other = bank_files(bank), files(run_folder(bank, "one"))
    assert runs_command.run([str(bank), "--discard", "two"]) == 0
    assert "the run of two is discarded" in capsys.readouterr().out
    assert not run_folder(bank, "two").exists()
    assert bank_files(bank) == before
    assert files(run_folder(bank, "one")) == other
    assert list(rows(bank, capsys)) == ["one"]


def test_discarding_leaves_what_others_put_into_the_folder(bank: Path) -> None:
    folder = run_folder(bank, "two")
    foreign = ["notes.txt", "samples/mine.png", "samples/epoch-best.png", "tensorboard/notes.txt"]
    for name in foreign:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "tensorboard" / "events.out.tfevents.1.host.2.0").write_bytes(b"")
    runs_command.run([str(bank), "--discard", "two"])
    assert sorted(files(folder)) == sorted(foreign)


@pytest.mark.parametrize("change", [lambda text: text[:9], lambda text: '{"zz": 1,' + text[1:]])
def test_a_damaged_run_is_shown_and_can_be_discarded(
    bank: Path, data: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str]
) -> None:
    file = run_folder(bank, "two") / "run.json"
    file.write_text(change(file.read_text()))
    found = rows(bank, capsys)
    assert found["two"]["state"] == "damaged"
    assert "run.json is damaged" in found["two"]["problem"]
    assert found["one"]["state"] == "finished"
    with pytest.raises(PiggybackError, match=r"run\.json is damaged"):
        teach(bank, "two", resume=True)
    assert runs_command.run([str(bank), "--discard", "two"]) == 0
    teach(bank, "two", data, ONE_EPOCH)


@pytest.mark.parametrize("name", ["../one", "/etc", "..", ".", "one/..", "", "ONE"])
def test_a_name_that_leads_elsewhere_is_refused(bank: Path, name: str) -> None:
    before = files(bank)
    with pytest.raises(PiggybackError, match="can't name a task"):
        runs_command.run([str(bank), "--discard", name])
    assert files(bank) == before


def test_banks_without_runs_and_missing_ones_are_told_apart(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PiggybackError, match=r"empty is not a bank: it has no bank\.json"):
        runs_command.run([str(tmp_path / "empty")])
    bank = tmp_path / "bank"
    stop(1, bank, "one", data, OPTIONS, GENERATOR)  # its first task is not in it yet
    assert list(rows(bank, capsys)) == ["one"] and not (bank / "bank.json").exists()
    assert runs_command.run([str(bank), "--discard", "one"]) == 0
    shutil.copy(made / "bank.json", bank)
    assert rows(bank, capsys) == {}
    assert runs_command.run([str(bank)]) == 0
    assert capsys.readouterr().out == f"{bank} has no runs\n"
    with pytest.raises(PiggybackError, match="no such folder"):
        runs_command.run([str(tmp_path / "missing")])
    for place in ("empty", "missing"):
        with pytest.raises(PiggybackError, match="has no run of 'one'"):
            runs_command.run([str(tmp_path / place), "--discard", "one"])
    assert {path.name for path in tmp_path.iterdir()} == {"bank", "boxes", "empty"}
    assert not list((tmp_path / "empty").iterdir())


def test_a_run_of_a_newer_version_is_one_line(bank: Path) -> None:
    path = run_folder(bank, "two") / "run.json"
    path.write_text(json.dumps({**run_state(bank, "two"), "format_version": 99}))
    with pytest.raises(PiggybackError, match="is of format 99, this version knows 1"):
        RunFolder(bank, "two").read()


def test_a_run_that_a_later_task_blocks_says_so_and_goes_on_without_it(
    bank: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teach(bank, "quick", data, ONE_EPOCH)
    blocked = rows(bank, capsys)["two"]
    assert blocked["go_on"] is None
    assert (
        blocked["problem"]
        == "can't be resumed after later tasks (quick): remove them or discard the run"
    )
    with pytest.raises(PiggybackError, match=r"has other tasks than when the run of 'two' .*quick"):
        teach(bank, "two", resume=True)
    with Bank.open(bank).writing("test"):
        Bank.open(bank).remove("quick")
    assert rows(bank, capsys)["two"]["go_on"]
    teach(bank, "two", resume=True)
    assert Bank.open(bank).tasks == ("one", "two")
