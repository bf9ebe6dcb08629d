"""Bank: a directory of image translators that share their filter banks."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from piggyback_gan.bank.card import TaskCard, parse_card
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import MANIFEST_NAME, Manifest, TaskEntry, read_card, require_empty
from piggyback_gan.bank.restore import Finding, check_tasks, restore_task, state_in
from piggyback_gan.bank.store import Store, StoredTask
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import to_pil
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import from_pil
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.tiling import Tiling
from piggyback_gan.inference.translate import translate_batch
from piggyback_gan.names import BACKWARD, FORWARD, Direction
from piggyback_gan.networks.config import Architecture, GeneratorConfig, read_architecture
from piggyback_gan.networks.generators import build_generator, build_outline
from piggyback_gan.system.device import choose_device

_Image = TypeVar("_Image", Image.Image, Tensor)

__all__ = ["BACKWARD", "FORWARD", "Bank", "Finding", "open_or_new"]


class Bank:
    """A bank on disk: open it, translate with its tasks, add tasks. Iterating gives the tasks' names.

    Example::

        bank = Bank.open("bank")
        generator = bank.generator("maps")            # a plain torch module, in eval mode
        picture = bank.translate("maps", Image.open("aerial.jpg"))
    """

    def __init__(self, store: Store, config: Architecture) -> None:
        self._store = store
        self.config = config
        self._generators: dict[tuple[str, str, str], nn.Module] = {}
        self._cards: dict[str, TaskCard] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Bank":
        """Open a bank.

        Raises:
            PiggybackError: `path` is not a bank, it is damaged, or a newer version wrote it.
        """
        store = Store.open(Path(path))
        architecture = store.manifest.architecture
        try:
            config = read_architecture(architecture["generator"])
        except (KeyError, TypeError, PiggybackError) as error:
            raise PiggybackError(
                f"{path} has a generator this version does not know: {error}"
            ) from None
        return cls(store, config)

    @classmethod
    def new(cls, path: str | Path, config: Architecture) -> "Bank":
        """Make a bank, which is written to disk when its first task is added.

        Raises:
            PiggybackError: the folder has other files.
        """
        path = Path(path)
        require_empty(path)
        return cls(Store(path, Manifest({"generator": asdict(config)})), config)

    def __len__(self) -> int:
        """The number of tasks."""
        return len(self.entries)

    def __contains__(self, task: object) -> bool:
        return task in self.manifest.places

    def __iter__(self) -> Iterator[str]:
        """Iterate over the tasks' names in the order in which they were learned."""
        return iter(self.tasks)

    def __repr__(self) -> str:
        return f"Bank({str(self.path)!r}, tasks={list(self.tasks)})"

    @property
    def path(self) -> Path:
        """The bank's directory."""
        return self._store.path

    @property
    def manifest(self) -> Manifest:
        """The manifest as it was when the bank was opened, and with what was added since."""
        return self._store.manifest

    @property
    def entries(self) -> tuple[TaskEntry, ...]:
        """The manifest's entries, in order."""
        return self.manifest.tasks

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order in which they were learned."""
        return tuple(entry.name for entry in self.entries)

    def network(self, which: str = FORWARD) -> PiggybackNetwork:
        """Load one of the bank's networks with all its tasks, on the CPU.

        Raises:
            PiggybackError: a file is missing or damaged.
        """
        return _restored(self.empty_network(which), self._store.read(), which)

    def states(self, which: str = FORWARD) -> Iterator[TaskState]:
        """Read the tasks of one of the bank's networks, in order.

        Raises:
            PiggybackError: a file is missing or damaged.
        """
        for stored in self._store.read():
            if (state := state_in(stored, which)) is not None:
                yield state

    def empty_network(self, which: str = FORWARD) -> PiggybackNetwork:
        """Build a network of the bank's architecture without tasks; the random state is left as it is."""
        config = self.network_config(which)
        with torch.random.fork_rng(devices=[]):
            module = build_generator(config)
        # A custom module may use its conv layers in other ways.
        return PiggybackNetwork(module, factored=isinstance(config, GeneratorConfig))

    def _network_to_read(self, which: str) -> PiggybackNetwork:
        """Build a network without initial weights, for loading existing tasks."""
        network = PiggybackNetwork(build_outline(self.network_config(which)))
        is_empty = any(parameter.is_meta for parameter in network.parameters())
        return network.to_empty(device="cpu") if is_empty else network

    def network_config(self, which: str) -> Architecture:
        """Return the architecture of one of the bank's networks; the backward one's channels are swapped."""
        channels = (self.config.input_channels, self.config.output_channels)
        first, second = channels if which == FORWARD else channels[::-1]
        return replace(self.config, input_channels=first, output_channels=second)

    def card(self, task: str) -> TaskCard:
        """Read a task's card: options, data, images, parameters, validation. Cached.

        Raises:
            PiggybackError: the task does not exist, or its file is missing or damaged.
        """
        if task not in self._cards:
            entry = self.manifest.entry(task)
            self._cards[task] = parse_card(read_card(self.path, entry), self.path, entry)
        return self._cards[task]

    def directions(self, task: str) -> tuple[Direction, ...]:
        """Return the directions of a task, "AtoB" or "BtoA"; the one that it was trained in comes first.

        Raises:
            PiggybackError: as `card`.
        """
        return self.card(task).directions

    def formats(self, task: str, direction: str | None = None) -> tuple[ImageFormat, ImageFormat]:
        """Return the formats of a task's input and output files.

        Raises:
            PiggybackError: as `card`, or the task has no such direction.
        """
        card = self.card(task)
        return card.formats if _which(task, card, direction) == FORWARD else card.formats[::-1]

    def generator_config(self, task: str, direction: str | None = None) -> Architecture:
        """Return the architecture of a task's generator: the bank's, with the task's channels."""
        first, second = self.formats(task, direction)
        return replace(self.config, input_channels=first.channels, output_channels=second.channels)

    def generator(
        self, task: str, device: str | torch.device = "cpu", direction: str | None = None
    ) -> nn.Module:
        """Load a task's generator as a plain module in eval mode: (B, C, H, W) in [-1, 1] -> the same.

        H and W must be multiples of `config.size_multiple`. Each call returns a new module. Only the files
        of the task and of the tasks that it is composed with are read.

        Args:
            task: the task's name.
            device: the device of the module.
            direction: "AtoB" or "BtoA"; the one that the task was trained in if None. Unpaired tasks
                have both.

        Raises:
            PiggybackError: the task, direction or device does not exist, or a file is missing or damaged.
        """
        stored = self._store.read_task(task)
        which = _which(task, self.card(task), direction)
        state = state_in(stored, which)
        if state is None:
            raise PiggybackError(f"task {task!r}: its file has no {which} network")
        needed = chain(self._read_needed(state, which), [stored])
        network = _restored(self._network_to_read(which), needed, which)
        return network.fold(task).to(choose_device(str(device)))

    def translate(
        self,
        task: str,
        image: _Image,
        device: str = "cpu",
        direction: str | None = None,
        tiling: Tiling | None = None,
    ) -> _Image:
        """Translate an image of any size; the task's generator is kept for the next call.

        Args:
            task: the task's name.
            image: a PIL image, which is turned upright as its EXIF data says, or a float tensor
                (C, H, W) or (B, C, H, W) in [-1, 1].
            device: "cpu", "cuda", "mps" or "auto".
            direction: "AtoB" or "BtoA"; the one that the task was trained in if None.
            tiling: translate in overlapping tiles, for images that are too large to be translated at once.

        Returns:
            The same type and size as the input: a PIL image, or a tensor on the CPU in [-1, 1].

        Raises:
            PiggybackError: the task, direction or device does not exist, or the image does not fit the
                task.
        """
        key = (task, choose_device(str(device)), direction or self.directions(task)[0])
        if key not in self._generators:
            self._generators[key] = self.generator(*key)
        generator, config = self._generators[key], self.generator_config(task, direction)
        source, target = self.formats(task, direction)
        if isinstance(image, Image.Image):
            upright = ImageOps.exif_transpose(image)
            batch = to_tensor(from_pil(upright, source), source).unsqueeze(0)
            return to_pil(to_pixels(translate_batch(generator, config, batch, tiling)[0], target))
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        return translate_batch(generator, config, batch, tiling).reshape(
            *image.shape[:-3], -1, *image.shape[-2:]
        )

    def _read_needed(self, state: TaskState, which: str) -> Iterator[StoredTask]:
        """Read the tasks that a task needs in one of the networks; what these need must be among them."""
        assert state.needs is not None
        known: set[str] = set()
        for stored in map(self._store.read_task, state.needs.tasks):
            theirs = state_in(stored, which)
            name = stored.state.name
            if theirs is None or (theirs.needs and not known.issuperset(theirs.needs.tasks)):
                raise PiggybackError(
                    f"task {state.name!r}: its file is damaged: it needs {name!r}, but not what that needs"
                )
            known.add(name)
            yield stored

    def check_new(self, task: str) -> None:
        """Check that a new task can have this name.

        Raises:
            PiggybackError: it is not a task's name, or the bank has such a task.
        """
        self._store.check_new(task)

    @contextlib.contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the writer's lock of the bank.

        Raises:
            PiggybackError: another process holds it, or the folder can't be written to.
        """
        with writer_lock(self.path, purpose):
            yield

    def add(
        self, state: TaskState, card: Mapping[str, Any], backward: TaskState | None = None
    ) -> TaskEntry:
        """Add a finished task, inside `writing`. A crash leaves the bank with or without it.

        Args:
            state: the task in the forward network.
            card: what describes it, as `TaskCard.to_json` gives it; the task's file stores it.
            backward: the task in the backward network, for an unpaired one.

        Raises:
            PiggybackError: the task does not fit the bank's networks, its name is taken, or the bank
                can't be written; it is unchanged.
        """
        outlines = list(self._store.outlines())
        fitting = {
            which: self._fitting(added, which, outlines)
            for which, added in ((FORWARD, state), (BACKWARD, backward))
            if added is not None
        }
        return self._store.append(fitting.pop(FORWARD), card, fitting)

    def _fitting(self, added: TaskState, which: str, outlines: Iterable[StoredTask]) -> TaskState:
        """Check that a task fits one of the bank's networks, and set what it needs there."""
        network = self._network_to_read(which)
        ledger = network.ledger.emptied()
        for outline in outlines:
            if (state := state_in(outline, which)) is not None:
                ledger.add(state)
        needs = ledger.needs(added)
        for stored in self._read_needed(replace(added, needs=needs), which):
            earlier = state_in(stored, which)
            assert earlier is not None
            restore_task(network, earlier)
        added = replace(added, needs=needs if added.needs is None else added.needs)
        restore_task(network, added)
        return replace(added, needs=needs)

    def remove(self, task: str) -> None:
        """Remove the newest task, inside `writing`.

        Raises:
            PiggybackError: the task does not exist, or later ones are built on it.
        """
        self._store.remove(task)
        self._generators.clear()
        self._cards.clear()

    def verify(self) -> list[Finding]:
        """Check every file's hash, the chain of tasks, all shapes, and that each task composes.

        Returns:
            A finding for each task, in order. Damage does not raise.
        """
        return check_tasks(self._store.check(), cache(self._network_to_read))

    def leftovers(self) -> list[Path]:
        """List files in the tasks folder that are not part of the bank, such as a killed writer's; they do no harm."""
        return self._store.leftovers()


