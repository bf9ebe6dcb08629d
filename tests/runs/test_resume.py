"""Resuming: runs stopped or killed at any moment end as if nothing had been, or are refused in one line."""

import dataclasses
import pickle
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from piggyback_gan import Bank, GeneratorOptions, Interrupted, teach
from piggyback_gan.cli import runs as runs_command
from piggyback_gan.cli import train as train_command
from piggyback_gan.errors import PiggybackError
from piggyback_gan.runs.checkpoint import load_checkpoint, save_checkpoint
from piggyback_gan.training.callbacks import Callback, Position
from running import (
    CONFIG,
    GENERATOR,
    OPTIONS,
    SAME_TIME,
    Watch,
    bank_files,
    files,
    records,
    run_folder,
    run_state,
    start,
    stop,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("without_curves", "same_time")


def whole_run(bank: Path) -> dict[str, bytes]:
    """All that must be the same: the bank, and what its one run measured and showed."""
    run = files(run_folder(bank, "one"))
    return bank_files(bank) | {n: b for n, b in run.items() if n not in ("run.json", "data.json")}


# Stopped and resumed

BATCH_NORM = GeneratorOptions(generator="resnet-6", ngf=4, norm="batch", dropout=True)
SETTINGS = {
    "plain": ({}, GENERATOR),
    "dropout and batch norm": ({}, BATCH_NORM),
    "wgan-gp": ({"gan_loss": "wgan-gp", "discriminator_norm": "none"}, GENERATOR),
    "not augmented": ({"augment": "off"}, GENERATOR),
    "accumulated": ({"batch_size": 1, "accumulate": 2}, GENERATOR),
    "best kept": ({"keep_best": "ssim", "patience": 1, "epochs": 3}, GENERATOR),
    "unpaired": ({"mode": "unpaired", "pool_size": 3}, GENERATOR),
    "unpaired, dropout and batch norm": ({"mode": "unpaired", "pool_size": 3}, BATCH_NORM),
    "unpaired, best kept": (
        {"mode": "unpaired", "direction": "BtoA", "keep_best": "l1_BtoA", "accumulate": 2},
        GENERATOR,
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_stopped_in_an_epoch_and_in_validation_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, name: str
) -> None:
    changes, generator = SETTINGS[name]
    options = dataclasses.replace(OPTIONS, **changes)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    undisturbed = Watch()
    whole = {"callback": undisturbed, "should_stop": undisturbed.asked}
    teach(alone, "one", pairs, options, generator, **whole)

    epoch_steps = 3 if options.accumulate * options.batch_size == 2 else 2
    moments, given = 0, (pairs, options, generator)
    # After the first step; in validation; in the second epoch.
    for at in (1, epoch_steps, 1):
        moments += stop(at, stopped, "one", *given, resume=not given).moments
        assert bank_files(stopped) == {}
        assert run_state(stopped, "one")["state"] == "interrupted"
        given = ()
    last = Watch()
    teach(stopped, "one", resume=True, callback=last, should_stop=last.asked)
    assert last.resumed_at is not None
    assert last.resumed_at.step > epoch_steps - 1, "it went on in the second epoch"
    # Of what a stop interrupts, only validation is done again.
    again = moments + last.moments - undisturbed.moments
    assert 0 <= again <= 2
    assert whole_run(stopped) == whole_run(alone)
    assert not (run_folder(stopped, "one") / "checkpoint.pt").exists()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    """The bank of a run that nothing disturbed."""
    bank = tmp_path_factory.mktemp("alone") / "bank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("piggyback_gan.runs.recorder.plot_curves", lambda records, path: None)
        patch.setenv(*next(iter(SAME_TIME.items())))
        teach(bank, "one", pairs, OPTIONS, GENERATOR)
    return bank


def test_a_run_stopped_in_every_step_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, alone: Path
) -> None:
    stopped, steps = tmp_path / "stopped", []
    # After an epoch's last step, the first moment of the next try is its validation.
    for at in (1, 1, 1, 2, 1, 1):
        run = stop(at, stopped, "one", pairs, OPTIONS, GENERATOR, resume=bool(steps))
        steps.append(run.step)
    teach(stopped, "one", resume=True)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert whole_run(stopped) == whole_run(alone)


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_a_run_killed_twice_and_resumed_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    config = tmp_path / "options.toml"
    config.write_text(f'{CONFIG}epochs = 5\nmode = "{mode}"\n[unconstrained]\n"model.1" = 0.5\n')
    begin = ("--data", pairs, "--config", config)
    assert train_command.run([str(alone), "one", *map(str, begin)]) == 0
    for number, more in enumerate((begin, ("--resume",)), start=1):
        with start("train", killed, "one", *more) as process:
            metrics = run_folder(killed, "one") / "metrics.jsonl"

            def reached(metrics: Path = metrics, number: int = number) -> bool:
                lines = metrics.read_text().count("\n") if metrics.exists() else 0
                return metrics.with_name("checkpoint.pt").exists() and lines >= number

            wait_for(reached, lambda: process.poll() is None)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert bank_files(killed) == {}
        capsys.readouterr()
        runs_command.run([str(killed)])
        assert "killed" in (listed := capsys.readouterr().out)
        assert f"pbgan train {killed} one --resume" in listed
    with start("train", killed, "one", "--resume") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "resumed after step" in said
    assert whole_run(killed).keys() - {"curves.png"} == whole_run(alone).keys()
    assert whole_run(killed) | whole_run(alone) == whole_run(killed)


def test_a_run_killed_right_after_its_task_entered_the_bank_is_found_done(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, before = tmp_path / "bank", tmp_path / "before"

    class Kept(Callback):
        """Copies the run's folder as it is at the last checkpoint."""

        def checkpoint(self, position: Position, state: object) -> None:
            shutil.copytree(run_folder(bank, "one"), before, dirs_exist_ok=True)

    teach(bank, "one", pairs, OPTIONS, GENERATOR, callback=Kept())
    shutil.rmtree(run_folder(bank, "one"))
    shutil.copytree(before, run_folder(bank, "one"))
    tasks = bank_files(bank)
    assert run_state(bank, "one")["state"] == "running"
    checkpoint = run_folder(bank, "one") / "checkpoint.pt"
    assert checkpoint.exists()
    assert train_command.run([str(bank), "one", "--resume"]) == 0
    assert "one is in" in capsys.readouterr().out
    assert run_state(bank, "one")["state"] == "finished"
    assert not checkpoint.exists()
    assert bank_files(bank) == tasks
    assert train_command.run([str(bank), "one", "--resume"]) == 0


def test_a_run_killed_before_its_first_checkpoint_is_resumed_from_the_beginning(
    tmp_path: Path, pairs: Path, alone: Path
) -> None:
    killed = tmp_path / "killed"
    stop(2, killed, "one", pairs, OPTIONS, GENERATOR)
    for name in ("checkpoint.pt", "data.json"):
        (run_folder(killed, "one") / name).unlink()
    teach(killed, "one", resume=True)
    assert whole_run(killed) == whole_run(alone)


def test_a_line_that_was_written_after_the_last_checkpoint_is_not_in_the_metrics_twice(
    tmp_path: Path, pairs: Path, alone: Path
) -> None:
    killed = tmp_path / "killed"
    stop(5, killed, "one", pairs, OPTIONS, GENERATOR)  # after the first step of the second epoch
    metrics = run_folder(killed, "one") / "metrics.jsonl"
    metrics.write_bytes((run_folder(alone, "one") / "metrics.jsonl").read_bytes())
    teach(killed, "one", resume=True)
    assert whole_run(killed) == whole_run(alone)


def test_a_run_stopped_while_its_images_are_read_leaves_nothing(
    tmp_path: Path, pairs: Path
) -> None:
    with pytest.raises(Interrupted):
        teach(tmp_path / "bank", "one", pairs, OPTIONS, GENERATOR, should_stop=lambda: True)
    assert not (tmp_path / "bank").exists()


def test_a_resumed_run_stopped_while_its_images_are_read_is_as_it_was(
    stopped: tuple[Path, Path],
) -> None:
    bank, data = stopped
    before = files(run_folder(bank, "one"))
    with pytest.raises(Interrupted):
        teach(bank, "one", data, resume=True, should_stop=lambda: True)
    assert files(run_folder(bank, "one")) == before


# What is refused


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    place = tmp_path_factory.mktemp("stopped")
    shutil.copytree(pairs, place / "boxes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("piggyback_gan.runs.recorder.plot_curves", lambda records, path: None)
        stop(2, place / "bank", "one", place / "boxes", OPTIONS, GENERATOR)
    return place


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The bank of a run that was stopped in its first epoch, and its data, moved there with it."""
    shutil.copytree(stopped_once, tmp_path / "copy")
    yield tmp_path / "copy" / "bank", tmp_path / "copy" / "boxes"


def test_changed_data_is_refused_and_every_changed_file_named(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    before = files(run_folder(bank, "one"))
    shutil.copy(data / "train" / "000.png", data / "train" / "new.png")
    shutil.copy(data / "train" / "000.png", data / "test" / "000.png")
    (data / "train" / "003.png").unlink()
    with pytest.raises(PiggybackError) as caught:
        teach(bank, "one", data, resume=True)
    words = "1 added: train/new.png; 1 removed: train/003.png; 1 changed: test/000.png"
    assert words in str(caught.value)
    assert files(run_folder(bank, "one")) == before


def test_moved_data_is_accepted_and_its_new_place_remembered(
    stopped: tuple[Path, Path], alone: Path
) -> None:
    bank, data = stopped
    stop(1, bank, "one", data, resume=True)
    assert run_state(bank, "one")["data"] == str(data)
    teach(bank, "one", resume=True)
    assert whole_run(bank) == whole_run(alone)


def test_data_that_is_gone_is_refused_in_one_line(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    shutil.rmtree(data)
    with pytest.raises(PiggybackError, match="no such folder of data"):
        train_command.run([str(bank), "one", "--resume", "--data", str(data)])


def test_changed_options_are_refused_with_what_they_were_and_are(
    stopped: tuple[Path, Path],
) -> None:
    bank, data = stopped
    arguments = [str(bank), "one", "--resume", "--data", str(data)]
    with pytest.raises(PiggybackError) as caught:
        train_command.run([*arguments, "--epochs", "5", "--seed", "3"])
    assert "epochs was 2, is 5; seed was 0, is 3" in str(caught.value)
    with pytest.raises(PiggybackError, match="ngf was 4, is 8"):
        train_command.run([*arguments, "--ngf", "8"])


def test_device_and_log_may_change(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    pytest.importorskip("tensorboard")
    arguments = [str(bank), "one", "--resume", "--data", str(data)]
    assert train_command.run([*arguments, "--device", "auto", "--log", "tensorboard"]) == 0
    assert list((run_folder(bank, "one") / "tensorboard").glob("events.out.*"))


def test_a_bank_that_got_other_tasks_meanwhile_is_refused(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    teach(bank, "two", data, dataclasses.replace(OPTIONS, epochs=1), GENERATOR)
    with pytest.raises(PiggybackError, match="has other tasks than when the run of 'one' began"):
        teach(bank, "one", data, resume=True)


def test_where_no_run_is_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(PiggybackError, match="has no run of 'one'"):
        train_command.run([str(tmp_path / "bank"), "one", "--resume"])
    assert not (tmp_path / "bank").exists()


def test_a_run_that_can_be_resumed_is_not_overwritten(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    before = files(run_folder(bank, "one"))
    with pytest.raises(PiggybackError, match=r"at step 2 of 6: continue it with --resume, or disc"):
        teach(bank, "one", data, OPTIONS, GENERATOR)
    assert files(run_folder(bank, "one")) == before


# Checkpoints


class Code:
    """Runs something when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.proof,)


def damage(kind: str, path: Path, proof: Path) -> None:
    content = path.read_bytes()
    if kind == "code in it":
        save_checkpoint(path, {"trainer": Code(proof)})
        return
    middle = len(content) // 2
    path.write_bytes(
        {
            "truncated": content[:middle],
            "a bit flipped": content[:middle]
            + bytes([content[middle] ^ 1])
            + content[middle + 1 :],
            "empty": b"",
            "text": b"no checkpoint\n",
            "a pickle": pickle.dumps(Code(proof)),
        }[kind]
    )


@pytest.mark.parametrize(
    "kind", ["truncated", "a bit flipped", "empty", "text", "a pickle", "code in it"]
)
def test_a_damaged_checkpoint_is_one_line_and_no_code_in_it_is_run(
    stopped: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    bank, data = stopped
    path = run_folder(bank, "one") / "checkpoint.pt"
    damage(kind, path, tmp_path / "proof")
    with pytest.raises(
        PiggybackError, match=r"checkpoint\.pt is damaged: discard the run"
    ) as caught:
        teach(bank, "one", data, resume=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "proof").exists()
    assert bank_files(bank) == {}


def test_a_checkpoint_that_can_not_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1, "weights": torch.arange(10)})
    before = files(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(
            PiggybackError, match=r"checkpoint\.pt can't be written: File too large"
        ):
            save_checkpoint(path, {"step": 2, "weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files(tmp_path) == before
    content = load_checkpoint(path)
    assert content is not None
    assert content["step"] == 1
    assert torch.equal(content["weights"], torch.arange(10))


def test_tasks_of_the_bank_can_be_used_while_another_is_stopped(stopped: tuple[Path, Path]) -> None:
    bank, data = stopped
    teach(bank, "two", data, dataclasses.replace(OPTIONS, epochs=1), GENERATOR)
    assert Bank.open(bank).translate("two", Image.new("RGB", (16, 16))).size == (16, 16)
    assert len(records(bank, "two")) == 1


def test_a_resumed_run_keeps_the_defaults_of_the_version_that_began_it(
    tmp_path: Path, pairs: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "bank"
    stop(3, bank, "one", pairs, OPTIONS, GENERATOR)
    monkeypatch.setattr("piggyback_gan.training.options.FIRST_TASK_RATE", 1.0)
    monkeypatch.setattr("piggyback_gan.training.options.SMALL_DATA", 0)
    teach(bank, "one", resume=True)
    assert files(bank / "tasks") == files(alone / "tasks")


def test_a_resumed_run_whose_data_is_gone_says_how_to_name_its_new_place(
    tmp_path: Path, pairs: Path
) -> None:
    data = shutil.copytree(pairs, tmp_path / "data")
    stop(2, tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(PiggybackError, match="no such folder of data; if it moved, give --data"):
        teach(tmp_path / "bank", "one", resume=True)
    teach(tmp_path / "bank", "one", tmp_path / "elsewhere", resume=True)
