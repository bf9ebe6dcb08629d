"""Generators that make the same image of every input: seen, said, and never kept as the best."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from piggyback_gan import Bank, teach
from piggyback_gan.cli.progress import TrainingProgress
from piggyback_gan.training import loop as training_loop
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.collapse import has_collapsed
from running import GENERATOR, OPTIONS, records


def images(count: int = 8, scale: float = 1.0) -> Tensor:
    """Mostly white images that differ in a few lines."""
    made = torch.ones(count, 3, 16, 16)
    chance = torch.Generator().manual_seed(0)
    for image in made:
        row = int(torch.randint(16, (1,), generator=chance))
        image[:, row] = 1 - 2 * scale
    return made


def test_outputs_that_are_alike_though_targets_are_not_are_a_collapse() -> None:
    inputs, targets = torch.randn(8, 3, 16, 16), images()
    assert has_collapsed(lambda _: torch.ones_like(targets), inputs, targets)
    assert has_collapsed(lambda _: images(scale=0.01), inputs, targets)
    # Weak lines are learned lines; and any constant shift is none.
    assert not has_collapsed(lambda _: images(scale=0.05) - 0.3, inputs, targets)
    assert not has_collapsed(lambda _: targets, inputs, targets)


def test_nothing_is_said_of_a_single_image_or_of_targets_that_are_alike() -> None:
    white = torch.ones(8, 3, 16, 16)
    assert not has_collapsed(lambda given: given, white[:1], images(1))
    assert not has_collapsed(lambda given: given, white, white)


class Collapses(Callback):
    """Keeps in which epochs a collapse was said."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []

    def collapsed(self, position: Position, generator: str) -> None:
        self.said.append((position.epoch, generator))


@pytest.mark.trains
@pytest.mark.usefixtures("without_curves")
def test_it_is_said_when_it_begins_and_such_an_epoch_is_not_kept(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(OPTIONS, epochs=4, decay_epochs=0, keep_best="l1")
    teach(tmp_path / "as-it-is", "one", data, options, GENERATOR)
    best = Bank.open(tmp_path / "as-it-is").card("one").epoch
    # The best epoch and the one after it are said to have collapsed.
    script = iter([epoch in (best, best + 1) for epoch in range(1, 5)])
    monkeypatch.setattr(training_loop, "has_collapsed", lambda *_: next(script))
    watch = Collapses()
    teach(tmp_path / "bank", "one", data, options, GENERATOR, callback=watch)
    assert watch.said == [(best, "forward")]
    kept = Bank.open(tmp_path / "bank").card("one").epoch
    l1 = {r["epoch"]: r["validation"]["l1"] for r in records(tmp_path / "bank", "one")}
    assert kept == min(set(l1) - {best, best + 1}, key=lambda epoch: l1[epoch])


@pytest.mark.trains
@pytest.mark.usefixtures("without_curves")
def test_each_generator_is_compared_with_the_side_that_it_makes(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(training_loop, "has_collapsed", lambda _, *sides: bool(seen.append(sides)))
    options = dataclasses.replace(OPTIONS, mode="unpaired", epochs=1)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    (inputs, targets), backward = seen
    assert not torch.equal(inputs, targets)
    assert torch.equal(backward[0], targets) and torch.equal(backward[1], inputs)


def test_the_command_line_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    TrainingProgress().collapsed(Position(2, 5, 20, 50), "forward")
    said = " ".join(capsys.readouterr().err.split())
    assert "at the end of epoch 2 the generator makes nearly the same image of all inputs" in said
    assert "lower --learning-rate" in said
