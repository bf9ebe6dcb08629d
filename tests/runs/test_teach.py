"""Training paired tasks: real runs of tiny networks, in this process and in others."""

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import running
from drawn import draw_pairs
from piggyback_gan import Bank, GeneratorOptions, Interrupted, teach
from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.cli import runs as runs_command
from piggyback_gan.cli import tasks as tasks_command
from piggyback_gan.cli import train as train_command
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import GAN_LOSSES
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.plan import plan_task
from running import bank_files, files, records, run_folder, run_state, start, wait_for

pytestmark = pytest.mark.usefixtures("without_curves")

GENERATOR = GeneratorOptions(generator="resnet-6", ngf=8)
OPTIONS = dataclasses.replace(running.OPTIONS, samples=2)
CONFIG = running.CONFIG.replace("ngf = 4", "ngf = 8")


@pytest.mark.trains
def test_a_bank_learns_three_tasks_and_every_earlier_one_stays_as_it_was(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    image = Image.open(next((data / "test").iterdir())).crop((0, 0, 24, 24))
    outputs = {}
    for task, changes in (
        ("one", {}),
        ("two", {"direction": "BtoA"}),
        ("three", {"unconstrained": 0.5, "init": "standalone"}),
    ):
        entry = teach(bank, task, data, dataclasses.replace(OPTIONS, **changes), GENERATOR)
        assert entry.name == task
        outputs[task] = Bank.open(bank).translate(task, image).tobytes()
        for earlier, pixels in outputs.items():
            assert Bank.open(bank).translate(earlier, image).tobytes() == pixels
    opened = Bank.open(bank)
    assert opened.tasks == ("one", "two", "three")
    assert [finding.problem for finding in opened.verify()] == [None] * 3
    assert opened.card("two").options["direction"] == "BtoA"
    assert opened.card("two").options["learning_rate"] == 1e-3
    assert opened.card("one").options["learning_rate"] == 2e-4


@pytest.mark.trains
def test_training_learns_the_task(tmp_path: Path) -> None:
    data = draw_pairs(tmp_path / "boxes", train=12, test=4)
    options = dataclasses.replace(OPTIONS, epochs=8, learning_rate=2e-3)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    first, *_, last = records(tmp_path / "bank", "one")
    assert last["validation"]["l1"] < 0.9 * first["validation"]["l1"]


@pytest.mark.trains
def test_the_warm_start_of_a_later_task_is_in_the_trained_network(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    still = dataclasses.replace(OPTIONS, epochs=1, learning_rate=0.0, learn="mixed")
    teach(bank, "two", data, still)
    opened = Bank.open(bank)
    first, second = opened.generator("one").state_dict(), opened.generator("two").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.trains
def test_the_same_seed_gives_the_same_bytes_in_any_process_and_another_does_not(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import sys
from piggyback_gan import GeneratorOptions, TrainingOptions, teach
options = TrainingOptions(
    epochs=1, batch_size=2, image_size=16, discriminator_layers=1, ndf=4, samples=2, seed=3, device="cpu"
)
for task in ("one", "two"):
    generator = GeneratorOptions(generator="resnet-6", ngf=8, dropout=True)
    teach(sys.argv[1], task, sys.argv[2], options, generator)
"""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a"), str(data)], check=True)
    generator = dataclasses.replace(GENERATOR, dropout=True)
    for name, seed in (("b", 3), ("c", 4)):
        torch.manual_seed(seed + 100)  # what the process drew before is no matter
        for task in ("one", "two"):
            options = dataclasses.replace(OPTIONS, epochs=1, seed=seed)
            teach(tmp_path / name, task, data, options, generator)
    assert bank_files(tmp_path / "a") == bank_files(tmp_path / "b")
    for task in ("one", "two"):
        metrics = [run_folder(tmp_path / n, task) / "metrics.jsonl" for n in "abc"]
        assert metrics[0].read_bytes() == metrics[1].read_bytes()
    different = bank_files(tmp_path / "c")
    same = [
        name for name, content in bank_files(tmp_path / "a").items() if different[name] == content
    ]
    assert same == []


def test_a_run_writes_metrics_samples_and_its_state(tmp_path: Path, data: Path) -> None:
    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    folder = run_folder(tmp_path / "bank", "one")
    first, second = records(tmp_path / "bank", "one")
    assert [(record["epoch"], record["step"]) for record in (first, second)] == [(1, 3), (2, 6)]
    assert set(first["loss"]) == {"discriminator", "gan", "l1"}
    assert set(first["validation"]) == {"l1", "psnr", "ssim"}
    for epoch in (1, 2):
        with Image.open(folder / "samples" / f"epoch-{epoch:04d}.png") as picture:
            assert picture.size == (3 * 16 + 2 * 2, 2 * 16 + 2)
    assert run_state(tmp_path / "bank", "one")["state"] == "finished"


@pytest.mark.trains
def test_the_stored_validation_is_that_of_the_task_as_it_is_used(
    tmp_path: Path, data: Path
) -> None:
    from piggyback_gan.data.datasets import PairedDataset
    from piggyback_gan.data.folders import find_pairs
    from piggyback_gan.evaluation.evaluate import evaluate
    from piggyback_gan.images.format import ImageFormat

    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    teach(tmp_path / "bank", "two", data, OPTIONS)
    bank = Bank.open(tmp_path / "bank")
    formats = (ImageFormat(), ImageFormat())
    dataset = PairedDataset(find_pairs(data).held_out, direction="AtoB", formats=formats, size=16)
    judged = evaluate([bank.generator("two")], dataset, torch.device("cpu"))
    assert bank.card("two").validation == judged.metrics
    assert bank.card("two").epoch == OPTIONS.epochs


def test_without_held_out_images_a_task_is_trained_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_pairs(tmp_path / "boxes", test=0)
    (tmp_path / "o.toml").write_text(CONFIG)
    arguments = ("--data", data, "--config", tmp_path / "o.toml", "--epochs", 1)
    assert train_command.run([str(tmp_path / "bank"), "one", *map(str, arguments)]) == 0
    assert "nothing is validated" in capsys.readouterr().err
    assert Bank.open(tmp_path / "bank").card("one").validation is None


@pytest.mark.trains
@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_every_gan_loss_trains(tmp_path: Path, data: Path, loss: str) -> None:
    trained = {}
    for rate in (0.0, 2e-4):
        options = dataclasses.replace(OPTIONS, gan_loss=loss, epochs=1, learning_rate=rate)
        teach(tmp_path / f"{rate}", "one", data, options, GENERATOR)
        trained[rate] = Bank.open(tmp_path / f"{rate}").generator("one").state_dict()
    assert not any(torch.equal(value, trained[0.0][key]) for key, value in trained[2e-4].items())


@pytest.mark.trains
@pytest.mark.parametrize(
    ("generator", "channels"),
    [
        (GeneratorOptions(generator="unet-64", ngf=4, norm="batch", dropout=True), {}),
        (GeneratorOptions(generator="resnet-9", ngf=4, norm="batch"), {"input_channels": 1}),
        (
            GeneratorOptions(generator="resnet-6", ngf=4, weight_init="orthogonal"),
            {"output_channels": 1},
        ),
    ],
)
def test_every_kind_of_generator_trains_and_is_kept(
    tmp_path: Path, generator: GeneratorOptions, channels: dict[str, int]
) -> None:
    size = 64 if generator.generator == "unet-64" else 16
    data = draw_pairs(tmp_path / "boxes", size=size)
    options = dataclasses.replace(
        OPTIONS,
        epochs=1,
        image_size=size,
        unconstrained={"*": 0.25},
        discriminator="pixel",
        **channels,
    )
    teach(tmp_path / "bank", "one", data, options, generator)
    image = torch.rand(channels.get("input_channels", 3), size, size) * 2 - 1
    before = Bank.open(tmp_path / "bank").translate("one", image)
    teach(tmp_path / "bank", "two", data, options)
    assert torch.equal(Bank.open(tmp_path / "bank").translate("one", image), before)
    assert before.shape == (channels.get("output_channels", 3), size, size)


@pytest.mark.trains
def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_bank_alone(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    before = bank_files(bank)
    wild = dataclasses.replace(OPTIONS, learning_rate=3e38, epochs=5)
    with pytest.raises(PiggybackError, match=r"loss is (nan|inf) .* try a lower --learning-rate"):
        teach(bank, "two", data, wild)
    assert bank_files(bank) == before
    assert run_state(bank, "two")["state"] == "failed"
    teach(bank, "two", data, OPTIONS)


def test_a_run_can_be_stopped_between_steps(tmp_path: Path, data: Path) -> None:
    bank = tmp_path / "bank"
    folder = run_folder(bank, "one")
    with pytest.raises(Interrupted, match="stopped in epoch 1 of 2, after step 1 of 6"):
        teach(bank, "one", data, OPTIONS, GENERATOR, should_stop=lambda: folder.exists())
    assert bank_files(bank) == {}
    assert run_state(tmp_path / "bank", "one")["state"] == "interrupted"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_cleanly_and_says_where_the_run_stands(
    tmp_path: Path, data: Path, number: signal.Signals, status: int
) -> None:
    (tmp_path / "o.toml").write_text(CONFIG)
    bank = tmp_path / "bank"
    arguments = ("--data", data, "--config", tmp_path / "o.toml", "--epochs", 9999)
    with start("train", bank, "one", *arguments) as process:
        metrics = run_folder(bank, "one") / "metrics.jsonl"
        wait_for(metrics.exists, lambda: process.poll() is None)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert "stopped in epoch" in said
    assert "unchanged" in said
    assert "Traceback" not in said
    assert f"resume with: pbgan train {bank} one --resume" in said
    assert bank_files(bank) == {}
    assert run_state(bank, "one")["state"] == "interrupted"


def test_a_killed_training_leaves_the_bank_as_it_was_and_is_begun_again_only_when_discarded(
    tmp_path: Path, data: Path
) -> None:
    (tmp_path / "o.toml").write_text(CONFIG)
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    tasks = files(bank / "tasks")
    arguments = ("--data", data, "--config", tmp_path / "o.toml")
    with start("train", bank, "two", *arguments, "--epochs", 9999) as process:
        checkpoint = run_folder(bank, "two") / "checkpoint.pt"
        wait_for(checkpoint.exists, lambda: process.poll() is None)
        words = rf"process {process.pid} on .* \(train two"
        with pytest.raises(PiggybackError, match=words):
            train_command.run([str(bank), "three", *map(str, arguments)])
        process.kill()
        process.communicate(timeout=60)
    assert files(bank / "tasks") == tasks
    assert Bank.open(bank).tasks == ("one",)
    with pytest.raises(
        PiggybackError, match=r"'two' has an unfinished run.* continue it with --resume, or"
    ):
        teach(bank, "two", data, OPTIONS)
    assert runs_command.run([str(bank), "--discard", "two"]) == 0
    teach(bank, "two", data, OPTIONS)


def test_a_later_task_can_not_change_the_architecture(tmp_path: Path, data: Path) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    teach(bank, "two", data, OPTIONS, GENERATOR)
    with pytest.raises(PiggybackError, match="ngf 16 does not fit the bank"):
        teach(bank, "three", data, OPTIONS, GeneratorOptions(ngf=16))


def test_a_taken_name_is_refused_before_anything_is_trained(tmp_path: Path, data: Path) -> None:
    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    runs = files(run_folder(tmp_path / "bank", "one"))
    with pytest.raises(PiggybackError, match="has a task 'one' already"):
        teach(tmp_path / "bank", "one", data, OPTIONS)
    assert files(run_folder(tmp_path / "bank", "one")) == runs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 18}, "multiples of 4"),
        ({"image_size": 12}, "metrics need at least 16"),
        ({"discriminator_layers": 3}, "set discriminator_layers"),
        ({"device": "cuda"}, "the device cuda is not available"),
        ({"init": "nothing"}, "no earlier tasks"),
        ({"unconstrained": {"modle.1": 0.5}}, "matches none of the layers"),
    ],
)
def test_what_can_not_be_trained_is_refused_and_nothing_is_left_behind(
    tmp_path: Path, data: Path, changes: dict[str, object], words: str
) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(PiggybackError, match=words):
        teach(tmp_path / "bank", "one", data, dataclasses.replace(OPTIONS, **changes), GENERATOR)
    assert not (tmp_path / "bank").exists()


def test_a_bank_without_tasks_may_begin_with_another_network(tmp_path: Path, data: Path) -> None:
    teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    bank = Bank.open(tmp_path / "bank")
    with bank.writing("test"):
        bank.remove("one")
    teach(tmp_path / "bank", "two", data, OPTIONS, GeneratorOptions(generator="resnet-9", ngf=4))
    assert Bank.open(tmp_path / "bank").config.name == "resnet-9"


def test_the_start_of_a_task_is_stored_by_name(tmp_path: Path, data: Path) -> None:
    for task, init in (("one", None), ("two", None), ("three", "previous"), ("four", "standalone")):
        options = dataclasses.replace(OPTIONS, epochs=1, init=init)
        teach(tmp_path / "bank", task, data, options, GENERATOR)
    bank = Bank.open(tmp_path / "bank")
    starts = [bank.card(task).options["init"] for task in bank.tasks]
    assert starts == [None, "one", "two", "standalone"]


def test_a_folder_of_other_things_in_the_place_of_a_run_is_left_alone(
    tmp_path: Path, data: Path
) -> None:
    precious = run_folder(tmp_path / "bank", "one") / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    with pytest.raises(PiggybackError, match="is not the folder of a run"):
        teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    assert precious.exists()
    assert bank_files(tmp_path / "bank") == {}


def test_a_finished_task_is_not_called_failed_when_its_note_can_not_be_written(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = run_folder(tmp_path / "bank", "one") / "run.json"
    add = Bank.add

    def add_and_spoil(bank: Bank, *task: Any) -> TaskEntry:
        entry = add(bank, *task)
        note.unlink()
        note.mkdir()
        return entry

    monkeypatch.setattr(Bank, "add", add_and_spoil)
    options = dataclasses.replace(OPTIONS, epochs=1)
    entry = teach(tmp_path / "bank", "one", data, options, GENERATOR)
    assert entry.name == "one"
    assert Bank.open(tmp_path / "bank").tasks == ("one",)


def test_metrics_that_can_not_be_written_are_one_error_and_the_bank_is_as_it_was(
    tmp_path: Path, data: Path
) -> None:
    folder = run_folder(tmp_path / "bank", "one")

    class Spoiler(Callback):
        def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
            (folder / "metrics.jsonl").mkdir(exist_ok=True)

    with pytest.raises(PiggybackError, match=r"metrics\.jsonl can't be written"):
        teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR, callback=Spoiler())
    assert bank_files(tmp_path / "bank") == {}


def test_damaged_images_are_named_before_training(tmp_path: Path, data: Path) -> None:
    (data / "train" / "003.png").write_bytes(b"no image")
    (data / "test" / "001.png").write_bytes(b"")
    with pytest.raises(PiggybackError, match=r"1 of 6 pairs .*003\.png.*; 1 of 2 pairs .*001\.png"):
        teach(tmp_path / "bank", "one", data, OPTIONS, GENERATOR)
    assert not (tmp_path / "bank").exists()


def test_a_bank_is_not_begun_in_a_folder_of_other_things(tmp_path: Path, data: Path) -> None:
    with pytest.raises(PiggybackError, match="is not a bank, and the folder is not empty"):
        teach(data, "one", data, OPTIONS, GENERATOR)
    assert not (data / "bank.lock").exists()


def test_a_dry_run_prints_the_plan_and_makes_nothing(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o.toml").write_text(CONFIG)
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    before = files(bank)
    arguments = ("--data", data, "--config", tmp_path / "o.toml", "--epochs", 3, "--dry-run")
    assert train_command.run([str(bank), "two", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "6 pairs, 2 held out (test)" in printed
    assert "9 of 2 images each, in 3 epochs" in printed
    pulled = "from step 4 on pulled towards mixtures of the bank's filters"
    assert f"; the first 6 free ({pulled}), then factorized" in printed
    assert "at most 0.1 of a standalone network's 124,931" in printed
    assert "model.23" in printed and "1*" not in printed, "what is new is measured later"
    assert "about 0." in printed
    assert train_command.run([str(bank), "two", *map(str, arguments), "--learn", "mixed"]) == 0
    assert "1*" in capsys.readouterr().out, "the output layer is shown to stay free"
    assert files(bank) == before
    assert not run_folder(bank, "two").exists()


def test_the_plan_leaves_the_output_layer_free_and_a_table_shares_it(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    even = dataclasses.replace(OPTIONS, unconstrained=0.25, allocation="even")
    plan = plan_task(bank, "two", data, even, GENERATOR)
    assert {p.name: p.share for p in plan.layers}["model.23"] == 1.0
    assert {p.share for p in plan.layers if p.name != "model.23"} == {0.25}
    shared = dataclasses.replace(OPTIONS, unconstrained={"*": 0.25})
    plan = plan_task(bank, "two", data, shared, GENERATOR)
    assert {p.share for p in plan.layers} == {0.25}


def test_new_filters_are_in_the_last_layers_unless_asked_otherwise(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", data, OPTIONS, GENERATOR)
    of_lambda = dataclasses.replace(OPTIONS, unconstrained=0.25)
    last = plan_task(bank, "two", data, of_lambda, GENERATOR)
    evenly = dataclasses.replace(of_lambda, allocation="even")
    even = plan_task(bank, "two", data, evenly, GENERATOR)
    shares = [p.share for p in last.layers]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert 0.99 * even.parameters.total < last.parameters.total <= even.parameters.total
    teach(bank, "two", data, of_lambda, GENERATOR)
    assert Bank.open(bank).card("two").options["allocation"] == "last"
    assert Bank.open(bank).network().plan_of("two") == last.layers
    assert tasks_command.run([str(bank)]) == 0
    assert "0.25, last" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_a_later_task_keeps_to_its_budget(
    tmp_path: Path, data: Path, mode: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = tmp_path / "bank"
    options = dataclasses.replace(OPTIONS, mode=mode, epochs=1)
    teach(bank, "one", data, options, GENERATOR)
    for name, budget in (("two", None), ("three", 0.2)):
        options = dataclasses.replace(options, budget=budget)
        plan = plan_task(bank, name, data, options, GENERATOR)
        limit = 0.1 if budget is None else budget
        assert 0.9 * limit < plan.parameters.share <= limit
        teach(bank, name, data, options, GENERATOR)
        card = Bank.open(bank).card(name)
        assert card.options["budget"] == limit and card.options["mixing"] == "low-rank"
        assert 0.9 * limit < card.parameters.share <= limit
    assert tasks_command.run([str(bank)]) == 0
    assert "budget 0.1" in capsys.readouterr().out
    assert [f.problem for f in Bank.open(bank).verify()] == [None] * 3
