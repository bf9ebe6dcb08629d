"""Base classes of strategies: how networks learn one task after another, and what is stored."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from piggyback_gan.bank.card import TaskCard
from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.system.checks import is_number

Tensors = Mapping[str, Tensor]

_KEPT = "kept-"
_SHARED = "shared"


@dataclass(frozen=True)
class TaskSpec:
    """Task spec: what a strategy needs to learn a task.

    Attributes:
        task: its name.
        networks: "forward", and for an unpaired task "backward" -> initial network: with random
            weights, or for the first task the network that all strategies share.
        config: the architecture of the forward network.
        card: makes the task's card, given the parameters that it adds to the bank.
    """

    task: str
    networks: Mapping[str, nn.Module]
    config: GeneratorConfig
    card: Callable[[ParameterCount], TaskCard]


@dataclass(frozen=True)
class Size:
    """Stored size of all tasks: 32-bit values, and bytes of files."""

    parameters: float
    bytes: int


class Learner(nn.Module):
    """A network in training; parameters that require a gradient are trained."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """Translate images (B, C, H, W) in [-1, 1]."""
        translated: Tensor = self.module(images)
        return translated

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters for the optimizer."""
        return [p for p in self.parameters() if p.requires_grad]

    def penalty(self, images: Tensor) -> Tensor | None:
        """An additional loss for a batch of inputs; None for none."""
        return None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, counted from 1."""


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """A way to learn a sequence of tasks and store them in a folder.

    A strategy is a frozen dataclass; its fields are its options in an experiment's file. Most derive
    from `KeptStrategy`, which stores tensors, and define their methods for one network.
    """

    shares_first_task: ClassVar[bool] = True
    """Whether it starts from the shared network of the first task; else it trains its own."""

    forgets: ClassVar[bool] = False
    """Whether later tasks may change a task's outputs; else they stay bit-identical."""

    @abstractmethod
    def tasks(self, folder: Path) -> tuple[str, ...]:
        """List the learned tasks, in order."""

    @abstractmethod
    def begin(self, folder: Path, spec: TaskSpec) -> dict[str, nn.Module]:
        """Build the learners of the next task: "forward" (and "backward")."""

    @abstractmethod
    def finish(self, folder: Path, spec: TaskSpec, learners: Mapping[str, nn.Module]) -> None:
        """Store the task atomically: a kill leaves the folder with or without it."""

    @abstractmethod
    def generator(self, folder: Path, task: str, which: str, fresh: nn.Module) -> nn.Module:
        """Load a task's generator from the folder's files: a plain module in eval mode.

        Args:
            folder: of this strategy.
            task: one that was learned.
            which: "forward" or "backward".
            fresh: a network of the architecture, to be filled; its values are not used.

        Raises:
            PiggybackError: the task was not learned, or files are damaged or of another architecture.
        """

    @abstractmethod
    def size(self, folder: Path) -> Size:
        """Measure the stored size of all tasks."""

    @abstractmethod
    def predicted(self, network: nn.Module, order: int) -> float:
        """Compute the parameters that the task of this order, counted from 0, adds to one network.

        Args:
            network: of the architecture.
            order: number of earlier tasks of this network.
        """


@dataclass(frozen=True)
class Kept:
    """Stored tensors of one network: shared ones, and those of each task, in order."""

    shared: Tensors = field(default_factory=dict)
    tasks: Mapping[str, Tensors] = field(default_factory=dict)

    def with_task(self, task: str, tensors: Tensors, shared: Tensors | None = None) -> "Kept":
        """Return a copy with one more task, and new shared tensors if given."""
        return Kept(self.shared if shared is None else shared, {**self.tasks, task: tensors})

    @property
    def first(self) -> Tensors:
        """The first task's tensors."""
        return next(iter(self.tasks.values()))


