"""Claims about banks of many tasks: a task reads what it needs, gives the same bits, and refuses odd records."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from banks import evenly, faults, file_of, forge, with_metadata
from commands import pbgan
from mixed_banks import CONFIG, FIRST, FULL, LAST, LOW, MIXED, SELECTED, Task, bits, fill, learn
from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import Manifest, read_header
from piggyback_gan.bank.store import Store
from piggyback_gan.core.allocation import Shares
from piggyback_gan.core.dependencies import Ledger
from piggyback_gan.core.mixings import Mixing
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import Needs, TaskFilters, TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import BACKWARD, FORWARD


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("template") / "bank", *MIXED).path


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, dict[str, Any]]:
    """Five tasks, and the record of one, "both", in place of which tests write others."""
    bank = fill(tmp_path_factory.mktemp("five") / "bank", *MIXED[:5])
    return bank, own_record(bank, "both")


def needs(bank: Bank, name: str, which: str = FORWARD) -> tuple[str, ...]:
    """The tasks that a task's file names."""
    stored = Store.open(bank.path).read_task(name)
    state = stored.state if which == FORWARD else stored.others[which]
    assert state.needs is not None
    return state.needs.tasks


def before(bank: Bank, name: str) -> PiggybackNetwork:
    """The forward network with the tasks that came before this one."""
    network = bank.empty_network()
    for state in bank.states():
        if state.name == name:
            break
        network.restore_task(state)
    return network


def keep_only(bank: Bank, *names: str) -> None:
    for entry in bank.entries:
        if entry.name not in names:
            file_of(bank, entry.name).unlink()


# --- what a task needs ---


def test_a_task_needs_those_that_it_mixes_from_and_starts_from_and_what_they_need(
    bank: Bank,
) -> None:
    assert {task: needs(bank, task) for task in bank.tasks} == {
        "first": (),
        "gray": ("first",),
        "last": ("first", "gray"),
        "both": ("first", "gray", "last"),
        "even": ("first", "gray", "last", "both"),
        "free": (),
        "full": ("first", "gray", "last", "both", "even", "free"),
        "far": ("first", "gray", "last", "both", "even", "free"),
        "chosen": ("first", "gray", "last", "both", "even", "free", "full", "far"),
        "chain": ("first", "gray", "last", "both", "even", "free", "full", "far", "chosen"),
    }
    backward = {
        task: needs(bank, task, BACKWARD) for task in bank.tasks if len(bank.directions(task)) > 1
    }
    assert backward == {
        "first": (),
        "both": ("first",),
        "full": ("first",),
        "chosen": ("first", "both", "full"),
        "chain": ("first", "both", "full", "chosen"),
    }


def test_tasks_with_new_filters_in_free_layers_only_need_the_first_task_alone(
    tmp_path: Path,
) -> None:
    names = "abcd"
    bank = fill(tmp_path / "bank", FIRST, *(Task(name, LAST, LOW) for name in names))
    assert [needs(bank, name) for name in names] == [("first",)] * 4
    bank = fill(tmp_path / "row", FIRST, Task("a", LAST, LOW), Task("b", LAST, LOW, "a"))
    assert needs(bank, "b") == ("first", "a"), "it is added to what it starts from"
    bank = fill(tmp_path / "full", FIRST, Task("a", LAST, FULL), Task("b", LAST, FULL, "a"))
    assert needs(bank, "b") == ("first",), "where it started is in its mixing weights"


def test_a_task_gives_the_same_bits_from_what_it_needs_as_from_the_whole_bank(bank: Bank) -> None:
    for which, place in ((FORWARD, 0), (BACKWARD, 1)):
        whole = bank.network(which=which)
        for task in whole.tasks:
            direction = bank.directions(task)[place]
            alone = bits(bank.generator(task, direction=direction))
            assert alone == bits(whole.fold(task)), (task, which)
    assert faults(bank) == {}


