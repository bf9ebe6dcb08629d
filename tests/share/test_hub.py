"""Claims about banks on the Hugging Face hub, with huggingface_hub itself and a hub on loopback."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest

import running as processes
from banks import contents, flips, in_process
from commands import pbgan, run_here
from data_sets import refusal
from fake_hub import TOKEN, FakeHub, Repository, running
from mixed_banks import MIXED, all_bits, fill
from piggyback_gan import Bank, PiggybackError, Transfer, pull, push
from piggyback_gan.bank.manifest import Manifest

HERE = "hf://me/winter"
FILES = tuple(f"tasks/000{n}-{task.name}.safetensors" for n, task in enumerate(MIXED[:3], 1))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, for the processes that a test starts."""
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield hub


@pytest.fixture
def bank(three: Path, tmp_path: Path) -> Path:
    return shutil.copytree(three, tmp_path / "bank")


@pytest.fixture
def there(hub: FakeHub, bank: Path) -> Repository:
    """The bank as it lies on the hub."""
    repository = hub.repositories["me/winter"] = Repository(private=False)
    files = {".gitattributes": b"", **contents(bank)}
    repository.commit(files, "begun")
    return repository


# The library reads its environment when it is imported, so each of these is a process of its own.


def pulled(*arguments: object) -> Transfer:
    done: Transfer = in_process(pull, *arguments)
    return done


def pushed(bank: Path, address: str = HERE, *options: object) -> Transfer:
    done: Transfer = in_process(_push, bank, address, *options)
    return done


def _push(bank: Path, address: str, samples: Path | None = None, private: bool = False) -> Transfer:
    return push(bank, address, samples=samples, private=private)


# --- what travels ---


