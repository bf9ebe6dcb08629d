"""Unpaired tasks in a bank: both directions, among paired tasks, from any folder; nothing earlier changes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import draw_pairs
from piggyback_gan import Bank, GeneratorOptions, PiggybackError, teach
from piggyback_gan.cli import translate as translate_command
from piggyback_gan.training.plan import plan_task
from running import GENERATOR, OPTIONS, bank_files, records, run_folder

pytestmark = pytest.mark.usefixtures("without_curves")

UNPAIRED = dataclasses.replace(OPTIONS, mode="unpaired", epochs=1)
PAIRED = dataclasses.replace(OPTIONS, epochs=1)


def draw_sides(folder: Path, **sides: tuple[int, tuple[int, int]]) -> Path:
    """Two folders of noise: counts and sizes (width, height) by folder."""
    chance = np.random.default_rng(0)
    for name, (count, (width, height)) in sides.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}-{i}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("pairs") / "boxes", train=4)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sides(
        tmp_path_factory.mktemp("sides") / "noise",
        trainA=(5, (24, 24)),
        trainB=(3, (31, 18)),
        testA=(1, (16, 40)),
        testB=(2, (24, 24)),
    )


@pytest.mark.trains
@pytest.mark.parametrize("order", ["puup", "uppu"])
def test_paired_and_unpaired_tasks_mix_and_no_direction_of_an_earlier_one_changes(
    tmp_path: Path, pairs: Path, sides: Path, order: str
) -> None:
    bank = tmp_path / "bank"
    image = torch.rand(3, 20, 28) * 2 - 1
    outputs: dict[tuple[str, str], torch.Tensor] = {}
    for number, kind in enumerate(order):
        task = f"{kind}{number}"
        if kind == "p":
            teach(bank, task, pairs, dataclasses.replace(PAIRED, seed=number), GENERATOR)
        else:
            direction = "AtoB" if number < 2 else "BtoA"
            options = dataclasses.replace(UNPAIRED, direction=direction)
            teach(bank, task, sides if number < 2 else pairs, options, GENERATOR)
        opened = Bank.open(bank)
        for (earlier, direction), pixels in outputs.items():
            now = opened.translate(earlier, image, direction=direction)
            assert torch.equal(now, pixels), (earlier, direction, task)
        for direction in opened.directions(task):
            outputs[task, direction] = opened.translate(task, image, direction=direction)
    assert len(outputs) == 6
    assert len({pixels.numpy().tobytes() for pixels in outputs.values()}) == 6
    assert [finding.problem for finding in Bank.open(bank).verify()] == [None] * 4


@pytest.mark.trains
def test_both_directions_learn_to_keep_what_is_in_an_image(tmp_path: Path) -> None:
    data = draw_pairs(tmp_path / "boxes", train=12, test=2)
    options = dataclasses.replace(UNPAIRED, epochs=8, learning_rate=2e-3)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    first, *_, last = records(tmp_path / "bank", "one")
    for name in ("cycle_l1_A", "cycle_l1_B"):
        assert last["validation"][name] < 0.95 * first["validation"][name], name
    for name in ("cycle_A", "cycle_B", "identity_A", "identity_B"):
        assert last["loss"][name] < 0.8 * first["loss"][name], name


def test_the_command_line_translates_both_ways(
    tmp_path: Path, sides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "noise", sides, dataclasses.replace(UNPAIRED, direction="BtoA"), GENERATOR)
    opened = Bank.open(bank)
    assert opened.directions("noise") == ("BtoA", "AtoB")
    source = sides / "testA" / "testA-0.png"
    made = {}
    for direction in ("AtoB", "BtoA"):
        out = tmp_path / direction
        arguments = [str(bank), "noise", str(source), "--out", str(out), "--direction", direction]
        assert translate_command.run(arguments) == 0
        with Image.open(out / source.name) as image:
            made[direction] = image.tobytes()
            assert image.size == (16, 40)
        expected = opened.translate("noise", Image.open(source), direction=direction)
        assert made[direction] == expected.tobytes()
    assert made["AtoB"] != made["BtoA"]


def test_a_paired_task_translates_one_way_only(tmp_path: Path, pairs: Path) -> None:
    teach(tmp_path / "bank", "one", pairs, PAIRED, GENERATOR)
    with pytest.raises(PiggybackError, match="only unpaired tasks translate both ways"):
        Bank.open(tmp_path / "bank").generator("one", direction="BtoA")


def test_an_unpaired_run_says_what_it_measured_and_shows_both_directions(
    tmp_path: Path, sides: Path, pairs: Path
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "noise", sides, UNPAIRED, GENERATOR)
    (record,) = records(bank, "noise")
    assert record["step"] == 3, "an epoch is as long as the larger side"
    assert set(record["loss"]) == {
        *("discriminator_A", "discriminator_B", "gan_AtoB", "gan_BtoA"),
        *("cycle_A", "cycle_B", "identity_A", "identity_B"),
    }
    assert set(record["validation"]) == {"cycle_l1_A", "cycle_l1_B"}
    counts = Bank.open(bank).card("noise").to_json()["data"]
    assert [counts[k] for k in ("train_a", "train_b", "held_out_a", "held_out_b")] == [5, 3, 1, 2]
    with Image.open(run_folder(bank, "noise") / "samples" / "epoch-0001.png") as picture:
        assert picture.size == (6 * 16 + 5 * 2, 16)

    # Where held-out images have partners, translations are compared with them too.
    teach(bank, "boxes", pairs, UNPAIRED)
    (record,) = records(bank, "boxes")
    assert set(record["validation"]) >= {"l1_AtoB", "psnr_BtoA", "ssim_AtoB", "cycle_l1_A"}


def test_identity_is_left_out_where_the_sides_have_other_channels_and_refused_if_asked_for(
    tmp_path: Path, pairs: Path
) -> None:
    bank = tmp_path / "bank"
    gray = dataclasses.replace(UNPAIRED, output_channels=1)
    with pytest.raises(PiggybackError, match=r"identity_weight 5 needs sides of equal channels"):
        plan_task(bank, "one", pairs, dataclasses.replace(gray, identity_weight=5), GENERATOR)
    teach(bank, "one", pairs, gray, GENERATOR)
    assert not [name for name in records(bank, "one")[0]["loss"] if name.startswith("identity")]
    opened = Bank.open(bank)
    assert opened.translate("one", torch.zeros(3, 16, 16)).shape == (1, 16, 16)
    assert opened.translate("one", torch.zeros(1, 16, 16), direction="BtoA").shape == (3, 16, 16)


@pytest.mark.trains
def test_a_pool_of_no_images_trains_too(tmp_path: Path, pairs: Path) -> None:
    trained = {}
    for size in (0, 2):
        options = dataclasses.replace(UNPAIRED, epochs=3, pool_size=size)
        teach(tmp_path / f"{size}", "one", pairs, options, GENERATOR)
        trained[size] = bank_files(tmp_path / f"{size}")
    assert trained[0] != trained[2]
    card = Bank.open(tmp_path / "0").card("one")
    assert card.options["pool_size"] == 0


def test_the_backward_network_begins_with_the_first_unpaired_task(
    tmp_path: Path, pairs: Path
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", pairs, PAIRED, GENERATOR)
    teach(bank, "two", pairs, UNPAIRED, GeneratorOptions())
    card = Bank.open(bank).card("two")
    rates = card.options["learning_rate"], card.options["backward_learning_rate"]
    assert rates == (1e-3, 2e-4), "a first task's rate for the direction that has none before"
    assert Bank.open(bank).network(which="backward").tasks == ("two",)
    assert Bank.open(bank).network().tasks == ("one", "two")
