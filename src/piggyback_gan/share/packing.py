"""A smaller bank of some tasks: these and the tasks whose filters they are made of, with equal outputs."""

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
from piggyback_gan.system.files import atomic_write, workplace


@dataclass(frozen=True)
class Packed:
    """What a packed bank holds.

    Attributes:
        tasks: those that were asked for, in the bank's order.
        along: those that came along, because others are made of their filters.
        bytes: of its task files.
        bytes_before: of all task files of the bank that they were taken from.
    """

    tasks: tuple[str, ...]
    along: tuple[str, ...]
    bytes: int
    bytes_before: int


def pack(bank: str | Path, out: str | Path, tasks: Collection[str]) -> Packed:
    """Make a new bank of some tasks of a bank. Their weights are the same bits, which is checked.

    Args:
        bank: a bank's directory.
        out: the new bank's; it is not there, or empty. It appears when all is in it and checked.
        tasks: the names of the tasks that are wanted.

    Raises:
        PiggybackError: there is no such bank or task, a file is damaged, or `out` is taken or can't be
            written.
    """
    source, out = Bank.open(bank), Path(out)
    store = Store(source.path, source.manifest)
    asked = [store.manifest.entry(task).name for task in tasks]
    if not asked:
        raise PiggybackError("a bank is packed of one task at least: name some")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PiggybackError(f"{out} is there and no empty folder: choose another place")
    kept = _with_needed(store, asked)
    notes = notes_at(FolderSite(source.path), source.tasks)
    require_outside_banks(out)
    # In a folder that is there, which may be the working directory, something in it.
    with workplace(out / "bank" if out.exists() else out) as folder:
        place = folder / "bank"
        made = Bank(Store(place, Manifest(store.manifest.architecture)), source.config)
        with made.writing(f"pack {source.path}"):
            for stored in store.read_tasks(kept):
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
    """Make a whole bank another directory, or what is in one that is there: the manifest last."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        place.rename(out)
        return
    for path in sorted(place.iterdir(), key=lambda path: path.name == MANIFEST_NAME):
        path.rename(out / path.name)


def _with_dates_of(source: Manifest, made: Manifest) -> Manifest:
    """Tasks are as old as they were."""
    tasks = (replace(task, added=source.entry(task.name).added) for task in made.tasks)
    return replace(made, tasks=tuple(tasks))


def _with_needed(store: Store, asked: Collection[str]) -> list[str]:
    """Tasks and what they are made of, in the bank's order."""
    wanted = set(asked)
    outlines = list(store.outlines())
    for stored in reversed(outlines):
        if stored.state.name not in wanted:
            continue
        for state in (stored.state, *stored.others.values()):
            assert state.needs is not None
            wanted.update(state.needs.tasks)
            if state.start is not None and _adds(state):
                wanted.add(state.start)
    return [stored.state.name for stored in outlines if stored.state.name in wanted]


def _adds(state: TaskState) -> bool:
    """Whether its mixing may add to its start's filters."""
    return not isinstance(state.mixing, FullMixing)


def _rooted(state: TaskState, kept: Collection[str]) -> TaskState:
    """As it enters a bank that has these tasks alone: what it needs there is found anew.

    A start that is not there is none: full mixing adds nothing to it, it only tells where training began.
    """
    start = state.start if state.start in kept else None
    return replace(state, start=start, needs=None)


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
