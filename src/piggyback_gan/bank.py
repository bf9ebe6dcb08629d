"""Bank: a directory of image translators that share their filters; open it, use it, add to it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from piggyback_gan.config import GeneratorConfig
from piggyback_gan.devices import choose_device
from piggyback_gan.errors import PiggybackError
from piggyback_gan.generators import build_generator
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.images import from_pil, to_pil, to_pixels, to_tensor
from piggyback_gan.manifest import (
    MANIFEST_NAME,
    TASKS_FOLDER,
    Manifest,
    TaskEntry,
    read_card,
    writer_lock,
)
from piggyback_gan.network import PiggybackNetwork
from piggyback_gan.store import Store
from piggyback_gan.tasks import TaskState
from piggyback_gan.translate import translate_batch


@dataclass(frozen=True)
class Finding:
    """What `Bank.verify` found out about one part of a bank; `problem` is None where all is well."""

    part: str
    problem: str | None


class Bank:
    """A bank on disk.

    Example::

        bank = Bank.open("bank")
        generator = bank.generator("maps")            # a plain torch module, in eval mode
        picture = bank.translate("maps", Image.open("aerial.jpg"))
    """

    def __init__(self, store: Store, config: GeneratorConfig) -> None:
        self._store = store
        self.config = config
        self._generators: dict[tuple[str, str], nn.Module] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Bank":
        """Open a bank; nothing else needs to be known about it.

        Raises:
            PiggybackError: no bank is there, it is damaged, or it comes from a newer version.
        """
        store = Store.open(Path(path))
        architecture = store.manifest.architecture
        try:
            config = GeneratorConfig(**architecture["generator"])
        except (KeyError, TypeError, PiggybackError) as error:
            raise PiggybackError(
                f"{path} has a generator this version does not know: {error}"
            ) from None
        return cls(store, config)

    @classmethod
    def new(cls, path: str | Path, config: GeneratorConfig) -> "Bank":
        """A bank that comes to be on disk when its first task is added.

        Raises:
            PiggybackError: the folder holds other things.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(map(_is_foreign, path.iterdir()))):
            raise PiggybackError(f"{path} is no bank and not an empty folder: choose another place")
        return cls(Store(path, Manifest({"generator": asdict(config)})), config)

    @property
    def path(self) -> Path:
        """The bank's directory."""
        return self._store.path

    @property
    def entries(self) -> tuple[TaskEntry, ...]:
        """The manifest's line for each task, in order."""
        return self._store.manifest.tasks

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order in which they were learned."""
        return tuple(entry.name for entry in self.entries)

    def network(self, through: str | None = None) -> PiggybackNetwork:
        """All tasks in one network on the CPU, or those up to `through`.

        Raises:
            PiggybackError: there is no such task, or a file is missing or damaged.
        """
        with torch.random.fork_rng(devices=[]):
            network = PiggybackNetwork(build_generator(self.config))
        stored = self._store.read() if through is None else self._store.read_through(through)
        for task in stored:
            network.restore_task(task.state)
        return network

    def card(self, task: str) -> Mapping[str, Any]:
        """What describes a task: options, data, image size and range, parameters, validation.

        Raises:
            PiggybackError: there is no such task, or its file is missing or damaged.
        """
        return read_card(self.path, self._store.manifest.entry(task))

    def generator(self, task: str, device: str | torch.device = "cpu") -> nn.Module:
        """A task's generator as a plain module in eval mode: (B, C, H, W) in [-1, 1] -> the same.

        H and W must be multiples of `config.size_multiple`. Each call gives a module of its own.

        Raises:
            PiggybackError: there is no such task or device, or a file is missing or damaged.
        """
        return self.network(through=task).fold(task).to(choose_device(str(device)))

    @overload
    def translate(self, task: str, image: Image.Image, device: str = "cpu") -> Image.Image: ...
    @overload
    def translate(self, task: str, image: Tensor, device: str = "cpu") -> Tensor: ...
    def translate(
        self, task: str, image: Image.Image | Tensor, device: str = "cpu"
    ) -> Image.Image | Tensor:
        """Translate an image of any size; the task's generator is kept for the next call.

        Args:
            task: the task's name.
            image: a PIL image, which is turned upright as its EXIF data says, or a float tensor
                (C, H, W) or (B, C, H, W) in [-1, 1].
            device: "cpu", "cuda", "mps" or "auto".

        Returns:
            What was given, in the same size: a PIL image, or a tensor on the CPU in [-1, 1].

        Raises:
            PiggybackError: there is no such task or device, or the image is not what the task takes.
        """
        key = (task, choose_device(str(device)))
        if key not in self._generators:
            self._generators[key] = self.generator(*key)
        generator = self._generators[key]
        if isinstance(image, Image.Image):
            upright = ImageOps.exif_transpose(image)
            source = ImageFormat(channels=self.config.input_channels)
            target = ImageFormat(channels=self.config.output_channels)
            batch = to_tensor(from_pil(upright, source), source).unsqueeze(0)
            return to_pil(to_pixels(translate_batch(generator, self.config, batch)[0], target))
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        return translate_batch(generator, self.config, batch).reshape(
            *image.shape[:-3], -1, *image.shape[-2:]
        )

    @contextlib.contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Be the bank's one writer for as long as the block lasts.

        Raises:
            PiggybackError: another process is, or the folder can't be written to.
        """
        with writer_lock(self.path, purpose):
            yield

    def add(self, state: TaskState, card: Mapping[str, Any]) -> TaskEntry:
        """Add a finished task, inside `writing`. A crash leaves the bank with or without it.

        Raises:
            PiggybackError: the task does not fit the bank's network, its name is taken, or the bank
                can't be written; it is as it was.
        """
        self.network().restore_task(state)
        return self._store.append(state, card)

    def remove(self, task: str) -> None:
        """Remove the newest task, inside `writing`.

        Raises:
            PiggybackError: there is no such task, or later ones are built on it.
        """
        self._store.remove(task)
        self._generators.clear()

    def verify(self) -> list[Finding]:
        """Check every file's hash, the chain of tasks, all shapes, and that each task composes.

        Returns:
            A finding for each task, in order. Damage is told, not raised.
        """
        with torch.random.fork_rng(devices=[]):
            network = PiggybackNetwork(build_generator(self.config))
        findings = []
        broken = None
        for entry, result in self._store.check():
            problem = None
            if isinstance(result, PiggybackError):
                problem = str(result)
            elif broken is not None:
                problem = f"task {entry.name!r}: can't be composed without {broken!r}"
            else:
                problem = _composition_problem(network, result)
            broken = broken or (entry.name if problem else None)
            findings.append(Finding(entry.name, problem))
        return findings

    def leftovers(self) -> list[Path]:
        """Files among the tasks that are no part of the bank, such as a killed writer's; they do no harm."""
        return self._store.leftovers()


def open_or_new(path: Path, config: GeneratorConfig) -> Bank:
    """The bank at `path`, or a new one with this architecture.

    Raises:
        PiggybackError: as `Bank.open` and `Bank.new`.
    """
    try:
        begun = (path / MANIFEST_NAME).exists()
    except OSError as error:
        raise PiggybackError(f"{path} can't be a bank: {error.strerror}") from None
    bank = Bank.open(path) if begun else None
    # A bank whose tasks were all removed is as good as new.
    return bank if bank and bank.tasks else Bank.new(path, config)


def _composition_problem(network: PiggybackNetwork, state: TaskState) -> str | None:
    try:
        network.restore_task(state)
    except PiggybackError as error:
        return str(error)
    bad = network.not_finite(state.name)
    return f"task {state.name!r}: {bad} has values that are not finite" if bad else None


def _is_foreign(path: Path) -> bool:
    # With a dot before it: a manifest that was being written when its process was killed.
    return not path.name.startswith(("bank.", ".bank.")) and path.name != TASKS_FOLDER
