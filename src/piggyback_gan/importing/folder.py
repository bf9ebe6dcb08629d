"""Import a checkpoint folder of pix2pix or CycleGAN, with several networks, into one bank."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from piggyback_gan.bank.bank import open_or_new
from piggyback_gan.errors import PiggybackError
from piggyback_gan.importing.import_task import Imported, check_fit, check_pair, import_task
from piggyback_gan.importing.options import ImportOptions
from piggyback_gan.importing.public_weights import PublicGenerator, read_generator, same_modules
from piggyback_gan.names import Direction, check_task_name
from piggyback_gan.networks.options import GeneratorOptions

_WEIGHT_FILES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Weight files of one task in a checkpoint folder; `backward` is CycleGAN's second generator."""

    task: str
    forward: Path
    backward: Path | None = None

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(path.stat().st_size for path in (self.forward, self.backward) if path)


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """Find the generators in a checkpoint folder, sorted by name: weight files, and folders as pix2pix writes.

    From a folder, `latest_net_G.pth`, or `latest_net_G_A.pth` and `latest_net_G_B.pth`, is taken; without
    these, the files of the last epoch. Other files and folders are ignored.

    Raises:
        PiggybackError: no generators were found, a name is not valid for a task, or two names are equal.
    """
    if not folder.is_dir():
        raise PiggybackError(f"{folder}: this folder of networks does not exist")
    items = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix in _WEIGHT_FILES:
            items.append(Checkpoint(_task_name(path.stem, path), path))
        elif path.is_dir() and (forward := _newest(path, "G") or _newest(path, "G_A")):
            one_way = forward.stem.endswith("_G")
            backward = None if one_way else _newest(path, "G_B")
            items.append(Checkpoint(_task_name(path.name, path), forward, backward))
    if not items:
        raise PiggybackError(
            f"{folder} contains no generators: expected files such as NAME.pth, or folders with latest_net_G.pth"
        )
    names = [item.task for item in items]
    for name in names:
        if names.count(name) > 1:
            raise PiggybackError(f"{folder}: two networks are named {name!r}: rename one")
    return items


def import_checkpoints(
    bank_path: str | Path,
    items: Sequence[Checkpoint],
    options: ImportOptions | None = None,
    *,
    direction: Direction | None = None,
    images: str | Path | None = None,
    architecture: GeneratorOptions | None = None,
    on_step: Callable[[Checkpoint, str, int, int, float], None] = lambda *words: None,
) -> Iterator[tuple[Checkpoint, Imported | None]]:
    """Import networks one after another; a generator that imports the next one when iterated.

    All files are validated before the first is imported. Networks that are already in the bank, from the
    same files, are skipped, so that an interrupted import can be continued.

    Args:
        bank_path, options, architecture: as for `import_task`.
        items: networks in the order to import them; see `find_checkpoints`.
        direction: direction of all; None takes it from each one's `train_opt.txt`, else AtoB.
        images: a folder with a folder of images for each task; or one for all tasks.
        on_step: as for `import_task`, with the network first.

    Yields:
        Each network and the result of its import; None where it is already in the bank.

    Raises:
        PiggybackError: as `import_task`.
    """
    bank_path = Path(bank_path)
    first: PublicGenerator | None = None
    present: set[str] = set()
    for item in items:
        read = read_generator(item.forward, architecture)
        first = first or read
        bank = open_or_new(bank_path, first.config)
        imported = bank.card(item.task).imported if item.task in bank.tasks else None
        if imported and any(file.sha256 == read.sha256 for file in imported.files.values()):
            present.add(item.task)
            continue
        check_fit(bank, item.task, read)
        if not bank.tasks and (difference := same_modules(read.config, first.config)):
            raise PiggybackError(
                f"{read.path} does not fit {first.path}: its {difference}: import it into another bank"
            )
        if item.backward is not None:
            check_pair(read, read_generator(item.backward, architecture))
    for item in items:
        if item.task in present:
            yield item, None
            continue
        wanted, way = with_recorded(options or ImportOptions(), direction, item.forward)
        own = None if images is None else Path(images) / item.task
        yield (
            item,
            import_task(
                bank_path,
                item.task,
                item.forward,
                wanted,
                backward=item.backward,
                direction=way,
                images=own if own is not None and own.is_dir() else images,
                architecture=architecture,
                on_step=partial(on_step, item),
            ),
        )


def with_recorded(
    options: ImportOptions, direction: Direction | None, weights: Path
) -> tuple[ImportOptions, Direction]:
    """Fill in image size and direction from pix2pix's `train_opt.txt` beside a weight file, where not given."""
    try:
        text = (weights.parent / "train_opt.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    found = dict(re.findall(r"^\s*(\w+): (\S+)", text, re.MULTILINE))
    size = found.get("crop_size", "")
    if options.image_size is None and re.fullmatch(r"[1-9]\d{0,4}", size):
        options = replace(options, image_size=int(size))
    return options, direction or ("BtoA" if found.get("direction") == "BtoA" else "AtoB")


def _newest(folder: Path, network: str) -> Path | None:
    """Find the weights of a network that are named latest, else those of the last epoch."""
    epochs: dict[Path, float] = {}
    for suffix in _WEIGHT_FILES:
        for path in folder.glob(f"*_net_{network}{suffix}"):
            epoch = path.name.partition("_")[0]
            if re.fullmatch(r"latest|\d+", epoch):
                epochs[path] = math.inf if epoch == "latest" else int(epoch)
    return max(epochs, key=epochs.__getitem__, default=None)


def _task_name(name: str, path: Path) -> str:
    task = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    try:
        check_task_name(task)
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}: rename it") from None
    return task