@pytest.mark.parametrize("mixing", [FULL, LOW, SELECTED])
@pytest.mark.parametrize("shares", [0.25, LAST], ids=["even", "last"])
def test_it_does_so_with_every_mixing_and_allocation(
    tmp_path: Path, mixing: Mixing, shares: Shares
) -> None:
    tasks = [Task(name, shares, mixing, unpaired=name != "b") for name in "abc"]
    bank = fill(tmp_path / "bank", FIRST, *tasks)
    wholes = {which: bank.network(which=which) for which in (FORWARD, BACKWARD)}
    found: dict[str, dict[str, bytes]] = {}
    for task in tasks:
        keep_only_copy = Bank.open(shutil.copytree(bank.path, tmp_path / task.name))
        keep_only(keep_only_copy, task.name, *needs(bank, task.name))
        directions = bank.directions(task.name)
        for which, direction in zip(wholes, directions, strict=False):
            found[task.name] = bits(keep_only_copy.generator(task.name, direction=direction))
            assert found[task.name] == bits(wholes[which].fold(task.name))
    assert found["a"] != found["b"] != found["c"]


def test_what_a_task_does_not_need_may_be_missing_or_damaged(bank: Bank) -> None:
    for task in ("first", "gray", "last", "free"):
        expected = bits(bank.generator(task))
        copy = Bank.open(shutil.copytree(bank.path, bank.path.parent / task))
        keep_only(copy, task, *needs(bank, task))
        assert bits(copy.generator(task)) == expected
    for entry in bank.entries[1:]:
        if entry.name != "free":
            file_of(bank, entry.name).write_bytes(b"\0" * entry.bytes)
    assert bits(bank.generator("free"))
    both = bank.path.parent / "last"
    file_of(Bank.open(both), "gray").write_bytes(b"damaged")
    with pytest.raises(PiggybackError, match=r"task 'gray': .*is damaged: expected \d+ bytes"):
        Bank.open(both).generator("last")


def test_verify_goes_on_with_tasks_that_do_not_need_a_damaged_one(bank: Bank) -> None:
    file_of(bank, "even").unlink()
    found = faults(bank)
    assert list(found) == ["even", "full", "far", "chosen", "chain"]
    assert found["far"] == "task 'far': can't be composed without 'even'"
    said = pbgan("verify", bank.path).stdout.split("\n")
    assert said[4:7] == ["damaged  even", "ok       free", "damaged  full"]


# --- odd records ---


def record_of(manifest: Manifest, *ranges: list[int], bank_filters: int) -> dict[str, Any]:
    """A record of these tasks whose hash is right."""
    hashes = [manifest.tasks[n - 1].sha256 for a, b in ranges for n in range(a, b + 1)]
    digest = sha256("".join(hashes).encode()).hexdigest()
    return {"tasks": list(ranges), "bank_filters": bank_filters, "sha256": digest}


def refused(bank: Bank, task: str, record: object) -> str:
    """How a task with another record is refused, when it is opened and by verify."""
    text = record if isinstance(record, str) else json.dumps(record)
    content = with_metadata(file_of(bank, task), needs=text)
    forged = Bank(forge(bank, task, content), CONFIG)
    with pytest.raises(PiggybackError) as caught:
        forged.generator(task)
    said = str(caught.value)
    assert "\n" not in said and f"task {task!r}" in said
    assert faults(forged)[task] != ""
    return said


def own_record(bank: Bank, task: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_header(file_of(bank, task))["needs"])
    return found


ODD: list[object] = ["{", "null", "[]", "3", '"words"', "{}", "[[1, 2]]"]
ODD_TASKS: list[object] = [None, 1, "1-2", [1, 2], [[1]], [[1, 2, 3]], [["1", 2]], [[1.0, 2]]]
ODD_TASKS += [[[0, 1]], [[2, 1]], [[1, 2], [2, 3]], [[3, 3], [1, 1]], [[-1, 2]], [[True, 2]]]
ODD_TASKS += [[[1, 4]], [[1, 5]], [[1, 1], [2, 3]], [[1, 10**30]], [[None, 2]], {"1": 2}]


