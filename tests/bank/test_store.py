"""Claims about the bank's files: what is in them, what damage is found, what a kill leaves behind."""

import hashlib
import json
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

import kills
from banks import (
    ARCHITECTURE,
    append,
    contents,
    file_of,
    flips,
    forge,
    in_process,
    problems,
    state,
    with_metadata,
)
from kills import Line
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest
from piggyback_gan.bank.store import Store, tensors_sha256
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import check_task_name
from piggyback_gan.system import files as files_module

TASKS = ("maps", "night", "sketch")
STATE = ("unconstrained", "mixing", "start", "storage", "needs")
NOTHING = {"bank_filters": 0, "sha256": hashlib.sha256().hexdigest(), "tasks": []}


def new_store(path: Path, *names: str, architecture: object = None) -> Store:
    path.mkdir(parents=True, exist_ok=True)
    return append(Store(path, Manifest(architecture or ARCHITECTURE)), *names)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "bank", *TASKS)


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "np") as file:
        return dict(file.metadata())


# --- what is in the files ---


def test_a_bank_is_a_manifest_and_one_safetensors_file_for_each_task(store: Store) -> None:
    files = {"tasks/0001-maps", "tasks/0002-night", "tasks/0003-sketch"}
    assert contents(store.path).keys() == {"bank.json", *(f"{f}.safetensors" for f in files)}


def test_a_task_file_describes_itself(store: Store) -> None:
    metadata = metadata_of(file_of(store, "night"))
    assert metadata == {
        "format": "piggyback-gan task",
        "format_version": "1",
        "task": "night",
        "architecture": json.dumps(ARCHITECTURE),
        "unconstrained": '{"conv": 0.25}',
        "mixing": '{"kind": "full"}',
        "start": "null",
        "storage": "fp32",
        "needs": json.dumps(NOTHING, sort_keys=True),
        "card": '{"about": "night"}',
        "tensors_sha256": tensors_sha256(state("night", 1).tensors),
        "previous_sha256": hashlib.sha256(file_of(store, "maps").read_bytes()).hexdigest(),
    }
    assert metadata_of(file_of(store, "maps"))["previous_sha256"] == "none"


def test_a_task_comes_back_bit_for_bit_with_its_card(store: Store) -> None:
    for seed, stored in enumerate(Store.open(store.path).read()):
        expected = state(TASKS[seed], seed)
        assert (stored.state.name, stored.state.filters) == (expected.name, expected.filters)
        assert stored.state.tensors.keys() == expected.tensors.keys()
        for key, tensor in expected.tensors.items():
            assert torch.equal(stored.state.tensors[key], tensor)
            assert stored.state.tensors[key].dtype == tensor.dtype
        assert stored.card == {"about": TASKS[seed]}


def test_any_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "nan": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "empty": torch.zeros(0, 3),
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).bfloat16(),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "flag": torch.tensor([True, False, True]),
    }
    store = new_store(tmp_path / "bank")
    given = state("maps")
    given.tensors = tensors
    store.append(given, {})
    (stored,) = store.read()
    for key, tensor in tensors.items():
        found = stored.state.tensors[key]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))


def test_the_hash_of_tensors_tells_names_types_and_shapes_apart() -> None:
    zeros = torch.zeros(2, 3)
    others = [{"b": zeros}, {"a": zeros.reshape(3, 2)}, {"a": zeros.int()}, {"a": -zeros}]
    others += [{"a": zeros, "b": zeros}, {}]
    hashes = {tensors_sha256(tensors) for tensors in ({"a": zeros}, *others)}
    assert len(hashes) == 1 + len(others)
    one = torch.ones(1)
    assert tensors_sha256({"a": zeros, "b": one}) == tensors_sha256({"b": one, "a": zeros})


def test_adding_a_task_changes_no_byte_of_the_earlier_ones(store: Store) -> None:
    before = contents(store.path)
    append(store, "winter")
    after = contents(store.path)
    assert {name: after[name] for name in before if name != "bank.json"} == {
        name: content for name, content in before.items() if name != "bank.json"
    }