def open_or_new(path: Path, config: Architecture) -> Bank:
    """Open the bank at `path`, or make a new one with this architecture.

    Raises:
        PiggybackError: as `Bank.open` and `Bank.new`.
    """
    bank = Bank.open(path) if has_bank(path) else None
    # A bank whose tasks were all removed is as good as new.
    return bank if bank and bank.tasks else Bank.new(path, config)


def has_bank(path: Path) -> bool:
    """Check whether a bank is at `path`, or can be created there.

    Raises:
        PiggybackError: neither: the folder holds other things, or the path can't be used.
    """
    try:
        begun = (path / MANIFEST_NAME).exists()
    except OSError as error:
        raise PiggybackError(f"{path} can't be a bank: {error.strerror}") from None
    if not begun:
        require_empty(path)
    return begun


def _which(task: str, card: TaskCard, direction: str | None) -> str:
    """Return the network that translates a task in a direction."""
    known = card.directions
    if direction is not None and direction not in known:
        hint = "" if len(known) > 1 else ": only unpaired tasks translate both ways"
        raise PiggybackError(
            f"task {task!r} does not translate {direction}, but {' and '.join(known)}{hint}"
        )
    return FORWARD if direction in (None, known[0]) else BACKWARD


def _restored(
    network: PiggybackNetwork, stored: Iterable[StoredTask], which: str
) -> PiggybackNetwork:
    for task in stored:
        if (state := state_in(task, which)) is not None:
            restore_task(network, state)
    return network
