"""Load the held-out images of a task that is in a bank."""

from pathlib import Path

from piggyback_gan.bank.bank import Bank
from piggyback_gan.data.folders import Pair, PairedFolder, find_folder, find_pairs, sides_of_pairs
from piggyback_gan.data.loading import Checked, Dataset, load_sides
from piggyback_gan.errors import PiggybackError


def load_held_out(
    bank: Bank, task: str, root: Path, checked: Checked, *, split_free: bool = False
) -> tuple[Dataset, bool]:
    """Load the held-out images of a finished task, or of other data for it.

    These are `val/`, else `test/`, else what training held out of `train/` (`val_fraction`).

    Args:
        bank: with the task.
        task: its name; determines direction, formats and size.
        root: the folder of images.
        checked: called with the progress.
        split_free: take all images, including `train/`: for data that the task was not trained on.

    Returns:
        The images, without crop or flip, and whether the sides of an unpaired task are pairs,
        in order.

    Raises:
        PiggybackError: the task does not exist, no images are held out, or files can't be used.
    """
    card = bank.card(task)
    folder, options = find_folder(root, card.mode), card.options
    if folder.held_out_name is None and options.get("val_fraction") and not split_free:
        folder = folder.with_held_out(options["val_fraction"], options["seed"])
    sides, partners = folder.held_out_sides, True
    if isinstance(folder, PairedFolder):
        if split_free:
            sides = (folder.train + folder.held_out,)
    elif split_free:
        pairs = _all_pairs(root)
        sides = folder.train_a + folder.held_out_a, folder.train_b + folder.held_out_b
        sides = sides_of_pairs(pairs) if pairs else sides
        partners = bool(pairs)
    else:
        partners = bool(folder.paired_held_out)
    name = "all" if split_free else folder.held_out_name or "held-out"
    if not any(map(len, sides)):
        raise PiggybackError(
            f"{root}: no images are held out, in val/ or test/: hold some out; or give --split-free, if "
            f"{task!r} was not trained on these images"
        )
    direction = bank.directions(task)[0]
    dataset = load_sides(sides, direction, bank.formats(task), card.image.size, name, checked)
    return dataset, partners


def _all_pairs(root: Path) -> tuple[Pair, ...]:
    """The images of an unpaired folder as pairs; empty if one has no partner."""
    try:
        folder = find_pairs(root)
    except PiggybackError:
        return ()
    return folder.train + folder.held_out