def test_adding_and_removing_a_task_leaves_every_byte_as_it_was(store: Store) -> None:
    before = contents(store.path)
    append(store, "winter")
    store.remove("winter")
    assert contents(store.path) == before


def test_with_source_date_epoch_equal_tasks_give_equal_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    for name in ("one", "two"):
        with writer_lock(tmp_path / name, "test"):
            new_store(tmp_path / name, *TASKS)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # A card's or a network's order of keys is none of a file's business.
    shuffled = new_store(tmp_path / "three")
    for seed, task in enumerate(TASKS):
        given = state(task, seed)
        given.tensors = dict(reversed(given.tensors.items()))
        shuffled.append(given, {"about": task})
    assert contents(tmp_path / "three") == contents(tmp_path / "two")


def test_task_files_are_equal_whenever_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in ("1", "1000000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        new_store(tmp_path / epoch, *TASKS)
    one, two = (contents(tmp_path / epoch) for epoch in ("1", "1000000000"))
    assert one.pop("bank.json") != two.pop("bank.json")
    assert one == two


# --- names ---

BAD_NAMES = [
    "", "../x", "..", ".x", "-x", "_x", "A", "maps and more", "a/b", "a\\b", "a\n", "\na",
    "a\0", "ä", "\N{ARABIC-INDIC DIGIT ONE}", "a" * 65, "standalone", "previous",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_can_not_be_a_files_name_can_not_name_a_task(tmp_path: Path, name: str) -> None:
    store = new_store(tmp_path / "bank")
    with pytest.raises(PiggybackError, match="can't name a task") as caught:
        append(store, name)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["0", "a.b_c-d", "a" * 64, "x..", "9-lives"])
def test_a_proper_name_is_taken_and_read_back(tmp_path: Path, name: str) -> None:
    check_task_name(name)
    new_store(tmp_path / "bank", name)
    assert [task.state.name for task in Store.open(tmp_path / "bank").read()] == [name]


def test_a_name_can_be_taken_once(store: Store) -> None:
    before = contents(store.path)
    with pytest.raises(PiggybackError, match="has a task 'maps' already"):
        append(store, "maps")
    assert contents(store.path) == before


# --- damage ---


@pytest.mark.parametrize("name", TASKS)
def test_a_flipped_bit_in_any_byte_of_a_task_file_is_found_and_named(
    store: Store, name: str
) -> None:
    path = file_of(store, name)
    for damaged in flips(path.read_bytes()):
        path.write_bytes(damaged)
        found = problems(store)
        assert found.keys() == {name}
        assert f"task {name!r}: {path} is damaged" in found[name]


def test_a_file_truncated_or_grown_by_any_length_is_found_and_named(store: Store) -> None:
    path = file_of(store, "night")
    good = path.read_bytes()
    for content in (*(good[:n] for n in range(0, len(good), 7)), good + b"\0", good * 2):
        path.write_bytes(content)
        expected = f"expected {len(good)} bytes, found {len(content)}"
        assert expected in problems(store)["night"]
        with pytest.raises(PiggybackError, match=expected):
            list(store.read())


def test_a_missing_file_is_found_and_named(store: Store) -> None:
    file_of(store, "night").unlink()
    assert problems(store) == {"night": f"task 'night': {file_of(store, 'night')} is missing"}
    assert store.read_task("maps").state.name == "maps"
    with pytest.raises(PiggybackError, match="is missing"):
        store.read_task("night")


def test_a_folder_in_a_files_place_is_found(store: Store) -> None:
    file_of(store, "night").unlink()
    file_of(store, "night").mkdir()
    assert "can't be read: Is a directory" in problems(store)["night"]


def test_two_files_swapped_are_found_even_if_the_manifest_vouches_for_them(store: Store) -> None:
    maps, night = (file_of(store, name).read_bytes() for name in ("maps", "night"))
    swapped = forge(forge(store, "maps", night), "night", maps)
    found = problems(swapped)
    assert "is not this task's file" in found["maps"]
    assert "is not this task's file" in found["night"]


def test_another_banks_file_of_the_same_name_is_found(store: Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other", "night", "maps")
    content = file_of(other, "night").read_bytes()
    file_of(store, "night").write_bytes(content)
    assert "is damaged" in problems(store)["night"]
    found = problems(forge(store, "night", content))
    assert "was built on another file of the task before it" in found["night"]


def test_another_banks_first_task_is_found_by_the_second(store: Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    other.append(state("maps", seed=9), {"about": "maps"})
    found = problems(forge(store, "maps", file_of(other, "maps").read_bytes()))
    assert found.keys() == {"night"}
    assert "was built on another file of the task before it" in found["night"]


def test_a_changed_task_is_found_by_the_chain_even_if_the_manifest_vouches_for_it(
    store: Store,
) -> None:
    path = file_of(store, "night")
    with safetensors.safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors["conv.unconstrained_filters"][0, 0] += 1
    changed = safetensors.torch.save(tensors, metadata_of(path))
    assert "its tensors are not those it names" in problems(forge(store, "night", changed))["night"]
    metadata = metadata_of(path) | {"tensors_sha256": tensors_sha256(tensors)}
    forged = forge(store, "night", safetensors.torch.save(tensors, metadata))
    assert problems(forged).keys() == {"sketch"}
    with pytest.raises(PiggybackError, match=r"task 'sketch': .* was built on another file"):
        list(forged.read())


def test_a_changed_card_is_found_by_the_chain_too(store: Store) -> None:
    changed = with_metadata(file_of(store, "maps"), card='{"about": "something else"}')
    assert problems(forge(store, "maps", changed)).keys() == {"night"}


def test_a_task_of_another_architecture_is_found(store: Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other", "maps", architecture={"layers": ["other"]})
    forged = forge(store, "maps", file_of(other, "maps").read_bytes())
    assert "belongs to another architecture" in problems(forged)["maps"]


def test_a_task_file_of_a_newer_version_asks_for_an_update(store: Store) -> None:
    newer = with_metadata(file_of(store, "sketch"), format_version="2", card=None)
    found = problems(forge(store, "sketch", newer))
    assert found.keys() == {"sketch"}
    assert "was written by a newer version: update piggyback-gan" in found["sketch"]


@pytest.mark.parametrize(
    "changes",
    [
        {key: value}
        for key in ("format_version", "architecture", "card", "previous_sha256", *STATE)
        for value in (None, "{")
    ]
    + [{"tensors_sha256": None}, {"format": "pt"}, {"task": None}]
    + [{"unconstrained": words} for words in ("[]", '{"leave": "abc"}', '{"leave": null}')]
    + [{"unconstrained": '{"leave": 2}'}, {"card": "[1]"}, {"card": '"words"'}]
    + [
        {"mixing": w}
        for w in ("{", "[]", '"full"', '{"kind": "odd"}', '{"kind": "full", "rank": 2}')
    ]
    + [{"mixing": '{"kind": "low-rank", "rank": 0}'}, {"mixing": '{"kind": ["full"]}'}]
    + [{"start": word} for word in ("{", "1", '"../night"')]
    + [{"storage": "int8"}]
    + [
        {key: "[" * 200_000} for key in ("architecture", "unconstrained", "card", "mixing", "start")
    ],
)
def test_odd_metadata_is_one_line_that_names_the_task(
    store: Store, changes: dict[str, str | None]
) -> None:
    forged = forge(store, "night", with_metadata(file_of(store, "night"), **changes))
    assert problems(forged).keys() - {"sketch"} == {"night"}
    assert "\n" not in problems(forged)["night"]
    assert "task 'night': " in problems(forged)["night"]


def test_a_header_that_is_too_deep_is_one_line_where_headers_alone_are_read(store: Store) -> None:
    deep = with_metadata(file_of(store, "night"), card="[" * 200_000)
    with pytest.raises(PiggybackError, match=r"task 'night': .* is damaged: maximum recursion"):
        list(forge(store, "night", deep).outlines())


@pytest.mark.parametrize("content", [b"", b"PK\3\4 pickled", b"\2\0\0\0\0\0\0\0{}", b"\x80\2}."])
def test_a_file_of_another_kind_is_refused_even_if_the_manifest_vouches_for_it(
    store: Store, content: bytes
) -> None:
    found = problems(forge(store, "night", content))
    assert found.keys() - {"sketch"} == {"night"}
    assert "\n" not in found["night"]


# --- removing ---


def test_only_the_newest_task_can_be_removed(store: Store) -> None:
    before = contents(store.path)
    with pytest.raises(PiggybackError, match="'night' can't be removed: sketch came later"):
        store.remove("night")
    with pytest.raises(PiggybackError, match="no task 'winter'; tasks: maps, night, sketch"):
        store.remove("winter")
    assert contents(store.path) == before


def test_a_bank_can_be_emptied_and_filled_again(store: Store) -> None:
    for name in reversed(TASKS):
        store.remove(name)
    assert contents(store.path).keys() == {"bank.json"}
    append(Store.open(store.path), "winter")
    assert problems(Store.open(store.path)) == {}
    assert contents(store.path).keys() == {"bank.json", "tasks/0001-winter.safetensors"}


# --- other writers ---


def test_a_bank_that_another_process_changed_is_not_written_over(store: Store) -> None:
    mine = Store.open(store.path)
    append(store, "winter")
    before = contents(store.path)
    for write in (lambda: append(mine, "summer"), lambda: mine.remove("sketch")):
        with pytest.raises(PiggybackError, match="was changed by another process: open it again"):
            write()
    assert contents(store.path) == before


def test_a_new_bank_does_not_write_over_one_that_came_to_be_meanwhile(tmp_path: Path) -> None:
    mine = new_store(tmp_path / "bank")
    new_store(tmp_path / "bank", "maps")
    before = contents(tmp_path)
    with pytest.raises(PiggybackError, match="was changed by another process"):
        append(mine, "night")
    assert contents(tmp_path) == before


# --- kills ---

_WRITING = {
    function.__code__
    for function in (
        files_module.atomic_write,
        files_module.require_writable,
        writer_lock.__wrapped__,
        Store.append,
        Store.remove,
        Store.clear_leftovers,
    )
}


def add_night(path: Path) -> None:
    with writer_lock(path, "test"):
        store = Store.open(path) if (path / "bank.json").exists() else Store(path, Manifest({}))
        store.append(state("night", 1), {"about": "night"})


def remove_maps(path: Path) -> None:
    with writer_lock(path, "test"):
        Store.open(path).remove("maps")


def die_at_each_line(
    action: Callable[[Path], None], folder: Path, tasks: tuple[str, ...]
) -> list[tuple[Line, Path]]:
    """`kills.die_at_each_line` of an action on banks that have these tasks."""
    os.environ["SOURCE_DATE_EPOCH"] = "1"
    return kills.die_at_each_line(_WRITING, action, lambda path: make(path, tasks), folder)


def make(path: Path, tasks: tuple[str, ...]) -> None:
    if tasks:
        new_store(path, *tasks)


@pytest.mark.parametrize("action", [add_night, remove_maps])
def test_kill_9_before_any_line_leaves_the_old_or_the_new_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    old = contents(new_store(tmp_path / "old", "maps").path)
    killed = in_process(die_at_each_line, action, tmp_path, ("maps",))
    new = contents(tmp_path / "new")
    ends: Counter[str] = Counter()
    for line, path in killed:
        store = Store.open(path)
        assert problems(store) == {}, line
        found = contents(path)
        end = "old" if found["bank.json"] == old["bank.json"] else "new"
        assert {"old": old, "new": new}[end].items() <= found.items(), line
        ends[end] += 1
        ends["with leftovers"] += bool(store.leftovers())
        with writer_lock(path, "test"):
            append(store, "winter")
        assert problems(Store.open(path)) == {}, line
        added = {f"tasks/{store.manifest.tasks[-1].file}"}
        assert contents(path).keys() == {"old": old, "new": new}[end].keys() | added, line
    assert min(ends["old"], ends["new"], ends["with leftovers"]) >= 1, ends


def test_kill_9_before_any_line_of_the_first_task_leaves_a_place_for_a_new_bank(
    tmp_path: Path,
) -> None:
    for line, path in in_process(die_at_each_line, add_night, tmp_path, ()):
        if not (path / "bank.json").exists():
            add_night(path)
        assert [task.state.name for task in Store.open(path).read()] == ["night"], line


def test_a_killed_writers_leftovers_are_told_and_cleared_by_the_next(store: Store) -> None:
    left = [
        store.path / "tasks" / name for name in (".0004-x.safetensors.a.tmp", "0004-x.safetensors")
    ]
    for path in (*left, store.path / ".bank.json.b.tmp", store.path / ".bank.writer.json.c.tmp"):
        path.write_bytes(b"half")
    mine = [store.path / "tasks" / "notes.txt", store.path / "tasks" / "old.tmp"]
    mine[0].touch()
    mine[1].mkdir()
    assert store.leftovers() == sorted([*left, *mine])
    assert problems(store) == {}
    append(store, "winter")
    assert store.leftovers() == mine
    assert not list(store.path.glob(".*.tmp"))


# --- full disks ---


def append_on_ever_larger_disks(path: Path) -> list[tuple[int, str, bool]]:
    """(size of the disk, error, bank unchanged) of each try to add a task, up to the one that succeeds."""
    store = Store.open(path)
    before = contents(path)
    failures = []
    for limit in range(0, 100_000, 37):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with writer_lock(path, "test"):
                append(store, "winter")
        except PiggybackError as error:
            failures.append((limit, str(error), contents(path) == before))
        else:
            return failures
    raise AssertionError("no disk is large enough")


def test_a_full_disk_is_one_line_and_leaves_every_byte_whatever_did_not_fit(tmp_path: Path) -> None:
    # So many tasks that the manifest is larger than a task's file: either may not fit.
    store = new_store(tmp_path / "bank", *(f"task-{n}" for n in range(12)))
    failures = in_process(append_on_ever_larger_disks, store.path)
    assert all(unchanged for _, _, unchanged in failures)
    for _, message, _ in failures:
        assert message.endswith("can't be written: File too large; what was there is unchanged")
        assert "\n" not in message
    named = {Path(message.split(" can't")[0]).name for _, message, _ in failures}
    assert named == {"bank.writer.json", "0013-winter.safetensors", "bank.json"}
    opened = Store.open(store.path)
    assert problems(opened) == {}
    assert opened.manifest.tasks[-1].name == "winter"


def append_on_a_full_disk(path: Path) -> str | None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    try:
        with writer_lock(path, "test"):
            append(Store(path, Manifest(ARCHITECTURE)), "maps")
    except PiggybackError as error:
        return str(error)
    return None


def test_a_first_task_that_does_not_fit_the_disk_leaves_no_bank(tmp_path: Path) -> None:
    message = in_process(append_on_a_full_disk, tmp_path / "bank")
    assert message is not None and "0001-maps.safetensors can't be written" in message
    assert list(tmp_path.iterdir()) == []


def test_numpy_reads_a_task_file_without_this_library(store: Store) -> None:
    with safetensors.safe_open(file_of(store, "maps"), "np") as file:
        values = file.get_tensor("conv.unconstrained_filters")
    assert np.array_equal(values, state("maps").tensors["conv.unconstrained_filters"].numpy())
