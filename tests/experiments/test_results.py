"""What an experiment leaves: read back as written; damaged or foreign files are refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_sets import refusal
from experiments_drawn import draw_experiment
from piggyback_gan.experiments.results import (
    EXPERIMENT_FILE,
    Results,
    part_folder,
    read_stages,
    read_table,
    stage_file,
)

ONE = {"label": "standalone", "kind": "standalone"}
SMALL: dict[str, Any] = {"strategies": [ONE], "seeds": [0], "samples": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One strategy, one seed, an unpaired task and a paired one."""
    draw_experiment(tmp_path, {"horses": "unpaired", "maps": "paired"}, **SMALL)
    return tmp_path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100000])
def test_a_file_without_a_table_is_named_with_what_it_means(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert refusal(lambda: read_table(path, "no luck")).startswith(f"no luck: {path} ")
    path.write_text('{"a": 1}')
    assert read_table(path, "no luck") == {"a": 1}
    path.unlink()
    assert refusal(lambda: read_table(path, "no luck")) == f"no luck: {path} is missing"


@pytest.mark.parametrize(
    "edit",
    [
        lambda stage: stage.pop("figures"),
        lambda stage: stage.update(more=1),
        lambda stage: stage.update(order=1),
        lambda stage: stage.update(task=["maps"]),
        lambda stage: stage.update(seed=True),
        lambda stage: stage.update(seconds="long"),
        lambda stage: stage.update(parameters=float("nan")),
        lambda stage: stage.update(bytes=None),
        lambda stage: stage.update(steps=10**400),
        lambda stage: stage.pop("curve"),
        lambda stage: stage["figures"]["maps"]["l1"].update(more=1),
        lambda stage: stage.update(peak_memory="1"),
        lambda stage: stage.update(standalone=0),
        lambda stage: stage.update(figures=[]),
        lambda stage: stage["figures"].update(maps=3),
        lambda stage: stage["figures"]["maps"].update(l1=3),
        lambda stage: stage["figures"]["maps"]["l1"].update(low="0"),
        lambda stage: stage["figures"]["maps"]["l1"].pop("high"),
        lambda stage: stage["figures"]["maps"].update({"../l1": stage["figures"]["maps"]["l1"]}),
        lambda stage: stage["figures"]["maps"].update({"=1+1": stage["figures"]["maps"]["l1"]}),
        lambda stage: stage["identical"].update(maps=3),
        lambda stage: stage["identical"].update(maps=[1]),
        lambda stage: stage.update(curve=[3]),
        lambda stage: stage.update(curve=[{"l1": 3}]),
        lambda stage: stage.update(curve=[{"step": 1, "l1": None}]),
        lambda stage: stage.update(warnings=[3]),
    ],
)
def test_a_damaged_stage_is_refused_in_one_line(
    folder: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    part = part_folder(folder, "standalone", 0)
    assert len(list(read_stages(part))) == 2
    path = stage_file(part, 2)
    change(path, edit)
    words = refusal(lambda: list(read_stages(part)))
    assert words.startswith(f"{path} is damaged (")
    assert words.endswith("): remove it to measure it again")


@pytest.mark.parametrize(
    "edit",
    [
        lambda stage: stage.update(task="horses"),
        lambda stage: stage.update(strategy="lora"),
        lambda stage: stage.update(seed=1),
        lambda stage: stage["figures"].update(night=stage["figures"]["maps"]),
        lambda stage: stage["identical"].update(night=[1, 1]),
    ],
)
def test_a_stage_of_another_experiment_is_refused(
    folder: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    path = stage_file(part_folder(folder, "standalone", 0), 2)
    change(path, edit)
    assert refusal(lambda: Results.read(folder)).startswith(f"{path} is of another experiment")


def test_a_stage_beyond_the_experiments_tasks_is_refused(folder: Path) -> None:
    change(folder / EXPERIMENT_FILE, lambda content: content["tasks"].pop())
    assert "stage-2.json is of another experiment" in refusal(lambda: Results.read(folder))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tasks": []}, "tasks are missing"),
        ({"tasks": "maps"}, "Expected `array`, got `str` - at `$.tasks`"),
        ({"tasks": ["maps"]}, "Expected `object`, got `str` - at `$.tasks[0]`"),
        ({"tasks": [{"name": "maps"}, {"name": "maps"}]}, "two tasks have the same name"),
        ({"tasks": [{"name": "../maps"}]}, "'../maps' can't name a task"),
        ({"tasks": [{"name": "standalone"}]}, "can't name a task"),
        ({"strategies": None}, "Expected `array`, got `null` - at `$.strategies`"),
        ({"strategies": [{"label": 3}]}, "got `int` - at `$.strategies[0].label`"),
        ({"strategies": [{"label": "=HYPERLINK(1)"}]}, "can't name a strategy"),
        ({"strategies": [ONE | {"seeds": 3}]}, "got `int` - at `$.strategies[0].seeds`"),
        (
            {"strategies": [ONE | {"learning_rates": ["1"]}]},
            "at `$.strategies[0].learning_rates[0]`",
        ),
        ({"seeds": []}, "seeds are missing"),
        ({"seeds": ["0"]}, "Expected `int`, got `str` - at `$.seeds[0]`"),
        ({"samples": "2"}, "Expected `int`, got `str` - at `$.samples`"),
        ({"features": "colours"}, "got `str` - at `$.features`"),
        ({"distance": {"name": 3}}, "got `int` - at `$.distance.name`"),
        ({"generator": []}, "got `array` - at `$.generator`"),
    ],
)
def test_settings_that_no_report_can_be_made_of_are_refused(
    folder: Path, changed: dict[str, Any], words: str
) -> None:
    change(folder / EXPERIMENT_FILE, lambda content: content.update(changed))
    said = refusal(lambda: Results.read(folder))
    assert said.startswith(f"{folder / EXPERIMENT_FILE} is damaged: ")
    assert words in said
