"""Banks copied task by task, between folders and the Hugging Face hub: only what is missing travels."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from piggyback_gan.bank import Bank
from piggyback_gan.bank_notes import BankNotes, parse_notes, read_notes
from piggyback_gan.errors import PiggybackError
from piggyback_gan.hub import HubSite, is_address
from piggyback_gan.manifest import (
    MANIFEST_NAME,
    NOTES_NAME,
    README_NAME,
    SAMPLES_FOLDER,
    TASKS_FOLDER,
    Manifest,
    TaskEntry,
    atomic_write,
    check_content,
    require_empty,
    require_writable,
    writer_lock,
)
from piggyback_gan.model_card import is_ours, model_card, sample_names
from piggyback_gan.showcase import sample_pictures
from piggyback_gan.store import Store


@dataclass(frozen=True)
class Transfer:
    """What a pull or a push did.

    Attributes:
        tasks: those that travelled, in order.
        bytes: of their files.
        held: how many tasks the receiver has now.
        documents: other files that were written or removed, by their paths in the bank.
        remarks: what the user should know, a line each.
    """

    tasks: tuple[str, ...]
    bytes: int
    held: int
    documents: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Site(Protocol):
    """Where a bank lies, or can come to lie."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def address(self) -> str:
        """Where its readers find it."""

    def read(self, path: str) -> bytes | None:
        """A file of the bank; None if there is none."""

    def names(self) -> frozenset[str]:
        """The paths of its sample pictures; others may be among them."""


