"""Pack some tasks, and the tasks that they are composed with, into a smaller bank with equal outputs."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import MANIFEST_NAME, NOTES_NAME, Manifest, require_outside_banks
from piggyback_gan.bank.store import Store, tensors_sha256
from piggyback_gan.core.mixings import FullMixing
from piggyback_gan.core.task import TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import BACKWARD
from piggyback_gan.share.documents import notes_at
from piggyback_gan.share.sites import FolderSite
from piggyback_gan.system.files import atomic_write, staging_folder


@dataclass(frozen=True)
class Packed:
    """The result of `pack`.

    Attributes:
        tasks: the requested tasks, in the bank's order.
        along: tasks that were added because the requested ones use their filters.
        bytes: size of the new bank's task files.
        bytes_before: size of all task files of the source bank.
    """

    tasks: tuple[str, ...]
    along: tuple[str, ...]
    bytes: int
    bytes_before: int


def pack(bank: str | Path, out: str | Path, tasks: Collection[str]) -> Packed:
    """Make a new bank of some tasks of a bank. Their weights are checked to be equal bit for bit.

    Args:
        bank: a bank's directory.
        out: the new bank's directory; it must be absent or empty. It appears when the bank is complete.
        tasks: names of tasks.

    Raises:
        PiggybackError: the bank or a task does not exist, a file is damaged, or `out` is not empty or
            can't be written.
    """
    source, out = Bank.open(bank), Path(out)
    store = Store(source.path, source.manifest)
    asked = [store.manifest.entry(task).name for task in tasks]
    if not asked:
        raise PiggybackError("a bank is packed of one task at least: name some")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PiggybackError(f"{out} exists and is not an empty folder; choose another path")
    kept = _with_needed(store, asked)
    notes = notes_at(FolderSite(source.path), source.tasks)
    require_outside_banks(out)
    # An existing folder may be the working directory: stage inside it.
    with staging_folder(out / "bank" if out.exists() else out) as folder:
        place = folder / "bank"
        made = Bank(Store(place, Manifest(store.manifest.architecture)), source.config)
        with made.writing(f"pack {source.path}"):
            for stored in map(store.read_task, kept):
                backward = stored.others.get(BACKWARD)
                made.add(
                    _rooted(stored.state, kept),
                    stored.card,
                    None if backward is None else _rooted(backward, kept),
                )
            if notes is not None:
                atomic_write(place / NOTES_NAME, notes.said.only(kept).render())
            _with_dates_of(source.manifest, made.manifest).write(place)
        written = Bank.open(place)
        for task in kept:
            _require_equal(source, written, task)
        _move(place, out)
    return Packed(
        tasks=tuple(task for task in kept if task in asked),
        along=tuple(task for task in kept if task not in asked),
        bytes=sum(entry.bytes for entry in made.entries),
        bytes_before=sum(entry.bytes for entry in source.entries),
    )


def _move(place: Path, out: Path) -> None:
    """Move a finished bank to its path, or its files into an existing folder, the manifest last."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        place.rename(out)
        return
    for path in sorted(place.iterdir(), key=lambda path: path.name == MANIFEST_NAME):
        path.rename(out / path.name)


def _with_dates_of(source: Manifest, made: Manifest) -> Manifest:
    """Keep the times at which tasks were added."""
    tasks = (replace(task, added=source.entry(task.name).added) for task in made.tasks)
    return replace(made, tasks=tuple(tasks))


def _with_needed(store: Store, asked: Collection[str]) -> list[str]:
    """Return tasks and what they need, in the bank's order."""
    wanted = set(asked)
    outlines = list(store.outlines())
    for stored in reversed(outlines):
        if stored.state.name not in wanted:
            continue
        for state in (stored.state, *stored.others.values()):
            assert state.needs is not None
            wanted.update(state.needs.tasks)
            # Other mixings may add to the start's filters.
            if state.filters.start and not isinstance(state.filters.mixing, FullMixing):
                wanted.add(state.filters.start)
    return [stored.state.name for stored in outlines if stored.state.name in wanted]


def _rooted(state: TaskState, kept: Collection[str]) -> TaskState:
    """Return a task for a bank with only these tasks, without what it needs, which `Bank.add` finds.

    A start that is not kept is dropped: full mixing does not use it.
    """
    start = state.filters.start if state.filters.start in kept else None
    return replace(state, filters=replace(state.filters, start=start), needs=None)


def _require_equal(one: Bank, two: Bank, task: str) -> None:
    """Compare a task's weights in all its directions, bit for bit."""
    for direction in one.directions(task):
        first, second = (
            tensors_sha256(bank.generator(task, direction=direction).state_dict())
            for bank in (one, two)
        )
        if first != second:
            raise PiggybackError(
                f"task {task!r} has other weights in the packed bank, {direction}: nothing was kept; this is a "
                "fault of the program: please report it"
            )
