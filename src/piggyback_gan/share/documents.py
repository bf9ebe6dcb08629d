"""Documents that are copied with a bank's tasks: card.toml, README and sample pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.manifest import NOTES_NAME, README_NAME, Manifest
from piggyback_gan.errors import PiggybackError
from piggyback_gan.share.model_card import is_ours, model_card, sample_names
from piggyback_gan.share.notes import BankNotes, parse_notes
from piggyback_gan.share.sites import FolderSite, Site
from piggyback_gan.system.files import atomic_write


@dataclass(frozen=True)
class FoundNotes:
    """A `card.toml`: its bytes, their content, and its path."""

    raw: bytes
    said: BankNotes
    where: str


def notes_at(site: Site, tasks: Iterable[str]) -> FoundNotes | None:
    """Read the `card.toml` of a bank with these tasks; None if it has none.

    Raises:
        PiggybackError: it can't be read, or is invalid.
    """
    raw, where = site.read(NOTES_NAME), f"{site.name}/{NOTES_NAME}"
    return None if raw is None else FoundNotes(raw, parse_notes(raw, where, tasks), where)


def receive_notes(
    site: Site, theirs: Manifest, folder: Path, known: Manifest
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy a `card.toml`, for the tasks that the receiver has; a conflicting one stays as it is.

    Args:
        site: the sender.
        theirs: the sender's manifest.
        folder: the receiving bank.
        known: its manifest before tasks were copied.

    Returns:
        The names of written files, and remarks for the user.
    """
    raw = site.read(NOTES_NAME)
    if raw is None:
        return (), ()
    where = f"{site.name}/{NOTES_NAME}"
    held = Manifest.read(folder).places
    try:
        notes = parse_notes(raw, where, theirs.places)
        mine = notes_at(FolderSite(folder), held)
    except PiggybackError as error:
        return (), (f"{where} was not taken: {error}",)
    if mine is not None and not notes.contains(mine.said, known.places):
        return (), (f"{folder / NOTES_NAME} stays as it is: {where} says other things",)
    brought = raw if theirs.places.keys() <= held.keys() else notes.only(held).render()
    if mine is not None and brought == mine.raw:
        return (), ()
    atomic_write(folder / NOTES_NAME, brought)
    return (NOTES_NAME,), ()


def documents_to_send(
    sender: Bank,
    site: Site,
    known: Manifest,
    notes: FoundNotes | None,
    pictures: Mapping[str, Sequence[bytes]],
) -> tuple[dict[str, bytes | None], tuple[str, ...]]:
    """Return the documents to change at the receiver, by path, and remarks for the user."""
    if len(known.tasks) > len(sender.tasks):
        ahead = f"{site.name} goes on after the last task of {sender.path}"
        return {}, (f"{ahead}: its model card stays as it is; pull first",)
    wanted: dict[str, bytes | None] = {}
    told, remarks = _told(sender, site, known, notes)
    if told is not None and told is notes:
        wanted[NOTES_NAME] = told.raw
    words = BankNotes() if told is None else told.said
    if silent := [task for task in sender.tasks if words.of(task).license is None]:
        where = sender.path / NOTES_NAME if told is None else told.where
        remarks.append(f"no licence is stated for {', '.join(silent)}: state it in {where}")
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
        wanted[README_NAME] = model_card(sender, words, shown, site.address).encode()
    else:
        there = f"{site.name}/{README_NAME}"
        remarks.append(
            f"{there} was written or edited by hand and stays as it is: remove it to have one written"
        )
    changes = {
        name: content
        for name, content in wanted.items()
        if content is None or content != site.read(name)
    }
    return changes, tuple(remarks)


def _told(
    sender: Bank, site: Site, known: Manifest, notes: FoundNotes | None
) -> tuple[FoundNotes | None, list[str]]:
    """Choose the notes for the receiver: its own, if they have something that the sender's lack; None if invalid."""
    remove = f"remove {site.name}/{NOTES_NAME} and push again to send yours" if notes else "mend it"
    try:
        theirs = notes_at(site, sender.tasks)
    except PiggybackError as error:
        return None, [f"{error}; it stays, and what it says is not told: {remove}"]
    if notes is None or theirs is None:
        return notes or theirs, []
    if notes.said == theirs.said:
        return theirs, []
    if notes.said.contains(theirs.said, known.places):
        return notes, []
    stays = f"{theirs.where} stays as it is, and the model card tells what it says: {notes.where}"
    return theirs, [f"{stays} says other things; {remove}"]
