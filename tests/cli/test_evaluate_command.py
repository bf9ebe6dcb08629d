"""Claims about pbgan evaluate: figures as from Python, tables and JSON, which images, mistakes in one line."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from banks import LAMBDAS, fill
from data_sets import refusal
from drawn import draw_pairs
from judging_networks import Colours, Difference, saved
from piggyback_gan import Bank, teach
from piggyback_gan.cli import evaluate as command
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.evaluation.feature_networks import load_features
from piggyback_gan.evaluation.held_out import load_held_out
from piggyback_gan.evaluation.judge import Figure, Judge
from piggyback_gan.images.format import ImageFormat
from running import GENERATOR, OPTIONS

pytestmark = pytest.mark.usefixtures("without_curves", "own_cache")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGGYBACK_GAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three paired tasks of 64 pixels."""
    return fill(tmp_path_factory.mktemp("banks") / "bank").path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set for each."""
    folder = tmp_path_factory.mktemp("data")
    for seed, task in enumerate(LAMBDAS):
        draw_pairs(folder / task, train=2, test=5, seed=seed)
    return folder


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A bank with one unpaired task of 16 pixels."""
    bank = tmp_path_factory.mktemp("banks") / "unpaired"
    options = dataclasses.replace(OPTIONS, mode="unpaired", epochs=1, direction="BtoA")
    teach(bank, "boxes", data / "maps", options, GENERATOR)
    return bank


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    folder = tmp_path_factory.mktemp("networks")
    colours = saved(Colours(), folder / "colours_2x2.pt")
    difference = saved(Difference(), folder / "difference.pt")
    return "--features", colours, "--distance", difference


