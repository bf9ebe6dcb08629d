"""Claims about banks that are copied task by task between folders; the hub has tests of its own."""

import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

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
    with_metadata,
)
from commands import pbgan
from mixed_banks import all_bits
from piggyback_gan import Bank, PiggybackError, Transfer, pack, pull, push
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest
from piggyback_gan.bank.store import Store
from piggyback_gan.share import documents, transfer
from piggyback_gan.system import files as files_module

TASKS = ("maps", "night", "sketch")


def new_store(path: Path, *names: str) -> Store:
    path.mkdir(parents=True, exist_ok=True)
    return append(Store(path, Manifest(ARCHITECTURE)), *names)


def written(path: Path) -> dict[str, tuple[int, int]]:
    """What tells of a file whether it was written anew."""
    files = (path / "tasks").iterdir()
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A bank of three tiny tasks, which is no bank of networks."""
    return new_store(tmp_path / "source", *TASKS)


# --- what travels ---


def test_a_pulled_bank_is_the_same_files_gives_the_same_bits_and_verifies(
    networks: Path, tmp_path: Path
) -> None:
    done = pull(networks, tmp_path / "copy")
    bank = Bank.open(networks)
    size = sum(entry.bytes for entry in bank.entries)
    assert done == Transfer(("first", "gray", "last", "both"), size, held=4)
    assert contents(tmp_path / "copy") == contents(networks)
    copy = Bank.open(tmp_path / "copy")
    assert all_bits(copy) == all_bits(bank)
    assert all(finding.problem is None for finding in copy.verify())


def test_only_missing_files_travel(source: Store, tmp_path: Path) -> None:
    assert pull(source.path, tmp_path / "copy", "maps").tasks == ("maps",)
    before = written(tmp_path / "copy")
    done = pull(source.path, tmp_path / "copy")
    assert (done.tasks, done.held) == (("night", "sketch"), 3)
    assert done.bytes == sum(entry.bytes for entry in source.manifest.tasks[1:])
    assert written(tmp_path / "copy").items() >= before.items()
    assert contents(tmp_path / "copy") == contents(source.path)


def test_nothing_is_done_where_all_is_there_or_more(source: Store, tmp_path: Path) -> None:
    pull(source.path, tmp_path / "copy")
    append(Store.open(tmp_path / "copy"), "winter")
    before = contents(tmp_path / "copy")
    for task in (None, "maps", "sketch"):
        assert pull(source.path, tmp_path / "copy", task) == Transfer((), 0, held=4)
    assert contents(tmp_path / "copy") == before
    assert pull(tmp_path / "copy", source.path).tasks == ("winter",)


def test_trainings_and_leftovers_never_travel(networks: Path, tmp_path: Path) -> None:
    bank = shutil.copytree(networks, tmp_path / "bank")
    (bank / "runs" / "first").mkdir(parents=True)
    (bank / "runs" / "first" / "metrics.jsonl").touch()
    (bank / "tasks" / "0005-night.safetensors").write_bytes(b"half")
    pull(bank, tmp_path / "pulled")
    push(bank, tmp_path / "pushed")
    assert contents(tmp_path / "pulled") == contents(networks)
    assert contents(tmp_path / "pushed").keys() == {*contents(networks), "README.md"}


def test_a_pushed_bank_is_the_same_files_with_a_readme(networks: Path, tmp_path: Path) -> None:
    done = push(networks, tmp_path / "dest")
    assert (done.tasks, done.documents) == (("first", "gray", "last", "both"), ("README.md",))
    found = contents(tmp_path / "dest")
    del found["README.md"]
    assert found == contents(networks)
    before = contents(tmp_path / "dest")
    assert push(networks, tmp_path / "dest").documents == ()
    assert contents(tmp_path / "dest") == before


def test_what_lies_beside_a_bank_keeps_no_bank_from_beginning_there(
    networks: Path, tmp_path: Path
) -> None:
    config = Bank.open(networks).config
    (tmp_path / "card.toml").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / "samples").mkdir()
    Bank.new(tmp_path, config)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(PiggybackError, match="is not a bank, and the folder is not empty"):
        Bank.new(tmp_path, config)


# --- what is refused, and what is then there ---


def test_a_flipped_bit_in_any_file_of_the_source_is_refused_before_anything_changes(
    source: Store, tmp_path: Path
) -> None:
    pull(source.path, tmp_path / "copy", "maps")
    before = contents(tmp_path / "copy")
    for name in ("night", "sketch"):
        path = file_of(source, name)
        whole = path.read_bytes()
        for flipped in flips(whole, range(0, len(whole), len(whole) // 7)):
            path.write_bytes(flipped)
            with pytest.raises(PiggybackError, match=f"task '{name}': {path} is damaged"):
                pull(source.path, tmp_path / "copy")
            assert contents(tmp_path / "copy") == before
            with pytest.raises(PiggybackError, match="is damaged"):
                pull(source.path, tmp_path / "new")
            assert not (tmp_path / "new").exists()
        path.write_bytes(whole)


def test_files_that_a_manifest_vouches_for_must_still_be_a_chain(
    source: Store, tmp_path: Path
) -> None:
    changed = with_metadata(file_of(source, "night"), card='{"about": "else"}')
    forge(source, "night", changed)
    with pytest.raises(PiggybackError, match=r"'sketch': .* was built on another file"):
        pull(source.path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_missing_file_and_a_missing_task_are_one_line(source: Store, tmp_path: Path) -> None:
    with pytest.raises(PiggybackError, match="no task 'winter'; tasks: maps, night, sketch"):
        pull(source.path, tmp_path / "copy", "winter")
    file_of(source, "night").unlink()
    with pytest.raises(PiggybackError, match=r"task 'night': .* is missing"):
        pull(source.path, tmp_path / "copy")
    with pytest.raises(PiggybackError, match=r"nowhere is not a bank: it has no bank.json"):
        pull(tmp_path / "nowhere", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_bank_without_tasks_is_not_copied(source: Store, tmp_path: Path) -> None:
    for name in reversed(TASKS):
        source.remove(name)
    with pytest.raises(PiggybackError, match="source has no tasks yet"):
        pull(source.path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_manifest_that_leads_out_of_the_folder_is_refused(source: Store, tmp_path: Path) -> None:
    entries = list(source.manifest.tasks)
    entries[0] = replace(entries[0], file="../../stolen")
    Manifest(ARCHITECTURE, tuple(entries)).write(source.path)
    with pytest.raises(PiggybackError, match=r"names a file that is not a task's: '../../stolen'"):
        pull(source.path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_banks_that_went_different_ways_are_told_where_and_stay(
    source: Store, tmp_path: Path
) -> None:
    pull(source.path, tmp_path / "copy", "maps")
    append(Store.open(tmp_path / "copy"), "winter", "sketch")
    before = contents(tmp_path)
    with pytest.raises(PiggybackError) as caught:
        pull(source.path, tmp_path / "copy")
    assert str(caught.value) == (
        f"{tmp_path / 'copy'} and {source.path} differ from task 2 on: 'winter' and 'night' are different "
        "files, and later tasks are built on them; choose another path"
    )
    assert contents(tmp_path) == before


def test_networks_of_another_architecture_are_told(source: Store, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = append(Store(tmp_path / "other", Manifest({"layers": ["other"]})), "maps")
    with pytest.raises(PiggybackError, match="has networks of another architecture"):
        pull(source.path, other.path)
    other.remove("maps")
    pull(source.path, other.path)
    assert problems(Store.open(other.path)) == {}


def test_a_folder_with_other_things_and_one_that_is_written_are_left_alone(
    networks: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    for copy in (pull, push):
        with pytest.raises(PiggybackError, match="is not a bank, and the folder is not empty"):
            copy(networks, tmp_path / "home")
        with pytest.raises(PiggybackError, match="can't be written to: Not a directory"):
            copy(networks, tmp_path / "home" / "letter.txt" / "bank")
    with writer_lock(tmp_path / "busy", "train maps"):
        done = pbgan("pull", networks, tmp_path / "busy")
    assert done.returncode == 2
    assert "is being written by process" in done.stderr
    assert contents(tmp_path) == {"home/letter.txt": b""}


def test_no_bank_begins_inside_another(networks: Path, tmp_path: Path) -> None:
    bank = shutil.copytree(networks, tmp_path / "bank")
    before = contents(bank)
    for place in (bank / "copy", bank / "tasks/copy"):
        for copy in (pull, push):
            with pytest.raises(PiggybackError, match="would be inside the bank"):
                copy(bank, place)
        with pytest.raises(PiggybackError, match="would be inside the bank"):
            pack(bank, place, Bank.open(bank).tasks)
    assert contents(bank) == before


@pytest.mark.parametrize("address", ["s3://bucket/bank", "https://huggingface.co/me/bank"])
def test_addresses_of_other_kinds_are_refused(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for copy in (lambda: pull(address, "copy"), lambda: push(networks, address)):
        with pytest.raises(PiggybackError, match=r"give a directory or hf://OWNER/NAME"):
            copy()
    assert list(tmp_path.iterdir()) == []


# --- interruptions ---


def test_what_arrived_whole_is_not_fetched_again_and_the_rest_is(
    source: Store, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    (copy / "tasks").mkdir(parents=True)
    for name in ("maps", "night"):
        shutil.copy(file_of(source, name), copy / "tasks")
    half = copy / "tasks" / "0003-sketch.safetensors"
    half.write_bytes(file_of(source, "sketch").read_bytes()[:100])
    (copy / "tasks" / "0002-other.safetensors").write_bytes(b"of a writer that was killed")
    before = written(copy)
    pull(source.path, copy)
    after = written(copy)
    assert contents(copy) == contents(source.path)
    assert {name for name in after if after[name] == before.get(name)} == {
        "0001-maps.safetensors",
        "0002-night.safetensors",
    }


_WRITING = {
    function.__code__
    for function in (
        transfer._receive,
        transfer._receive_task,
        documents.receive_notes,
        files_module.require_writable,
        files_module.atomic_write,
        files_module.atomic_file.__wrapped__,  # type: ignore[attr-defined]
        writer_lock.__wrapped__,  # type: ignore[attr-defined]
        Store.clear_leftovers,
    )
}


def die_pulling(source: Path, folder: Path) -> list[tuple[kills.Line, Path]]:
    (folder).mkdir()
    return kills.die_at_each_line(
        _WRITING,
        lambda path: pull(source, path) and None,
        lambda path: pull(source, path, "maps") and None,
        folder,
    )


def test_kill_9_before_any_line_leaves_the_old_bank_or_the_new_one_and_a_rerun_goes_on(
    source: Store, tmp_path: Path
) -> None:
    (source.path / "card.toml").write_text('license = "mit"\n')
    ends: set[int] = set()
    for line, path in in_process(die_pulling, source.path, tmp_path / "killed"):
        found = Store.open(path)
        assert problems(found) == {}, line
        ends.add(len(found.manifest.tasks))
        pull(source.path, path)
        assert contents(path) == contents(source.path), line
    assert ends == {1, 3}


def pull_on_ever_larger_disks(source: Path, path: Path) -> list[str]:
    """The errors of each try, up to the one that succeeds."""
    errors = []
    for limit in range(0, 100_000, 101):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            pull(source, path)
        except PiggybackError as error:
            errors.append(str(error))
            assert len(Manifest.read(path).tasks) == 1
        else:
            return errors
    raise AssertionError("no disk is large enough")


def test_a_full_disk_is_one_line_and_leaves_the_old_bank(source: Store, tmp_path: Path) -> None:
    pull(source.path, tmp_path / "copy", "maps")
    errors = in_process(pull_on_ever_larger_disks, source.path, tmp_path / "copy")
    assert {error.partition(" can't be written: ")[2] for error in errors} == {
        "File too large; what was there is unchanged"
    }
    assert contents(tmp_path / "copy") == contents(source.path)


# --- card.toml ---


def test_card_toml_travels_with_the_tasks_that_it_tells_of(source: Store, tmp_path: Path) -> None:
    text = '# mine\nlicense = "mit"\n[tasks.maps]\ndata = "drawn"\n[tasks.sketch]\ndata = "ink"\n'
    (source.path / "card.toml").write_text(text)
    copy = tmp_path / "copy" / "card.toml"
    pull(source.path, copy.parent, "night")
    assert copy.read_text() == 'license = "mit"\n\n[tasks."maps"]\ndata = "drawn"\n'
    assert pull(source.path, copy.parent).documents == ("card.toml",)
    assert copy.read_text() == text
    assert pull(source.path, copy.parent, "maps").documents == ()
    assert copy.read_text() == text


def test_a_card_toml_that_says_other_things_stays_and_that_is_told(
    source: Store, tmp_path: Path
) -> None:
    (source.path / "card.toml").write_text('license = "mit"\n')
    pull(source.path, tmp_path / "copy")
    mine = tmp_path / "copy" / "card.toml"
    mine.write_text('license = "cc0-1.0"\n')
    done = pull(source.path, tmp_path / "copy")
    assert done.remarks == (f"{mine} stays as it is: {source.path}/card.toml says other things",)
    assert mine.read_text() == 'license = "cc0-1.0"\n'


def test_a_card_toml_that_can_not_be_read_keeps_no_task_from_coming(
    source: Store, tmp_path: Path
) -> None:
    (source.path / "card.toml").write_text("license = mit\n")
    done = pull(source.path, tmp_path / "copy")
    assert done.tasks == TASKS
    assert done.remarks[0].startswith(f"{source.path}/card.toml was not taken: ")
    assert not (tmp_path / "copy" / "card.toml").exists()


# --- the commands ---


def test_the_commands_say_what_travelled(networks: Path, tmp_path: Path) -> None:
    sizes = [entry.bytes for entry in Bank.open(networks).entries]
    copy, dest = tmp_path / "copy", tmp_path / "dest"
    for arguments, out, err in (
        (
            ("pull", networks, copy, "first"),
            f"1 task (first), {sizes[0]:,} bytes: {copy} now has 1 task",
            "",
        ),
        (
            ("pull", networks, copy),
            f"3 tasks (gray, last, both), {sum(sizes[1:]):,} bytes: {copy} now has 4 tasks",
            "",
        ),
        (("pull", networks, copy), f"{copy} has all 4 tasks already", ""),
        (
            ("push", copy, dest),
            f"4 tasks (first, gray, last, both), {sum(sizes):,} bytes: {dest} now has 4 tasks\nchanged: README.md",
            f"pbgan: no licence is stated for first, gray, last, both: state it in {copy}/card.toml\n",
        ),
    ):
        done = pbgan(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", err)
    assert pbgan("verify", dest).returncode == 0
    wrong = pbgan("push", copy, dest, "--private")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"pbgan: error: {dest} is a directory: --private is for the hub\n"