def test_a_pushed_bank_is_one_commit_and_comes_back_with_the_same_bits(
    hub: FakeHub, bank: Path, tmp_path: Path
) -> None:
    (bank / "card.toml").write_text('license = "mit"\n')
    done = pushed(bank)
    assert done.tasks == ("first", "gray", "last")
    assert done.documents == ("card.toml", "README.md")
    repository = hub.repositories["me/winter"]
    assert repository.titles == ["initial commit", "pbgan push: first, gray, last"]
    assert repository.files.keys() == {".gitattributes", "README.md", *contents(bank)}
    assert b"\npbgan pull hf://me/winter my-bank\n" in repository.files["README.md"]
    pulled(HERE, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(bank)
    copy = Bank.open(tmp_path / "copy")
    assert all_bits(copy) == all_bits(Bank.open(bank))
    assert all(finding.problem is None for finding in copy.verify())


def test_only_missing_files_travel_either_way(
    hub: FakeHub, bank: Path, there: Repository, tmp_path: Path
) -> None:
    assert pulled(HERE, tmp_path / "copy", "first").tasks == ("first",)
    assert hub.fetched == ["bank.json", FILES[0]]
    hub.fetched.clear()
    assert pulled(HERE, tmp_path / "copy").tasks == ("gray", "last")
    assert hub.fetched == ["bank.json", *FILES[1:]]
    assert pulled(HERE, tmp_path / "copy").tasks == ()
    manifest = Manifest.read(bank)
    first = replace(manifest, tasks=manifest.tasks[:1])
    hub.repositories["me/begun"] = begun = Repository(private=False)
    begun.commit({"bank.json": first.render(), FILES[0]: (bank / FILES[0]).read_bytes()}, "begun")
    assert pushed(bank, "hf://me/begun").tasks == ("gray", "last")
    assert begun.titles[1:] == ["pbgan push: gray, last"]
    before = begun.files
    assert pushed(bank, "hf://me/begun") == Transfer(
        (),
        0,
        3,
        remarks=(f"no licence is stated for first, gray, last: state it in {bank}/card.toml",),
    )
    assert begun.files is before, "there is no empty commit"


def test_an_older_revision_can_be_pulled(bank: Path, there: Repository, tmp_path: Path) -> None:
    old = there.head
    there.commit({"README.md": b"all gone"}, "emptied")
    with pytest.raises(PiggybackError, match=r"hf://me/winter is not a bank: it has no bank.json"):
        pulled(HERE, tmp_path / "copy")
    pulled(f"{HERE}@{old}", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(bank)


def test_a_new_repository_is_private_if_that_is_asked_and_a_public_one_is_not_taken_for_one(
    hub: FakeHub, bank: Path, there: Repository, tmp_path: Path
) -> None:
    pushed(bank, "hf://me/secret", None, True)
    assert hub.repositories["me/secret"].private
    pulled("hf://me/secret", tmp_path / "copy")
    assert "hf://me/winter exists and is public" in refusal(lambda: pushed(bank, HERE, None, True))
    assert there.titles == ["begun"]


def test_sample_pictures_and_own_readmes_stay(hub: FakeHub, bank: Path, there: Repository) -> None:
    pictures = {"samples/first-1.png": b"old", "samples/first-3.png": b"old", "samples/x.txt": b""}
    there.commit({**there.files, **pictures}, "pictures")
    pushed(bank)
    text = there.files["README.md"].decode()
    assert "](samples/first-1.png) ![first: input, output](samples/first-3.png)\n" in text
    assert there.files.items() >= pictures.items()
    there.commit({**there.files, "README.md": b"# By hand\n"}, "by hand")
    done = pushed(bank)
    assert any(
        remark.startswith(f"{HERE}/README.md was written or edited by hand and stays")
        for remark in done.remarks
    )
    assert there.files["README.md"] == b"# By hand\n"


def test_nothing_stays_on_this_machine_beside_the_bank(
    there: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    pulled(HERE, tmp_path / "copy")
    assert contents(tmp_path / "temporary") == {}
    assert not (tmp_path / "home").exists()


# --- what arrives damaged ---


def flipped(content: bytes) -> bytes:
    return next(flips(content, [len(content) // 2]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, f"task 'gray': {HERE}/{FILES[1]} is damaged: its SHA-256 is not the one"),
        (lambda content: content[:-9], f"{FILES[1]} is damaged: expected .* bytes, found"),
        (lambda content: b"<html>", f"{FILES[1]} is damaged: expected .* bytes, found 6"),
    ],
)
def test_a_damaged_file_is_refused_on_arrival_and_the_bank_is_as_it_was(
    hub: FakeHub, there: Repository, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    pulled(HERE, tmp_path / "copy", "first")
    before = contents(tmp_path / "copy")
    hub.tamper[FILES[1]] = change
    with pytest.raises(PiggybackError, match=words):
        pulled(HERE, tmp_path / "copy")
    assert contents(tmp_path / "copy") == before
    hub.tamper.clear()
    assert pulled(HERE, tmp_path / "copy").tasks == ("gray", "last")


def test_a_manifest_that_is_damaged_or_leads_out_of_the_bank_is_refused(
    bank: Path, there: Repository, tmp_path: Path
) -> None:
    manifest = Manifest.read(bank)
    stolen = replace(manifest.tasks[0], file="../../../stolen.safetensors")
    forged = replace(manifest, tasks=(stolen, *manifest.tasks[1:])).render()
    for raw, words in (
        (forged, "bank.json names a file that is not a task's: '../../../stolen.safetensors'"),
        (flipped(there.files["bank.json"]), "bank.json is damaged"),
        (b"[" * 100_000, "bank.json is damaged: it is not a valid manifest"),
    ):
        there.commit({**there.files, "bank.json": raw}, "forged")
        with pytest.raises(PiggybackError, match=words):
            pulled(HERE, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} <= {"bank", "home"}


def test_a_file_that_was_cut_short_once_is_fetched_to_its_end(
    hub: FakeHub, bank: Path, there: Repository, tmp_path: Path
) -> None:
    hub.short[FILES[1]] = 1
    pulled(HERE, tmp_path / "copy")
    assert hub.fetched.count(FILES[1]) == 2
    assert contents(tmp_path / "copy") == contents(bank)


def test_a_pull_that_was_killed_leaves_the_old_bank_and_fetches_no_file_twice(
    hub: FakeHub, bank: Path, there: Repository, tmp_path: Path
) -> None:
    pulled(HERE, tmp_path / "copy", "first")
    before = (tmp_path / "copy" / "bank.json").read_bytes()
    hub.stall.add(FILES[2])
    process = processes.start("pull", HERE, tmp_path / "copy")
    assert hub.stalled.wait(60)
    process.send_signal(SIGKILL)
    process.communicate()
    assert (tmp_path / "copy" / "bank.json").read_bytes() == before
    assert pbgan("verify", tmp_path / "copy").returncode == 0
    hub.stall.clear()
    hub.fetched.clear()
    assert pulled(HERE, tmp_path / "copy").tasks == ("gray", "last")
    assert hub.fetched == ["bank.json", FILES[2]]
    assert contents(tmp_path / "copy").items() >= contents(bank).items()


# --- what is refused ---


def test_a_push_beside_another_one_is_refused(hub: FakeHub, bank: Path, there: Repository) -> None:
    hub.before_commit = lambda repository: repository.commit(repository.files, "of another")
    assert f"{HERE}: somebody else changed it meanwhile" in refusal(lambda: pushed(bank))
    assert there.titles == ["begun", "of another"]


@pytest.mark.parametrize("files", [{"bank.json": b"another's"}, {"README.md": b"another's"}])
def test_the_first_push_to_a_new_repository_overwrites_nothing_of_somebody_elses_first_one(
    hub: FakeHub, bank: Path, files: dict[str, bytes]
) -> None:
    def first(name: str) -> None:
        hub.repositories[name] = Repository(private=False)
        hub.repositories[name].commit({".gitattributes": b"", **files}, "of another")

    hub.before_create = first
    assert f"{HERE}: somebody else changed it meanwhile: run" in refusal(lambda: pushed(bank))
    assert hub.repositories["me/winter"].titles == ["of another"]


def test_a_private_push_does_not_go_to_a_new_public_repository(hub: FakeHub, bank: Path) -> None:
    def first(name: str) -> None:
        hub.repositories[name] = Repository(private=False)
        hub.repositories[name].commit({".gitattributes": b""}, "initial commit")

    hub.before_create = first
    assert "somebody else changed it meanwhile" in refusal(lambda: pushed(bank, HERE, None, True))
    assert hub.repositories["me/winter"].titles == ["initial commit"]
    hub.repositories.clear()
    pushed(bank)
    assert len(hub.repositories["me/winter"].titles) == 2, "without --private it serves as it is"


def test_a_bank_is_not_pushed_over_another(bank: Path, there: Repository, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", MIXED[0], MIXED[2]).path
    with pytest.raises(PiggybackError, match=f"{HERE} and .*other differ from task 1 on: 'first'"):
        pushed(other)
    (bank / FILES[2]).write_bytes(flipped((bank / FILES[2]).read_bytes()))
    with pytest.raises(PiggybackError, match=r"task 'last': .* is damaged"):
        pushed(bank, "hf://me/new")
    assert there.titles == ["begun"]


def test_a_damaged_bank_makes_no_repository(hub: FakeHub, bank: Path) -> None:
    (bank / FILES[0]).unlink()
    assert "is missing" in refusal(lambda: pushed(bank))
    assert hub.repositories == {}


def test_a_branch_where_no_repository_is_makes_none(hub: FakeHub, bank: Path) -> None:
    with pytest.raises(PiggybackError, match="'dev': push to hf://me/new first") as caught:
        pushed(bank, "hf://me/new@dev")
    assert "\n" not in str(caught.value)
    assert hub.repositories == {}
    pushed(bank, "hf://me/new@main")
    assert hub.repositories["me/new"].titles[1:] == ["pbgan push: first, gray, last"]
    with pytest.raises(PiggybackError, match="hf://me/new@dev: it has no revision 'dev'"):
        pushed(bank, "hf://me/new@dev")


def failure(*arguments: str | Path) -> str:
    """The one line that the command says."""
    done = pbgan(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("pbgan: error: ").rstrip()


LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"


def test_what_the_hub_refuses_is_one_line(
    hub: FakeHub, bank: Path, there: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    nothing = f"the repository does not exist, or you may not see it: {LOG_IN}"
    assert failure("pull", "hf://me/nothing", copy) == f"hf://me/nothing: {nothing}"
    assert failure("pull", f"{HERE}@v2", copy) == f"{HERE}@v2: it has no revision 'v2'"
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    assert failure("push", bank, "hf://me/new") == f"hf://me/new: {nothing}"
    hub.status = 403
    may_not = f"{HERE}: you may not do this there: {LOG_IN} as somebody who may"
    assert failure("push", bank, HERE) == may_not
    hub.status = 500
    assert failure("pull", HERE, copy).startswith(f"{HERE}: the hub refused: ")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert failure("pull", HERE, copy).startswith(f"{HERE}: the hub can't be reached: ")
    assert not copy.exists()
    assert there.titles == ["begun"]


@pytest.mark.parametrize("address", ["hf://", "hf://me", "hf://me/a/b", "hf://me/a@", "hf:///a"])
def test_an_address_that_is_none_is_one_line(tmp_path: Path, address: str) -> None:
    with pytest.raises(PiggybackError, match=r"is not a hub address: give hf://OWNER/NAME"):
        pull(address, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_the_other_end_is_a_directory(tmp_path: Path) -> None:
    for mistake in (lambda: pull(tmp_path, HERE), lambda: push(HERE, tmp_path)):
        assert f"{HERE} is not a directory: a bank is pu" in refusal(mistake)


def test_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = run_here("pull", HERE, tmp_path / "copy")
    assert done.returncode == 2
    assert done.stderr == (
        "pbgan: error: the hub needs huggingface_hub: pip install 'piggyback-gan[hub]'\n"
    )
