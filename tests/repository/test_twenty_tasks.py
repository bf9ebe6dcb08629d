"""Claims about the benchmark of twenty tasks: what its script makes, and that its experiment takes it."""

import json
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from banks import contents
from drawn import draw_pairs
from paths import ROOT
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.experiments.settings import read_experiment
from piggyback_gan.experiments.tasks import find_tasks

BENCHMARKS = ROOT / "benchmarks"
SOURCES = ("cityscapes", "maps", "facade_windows", "edges2clothes")
SIZE = 24


def make(data: Path, out: Path, train: int = 2, test: int = 3) -> str:
    """Run the script in this process; what it ends with, "" if it has done its work."""
    counts = ["--train", str(train), "--test", str(test), "--size", str(SIZE)]
    script = str(BENCHMARKS / "twenty_tasks.py")
    with mock.patch.object(sys, "argv", [script, str(data), str(out), *counts]):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            return str(stop.code)
    return ""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(SOURCES):
        draw_pairs(folder / name, train=5, test=4, size=48, seed=seed)
    return folder


@pytest.fixture(scope="module")
def out(data: Path) -> Path:
    """All tasks, made once."""
    folder = data / "tasks"
    assert make(data, folder) == ""
    return folder


def first_pair(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Input and target of one pair, (H, W, 3) from 0 to 255."""
    with Image.open(find_pairs(folder).train[0].a) as image:
        both = np.asarray(image, np.float64)
    return both[:, :SIZE], both[:, SIZE:]


def test_there_are_twenty_tasks_of_side_by_side_pairs_and_so_many_images(out: Path) -> None:
    folders = sorted(path for path in out.iterdir())
    assert len(folders) == 20
    for folder in folders:
        found = find_pairs(folder)
        assert (found.layout, found.held_out_name) == ("side-by-side", "test")
        assert (len(found.train), len(found.held_out)) == (2, 3)
        for path in found.paths:
            with Image.open(path) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (2 * SIZE, SIZE))


def test_the_same_data_make_the_same_files(data: Path, out: Path, tmp_path: Path) -> None:
    assert make(data, tmp_path / "again") == ""
    assert contents(tmp_path / "again") == contents(out)


def test_no_two_tasks_are_the_same(out: Path) -> None:
    pairs = [b"".join(p.tobytes() for p in first_pair(folder)) for folder in out.iterdir()]
    assert len(set(pairs)) == 20
    for folder in out.iterdir():
        first, second = first_pair(folder)
        assert np.abs(first - second).max() > 8, folder.name


def test_held_out_pairs_are_from_held_out_ones(data: Path, tmp_path: Path) -> None:
    """All pictures of a set are of one brightness in each split here, and stay so in each task."""
    for name in SOURCES:
        for split, value in (("train", 0), ("test", 255)):
            for index in range(2):
                path = tmp_path / name / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (96, 48), (value,) * 3).save(path)
    assert make(tmp_path, tmp_path / "tasks", 2, 2) == ""
    for task in ("labels-to-street", "aerial-denoise", "facade-to-windows", "clothes-rotate"):
        for split, value in (("train", 0), ("test", 255)):
            for path in (tmp_path / "tasks" / task / split).iterdir():
                with Image.open(path) as image:
                    target = np.asarray(image)[:, SIZE:]
                assert (target == value).all()


def test_what_is_turned_is_turned_by_90_degrees(out: Path) -> None:
    first, second = first_pair(out / "clothes-rotate")
    assert np.array_equal(second, np.rot90(first))


@pytest.mark.parametrize("task", ["street-colourise", "facade-from-outlines"])
def test_what_is_to_have_colours_had_none(task: str, out: Path) -> None:
    first, second = first_pair(out / task)
    assert (first == first[..., :1]).all() and not (second == second[..., :1]).all()


def test_both_directions_of_a_set_have_the_same_sides_in_turn(data: Path, out: Path) -> None:
    """`draw_pairs` makes B the negative of A."""
    for task in ("map-to-aerial", "aerial-to-map"):
        first, second = first_pair(out / task)
        assert np.abs(first + second - 255).max() <= 1
    forward, backward = (
        {p.stem: p for p in (out / task / "test").iterdir()}
        for task in ("map-to-aerial", "aerial-to-map")
    )
    for name in forward.keys() & backward.keys():
        with Image.open(forward[name]) as one, Image.open(backward[name]) as other:
            there, back = np.asarray(one), np.asarray(other)
        assert np.array_equal(there, np.concatenate([back[:, SIZE:], back[:, :SIZE]], axis=1))


def test_a_set_that_is_missing_or_small_and_a_folder_that_is_there_are_refused(
    data: Path, out: Path, tmp_path: Path
) -> None:
    for made, words in (
        (make(tmp_path, tmp_path / "a"), "cityscapes: no such folder of data"),
        (make(data, tmp_path / "b", test=9), "labels-to-street/test needs 9 pairs, found 4"),
        (make(data, out), "exists: give a new folder"),
    ):
        assert words in made
    command = [sys.executable, str(BENCHMARKS / "twenty_tasks.py"), str(data), str(out)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert "exists: give a new folder" in done.stderr and "Traceback" not in done.stderr


def test_the_experiments_name_the_tasks_that_are_made(out: Path) -> None:
    longer = read_experiment(BENCHMARKS / "eight-64px.toml", data=out)
    assert len(find_tasks(longer, "cpu")) == 9
    experiment = read_experiment(BENCHMARKS / "twenty-64px.toml", data=out)
    tasks = find_tasks(experiment, "cpu")
    # Folders are made in the order in which tasks are to be learned.
    made = sorted(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [task.name for task in tasks] == [path.name for path in made]
    for task in tasks:
        assert task.options.load_size == task.options.image_size == 64
        # What is turned would turn the other way, if it were mirrored.
        assert task.options.flip == (task.name != "clothes-rotate")
    assert not [s for s in experiment.strategies.values() if len(s.learning_rates) != 1]


@pytest.mark.parametrize("name", ["twenty-64px.toml", "eight-64px.toml"])
def test_rates_are_those_that_four_tasks_chose(name: str) -> None:
    """The files say so: LoRA's is that of the nearest rank."""
    rates = {}
    for record, taken in (("lifelong-64px-strategies", None), ("cost-64px", {"lora-8": "lora"})):
        content = json.loads((BENCHMARKS.parent / f"docs/results/{record}.json").read_text())
        for stage in content["stages"]:
            if stage["order"] == 2 and (taken is None or stage["strategy"] in taken):
                rates[(taken or {}).get(stage["strategy"], stage["strategy"])] = stage[
                    "learning_rate"
                ]
    content = tomllib.loads((BENCHMARKS / name).read_text())
    for strategy in content["strategy"]:
        kind = strategy.get("kind", strategy["name"])
        assert strategy["learning_rate"] == rates[kind]
