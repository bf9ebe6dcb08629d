"""What a run leaves beside the bank: metrics, the curves' picture, samples, TensorBoard events."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, teach
from piggyback_gan.runs.run_folder import RunFolder
from piggyback_gan.training.callbacks import Callback, Position
from running import GENERATOR, OPTIONS, files, records, run_folder, run_state, stop


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_pairs(tmp_path / "boxes", train=2, test=1)


def test_the_curves_are_drawn_anew_in_every_epoch(tmp_path: Path, data: Path) -> None:
    curves = run_folder(tmp_path / "bank", "one") / "curves.png"
    drawn = []

    class Look(Callback):
        def epoch_ended(self, position: Position, records: object) -> None:
            drawn.append(curves.read_bytes())

    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR, callback=Look())
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]
    assert curves.read_bytes() == drawn[1]
    with Image.open(curves) as picture:
        picture.verify()


@pytest.mark.usefixtures("without_curves")
def test_the_metrics_file_has_results_and_no_times_or_places(tmp_path: Path, data: Path) -> None:
    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    for record in records(tmp_path / "bank", "one"):
        assert set(record) == {"epoch", "step", "learning_rate", "loss", "validation"}
    text = (run_folder(tmp_path / "bank", "one") / "metrics.jsonl").read_text()
    assert str(tmp_path) not in text


@pytest.mark.usefixtures("without_curves")
def test_the_metrics_file_has_the_rate_of_each_epochs_last_step(tmp_path: Path, data: Path) -> None:
    options = dataclasses.replace(
        OPTIONS, epochs=4, decay_epochs=2, batch_size=1, learning_rate=1e-3
    )
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    found = records(tmp_path / "bank", "one")
    steps = found[0]["step"]
    assert steps > 1
    left = [1 + 1 / steps, 1 / steps]  # epochs, when the last steps of the two were made
    expected = [1e-3, 1e-3, *(1e-3 * epochs / 2 for epochs in left)]
    assert [record["learning_rate"] for record in found] == pytest.approx(expected)


@pytest.mark.usefixtures("without_curves")
@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_tensorboard_gets_losses_metrics_and_samples(tmp_path: Path, data: Path, mode: str) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = dataclasses.replace(OPTIONS, log="tensorboard", mode=mode)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    events = EventAccumulator(str(run_folder(tmp_path / "bank", "one") / "tensorboard"))
    events.Reload()
    scalars, images = events.Tags()["scalars"], events.Tags()["images"]
    epochs = records(tmp_path / "bank", "one")
    assert images
    for name, value in epochs[-1]["validation"].items():
        tag = f"validation/{name}"
        assert events.Scalars(tag)[-1].value == pytest.approx(value)
        assert [event.step for event in events.Scalars(tag)] == [r["step"] for r in epochs]
    for name in epochs[0]["loss"]:
        assert f"loss/{name}" in scalars


@pytest.mark.usefixtures("without_curves")
def test_a_finished_runs_folder_says_how_it_was_made_and_needs_no_checkpoint(
    tmp_path: Path, data: Path
) -> None:
    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    state = run_state(tmp_path / "bank", "one")
    assert state["state"] == "finished"
    assert state["position"] == {"epoch": 2, "epochs": 2, "step": 2, "steps": 2}
    assert state["data"] == str(data)
    assert state["surroundings"]["processes"] == 1
    folder = run_folder(tmp_path / "bank", "one")
    assert sorted(files(folder)) == [
        "data.json",
        "metrics.jsonl",
        "run.json",
        "samples/epoch-0001.png",
        "samples/epoch-0002.png",
    ]
    hashes = json.loads((folder / "data.json").read_text())
    assert sorted(hashes) == ["test/000.png", "train/000.png", "train/001.png"]


@pytest.mark.usefixtures("without_curves")
def test_a_logger_that_is_not_installed_is_one_line_before_anything_is_done(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = dataclasses.replace(OPTIONS, log="tensorboard")
    with pytest.raises(PiggybackError, match="tensorboard"):
        teach(tmp_path / "bank", "one", data, options, GENERATOR)
    assert not (tmp_path / "bank").exists()


def test_what_a_killed_process_was_writing_stands_in_nobodys_way(
    tmp_path: Path, data: Path
) -> None:
    folder = run_folder(tmp_path / "bank", "task")
    folder.mkdir(parents=True)
    (folder / ".run.json.abc.tmp").write_bytes(b"half")
    teach(tmp_path / "bank", "task", data, OPTIONS, GENERATOR)
    assert not list(folder.rglob("*.tmp"))
    (folder / "samples" / ".epoch-0001.png.abc.tmp").write_bytes(b"half")
    (folder / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    RunFolder(tmp_path / "bank", "task").discard()
    assert not folder.exists()


def test_a_run_whose_word_of_its_data_is_lost_keeps_its_checkpoint(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    stop(2, bank, "task", data, OPTIONS, GENERATOR)
    (run_folder(bank, "task") / "data.json").unlink()
    with pytest.raises(PiggybackError, match="is damaged: it has a checkpoint, but no hashes of"):
        teach(bank, "task", resume=True)
    assert (run_folder(bank, "task") / "checkpoint.pt").exists()


def test_a_finished_task_that_was_removed_is_not_resumed(tmp_path: Path, data: Path) -> None:
    bank = tmp_path / "bank"
    teach(bank, "task", data, OPTIONS, GENERATOR)
    with Bank.open(bank).writing("test"):
        Bank.open(bank).remove("task")
    with pytest.raises(PiggybackError, match="train it again, without --resume"):
        teach(bank, "task", resume=True)
