"""Claims about banks with a backward direction."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from banks import CONFIG, card, contents, faults, images, learn, network
from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.bank.store import Store, tensors_sha256
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import BACKWARD

UNPAIRED = ("seasons", "hours")
TASKS = ("maps", "seasons", "night", "hours")


def add(path: Path, task: str, *, unpaired: bool = False, direction: str = "AtoB") -> Bank:
    """A task, learned from what the bank holds."""
    bank = open_or_new(path, CONFIG)
    forward = bank.network() if bank.tasks else network()
    state = learn(forward, task)
    words = card(forward, task, unpaired=unpaired, direction=direction)
    backward = None
    if unpaired:
        backward = learn(bank.network(which=BACKWARD), task)
        # Another network than the forward one, though equal numbers are drawn for both.
        backward.tensors = {
            key: -tensor if tensor.is_floating_point() and "running" not in key else tensor
            for key, tensor in backward.tensors.items()
        }
    with bank.writing(f"train {task}"):
        bank.add(state, words, backward)
    return Bank.open(path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Paired maps, unpaired seasons, paired night, unpaired hours (trained from B to A)."""
    path = tmp_path_factory.mktemp("template") / "bank"
    for task in TASKS:
        add(path, task, unpaired=task in UNPAIRED, direction="BtoA" if task == "hours" else "AtoB")
    return path


def outputs(bank: Bank) -> dict[tuple[str, str], Tensor]:
    with torch.no_grad():
        return {
            (task, direction): bank.generator(task, direction=direction)(images(1, 16, 16))
            for task in bank.tasks
            for direction in bank.directions(task)
        }


def equal(one: dict[tuple[str, str], Tensor], two: dict[tuple[str, str], Tensor]) -> bool:
    return all(torch.equal(tensor, two[key]) for key, tensor in one.items())


# --- two directions ---


def test_an_unpaired_task_translates_both_ways_and_the_trained_one_comes_first(bank: Bank) -> None:
    assert [bank.directions(task) for task in TASKS] == [
        ("AtoB",),
        ("AtoB", "BtoA"),
        ("AtoB",),
        ("BtoA", "AtoB"),
    ]
    found = outputs(bank)
    assert len(found) == 6
    assert not torch.equal(found["seasons", "AtoB"], found["seasons", "BtoA"])
    with torch.no_grad():
        default = bank.generator("hours")(images(1, 16, 16))
    assert torch.equal(default, found["hours", "BtoA"])
    assert torch.equal(
        bank.translate("hours", images(16, 16), direction="AtoB").unsqueeze(0),
        found["hours", "AtoB"],
    )


@pytest.mark.parametrize(
    ("task", "direction", "words"),
    [
        ("maps", "BtoA", "'maps' does not translate BtoA, but AtoB: only unpaired tasks"),
        ("seasons", "AtoC", "'seasons' does not translate AtoC, but AtoB and BtoA"),
    ],
)
def test_a_direction_that_a_task_does_not_have_is_refused(
    bank: Bank, task: str, direction: str, words: str
) -> None:
    for use in (bank.generator, bank.formats, bank.generator_config):
        with pytest.raises(PiggybackError, match=words):
            use(task, direction=direction)
    with pytest.raises(PiggybackError, match=words):
        bank.translate(task, images(16, 16), direction=direction)


def test_the_backward_network_begins_with_the_first_unpaired_task(bank: Bank) -> None:
    assert bank.network().tasks == TASKS
    assert bank.network(which=BACKWARD).tasks == UNPAIRED
    backward = bank.network(which=BACKWARD)
    assert {layer.bank for layer in backward.plan_of("seasons")} == {0}
    assert all(layer.unconstrained == layer.filters for layer in backward.plan_of("seasons"))
    assert any(layer.mixing for layer in backward.plan_of("hours"))