Run = Callable[..., str]
Judged = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: what it prints on stdout."""

    def run(*arguments: object) -> str:
        assert command.run([*map(str, arguments), "--device", "cpu"]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def judged(evaluate: Run) -> Judged:
    """What the command says with --json -."""

    def content(*arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(evaluate(*arguments, "--json", "-"))
        return found

    return content


def test_one_task_is_judged_as_from_python(
    bank: Path, data: Path, networks: Sequence[str], judged: Judged
) -> None:
    content = judged(bank, "night", "--data", data / "night", *networks)
    (row,) = content["tasks"]
    pairs = PairedDataset(
        find_pairs(data / "night").held_out,
        direction="AtoB",
        formats=(ImageFormat(), ImageFormat()),
        size=64,
    )
    features = load_features(networks[1], "cpu")
    expected = Judge(features).judge(
        [Bank.open(bank).generator("night")], pairs, torch.device("cpu")
    )
    for name, figure in expected.figures.items():
        assert Figure(**row["figures"][name]) == figure
    assert row["outputs_sha256"] == expected.outputs_sha256
    assert (row["task"], row["images"], row["image_size"]) == ("night", 5, 64)
    assert row["task_sha256"] == Bank.open(bank).entries[1].sha256
    assert content["features"] == {"name": "colours_2x2", "sha256": features.sha256}
    assert content["seed"] == 0
    assert content["versions"]["torch"] == torch.__version__
    assert "perceptual_distance" in row["figures"]


def test_images_of_another_folder_than_the_tasks_are_mentioned(
    bank: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run([str(bank), "night", "--data", str(data / "night")])
    assert capsys.readouterr().err == ""
    command.run([str(bank), "night", "--data", str(data / "sketch")])
    said = capsys.readouterr().err
    assert said.startswith("pbgan: night: it was trained on 'night', and this is 'sketch'")


def test_all_tasks_are_judged_on_folders_of_their_names(
    bank: Path, data: Path, judged: Judged
) -> None:
    rows = judged(bank, "--data", data)["tasks"]
    assert [row["task"] for row in rows] == list(LAMBDAS)
    alone = judged(bank, "sketch", "--data", data / "sketch")["tasks"]
    assert rows[2] == alone[0]


def test_a_table_shows_each_figure_with_its_interval(
    bank: Path,
    data: Path,
    networks: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = tmp_path / "figures.json"
    arguments = [bank, "maps", "--data", data / "maps", *networks, "--json", written]
    assert command.run(list(map(str, arguments))) == 0
    out, error = capsys.readouterr()
    (row,) = json.loads(written.read_text())["tasks"]
    for shown in ("L1", "PSNR", "SSIM", "perceptual distance", "FD-colours_2x2", "KD-colours_2x2"):
        assert shown in out
    assert "FID" not in out
    for figure in row["figures"].values():
        assert f"{figure['low']:.4g} to {figure['high']:.4g}" in out
    assert "5 outputs of 64x64" in out
    (line,) = row["warnings"]
    assert "frechet_distance is biased upwards: 5 images" in line
    assert error == f"pbgan: maps: {line}\n"


def test_both_directions_of_an_unpaired_task_are_judged(
    unpaired: Path, data: Path, networks: Sequence[str], judged: Judged
) -> None:
    (row,) = judged(unpaired, "boxes", "--data", data / "maps", *networks)["tasks"]
    assert row["directions"] == ["BtoA", "AtoB"]
    assert row["images"] == 10
    for kind in (
        "l1",
        "psnr",
        "ssim",
        "perceptual_distance",
        "frechet_distance",
        "kernel_distance",
    ):
        assert {f"{kind}_AtoB", f"{kind}_BtoA"} <= row["figures"].keys()
    validation = Bank.open(unpaired).card("boxes").validation
    assert {name: row["figures"][name]["value"] for name in validation} == validation


def test_only_with_fids_own_network_a_distance_is_called_fid(networks: Sequence[str]) -> None:
    features = load_features(networks[1], "cpu")
    assert command._called("frechet_distance", Judge(features)) == "FD-colours_2x2"
    features.is_inception = True
    assert command._called("frechet_distance_AtoB", Judge(features)) == "FID AtoB"
    assert command._called("kernel_distance", Judge(features)) == "KID"


def test_what_was_judged_before_a_task_that_fails_is_shown_and_written(
    bank: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "night" / "test")
    written = tmp_path / "figures.json"
    arguments = [bank, "--data", tmp_path / "data", "--json", written, "--device", "cpu"]
    words = refusal(lambda: command.run(list(map(str, arguments))))
    assert words.startswith("night: ")
    out = capsys.readouterr().out
    assert "maps: 5 outputs" in out
    assert "night" not in out
    maps, night = json.loads(written.read_text())["tasks"]
    assert maps["task"] == "maps"
    assert maps["figures"]["l1"]
    assert night == {"task": "night", "problem": words.removeprefix("night: ")}


# --- which images ---


def names(bank: Path, task: str, folder: Path, *, split_free: bool = False) -> list[str]:
    opened = Bank.open(bank)
    found, _ = load_held_out(opened, task, folder, lambda *_: None, split_free=split_free)
    assert isinstance(found, PairedDataset)
    return [pair.name for pair in found.pairs]


def test_what_training_held_out_by_itself_is_judged(tmp_path: Path, judged: Judged) -> None:
    folder = draw_pairs(tmp_path / "data", train=8, test=0)
    options = dataclasses.replace(OPTIONS, epochs=1, val_fraction=0.3, seed=5)
    teach(tmp_path / "bank", "one", folder, options, GENERATOR)
    held_out = find_pairs(folder).with_held_out(0.3, 5).held_out
    assert names(tmp_path / "bank", "one", folder) == [pair.name for pair in held_out]
    validation = Bank.open(tmp_path / "bank").card("one").validation
    (row,) = judged(tmp_path / "bank", "one", "--data", folder)["tasks"]
    assert {name: row["figures"][name]["value"] for name in validation} == validation


def test_split_free_data_is_judged_as_a_whole(bank: Path, data: Path, unpaired: Path) -> None:
    assert len(names(bank, "maps", data / "maps")) == 5
    assert len(names(bank, "maps", data / "maps", split_free=True)) == 7
    found, partners = load_held_out(
        Bank.open(unpaired), "boxes", data / "maps", lambda *_: None, split_free=True
    )
    assert len(found) == 7
    assert partners


def test_sides_without_partners_can_be_split_free_too(
    tmp_path: Path, unpaired: Path, data: Path
) -> None:
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        for image in (data / "maps" / "train").iterdir():
            shutil.copy(image, tmp_path / f"train{side}" / f"{side}{image.name}")
    found, partners = load_held_out(
        Bank.open(unpaired), "boxes", tmp_path, lambda *_: None, split_free=True
    )
    assert len(found) == 2
    assert not partners


def test_where_nothing_is_held_out_it_says_so(tmp_path: Path, bank: Path) -> None:
    folder = draw_pairs(tmp_path / "data", train=3, test=0)
    assert "no images are held out, in val/ or test/" in refusal(
        lambda: names(bank, "maps", folder)
    )


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "{data}/night"), "has no images of task 'maps': expected a folder maps/"),
        (("nothing", "--data", "{data}"), "the bank has no task 'nothing'"),
        (("maps", "--data", "{data}"), "found neither"),
        (("maps", "--data", "{data}/maps", "--features", "no.pt"), "no.pt can't be read"),
        (
            ("maps", "--data", "{data}/maps", "--recogniser", "{net}"),
            "the task's inputs are not label maps",
        ),
        (("maps",), "--data"),
    ],
)
def test_a_mistake_is_one_line(
    bank: Path, data: Path, networks: Sequence[str], arguments: Sequence[str], words: str
) -> None:
    given = [argument.format(data=data, net=networks[1]) for argument in arguments]
    assert words in refusal(lambda: command.run([str(bank), *given]))
