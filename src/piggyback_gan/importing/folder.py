"""Folders of networks that were trained elsewhere, as pix2pix keeps its checkpoints, as one bank."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.errors import PiggybackError
from piggyback_gan.importing.import_task import (
    Imported,
    ImportOptions,
    check_fit,
    check_pair,
    import_task,
)
from piggyback_gan.importing.public_weights import PublicGenerator, read_generator, same_modules
from piggyback_gan.names import Direction, check_task_name
from piggyback_gan.networks.options import GeneratorOptions

_WEIGHT_FILES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class ShelfItem:
    """A translator in a folder of several: `task` is what it is called, `backward` CycleGAN's second file."""

    task: str
    forward: Path
    backward: Path | None = None

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(path.stat().st_size for path in (self.forward, self.backward) if path)


def find_shelf(folder: Path) -> list[ShelfItem]:
    """The generators in a folder, by name: files of weights, and folders as pix2pix keeps its checkpoints.

    Of a folder it is `latest_net_G.pth`, or `latest_net_G_A.pth` and `latest_net_G_B.pth`; without these,
    those of the last epoch. Other files and folders are passed over.

    Raises:
        PiggybackError: there are none, a name can't name a task, or two give the same.
    """
    if not folder.is_dir():
        raise PiggybackError(f"{folder}: no such folder of networks")
    items = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix in _WEIGHT_FILES:
            items.append(ShelfItem(_task_name(path.stem, path), path))
        elif path.is_dir() and (forward := _newest(path, "G") or _newest(path, "G_A")):
            one_way = forward.stem.endswith("_G")
            backward = None if one_way else _newest(path, "G_B")
            items.append(ShelfItem(_task_name(path.name, path), forward, backward))
    if not items:
        raise PiggybackError(
            f"{folder} holds no generators: expected files such as NAME.pth, or folders with latest_net_G.pth"
        )
    names = [item.task for item in items]
    for name in names:
        if names.count(name) > 1:
            raise PiggybackError(f"{folder}: two networks are called {name!r}: rename one")
    return items


def import_shelf(
    bank_path: str | Path,
    items: Sequence[ShelfItem],
    options: ImportOptions | None = None,
    *,
    direction: Direction | None = None,
    images: str | Path | None = None,
    architecture: GeneratorOptions | None = None,
    on_step: Callable[[ShelfItem, str, int, int, float], None] = lambda *words: None,
) -> Iterator[tuple[ShelfItem, Imported | None]]:
    """Import one network after another, each as soon as the next result is asked for.

    All files are read before the first is imported, so that one that can't be is named at once. What is in
    the bank already, from the same files, is passed over: an import that was interrupted goes on.

    Args:
        bank_path, options, architecture: as for `import_task`.
        items: in the order in which they are to enter; see `find_shelf`.
        direction: of all; as each one's `train_opt.txt` says, else AtoB, if None.
        images: a folder of folders of images, named as the tasks; or one for all tasks.
        on_step: as for `import_task`, with the network that is finetuned first.

    Yields:
        Each network and what was made of it; None where it is in the bank already.

    Raises:
        PiggybackError: as `import_task`.
    """
    bank_path = Path(bank_path)
    first: PublicGenerator | None = None
    there: set[str] = set()
    for item in items:
        read = read_generator(item.forward, architecture)
        first = first or read
        bank = open_or_new(bank_path, first.config)
        if item.task in bank.tasks and _is_same(bank, item.task, read):
            there.add(item.task)
            continue
        check_fit(bank, item.task, read)
        if not bank.tasks and (difference := same_modules(read.config, first.config)):
            raise PiggybackError(
                f"{read.path} does not fit {first.path}: its {difference}: import it into another bank"
            )
        if item.backward is not None:
            check_pair(read, read_generator(item.backward, architecture))
    for item in items:
        if item.task in there:
            yield item, None
            continue
        record = recorded_options(item.forward)
        wanted = options or ImportOptions()
        if wanted.image_size is None and record.image_size is not None:
            wanted = replace(wanted, image_size=record.image_size)
        own = None if images is None else Path(images) / item.task
        yield (
            item,
            import_task(
                bank_path,
                item.task,
                item.forward,
                wanted,
                backward=item.backward,
                direction=direction or record.direction or "AtoB",
                images=own if own is not None and own.is_dir() else images,
                architecture=architecture,
                on_step=partial(on_step, item),
            ),
        )


@dataclass(frozen=True)
class RecordedOptions:
    """What pix2pix wrote down of a training; None where it did not."""

    direction: Direction | None = None
    image_size: int | None = None


def recorded_options(weights: Path) -> RecordedOptions:
    """What `train_opt.txt` beside a file of weights says, if there is one."""
    try:
        text = (weights.parent / "train_opt.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return RecordedOptions()
    found = dict(re.findall(r"^\s*(\w+): (\S+)", text, re.MULTILINE))
    direction = found.get("direction")
    size = found.get("crop_size", "")
    return RecordedOptions(
        "AtoB" if direction == "AtoB" else "BtoA" if direction == "BtoA" else None,
        int(size) if re.fullmatch(r"[1-9]\d{0,4}", size) else None,
    )


def _is_same(bank: Bank, task: str, given: PublicGenerator) -> bool:
    imported = bank.card(task).imported
    files = imported.files.values() if imported else ()
    return any(file.sha256 == given.sha256 for file in files)


def _newest(folder: Path, network: str) -> Path | None:
    """The weights of a network that pix2pix called latest, else those of the last epoch."""
    found = [
        path
        for suffix in _WEIGHT_FILES
        for path in folder.glob(f"*_net_{network}{suffix}")
        if re.fullmatch(r"latest|\d+", path.name.partition("_")[0])
    ]

    def age(path: Path) -> float:
        epoch = path.name.partition("_")[0]
        return math.inf if epoch == "latest" else int(epoch)

    return max(found, key=age, default=None)


def _task_name(name: str, path: Path) -> str:
    task = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    try:
        check_task_name(task)
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}: rename it") from None
    return task