@pytest.mark.parametrize("record", ODD)
def test_a_record_that_is_none_is_refused(five: tuple[Bank, Any], record: str) -> None:
    refused(five[0], "both", record)


@pytest.mark.parametrize("tasks", ODD_TASKS, ids=str)
def test_a_record_of_anything_but_tasks_before_it_is_refused(
    five: tuple[Bank, dict[str, Any]], tasks: object
) -> None:
    said = refused(five[0], "both", five[1] | {"tasks": tasks})
    assert "is not given as numbers of earlier tasks" in said


@pytest.mark.parametrize("count", [None, -1, "8", 8.0, True])
def test_a_record_of_an_odd_count_is_refused(
    five: tuple[Bank, dict[str, Any]], count: object
) -> None:
    refused(five[0], "both", five[1] | {"bank_filters": count})


@pytest.mark.parametrize("task", ["last", "both", "far", "full", "chosen"])
def test_a_record_that_leaves_a_task_out_is_refused_even_with_a_right_hash(
    bank: Bank, task: str
) -> None:
    manifest, own = bank.manifest, own_record(bank, task)
    assert own == record_of(manifest, *own["tasks"], bank_filters=own["bank_filters"])
    numbers = [n for first, last in own["tasks"] for n in range(first, last + 1)]
    for left_out in numbers:
        merged = list(merge([n, n] for n in numbers if n != left_out))
        refused(bank, task, record_of(manifest, *merged, bank_filters=own["bank_filters"]))
    with_old_hash = own | {"tasks": merged}
    assert "built on other files of the tasks that it needs" in refused(bank, task, with_old_hash)


def merge(ranges: Iterator[list[int]]) -> Iterator[list[int]]:
    """Neighbouring ranges as one."""
    current = next(ranges, None)
    for first, last in ranges:
        assert current is not None
        if first == current[1] + 1:
            current = [current[0], last]
        else:
            yield current
            current = [first, last]
    if current is not None:
        yield current


def test_a_record_that_names_too_many_is_refused_by_its_count_or_tasks(bank: Bank) -> None:
    manifest, own = bank.manifest, own_record(bank, "free")
    assert own == record_of(manifest, bank_filters=0)
    assert "was composed with" in refused(bank, "free", record_of(manifest, [1, 1], bank_filters=0))
    assert "was composed with" in refused(bank, "free", record_of(manifest, bank_filters=9))


def test_an_earlier_task_put_in_anothers_place_is_found_when_what_needs_it_is_opened(
    bank: Bank,
) -> None:
    # The chain tells it only to who reads the file after it.
    content = with_metadata(file_of(bank, "first"), card='{"mode": "unpaired"}')
    forged = Bank(forge(bank, "first", content), CONFIG)
    with pytest.raises(PiggybackError, match=r"task 'far': .* built on other files of the tasks"):
        forged.generator("far")


def test_a_task_can_not_start_from_one_that_is_not_before_it(bank: Bank) -> None:
    for start in ("winter", "both", "chain"):
        content = with_metadata(file_of(bank, "both"), start=json.dumps(start))
        forged = Bank(forge(bank, "both", content), CONFIG)
        with pytest.raises(
            PiggybackError, match=f"starts from '{start}', which is not an earlier task"
        ):
            forged.generator("both")
    content = with_metadata(file_of(bank, "both"), start="null")
    with pytest.raises(PiggybackError, match=r"was composed with .* tasks"):
        Bank(forge(bank, "both", content), CONFIG).generator("both")


@pytest.mark.parametrize("beyond", [None, 0, 2**30])
def test_selected_filters_outside_of_the_bank_are_refused(bank: Bank, beyond: int | None) -> None:
    state = Store.open(bank.path).read_task("both").state
    key = next(key for key in state.tensors if key.endswith("selected_filters"))
    network = before(bank, "both")
    filters = network.ledger.before(key.removesuffix(".selected_filters"))
    state.tensors[key][0] = -1 if beyond is None else filters + beyond
    with pytest.raises(PiggybackError, match=f"{key} selects filters that are not in its bank"):
        network.restore_task(state)
    assert network.tasks == ("first", "gray", "last")
    state.tensors[key] = state.tensors[key].float()
    with pytest.raises(PiggybackError, match=r"has values of type torch\.float32"):
        network.restore_task(state)


