"""Copy banks between folders and the Hugging Face hub; only missing tasks are transferred."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import (
    MANIFEST_NAME,
    TASKS_FOLDER,
    Manifest,
    TaskEntry,
    check_content,
    require_empty,
    require_outside_banks,
)
from piggyback_gan.bank.store import Store
from piggyback_gan.errors import PiggybackError
from piggyback_gan.share.documents import FoundNotes, documents_to_send, notes_at, receive_notes
from piggyback_gan.share.hub import HubSite, is_address
from piggyback_gan.share.showcase import sample_pictures
from piggyback_gan.share.sites import FolderSite, Site, site_at
from piggyback_gan.system.files import atomic_write, require_writable


@dataclass(frozen=True)
class Transfer:
    """The result of a pull or a push.

    Attributes:
        tasks: transferred tasks, in order.
        bytes: size of their files.
        held: number of the receiver's tasks afterwards.
        documents: other files that were written or removed, by their paths in the bank.
        remarks: notes for the user, one line each.
    """

    tasks: tuple[str, ...]
    bytes: int
    held: int
    documents: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def pull(source: str | Path, bank: str | Path, task: str | None = None) -> Transfer:
    """Copy the tasks that a bank lacks from another one.

    Each file is checked before the manifest names it. Files that were complete before an interruption are
    not fetched again.

    Args:
        source: a bank's directory, or `hf://owner/name`, `hf://owner/name@revision`.
        bank: the receiving directory; it is created if missing.
        task: the last task to copy, with those before it; all if None.

    Raises:
        PiggybackError: the bank or task does not exist, a file is damaged, the two banks have different
            tasks, or `bank` can't be written. It is unchanged then.
    """
    folder = _folder(bank, "a bank is pulled into a directory")
    site = site_at(source)
    if isinstance(site, HubSite):
        site.require()
    theirs = _manifest(site)
    if theirs is None:
        raise PiggybackError(f"{site.name} is not a bank: it has no {MANIFEST_NAME}")
    _require_tasks(theirs, site.name)
    wanted = theirs
    if task is not None:
        last = theirs.places[theirs.entry(task).name]
        wanted = replace(theirs, tasks=theirs.tasks[: last + 1])
    with _receiving(folder, f"pull from {site.name}"):
        known, fresh = _compare(wanted, site.name, FolderSite(folder))
        if isinstance(site, FolderSite):
            _check_files(site.path, theirs, fresh)
        _receive(site, folder, known, wanted)
        documents, remarks = receive_notes(site, theirs, folder, known)
    return replace(_transfer(known, fresh), documents=documents, remarks=remarks)


def push(
    bank: str | Path,
    destination: str | Path,
    *,
    samples: str | Path | None = None,
    private: bool = False,
) -> Transfer:
    """Bring another bank up to what this one has, and write its README: a model card.

    A README that was written or edited by hand is left alone.

    Args:
        bank: a bank's directory; its `card.toml`, if there is one, goes along, unless there is one at the
            destination that says other things.
        destination: a directory or `hf://owner/name`, which is made if it is not there; or
            `hf://owner/name@branch`, which must be there. What goes to the hub goes in one commit.
        samples: a folder of images, `samples/TASK/` for each task or one for all, of which up to
            three are translated and shown. Without it the pictures at the destination stay.
        private: make the hub's repository for its owner's eyes only.

    Raises:
        PiggybackError: as `pull`; or the hub refuses, can't be reached, or huggingface_hub is missing.
    """
    sender = Bank.open(_folder(bank, "a bank is pushed from a directory"))
    _require_tasks(sender.manifest, str(bank))
    site = site_at(destination)
    notes = notes_at(FolderSite(sender.path), sender.tasks)
    pictures = {} if samples is None else sample_pictures(sender, Path(samples))
    if isinstance(site, HubSite):
        if private and site.exists() and not site.is_private():
            raise PiggybackError(
                f"{site.name} exists and is public: make it private on its page first"
            )
        known, changes, transfer = _plan(sender, site, notes, pictures)
        _commit(sender, site, known, transfer, changes, private)
    elif private:
        raise PiggybackError(f"{site.name} is a directory: --private is for the hub")
    else:
        with _receiving(site.path, f"push from {sender.path}"):
            known, changes, transfer = _plan(sender, site, notes, pictures)
            _receive(FolderSite(sender.path), site.path, known, sender.manifest)
            site.put(changes)
    return transfer


def _plan(
    sender: Bank, site: Site, notes: FoundNotes | None, pictures: Mapping[str, Sequence[bytes]]
) -> tuple[Manifest, dict[str, bytes | None], Transfer]:
    """Compare the two banks and plan the changes: everything of a push that can fail because of their content."""
    known, fresh = _compare(sender.manifest, str(sender.path), site)
    _check_files(sender.path, sender.manifest, fresh)
    changes, remarks = documents_to_send(sender, site, known, notes, pictures)
    transfer = replace(_transfer(known, fresh), documents=tuple(changes), remarks=remarks)
    return known, changes, transfer


def _commit(
    sender: Bank,
    site: HubSite,
    known: Manifest,
    transfer: Transfer,
    documents: Mapping[str, bytes | None],
    private: bool,
) -> None:
    """Commit tasks and documents at once, if anything changes."""
    changes: dict[str, bytes | Path | None] = dict(documents)
    if fresh := sender.entries[len(known.tasks) :]:
        for entry in fresh:
            changes[f"{TASKS_FOLDER}/{entry.file}"] = sender.path / TASKS_FOLDER / entry.file
        changes[MANIFEST_NAME] = _with_new(known, sender.manifest).render()
    if changes:
        if not site.exists():
            site.create(private)
        site.commit(changes, f"pbgan push: {', '.join(transfer.tasks) or 'the model card'}")


def _folder(path: str | Path, rule: str) -> Path:
    if is_address(path):
        raise PiggybackError(f"{path} is not a directory: {rule}")
    return Path(path)


def _manifest(site: Site) -> Manifest | None:
    """Read and check a site's manifest; None if it has none."""
    raw = site.read(MANIFEST_NAME)
    return None if raw is None else Manifest.parse(raw, f"{site.name}/{MANIFEST_NAME}")