@dataclass(frozen=True)
class FolderSite:
    """A bank's directory."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's path."""
        return str(self.path)

    @property
    def address(self) -> str:
        """Its last part: above it, others have other folders."""
        return self.path.resolve().name

    def read(self, path: str) -> bytes | None:
        """A file in it; None if there is none.

        Raises:
            PiggybackError: it can't be read.
        """
        try:
            return (self.path / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise PiggybackError(f"{self.path / path} can't be read: {error.strerror}") from None

    def names(self) -> frozenset[str]:
        """The paths of its sample pictures."""
        found = (self.path / SAMPLES_FOLDER).glob("*.png")
        return frozenset(f"{SAMPLES_FOLDER}/{path.name}" for path in found)

    def put(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and remove files, each in one moment."""
        for name, content in changes.items():
            path = self.path / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                require_writable(path.parent)
                atomic_write(path, content)


def pull(source: str | Path, bank: str | Path, task: str | None = None) -> Transfer:
    """Bring a bank up to what another one has.

    Each file is checked before the manifest names it. What arrived whole before an interruption is not
    fetched again.

    Args:
        source: a bank's directory, or `hf://owner/name`, `hf://owner/name@revision`.
        bank: the directory that is brought up; it is made if it is not there.
        task: the last task to bring, with those before it; all if None.

    Raises:
        PiggybackError: there is no such bank or task, a file is damaged, the two banks have different
            tasks, or `bank` can't be written. It is as it was.
    """
    folder = _folder(bank, "a bank is pulled into a directory")
    site = _site(source)
    if isinstance(site, HubSite):
        site.require()
    theirs = _manifest(site)
    if theirs is None:
        raise PiggybackError(f"{site.name} is no bank: it has no {MANIFEST_NAME}")
    wanted = theirs
    if task is not None:
        last = theirs.places[theirs.entry(task).name]
        wanted = replace(theirs, tasks=theirs.tasks[: last + 1])
    with _receiving(folder, f"pull from {site.name}"):
        transfer = _receive(site, wanted, folder)
        remarks = _receive_notes(site, theirs, folder, list(wanted.places))
    return replace(transfer, remarks=tuple(remarks))


def push(
    bank: str | Path,
    destination: str | Path,
    *,
    samples: str | Path | None = None,
    private: bool = False,
) -> Transfer:
    """Bring another bank up to what this one has, and write its README: a model card.

    A README that something else wrote is left alone.

    Args:
        bank: a bank's directory; its `card.toml`, if there is one, goes along.
        destination: a directory, or `hf://owner/name`, `hf://owner/name@branch`; it is made if it is not
            there. What goes to the hub goes in one commit.
        samples: a folder of images, `samples/TASK/` for each task or one for all, of which up to
            three are translated and shown. Without it the pictures at the destination stay.
        private: make the hub's repository for its owner's eyes only.

    Raises:
        PiggybackError: as `pull`; or the hub refuses, can't be reached, or huggingface_hub is missing.
    """
    sender = Bank.open(_folder(bank, "a bank is pushed from a directory"))
    notes = read_notes(sender.path, sender.tasks)
    site = _site(destination)
    pictures = {} if samples is None else sample_pictures(sender, Path(samples))
    if isinstance(site, HubSite):
        return _push_to_hub(sender, site, notes, pictures, private)
    if private:
        raise PiggybackError(f"{site.name} is a directory: --private is for the hub")
    with _receiving(site.path, f"push from {sender.path}"):
        manifest = Manifest.read(sender.path)
        transfer = _receive(FolderSite(sender.path), manifest, site.path)
        changes, remarks = _documents(sender, site, transfer, notes, pictures)
        site.put(changes)
    return replace(transfer, documents=tuple(changes), remarks=remarks)


def _push_to_hub(
    sender: Bank,
    site: HubSite,
    notes: BankNotes | None,
    pictures: Mapping[str, Sequence[bytes]],
    private: bool,
) -> Transfer:
    is_new = not site.exists()
    if private and not is_new and not site.is_private():
        raise PiggybackError(f"{site.name} is there and public: make it private on its page first")
    manifest = Manifest.read(sender.path)
    known = _manifest(site) or Manifest(manifest.architecture)
    fresh = _missing(manifest, known, str(sender.path), site.name)
    _check_files(sender.path, manifest, fresh)
    transfer = _transfer(known, fresh)
    documents, remarks = _documents(sender, site, transfer, notes, pictures)
    changes: dict[str, bytes | Path | None] = dict(documents)
    for entry in fresh:
        changes[f"{TASKS_FOLDER}/{entry.file}"] = sender.path / TASKS_FOLDER / entry.file
    if fresh:
        changes[MANIFEST_NAME] = _extended(known, manifest, fresh).render()
    if changes:
        if is_new:
            site.create(private)
        site.commit(changes, f"pbgan push: {', '.join(transfer.tasks) or 'the model card'}")
    return replace(transfer, documents=tuple(documents), remarks=remarks)


def _folder(path: str | Path, rule: str) -> Path:
    if is_address(path):
        raise PiggybackError(f"{path} is no directory: {rule}")
    return Path(path)


def _site(address: str | Path) -> FolderSite | HubSite:
    return HubSite(str(address)) if is_address(address) else FolderSite(Path(address))


def _manifest(site: Site) -> Manifest | None:
    """Of the bank that is there, if one is. What comes from elsewhere is checked as what lies here."""
    raw = site.read(MANIFEST_NAME)
    return None if raw is None else Manifest.parse(raw, f"{site.name}/{MANIFEST_NAME}")


@contextlib.contextmanager
def _receiving(folder: Path, purpose: str) -> Iterator[None]:
    """Be the one writer of a bank, or of a folder in which one can come to be."""
    if not (folder / MANIFEST_NAME).exists():
        require_empty(folder)
    with writer_lock(folder, purpose):
        yield


def _receive(site: Site, theirs: Manifest, folder: Path) -> Transfer:
    """Bring the tasks of a manifest that are missing in a folder; then, in one moment, they are the bank's."""
    known = _manifest(FolderSite(folder)) or Manifest(theirs.architecture)
    fresh = _missing(theirs, known, site.name, str(folder))
    if isinstance(site, FolderSite):
        _check_files(site.path, theirs, fresh)
    if fresh:
        wanted = _extended(known, theirs, fresh)
        require_writable(folder / TASKS_FOLDER)
        Store(folder, known).clear_leftovers(keep=[entry.file for entry in fresh])
        for entry in fresh:
            _receive_task(site, entry, Store(folder, wanted))
        wanted.write(folder)
    return _transfer(known, fresh)


def _receive_task(site: Site, entry: TaskEntry, store: Store) -> None:
    """A task's file, unless it arrived before an interruption; checked alone and as a link of the chain."""
    name = f"{TASKS_FOLDER}/{entry.file}"
    path = store.path / name
    with contextlib.suppress(PiggybackError):
        store.read_task(entry.name)
        return
    content = site.read(name)
    if content is None:
        raise PiggybackError(f"task {entry.name!r}: {site.name}/{name} is missing")
    check_content(entry, content, f"{site.name}/{name}")
    atomic_write(path, content)
    try:
        store.read_task(entry.name)
    except PiggybackError:
        path.unlink()
        raise


def _missing(theirs: Manifest, ours: Manifest, sender: str, receiver: str) -> tuple[TaskEntry, ...]:
    """The sender's tasks that the receiver lacks; those that both have must be the same, in the same order."""
    if ours.tasks and ours.architecture != theirs.architecture:
        raise PiggybackError(
            f"{receiver} has networks of another architecture than {sender}: choose another place"
        )
    for number, (there, here) in enumerate(zip(theirs.tasks, ours.tasks, strict=False), 1):
        if there.sha256 != here.sha256:
            raise PiggybackError(
                f"{receiver} and {sender} differ from task {number} on: {here.name!r} and {there.name!r} are "
                "different files, and later tasks are built on them: choose another place"
            )
    return theirs.tasks[len(ours.tasks) :]


def _extended(known: Manifest, theirs: Manifest, fresh: tuple[TaskEntry, ...]) -> Manifest:
    """The receiver's manifest with these tasks; no file changes, so the format is the newer of the two."""
    version = (
        max(known.format_version, theirs.format_version) if known.tasks else theirs.format_version
    )
    return Manifest(theirs.architecture, known.tasks + fresh, version)


def _check_files(path: Path, manifest: Manifest, entries: Sequence[TaskEntry]) -> None:
    """Read what is to be sent, so that damage is found before anything changes elsewhere."""
    for _ in Store(path, manifest).read_tasks(entry.name for entry in entries):
        pass


def _transfer(known: Manifest, fresh: Sequence[TaskEntry]) -> Transfer:
    names = tuple(entry.name for entry in fresh)
    return Transfer(names, sum(entry.bytes for entry in fresh), len(known.tasks) + len(fresh))


def _receive_notes(site: Site, theirs: Manifest, folder: Path, tasks: Sequence[str]) -> list[str]:
    """Bring card.toml, for these tasks; one that says other things stays. Returns what to tell of it."""
    raw = site.read(NOTES_NAME)
    if raw is None:
        return []
    where = f"{site.name}/{NOTES_NAME}"
    try:
        notes = parse_notes(raw, where, theirs.places)
        mine = read_notes(folder, theirs.places)
    except PiggybackError as error:
        return [f"{where} was not taken: {error}"]
    if mine is not None and mine != notes.only(mine.tasks):
        return [f"{folder / NOTES_NAME} stays as it is: {where} says other things"]
    brought = raw if len(tasks) == len(theirs.tasks) else notes.only(tasks).render()
    if brought != FolderSite(folder).read(NOTES_NAME):
        atomic_write(folder / NOTES_NAME, brought)
    return []


def _documents(
    sender: Bank,
    site: Site,
    transfer: Transfer,
    notes: BankNotes | None,
    pictures: Mapping[str, Sequence[bytes]],
) -> tuple[dict[str, bytes | None], tuple[str, ...]]:
    """What beside tasks is to change at the receiver, by path; and what to tell of it."""
    if transfer.held > len(sender.tasks):
        later = (
            f"{site.name} has {transfer.held - len(sender.tasks)} later tasks than {sender.path}"
        )
        return {}, (f"{later}: its model card stays as it is; pull them first",)
    wanted: dict[str, bytes | None] = {}
    remarks = []
    if notes is not None:
        wanted[NOTES_NAME] = (sender.path / NOTES_NAME).read_bytes()
    elif (theirs := site.read(NOTES_NAME)) is not None:
        notes = parse_notes(theirs, f"{site.name}/{NOTES_NAME}", sender.tasks)
    else:
        notes = BankNotes()
    if silent := [task for task in sender.tasks if notes.of(task).license is None]:
        remarks.append(
            f"licence not stated of {', '.join(silent)}: {sender.path / NOTES_NAME} can say it"
        )
    shown = set(site.names())
    for task, made in pictures.items():
        for place, name in enumerate(sample_names(task)):
            if place < len(made):
                wanted[name] = made[place]
                shown.add(name)
            elif name in shown:
                wanted[name] = None
                shown.remove(name)
    readme = site.read(README_NAME)
    if readme is None or is_ours(readme):
        wanted[README_NAME] = model_card(sender, notes, shown, site.address).encode()
    else:
        remarks.append(f"{site.name}/{README_NAME} was written by hand and stays as it is")
    changes = {
        name: content
        for name, content in wanted.items()
        if content is None or content != site.read(name)
    }
    return changes, tuple(remarks)