def test_a_task_that_was_learned_beside_other_tasks_is_refused(bank: Bank) -> None:
    network = before(bank, "free")
    for shares, mixing in ((0.25, FULL), (LAST, LOW), (LAST, SELECTED)):
        state = learn(network, Task("newer", shares, mixing), FORWARD)
        with pytest.raises(PiggybackError, match="does not fit the network"):
            bank.add(state, {})
        network = before(bank, "free")


def test_adding_a_task_reads_no_tensors_of_tasks_that_it_does_not_need(bank: Bank) -> None:
    state = learn(bank.network(), Task("newer", 1.0, LOW), FORWARD)
    for entry in bank.entries:
        path = file_of(bank, entry.name)
        content = path.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        path.write_bytes(content[:header] + bytes(len(content) - header))
    bank.add(state, {})
    assert needs(bank, "newer") == ()
    assert learn(bank.empty_network(), FIRST, FORWARD).needs == Needs((), 0)


# --- many tasks ---


def small_network() -> PiggybackNetwork:
    torch.manual_seed(0)
    return PiggybackNetwork(nn.Sequential(nn.Conv2d(2, 12, 3), nn.ReLU(), nn.Conv2d(12, 2, 3)))


def test_a_long_row_of_tasks_that_each_start_from_the_one_before_it_can_be_used() -> None:
    network, shares = small_network(), {"0": 0.0, "2": 1.0}
    network.add_task("0")
    network.finish_task()
    expected = network.fold("0")
    total = network.fold("0").state_dict()["0.weight"].clone()
    for number in range(1, 600):
        network.add_task(str(number), evenly(shares, init="previous", mixing="low-rank", rank=1))
        network.finish_task()
    assert bits(network.fold("599")) == bits(expected)
    assert torch.equal(network.fold("599").state_dict()["0.weight"], total)
    network.add_task("full", evenly(0.0, init="599"))
    network.discard_task()
    assert network.ledger.needs_of("599") == Needs(tuple(str(n) for n in range(599)), 12)


def test_starts_give_the_same_bits_in_any_order_of_use() -> None:
    network, shares = small_network(), {"0": 0.0, "2": 1.0}
    for number in range(6):
        init = None if number == 0 else str(number // 2)
        network.add_task(str(number), evenly(shares, init=init, mixing="low-rank", rank=1))
        with torch.no_grad():
            for parameter in network.trainable_parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        network.finish_task()
    expected = {name: bits(network.fold(name)) for name in network.tasks}
    again = small_network()
    for name in network.tasks:
        again.restore_task(network.task_state(name))
    for name in ("5", "1", "4", "0", "3", "2", "5"):
        assert bits(again.fold(name)) == expected[name]
    assert len({value["0.weight"] for value in expected.values()}) == 6


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_ledger_knows_what_each_bank_had_at_each_task(count: int) -> None:
    ledger = Ledger({"a": 10, "b": 4})
    shares: Mapping[int, dict[str, float]] = {
        0: {"a": 1.0, "b": 1.0},
        1: {"a": 0.25, "b": 0.0},
        2: {"b": 0.5},
    }
    before = {"a": [0], "b": [0]}
    for place in range(count):
        task = TaskState(f"t{place}", TaskFilters(shares[0 if place == 0 else 1 + place % 2]))
        ledger.add(task)
        for layer, filters in (("a", 10), ("b", 4)):
            added = math.ceil(task.filters.shares.get(layer, 0.0) * filters)
            before[layer].append(before[layer][-1] + added)
    for layer, sizes in before.items():
        assert [ledger.before(layer, place) for place in range(count + 1)] == sizes
        assert ledger.before(layer) == sizes[-1]
        for place in range(count + 1):
            steps = [b - a for a, b in pairwise(sizes[: place + 1])]
            assert ledger.segments(layer, place) == [step for step in steps if step]