def test_no_direction_of_an_earlier_task_changes_when_others_come_and_go(
    bank: Bank, tmp_path: Path
) -> None:
    before = outputs(bank)
    files = contents(bank.path)
    backward = bank.network(which=BACKWARD).task_state("hours")
    grown = add(add(bank.path, "rain", unpaired=True).path, "snow")
    assert equal(before, outputs(grown))
    for task in ("snow", "rain"):
        grown.remove(task)
    assert contents(bank.path) == files
    again = Bank.open(bank.path).network(which=BACKWARD)
    assert again.tasks == UNPAIRED
    assert tensors_sha256(again.task_state("hours").tensors) == tensors_sha256(backward.tensors)


def test_a_task_file_holds_the_backward_network_under_its_name(bank: Bank) -> None:
    entry = bank.entries[1]
    with safetensors.safe_open(bank.path / "tasks" / entry.file, "pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    theirs = {key.removeprefix("backward/") for key in keys if key.startswith("backward/")}
    mine = {key for key in keys if not key.startswith("backward/")}
    # As the backward network's first task it has nothing to mix from.
    assert theirs == {key for key in mine if not key.endswith(".mixing_weights")}
    assert "backward/unconstrained" in metadata and metadata["format_version"] == "1"
    (stored,) = [s for s in Store.open(bank.path).read() if s.state.name == "seasons"]
    assert stored.others.keys() == {"backward"}


# --- damage ---


def rewritten(bank: Bank, task: str, change: Any) -> Bank:
    """The bank with another newest task, each hash of which is right."""
    (*_, stored) = Store.open(bank.path).read()
    assert stored.state.name == task
    store = Store.open(bank.path)
    store.remove(task)
    change(stored)
    store.append(stored.state, stored.card, stored.others)
    return Bank.open(bank.path)


def test_a_whole_bank_with_two_directions_verifies(bank: Bank) -> None:
    assert faults(bank) == {}


def test_a_flipped_bit_in_the_backward_tensors_is_found_and_named(bank: Bank) -> None:
    path = bank.path / "tasks" / bank.entries[1].file
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    start, _ = next(v for k, v in header.items() if k.startswith("backward/"))["data_offsets"]
    content[8 + length + start] ^= 1
    path.write_bytes(content)
    found = faults(bank)
    assert list(found) == ["seasons", "night", "hours"]
    assert f"{path} is damaged" in found["seasons"]
    assert "can't be composed without 'seasons'" in found["hours"]


def test_backward_tensors_that_do_not_fit_or_are_not_finite_are_found_and_named(
    bank: Bank, tmp_path: Path
) -> None:
    def spoil(stored: Any) -> None:
        tensors = stored.others[BACKWARD].tensors
        tensors[next(k for k in tensors if k.endswith(".bias"))][0] = float("inf")

    def cut(stored: Any) -> None:
        tensors = stored.others[BACKWARD].tensors
        key = next(k for k in tensors if k.endswith(".mixing_weights"))
        tensors[key] = tensors[key][:, 1:]

    def drop(stored: Any) -> None:
        del stored.others[BACKWARD]

    for number, (change, words) in enumerate(
        [
            (spoil, "not finite"),
            (cut, "does not fit the network"),
            (drop, "its card and its tensors disagree on whether it is unpaired"),
        ]
    ):
        copy = Bank.open(shutil.copytree(bank.path, tmp_path / str(number)))
        found = faults(rewritten(copy, "hours", change))
        assert list(found) == ["hours"]
        assert words in found["hours"]


def test_a_backward_task_that_does_not_fit_is_refused_before_anything_is_written(
    bank: Bank,
) -> None:
    forward = learn(bank.network(), "rain")
    wider = learn(network(replace(CONFIG, ngf=4)), "rain")
    before = contents(bank.path)
    with bank.writing("train rain"), pytest.raises(PiggybackError, match="does not fit"):
        bank.add(forward, {"mode": "unpaired"}, wider)
    assert contents(bank.path) == before