@contextlib.contextmanager
def _receiving(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the writer's lock of a bank, or of a folder where one can be made."""
    if not (folder / MANIFEST_NAME).exists():
        require_empty(folder)
        require_outside_banks(folder)
    with writer_lock(folder, purpose):
        yield


def _require_tasks(manifest: Manifest, name: str) -> None:
    if not manifest.tasks:
        raise PiggybackError(f"{name} has no tasks yet: there is nothing to copy")


def _receive(site: Site, folder: Path, known: Manifest, theirs: Manifest) -> None:
    """Copy the tasks that are not known yet, then add all of them to the bank at once."""
    if fresh := theirs.tasks[len(known.tasks) :]:
        wanted = _with_new(known, theirs)
        require_writable(folder / TASKS_FOLDER)
        Store(folder, known).clear_leftovers(keep=[entry.file for entry in fresh])
        for entry in fresh:
            _receive_task(site, entry, Store(folder, wanted))
        wanted.write(folder)


def _receive_task(site: Site, entry: TaskEntry, store: Store) -> None:
    """Copy a task's file, unless a complete one is there; check its hash and the chain."""
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


def _compare(
    theirs: Manifest, sender: str, receiver: Site
) -> tuple[Manifest, tuple[TaskEntry, ...]]:
    """Return the receiver's manifest, and the sender's tasks that it lacks; check that the others are equal."""
    ours = _manifest(receiver) or Manifest(theirs.architecture)
    if ours.tasks and ours.architecture != theirs.architecture:
        raise PiggybackError(
            f"{receiver.name} has networks of another architecture than {sender}; choose another path"
        )
    for number, (there, here) in enumerate(zip(theirs.tasks, ours.tasks, strict=False), 1):
        if there.sha256 != here.sha256:
            raise PiggybackError(
                f"{receiver.name} and {sender} differ from task {number} on: {here.name!r} and {there.name!r} "
                "are different files, and later tasks are built on them; choose another path"
            )
    return ours, theirs.tasks[len(ours.tasks) :]


def _with_new(known: Manifest, theirs: Manifest) -> Manifest:
    """Return the receiver's manifest with the sender's later tasks."""
    return replace(theirs, tasks=known.tasks + theirs.tasks[len(known.tasks) :])


def _check_files(path: Path, manifest: Manifest, entries: Sequence[TaskEntry]) -> None:
    """Read the tasks to send, so that damage is found before anything changes."""
    for entry in entries:
        Store(path, manifest).read_task(entry.name)


def _transfer(known: Manifest, fresh: Sequence[TaskEntry]) -> Transfer:
    names = tuple(entry.name for entry in fresh)
    return Transfer(names, sum(entry.bytes for entry in fresh), len(known.tasks) + len(fresh))
