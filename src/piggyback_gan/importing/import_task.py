"""Networks that were trained elsewhere become tasks of a bank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from torch import nn

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.bank.card import ImageCard, ImportCard, ImportedFile, ParameterCard, TaskCard
from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.factorize import LayerFit, factorize, layer_fits
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import ParameterCount, TaskState
from piggyback_gan.data.datasets import UnpairedDataset
from piggyback_gan.data.folders import find_unpaired
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source, list_images
from piggyback_gan.importing.distill import distil, load_inputs, output_distance
from piggyback_gan.importing.public_weights import (
    PublicGenerator,
    describe,
    read_generator,
    same_modules,
)
from piggyback_gan.names import (
    BACKWARD,
    DEFAULT_UNCONSTRAINED,
    FORWARD,
    STORAGES,
    Direction,
    Storage,
    check_task_name,
)
from piggyback_gan.networks.config import UNET_LEVELS, GeneratorConfig
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.checks import check_choice
from piggyback_gan.system.device import choose_device

_HELD_OUT = 10  # where no images are held out, every tenth is judged with and not learned from


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a network becomes a task.

    Attributes:
        unconstrained: lambda, the share of new filters in each layer of a later task; .25, unless
            `max_error` is given.
        max_error: instead: as few new filters as keep each layer's error to this share of its filters.
        storage: in what filters and mixing weights are kept.
        finetune: steps of distillation from the network that is imported; it needs images.
        image_size: side of the images that it was trained on, in pixels; 256, or as a U-Net's name says.
        seed: of finetuning's crops.
        device: where to compute.

    Raises:
        PiggybackError: a value that is not allowed, or both a share and an error.
    """

    unconstrained: float | None = None
    max_error: float | None = None
    storage: Storage = "fp32"
    finetune: int = 0
    image_size: int | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice("storage", self.storage, STORAGES)
        for name in ("unconstrained", "max_error"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise PiggybackError(f"invalid {name}: found {value!r}, give a number from 0 to 1")
        if self.unconstrained is not None and self.max_error is not None:
            raise PiggybackError(
                "a share of new filters (unconstrained) and a largest error exclude each other: give one"
            )
        if self.finetune < 0:
            raise PiggybackError(f"invalid finetune: found {self.finetune}, give 0 steps or more")

    @property
    def share(self) -> float | None:
        """Lambda; None with a largest error."""
        if self.unconstrained is None and self.max_error is None:
            return DEFAULT_UNCONSTRAINED
        return self.unconstrained


@dataclass(frozen=True)
class Imported:
    """What was made of a network.

    Attributes:
        entry: the task in the bank.
        parameters: what it adds.
        fits: by direction, how well the layers were made of the bank, before finetuning; without a
            direction's first network, which enters whole.
        distances: how far its outputs are from the network's on images, by direction: L1, PSNR, SSIM;
            empty without images.
        before: the same before finetuning; empty without.
    """

    entry: TaskEntry
    parameters: ParameterCount
    fits: Mapping[str, Sequence[LayerFit]]
    distances: Mapping[str, Mapping[str, float]]
    before: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class _Made:
    """A network as a task of one of the bank's networks."""

    state: TaskState
    parameters: ParameterCount
    fits: list[LayerFit]
    distance: dict[str, float] | None
    before: dict[str, float] | None


OnStep = Callable[[str, int, int, float], None]


def import_task(
    bank_path: str | Path,
    task: str,
    generator: str | Path | PublicGenerator,
    options: ImportOptions | None = None,
    *,
    backward: str | Path | PublicGenerator | None = None,
    direction: Direction = "AtoB",
    images: str | Path | None = None,
    architecture: GeneratorOptions | None = None,
    on_step: OnStep = lambda direction, step, steps, loss: None,
) -> Imported:
    """Add a generator of CycleGAN, pix2pix or CUT to a bank, which is made if it is not there.

    A first task enters as it is, bit for bit. A later one is made of the bank's filters
    (`factorization.factorize`), and then differs: see `Imported.distances`.

    Args:
        bank_path: the bank's directory.
        task: the new task's name.
        generator: the file of weights.
        options: how it is made.
        backward: the file of the other direction, as CycleGAN has one: the task is unpaired then.
        direction: which way `generator` translates.
        images: a folder of input images, or one as for training, of which the side that is translated is
            taken. Distances are measured on those held out.
        architecture: what is not to be told from the tensors.
        on_step: told of finetuning: direction, steps done, steps in all, loss.

    Raises:
        PiggybackError: a file that is no such generator, one that does not fit the bank's networks, a name
            that is taken, or images that can't be used; the bank is as it was.
    """
    options, bank_path = options or ImportOptions(), Path(bank_path)
    check_task_name(task)
    device = choose_device(options.device)
    forward = _as_read(generator, architecture)
    networks = [(FORWARD, direction, forward)]
    if backward is not None:
        other = _as_read(backward, architecture)
        check_pair(forward, other)
        networks.append((BACKWARD, "BtoA" if direction == "AtoB" else "AtoB", other))
    if options.finetune and images is None:
        raise PiggybackError("finetuning learns from images: give a folder of inputs (images)")
    size = _image_size(forward.config, options.image_size)
    sources = {way: _find_inputs(Path(images), way) for _, way, _ in networks if images is not None}
    check_fit(open_or_new(bank_path, forward.config), task, forward)
    made: dict[str, _Made] = {}
    bank = open_or_new(bank_path, forward.config)
    with bank.writing(f"import {task}"):
        # As it is now that nobody else writes to it.
        bank = open_or_new(bank_path, forward.config)
        check_fit(bank, task, forward)
        for which, way, given in networks:
            maker = _Maker(bank, which, task, given, options, size, device)
            made[way] = maker.make(sources.get(way), partial(on_step, way))
        counts = [part.parameters for part in made.values()]
        parameters = sum(counts[1:], counts[0])
        distances = {way: part.distance for way, part in made.items() if part.distance}
        config = forward.config
        card = TaskCard(
            library_version=version("piggyback-gan"),
            mode="paired" if backward is None else "unpaired",
            image=ImageCard(
                size=size,
                size_multiple=config.size_multiple,
                input=ImageFormat(channels=config.input_channels),
                output=ImageFormat(channels=config.output_channels),
            ),
            options={
                "direction": direction,
                **asdict(options),
                "unconstrained": options.share,
            },
            parameters=ParameterCard(**parameters.as_card()),
            imported=ImportCard(
                files={
                    way: ImportedFile(
                        name=given.path.name, sha256=given.sha256, network=asdict(given.config)
                    )
                    for _, way, given in networks
                },
                distances=distances,
            ),
        )
        states = [part.state for part in made.values()]
        entry = bank.add(states[0], card.to_json(), *states[1:])
    return Imported(
        entry,
        parameters,
        {way: part.fits for way, part in made.items() if part.fits},
        distances,
        {way: part.before for way, part in made.items() if part.before},
    )


@dataclass(frozen=True)
class _Maker:
    """Makes a network the next task of one of a bank's networks."""

    bank: Bank
    which: str
    task: str
    given: PublicGenerator
    options: ImportOptions
    size: int
    device: str

    def make(self, sources: _Sources | None, on_step: Callable[[int, int, float], None]) -> _Made:
        """The task, finetuned if that is asked for, and measured if there are images."""
        task, options, config = self.task, self.options, self.given.config
        network = self.bank.network(which=self.which)
        of_bank = self.bank.network_config(self.which)
        assert isinstance(of_bank, GeneratorConfig), "check_fit refuses others"
        module = self.given.as_built(
            replace(
                of_bank,
                input_channels=config.input_channels,
                output_channels=config.output_channels,
            )
        )
        state = factorize(
            network,
            task,
            module,
            unconstrained=options.share,
            max_error=options.max_error,
            storage=options.storage,
        )
        is_first = not network.tasks
        network.train_task(state)
        count = network.parameter_count(task)
        fits = [] if is_first else layer_fits(network, task, module)
        distance = before = None
        if sources is not None:
            format = ImageFormat(channels=config.input_channels)
            judged = load_inputs(sources.judged, format, self.size)
            distance = self._distance(network, module, judged)
            if options.finetune and count.mixing:
                distil(
                    network,
                    module,
                    load_inputs(sources.learned, format, self.size, for_crops=True),
                    crop=self.size,
                    steps=options.finetune,
                    seed=options.seed,
                    device=self.device,
                    on_step=lambda step, loss: on_step(step, options.finetune, loss),
                )
                before, distance = distance, self._distance(network, module, judged)
        network.finish_task()
        return _Made(network.task_state(task), count, fits, distance, before)

    def _distance(
        self, network: PiggybackNetwork, module: nn.Module, judged: UnpairedDataset
    ) -> dict[str, float]:
        return output_distance(network.fold(self.task), module, judged, self.device)


def _as_read(
    generator: str | Path | PublicGenerator, architecture: GeneratorOptions | None
) -> PublicGenerator:
    if isinstance(generator, PublicGenerator):
        return generator
    return read_generator(Path(generator), architecture)


def check_pair(forward: PublicGenerator, backward: PublicGenerator) -> None:
    """Whether two generators are the two directions of one task."""
    first, second = forward.config, backward.config
    swapped = (second.output_channels, second.input_channels)
    difference = same_modules(first, second)
    if difference or (first.input_channels, first.output_channels) != swapped:
        raise PiggybackError(
            f"{backward.path} is no way back of {forward.path}: {describe(second)}, and {describe(first)}"
        )


def check_fit(bank: Bank, task: str, given: PublicGenerator) -> None:
    """Whether a network can become a task of a bank."""
    bank.check_new(task)
    if bank.tasks and (difference := same_modules(given.config, bank.config)):
        raise PiggybackError(
            f"{given.path} does not fit {bank.path}: its {difference}; it is {describe(given.config)}: "
            "import it into another bank"
        )


def _image_size(config: GeneratorConfig, asked: int | None) -> int:
    size = asked or (config.size_multiple if config.name in UNET_LEVELS else 256)
    if size % config.size_multiple or not config.minimum_size <= size <= 65536:
        raise PiggybackError(
            f"image_size {size} does not fit {config.name}: it takes multiples of {config.size_multiple} "
            f"from {config.minimum_size} on"
        )
    return size


@dataclass(frozen=True)
class _Sources:
    """Input images: to learn from, and to judge with."""

    learned: Sequence[Source]
    judged: Sequence[Source]


def _find_inputs(folder: Path, direction: str) -> _Sources:
    """The images that a direction translates."""
    if not folder.is_dir():
        raise PiggybackError(f"{folder}: no such folder of images")
    if images := [Source(path) for path in list_images(folder)]:
        return _sources(images, ())
    found = find_unpaired(folder)
    if direction == "AtoB":
        return _sources(found.train_a, found.held_out_a)
    return _sources(found.train_b, found.held_out_b)


def _sources(learned: Sequence[Source], judged: Sequence[Source]) -> _Sources:
    """Where none are held out, every tenth is."""
    if not judged:
        judged = learned[::_HELD_OUT]
        learned = [source for source in learned if source not in judged] or judged
    return _Sources(learned, judged)
