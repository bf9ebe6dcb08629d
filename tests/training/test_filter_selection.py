"""Tasks that mix from selected filters: chosen before the first step, and the same after every stop."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from piggyback_gan import Bank, GeneratorOptions, teach
from piggyback_gan.core.mixings import SELECTED, SelectedMixing
from piggyback_gan.experiments.results import part_folder
from running import GENERATOR, OPTIONS, bank_files, stop
from tiny_experiments import HEAD, TASKS, draw, run, strategies_text, tasks_text

pytestmark = pytest.mark.usefixtures("without_curves", "same_time")

BATCH_NORM = GeneratorOptions(generator="resnet-6", ngf=4, norm="batch", dropout=True)
SELECTS = {"unconstrained": 0.25, "mixing": "selected", "bank_filters": 2}


def selected(bank: Path, task: str) -> dict[str, Any]:
    tensors = Bank.open(bank).network().task_state(task).tensors
    return {key: value.tolist() for key, value in tensors.items() if key.endswith(SELECTED)}


@pytest.mark.trains
@pytest.mark.parametrize(
    ("mode", "generator"), [("paired", BATCH_NORM), ("unpaired", GENERATOR)], ids=str
)
def test_a_task_stopped_while_or_after_it_selects_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, mode: Any, generator: GeneratorOptions
) -> None:
    first = dataclasses.replace(OPTIONS, mode=mode)
    options = dataclasses.replace(first, **SELECTS)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    for bank in (alone, stopped):
        teach(bank, "one", pairs, first, generator)
    teach(alone, "two", pairs, options)
    # The first try ends while filters are selected, of which nothing is kept; the second after a step.
    assert stop(1, stopped, "two", pairs, options).step == 0
    assert stop(1 + 3, stopped, "two", resume=True).step == 1
    teach(stopped, "two", resume=True)
    assert bank_files(stopped) == bank_files(alone)
    chosen = selected(alone, "two")
    assert chosen and any(value != [0, 1] for value in chosen.values())
    assert all(len(set(value)) == 2 for value in chosen.values())


@pytest.mark.trains
def test_selecting_changes_no_weight(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", pairs, OPTIONS, BATCH_NORM)
    still = dataclasses.replace(OPTIONS, learning_rate=0.0, epochs=1, **SELECTS)
    teach(bank, "two", pairs, still)
    one, two = (Bank.open(bank).generator(task) for task in ("one", "two"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_an_experiment_selects_as_training_does(tmp_path: Path) -> None:
    lines = 'mixing = "selected"\nbank_filters = 2\nunconstrained = 0.25\n'
    file = draw(tmp_path, HEAD + tasks_text(**TASKS) + strategies_text("piggyback") + lines)
    assert run(file, tmp_path / "out") == 0
    bank = Bank.open(part_folder(tmp_path / "out", "piggyback", 0) / "bank")
    last = bank.tasks[-1]
    rules = {layer.rule for layer in bank.network().plan_of(last) if layer.mixing}
    assert SelectedMixing(bank_filters=2) in rules
    chosen = selected(bank.path, last)
    assert chosen and any(value != [0, 1] for value in chosen.values())
