"""Claims about the manifest, atomic writing and the writer's lock: kills, full disks, flipped bits."""

import hashlib
import json
import os
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from banks import (
    ARCHITECTURE,
    append,
    contents,
    flips,
    in_process,
    pipe,
    start,
    with_metadata,
    writer,
)
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    TaskEntry,
    now,
    read_card,
    read_header,
)
from piggyback_gan.bank.store import Store
from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.files import atomic_file, atomic_write, staging_folder

NOBODY = 65534


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of two tiny tasks."""
    path = tmp_path / "bank"
    (path / "tasks").mkdir(parents=True)
    append(Store(path, Manifest(ARCHITECTURE)), "maps", "night")
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach; those of `tmp_path` can't be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def entry(**fields: Any) -> TaskEntry:
    given = {"name": "maps", "file": "0001-maps.safetensors", "sha256": "0" * 64, "bytes": 1}
    return TaskEntry(**{**given, "added": "2026-01-01T00:00:00Z", **fields})


def rewrite(path: Path, **fields: Any) -> None:
    """Change the manifest as someone would who knows how its checksum is made."""
    content = json.loads((path / MANIFEST_NAME).read_text()) | fields
    del content["sha256"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    content["sha256"] = hashlib.sha256(canonical).hexdigest()
    (path / MANIFEST_NAME).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def assert_one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def refuse_manifest(folder: Path, *words: str) -> None:
    """Check that the folder's manifest is refused in one line with these words."""
    with pytest.raises(PiggybackError) as caught:
        Manifest.read(folder)
    assert_one_line(caught.value, *words)


# --- what it says ---


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest({"généra\ntor": [1, None, 0.1]}, (entry(),))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_manifest_is_json_that_names_its_format_and_its_tasks(bank: Path) -> None:
    content = json.loads((bank / MANIFEST_NAME).read_text())
    assert content["format"] == "piggyback-gan bank"
    assert content["format_version"] == FORMAT_VERSION == 1
    assert content["architecture"] == ARCHITECTURE
    for line in content["tasks"]:
        file = (bank / "tasks" / line["file"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(file).hexdigest()
        assert line["bytes"] == len(file)
    assert [line["name"] for line in content["tasks"]] == ["maps", "night"]


def test_an_unknown_task_is_answered_with_those_there_are() -> None:
    with pytest.raises(PiggybackError, match=r"no task 'x'; tasks: maps$"):
        Manifest({}, (entry(),)).entry("x")
    with pytest.raises(PiggybackError, match=r"no task 'x'; tasks: none yet$"):
        Manifest({}).entry("x")


def test_only_the_newest_task_may_go_and_the_later_ones_are_named() -> None:
    tasks = tuple(entry(name=name) for name in ("maps", "night", "sketch"))
    manifest = Manifest({}, tasks)
    manifest.require_newest("sketch")
    with pytest.raises(PiggybackError, match="'maps' can't be removed: night, sketch came later"):
        manifest.require_newest("maps")


# --- damage ---


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_found(bank: Path) -> None:
    path = bank / MANIFEST_NAME
    for damaged in flips(path.read_bytes()):
        path.write_bytes(damaged)
        refuse_manifest(bank, MANIFEST_NAME)


def test_a_manifest_truncated_anywhere_is_found(bank: Path) -> None:
    good = (bank / MANIFEST_NAME).read_bytes()
    for length in range(len(good)):
        (bank / MANIFEST_NAME).write_bytes(good[:length])
        with pytest.raises(PiggybackError, match="damaged"):
            Manifest.read(bank)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"7", b"{}", b"\xff\xfe", b'"bank"'])
def test_what_is_no_manifest_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(PiggybackError, match="damaged"):
        Manifest.read(tmp_path)