@dataclass(frozen=True, kw_only=True)
class KeptStrategy(Strategy):
    """A strategy that stores tensors in safetensors files, defined for one network at a time.

    By default all tensors of each task are stored.
    """

    @abstractmethod
    def learner(self, kept: Kept, fresh: nn.Module) -> Learner:
        """Build the learner of the next task.

        Args:
            kept: of the earlier tasks; empty for the first.
            fresh: the initial network if nothing is stored; it may be changed.
        """

    def keep(self, kept: Kept, task: str, learner: Learner) -> Kept:
        """Return what to store for all tasks."""
        return kept.with_task(task, values_of(learner.module))

    def rebuild(self, kept: Kept, task: str, fresh: nn.Module) -> nn.Module:
        """Load a task's network into `fresh`, and return it."""
        fresh.load_state_dict({**kept.shared, **kept.tasks[task]})
        return fresh

    def tasks(self, folder: Path) -> tuple[str, ...]:
        newest = _newest(folder)
        return () if newest is None else tuple(_names(newest / FORWARD))

    def begin(self, folder: Path, spec: TaskSpec) -> dict[str, nn.Module]:
        return {
            which: self.learner(_read(_newest(folder), which), network)
            for which, network in spec.networks.items()
        }

    def finish(self, folder: Path, spec: TaskSpec, learners: Mapping[str, nn.Module]) -> None:
        before = _newest(folder)
        every = {which: _read(before, which) for which in (FORWARD, BACKWARD)}
        with torch.no_grad():
            for which, learner in learners.items():
                assert isinstance(learner, Learner)
                every[which] = self.keep(every[which], spec.task, learner)
        temporary = folder / "kept.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        for which, kept in every.items():
            _write(temporary / which, kept)
        temporary.rename(folder / f"{_KEPT}{len(every[FORWARD].tasks):04}")
        if before is not None:
            shutil.rmtree(before)

    def generator(self, folder: Path, task: str, which: str, fresh: nn.Module) -> nn.Module:
        kept = _read(_newest(folder), which)
        if task not in kept.tasks:
            raise PiggybackError(f"{folder} has no task {task!r} in its {which} network")
        try:
            with torch.no_grad():
                return self.rebuild(kept, task, fresh).eval().requires_grad_(False)
        except (RuntimeError, LookupError, TypeError) as error:
            # The last line of torch's message names the tensor.
            said = str(error).strip().rpartition("\n")[2].strip()
            raise PiggybackError(
                f"{folder} can't give the {which} network of task {task!r} "
                f"({type(error).__name__}: {said}): if what is kept is damaged or of another "
                f"architecture, remove {folder} to learn its tasks again"
            ) from None

    def size(self, folder: Path) -> Size:
        newest = _newest(folder)
        parameters = 0.0
        for which in (FORWARD, BACKWARD):
            kept = _read(newest, which)
            parameters += sum(map(count_values, (kept.shared, *kept.tasks.values())))
        return Size(parameters, bytes_of(newest))


def check_share(field: str, value: float) -> None:
    """Raise PiggybackError unless an option's value is a number above 0 and up to 1."""
    if not is_number(value) or not 0 < value <= 1:
        raise PiggybackError(f"invalid {field}: found {value!r}, give a number above 0 and up to 1")


def bytes_of(folder: Path | None) -> int:
    """Total size of the files in a folder, in bytes."""
    files = () if folder is None else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def values_of(network: nn.Module) -> dict[str, Tensor]:
    """Copy a network's parameters and buffers."""
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


def count(network: nn.Module) -> float:
    """Count a network's parameters and buffers, in 32-bit values."""
    return count_values(network.state_dict())


def count_values(tensors: Tensors) -> float:
    """Count the values of tensors, in 32-bit values."""
    return sum(t.numel() * t.element_size() for t in tensors.values()) / 4


def conv_layers(network: nn.Module) -> dict[str, ConvLayer]:
    """All conv and deconv layers by name, in the order in which they were defined."""
    return {name: m for name, m in network.named_modules() if isinstance(m, ConvLayer)}


def _newest(folder: Path) -> Path | None:
    """The folder of the newest state; a kill may have left an older one."""
    return max(folder.glob(f"{_KEPT}*"), default=None)


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.safetensors")):
        if path.stem != _SHARED:
            yield path.stem.partition("-")[2]


def _read(state: Path | None, which: str) -> Kept:
    if state is None:
        return Kept()
    folder = state / which
    tasks = {
        name: _load(folder / f"{index:04}-{name}.safetensors", state.parent)
        for index, name in enumerate(_names(folder), 1)
    }
    shared = folder / f"{_SHARED}.safetensors"
    return Kept(_load(shared, state.parent) if shared.exists() else {}, tasks)


def _load(path: Path, part: Path) -> Tensors:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise PiggybackError(
            f"{path} can't be read ({error}): remove {part} to learn its tasks again"
        ) from None


def _write(folder: Path, kept: Kept) -> None:
    folder.mkdir(parents=True)
    if kept.shared:
        _save(kept.shared, folder / f"{_SHARED}.safetensors")
    for index, (name, tensors) in enumerate(kept.tasks.items(), 1):
        _save(tensors, folder / f"{index:04}-{name}.safetensors")


def _save(tensors: Tensors, path: Path) -> None:
    values = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(values, path)
