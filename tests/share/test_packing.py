"""Claims about packed banks: the tasks that were asked for, what they are made of, and the same bits."""

import shutil
from pathlib import Path

import pytest

from banks import contents, evenly, file_of, flips
from commands import pbgan
from data_sets import refusal
from mixed_banks import FIRST, FULL, LAST, LOW, MIXED, Task, all_bits, fill
from piggyback_gan import Bank, Packed, PiggybackError, pack
from piggyback_gan.bank.store import Store
from piggyback_gan.share import packing as packing_module

LIGHT = (FIRST, *(Task(name, LAST, LOW, unpaired=name == "b") for name in "abcd"))
"""Tasks that are made of the first one's filters alone."""


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("light") / "bank", *LIGHT).path


def test_a_packed_bank_has_the_tasks_and_what_they_are_made_of_and_no_other(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(light)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    packed = pack(light, tmp_path / "out", ["d", "b"])
    bank = Bank.open(tmp_path / "out")
    dates = {entry.name: entry.added for entry in Bank.open(light).entries}
    assert all(entry.added == dates[entry.name] for entry in bank.entries)
    assert bank.tasks == ("first", "b", "d")
    assert packed == Packed(
        tasks=("b", "d"),
        along=("first",),
        bytes=sum(entry.bytes for entry in bank.entries),
        bytes_before=sum(entry.bytes for entry in Bank.open(light).entries),
    )
    assert packed.bytes < packed.bytes_before
    assert contents(light) == before
    assert not list(tmp_path.glob(".*")), "nothing is left of its making"


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        (["free"], ["free"]),  # it mixes nothing, though it started from a task
        (["gray"], ["first", "gray"]),
        (["both"], ["first", "gray", "last", "both"]),
        (["free", "last"], ["first", "gray", "last", "free"]),
        (["chain"], [task.name for task in MIXED]),
    ],
)
def test_weights_are_the_same_bits_in_all_directions_whatever_the_mixing(
    mixed: Path, tmp_path: Path, asked: list[str], held: list[str]
) -> None:
    pack(mixed, tmp_path / "out", asked)
    bank, whole = Bank.open(tmp_path / "out"), Bank.open(mixed)
    assert list(bank.tasks) == held
    expected = all_bits(whole)
    found = all_bits(bank)
    assert found == {key: bits for key, bits in expected.items() if key[0] in held}
    assert all(finding.problem is None for finding in bank.verify())
    assert all(bank.card(task) == whole.card(task) for task in held)


def test_a_packed_bank_learns_on_and_is_packed_again(light: Path, tmp_path: Path) -> None:
    pack(light, tmp_path / "one", ["a", "b"])
    bank = Bank.open(tmp_path / "one")
    network = bank.network()
    network.add_task("new", evenly())
    network.finish_task()
    with bank.writing("test"):
        bank.add(network.task_state("new"), bank.card("a").to_json())
    pack(bank.path, tmp_path / "two", ["new"])
    assert Bank.open(tmp_path / "two").tasks == ("first", "a", "b", "new")


def test_full_mixing_keeps_where_it_started_if_that_task_is_there(tmp_path: Path) -> None:
    tasks = (FIRST, Task("a", LAST, FULL), Task("b", LAST, FULL, "a"))
    bank = fill(tmp_path / "bank", *tasks)

    def start(path: Path) -> str | None:
        return Store.open(path).read_task("b").state.filters.start

    pack(bank.path, tmp_path / "alone", ["b"])
    pack(bank.path, tmp_path / "both", ["a", "b"])
    assert (start(bank.path), start(tmp_path / "both"), start(tmp_path / "alone")) == (
        *("a", "a"),
        None,
    )


def test_other_weights_are_noticed_and_nothing_is_kept(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooted = packing_module._rooted

    def spoilt(state, kept):  # type: ignore[no-untyped-def]
        tensors = dict(rooted(state, kept).tensors)
        key = next(key for key in sorted(tensors) if tensors[key].is_floating_point())
        tensors[key] = tensors[key] + 1e-6
        state.tensors = tensors
        return rooted(state, kept)

    monkeypatch.setattr(packing_module, "_rooted", spoilt)
    with pytest.raises(PiggybackError, match="'first' has other weights in the packed bank, AtoB"):
        pack(light, tmp_path / "out", ["a"])
    assert list(tmp_path.iterdir()) == []


def test_damage_in_a_file_that_is_needed_is_refused(light: Path, tmp_path: Path) -> None:
    bank = Bank.open(shutil.copytree(light, tmp_path / "bank"))
    file = file_of(bank, "first")
    file.write_bytes(next(flips(file.read_bytes(), [-1 % file.stat().st_size])))
    with pytest.raises(PiggybackError, match=r"task 'first': .* is damaged: its SHA-256"):
        pack(bank.path, tmp_path / "out", ["a"])
    assert not (tmp_path / "out").exists()


def test_notes_of_the_tasks_that_are_kept_come_along(light: Path, tmp_path: Path) -> None:
    bank = shutil.copytree(light, tmp_path / "bank")
    (bank / "card.toml").write_text(
        'license = "mit"\n[tasks.a]\ndata = "drawn"\n[tasks.c]\nlicense = "cc0-1.0"\n'
    )
    pack(bank, tmp_path / "out", ["a"])
    notes = (tmp_path / "out" / "card.toml").read_text()
    assert notes == 'license = "mit"\n\n[tasks."a"]\ndata = "drawn"\n'


def test_what_can_not_be_packed_is_one_line_and_leaves_nothing(light: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").touch()
    for asked, out, words in (
        (["a", "winter"], "out", "the bank has no task 'winter'; tasks: first, a, b, c, d"),
        ([], "out", "a bank is packed of one task at least"),
        (["a"], "taken", "taken exists and is not an empty folder; choose another path"),
        (["a"], "taken/mine.txt", "mine.txt exists and is not an empty folder"),
        (["a"], "taken/mine.txt/out", "mine.txt.* can't be written"),
    ):
        with pytest.raises(PiggybackError, match=words):
            pack(light, tmp_path / out, asked)
    assert contents(tmp_path) == {"taken/mine.txt": b""}


def test_an_empty_folder_is_filled_whatever_it_is_called(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (tmp_path / "link").symlink_to(there)
    monkeypatch.chdir(here)
    pack(light, ".", ["a"])
    pack(light, tmp_path / "link", ["a"])
    assert Path.cwd() == here
    assert (tmp_path / "link").is_symlink()
    for folder in (Path(), there):
        assert Bank.open(folder).tasks == ("first", "a")
        assert {path.name for path in folder.iterdir()} == {"bank.json", "bank.lock", "tasks"}


def test_an_empty_folder_stays_empty_where_packing_fails(light: Path, tmp_path: Path) -> None:
    bank = shutil.copytree(light, tmp_path / "bank")
    file = file_of(Store.open(bank), "a")
    file.write_bytes(next(flips(file.read_bytes(), [-1 % file.stat().st_size])))
    (tmp_path / "out").mkdir()
    assert "is damaged" in refusal(lambda: pack(bank, tmp_path / "out", ["a"]))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_says_what_came_along_and_what_it_takes(light: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = pbgan("pack", light, "--tasks", "c,a", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.endswith("out has a, c, and first, whose filters they use")
    assert second.endswith("; all weights are bit-identical")
    assert Bank.open(tmp_path / "out").tasks == ("first", "a", "c")
    again = pbgan("pack", light, tmp_path / "out", "--tasks", "a")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