def test_another_layout_of_the_same_content_is_refused(bank: Path) -> None:
    content = json.loads((bank / MANIFEST_NAME).read_text())
    (bank / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(PiggybackError, match="checksum"):
        Manifest.read(bank)


def test_what_is_no_bank_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(PiggybackError, match=f"{path} is not a bank"):
            Manifest.read(path)
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(PiggybackError, match="can't be read: Is a directory"):
        Manifest.read(tmp_path)


def test_a_bank_of_a_newer_version_asks_for_an_update(bank: Path) -> None:
    rewrite(bank, format_version=2, news="unknown to this version")
    with pytest.raises(PiggybackError, match="format 2, this version reads up to 1: update"):
        Manifest.read(bank)


@pytest.mark.parametrize("version", ["1", 0, -1, True, None, 1.0, [1]])
def test_a_format_version_that_is_none_is_called_damaged(bank: Path, version: object) -> None:
    rewrite(bank, format_version=version)
    with pytest.raises(
        PiggybackError, match=r"is damaged: Expected `int`.* - at `\$.format_version`"
    ) as caught:
        Manifest.read(bank)
    assert_one_line(caught.value, MANIFEST_NAME)


def test_a_manifest_that_is_too_deep_is_called_damaged_at_any_depth(bank: Path) -> None:
    good = (bank / MANIFEST_NAME).read_bytes()
    architecture = json.dumps(json.loads(good)["architecture"], indent=1, sort_keys=True)
    old = architecture.replace("\n", "\n ").encode()
    assert good.count(old) == 1
    for depth in (300, 600, 900, 950, 1000, 100_000):
        deep = good.replace(old, b"[" * depth + b"]" * depth)
        (bank / MANIFEST_NAME).write_bytes(deep)
        refuse_manifest(bank, MANIFEST_NAME, "is damaged")


@pytest.mark.parametrize(
    "file",
    ["../../x", "../bank.json", "/etc/passwd", "..", ".", "", "sub/0001-maps.safetensors",
     "0001-maps.safetensors\n", "0001-maps.safetensors\0", "0001-night.safetensors",
     "0001-maps.pt", "maps.safetensors", 7, None, ["0001-maps.safetensors"]],
)  # fmt: skip
def test_a_file_outside_the_tasks_folder_is_refused_even_with_a_right_checksum(
    tmp_path: Path, file: object
) -> None:
    Manifest({}, (entry(file=file),)).write(tmp_path)
    refuse_manifest(tmp_path, repr(file) if isinstance(file, str) else "$.tasks[0].file")


@pytest.mark.parametrize("name", ["../x", "..", "", "A", "a b", "a\n", "a" * 65, "../../x"])
def test_a_name_that_leads_elsewhere_is_refused_even_with_its_own_file(
    tmp_path: Path, name: str
) -> None:
    Manifest({}, (entry(name=name, file=f"0001-{name}.safetensors"),)).write(tmp_path)
    refuse_manifest(tmp_path)


# --- headers and cards ---


def test_a_card_is_read_from_the_header_alone(bank: Path) -> None:
    last = Manifest.read(bank).entry("night")
    path = bank / "tasks" / last.file
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:header] + bytes(len(content) - header))
    assert read_card(bank, last) == {"about": "night"}


def test_a_header_damaged_anywhere_gives_a_card_or_one_line(bank: Path) -> None:
    line = Manifest.read(bank).entry("maps")
    path = bank / "tasks" / line.file
    good = path.read_bytes()
    refused = 0
    for damaged in flips(good, range(8 + int.from_bytes(good[:8], "little"))):
        path.write_bytes(damaged)
        try:
            assert isinstance(read_card(bank, line), dict)
        except PiggybackError as error:
            assert_one_line(error, str(path))
            refused += 1
    assert refused > 50


def test_a_card_that_is_too_deep_to_be_read_is_called_damaged(bank: Path) -> None:
    entry = Manifest.read(bank).entry("maps")
    path = bank / "tasks" / entry.file
    path.write_bytes(with_metadata(path, card="[" * 200_000))
    with pytest.raises(PiggybackError, match="has a damaged card: not a JSON object") as caught:
        read_card(bank, entry)
    assert_one_line(caught.value, str(path))


def test_a_missing_truncated_or_foreign_file_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(PiggybackError, match="is missing"):
        read_header(path)
    for content in (b"", b"\x01", b"a picture, perhaps", b"\2\0\0\0\0\0\0\0[]", b"\xff" * 8):
        path.write_bytes(content)
        with pytest.raises(PiggybackError, match=r"truncated|damaged|not a safetensors file"):
            read_header(path)


def test_a_safetensors_file_of_others_is_no_task(bank: Path) -> None:
    line = Manifest.read(bank).entry("maps")
    (bank / "tasks" / line.file).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(PiggybackError, match="is not a task's file"):
        read_card(bank, line)


# --- writing ---


def test_a_written_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "x", b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_a_reader_of_the_old_file_keeps_it_whole_while_a_new_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    atomic_write(path, b"old" * 1000)
    with path.open("rb") as reader:
        atomic_write(path, b"new")
        assert reader.read() == b"old" * 1000
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_synced_before_it_takes_its_name_and_its_folder_after(tmp_path: Path) -> None:
    # No kill can show it, only a power cut: so the calls themselves are watched.
    calls: list[str] = []

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in ("fsync", "replace"):
            calls.append(function.__name__)

    sys.setprofile(watch)
    try:
        atomic_write(tmp_path / "x", b"x")
    finally:
        sys.setprofile(None)
    assert calls == ["fsync", "replace", "fsync"]


def on_a_full_disk(limit: int, write: Callable[[Path], None], path: Path) -> str | None:
    """The error of writing where no file may be larger than `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(path)
    except PiggybackError as error:
        return str(error)
    return None


def write_new(path: Path) -> None:
    atomic_write(path, b"new" * 10_000)


@pytest.mark.parametrize("limit", [0, 1, 8192, 29_999])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    message = in_process(on_a_full_disk, limit, write_new, path)
    assert message == f"{path} can't be written: File too large; what was there is unchanged"
    assert contents(tmp_path) == {"x": b"old"}


@pytest.mark.parametrize(("making", "made"), [("mkdir", staging_folder), ("open", atomic_file)])
def test_a_signal_in_the_moment_of_making_leaves_nothing(
    making: str,
    made: Callable[[Path], AbstractContextManager[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(Path, making)

    def interrupted(*arguments: Any, **named: Any) -> None:
        if (file := real(*arguments, **named)) is not None:
            file.close()
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, making, interrupted)
    with pytest.raises(KeyboardInterrupt), made(tmp_path / "made"):
        pytest.fail("it went on")
    assert not list(tmp_path.iterdir())


def test_a_write_that_just_fits_the_disk_succeeds(tmp_path: Path) -> None:
    assert in_process(on_a_full_disk, 30_000, write_new, tmp_path / "x") is None
    assert (tmp_path / "x").stat().st_size == 30_000


def write_as_nobody(folder: Path) -> list[str]:
    """Errors of what writes, by a user who may read only."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    messages = []
    try:
        atomic_write(folder / "x", b"new")
    except PiggybackError as error:
        messages.append(str(error))
    for bank in (folder, folder / "new"):
        try:
            with writer_lock(bank, "train maps"):
                pass
        except PiggybackError as error:
            messages.append(str(error))
    return messages


def test_a_read_only_folder_is_said_to_be_and_stays_as_it_is(open_folder: Path) -> None:
    (open_folder / "x").write_bytes(b"old")
    assert in_process(write_as_nobody, open_folder) == [
        f"{open_folder / 'x'} can't be written: Permission denied; what was there is unchanged",
        f"{open_folder} can't be written to: Permission denied",
        f"{open_folder / 'new'} can't be written to: Permission denied",
    ]
    assert [path.name for path in open_folder.iterdir()] == ["x"]
    assert (open_folder / "x").read_bytes() == b"old"


# --- the lock ---


def test_a_second_writer_is_told_who_holds_the_bank_and_kill_9_frees_it(bank: Path) -> None:
    before = contents(bank)
    holder = writer(bank, "train summer")
    with pytest.raises(PiggybackError) as caught, writer_lock(bank, "train winter"):
        pass
    assert_one_line(
        caught.value, f"process {holder.pid} on ", "(train summer, since 20", "wait for it"
    )
    assert Manifest.read(bank).tasks, "readers are not kept waiting"
    holder.kill()
    holder.join()
    assert contents(bank).keys() - before.keys() == {"bank.writer.json"}
    with writer_lock(bank, "train winter"):
        said = json.loads((bank / "bank.writer.json").read_text())
        assert (said["pid"], said["purpose"]) == (os.getpid(), "train winter")
    assert contents(bank) == before


def test_one_process_can_not_write_twice_at_a_time_either(bank: Path) -> None:
    with (
        writer_lock(bank, "train summer"),
        pytest.raises(PiggybackError, match=rf"process {os.getpid()} .*train summer"),
        writer_lock(bank, "train winter"),
    ):
        pass
    with writer_lock(bank, "train winter"):
        pass


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"7", b"{}", b"\xff"])
def test_a_holder_whose_note_is_unreadable_is_another_process(bank: Path, said: bytes) -> None:
    with writer_lock(bank, "train summer"):
        (bank / "bank.writer.json").write_bytes(said)
        with (
            pytest.raises(PiggybackError, match="is being written by another process: wait"),
            writer_lock(bank, "train winter"),
        ):
            pass


def write_in_turns(bank: Path, turns: int, sender: Connection) -> None:
    """Raise a number in a file, which goes wrong if another process does so meanwhile."""
    done = 0
    while done < turns:
        try:
            with writer_lock(bank, "count"):
                count = int((bank / "count").read_text())
                (bank / "count").write_text("torn")
                (bank / "count").write_text(str(count + 1))
                done += 1
        except PiggybackError as error:
            assert "is being written by" in str(error)
    sender.send(done)


def test_of_many_writers_never_two_write_at_once(bank: Path) -> None:
    (bank / "count").write_text("0")
    receiver, sender = pipe()
    processes = [start(write_in_turns, bank, 25, sender) for _ in range(4)]
    assert sum(receiver.recv() for _ in processes) == 100
    for process in processes:
        process.join()
    assert (bank / "count").read_text() == "100"


def test_a_failed_start_leaves_no_folder_but_one_that_was_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writer_lock(tmp_path / "bank", "train maps"):
        (tmp_path / "bank" / "tasks").mkdir()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bank").mkdir()
    with pytest.raises(KeyError), writer_lock(tmp_path / "bank", "train maps"):
        raise KeyError
    assert contents(tmp_path) == {}
    assert (tmp_path / "bank").is_dir()


def lock(bank: Path) -> None:
    with writer_lock(bank, "train maps"):
        pass


def test_a_disk_too_full_for_the_writers_note_is_said_to_be(bank: Path) -> None:
    before = contents(bank)
    message = in_process(on_a_full_disk, 10, lock, bank)
    assert message is not None and "can't be written: File too large" in message
    assert contents(bank) == before
    lock(bank)


# --- time ---


def test_the_time_is_source_date_epochs_where_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert now() == "1970-01-02T00:00:00Z"
    for epoch in ("yesterday", "1e9", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        with pytest.raises(PiggybackError, match="must be a number of seconds"):
            now()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert now() > "2026"
