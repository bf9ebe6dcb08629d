"""Import finished networks as tasks of a bank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.bank.card import ImageCard, ImportCard, ImportedFile, ParameterCard, TaskCard
from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.factorize import LayerFit, factorize, layer_fits
from piggyback_gan.core.task import ParameterCount, TaskState
from piggyback_gan.data.folders import find_unpaired
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source, list_images
from piggyback_gan.importing.distill import distil, load_inputs, output_distance
from piggyback_gan.importing.options import ImportOptions
from piggyback_gan.importing.public_weights import (
    PublicGenerator,
    describe,
    read_generator,
    same_modules,
)
from piggyback_gan.names import BACKWARD, FORWARD, Direction, check_task_name
from piggyback_gan.networks.config import UNET_LEVELS, GeneratorConfig
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.device import choose_device

_HELD_OUT = 10  # without held-out images, every tenth is evaluated and not trained on


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        entry: the task's entry in the bank.
        parameters: number of parameters that it adds.
        fits: fit of each layer to the bank's filters, before finetuning, by direction; a direction's first
            network is stored whole and has none.
        distances: L1, PSNR and SSIM between the task's outputs and the network's, by direction; empty
            without images.
        before: the same before finetuning; empty without finetuning.
    """

    entry: TaskEntry
    parameters: ParameterCount
    fits: Mapping[str, Sequence[LayerFit]]
    distances: Mapping[str, Mapping[str, float]]
    before: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class _Made:
    """A task of one of the bank's networks, and its figures as in `Imported`."""

    state: TaskState
    parameters: ParameterCount
    fits: list[LayerFit]
    distance: dict[str, float] | None
    before: dict[str, float] | None


_Sources = tuple[Sequence[Source], Sequence[Source]]
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
    """Add a generator of CycleGAN, pix2pix or CUT to a bank as a task; a missing bank is created.

    A first task is stored unchanged, bit for bit. A later one is fitted to the bank's filters
    (`core.factorize`), so that its outputs differ: see `Imported.distances`.

    Args:
        bank_path: the bank's directory.
        task: the new task's name.
        generator: the weight file.
        options: new filters, storage, finetuning.
        backward: the weight file of the other direction, as CycleGAN has one; the task is then unpaired.
        direction: direction that `generator` translates in.
        images: a folder of input images, or a data set as for training, of which the input side is used.
            Distances are measured on the images held out.
        architecture: what the tensors don't tell, or to override it.
        on_step: callback of finetuning, called with direction, steps done, steps in total and loss.

    Raises:
        PiggybackError: a file is not such a generator or does not fit the bank's networks, the name is taken,
            or the images can't be used. The bank is unchanged.
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
    made: dict[str, _Made] = {}
    bank = open_or_new(bank_path, forward.config)
    check_fit(bank, task, forward)
    with bank.writing(f"import {task}"):
        # Again under the lock: another process may have added a task.
        bank = open_or_new(bank_path, forward.config)
        check_fit(bank, task, forward)
        for which, way, given in networks:
            progress = partial(on_step, way)
            made[way] = _make(
                bank, which, task, given, options, size, device, sources.get(way), progress
            )
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
            options={"direction": direction, **asdict(options), "unconstrained": options.share},
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


def _make(
    bank: Bank,
    which: str,
    task: str,
    given: PublicGenerator,
    options: ImportOptions,
    size: int,
    device: str,
    sources: _Sources | None,
    on_step: Callable[[int, int, float], None],
) -> _Made:
    """Make a network the next task of one of the bank's networks; finetune and evaluate it on images."""
    config = given.config
    network = bank.network(which=which)
    of_bank = bank.network_config(which)
    assert isinstance(of_bank, GeneratorConfig), "check_fit refuses others"
    module = given.as_built(
        replace(
            of_bank, input_channels=config.input_channels, output_channels=config.output_channels
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
        training_images, held_out_images = sources
        held_out = load_inputs(held_out_images, format, size)
        distance = output_distance(network.fold(task), module, held_out, device)
        if options.finetune and count.mixing:
            distil(
                network,
                module,
                load_inputs(training_images, format, size, for_crops=True),
                crop=size,
                steps=options.finetune,
                seed=options.seed,
                device=device,
                on_step=lambda step, loss: on_step(step, options.finetune, loss),
            )
            before = distance
            distance = output_distance(network.fold(task), module, held_out, device)
    network.finish_task()
    return _Made(network.task_state(task), count, fits, distance, before)


def _as_read(
    generator: str | Path | PublicGenerator, architecture: GeneratorOptions | None
) -> PublicGenerator:
    if isinstance(generator, PublicGenerator):
        return generator
    return read_generator(Path(generator), architecture)


def check_pair(forward: PublicGenerator, backward: PublicGenerator) -> None:
    """Raise PiggybackError unless two generators are the two directions of one task."""
    first, second = forward.config, backward.config
    swapped = (second.output_channels, second.input_channels)
    difference = same_modules(first, second)
    if difference or (first.input_channels, first.output_channels) != swapped:
        raise PiggybackError(
            f"{backward.path} is not the other direction of {forward.path}: {describe(second)}, and {describe(first)}"
        )


def check_fit(bank: Bank, task: str, given: PublicGenerator) -> None:
    """Raise PiggybackError unless a network can become a task of a bank."""
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


def _find_inputs(folder: Path, direction: str) -> _Sources:
    """Find the inputs of a direction, for finetuning and for evaluation: every tenth image if none are held out."""
    if not folder.is_dir():
        raise PiggybackError(f"{folder}: this folder of images does not exist")
    training: Sequence[Source] = [Source(path) for path in list_images(folder)]
    held_out: Sequence[Source] = ()
    if not training:
        found, is_a = find_unpaired(folder), direction == "AtoB"
        training = found.train_a if is_a else found.train_b
        held_out = found.held_out_a if is_a else found.held_out_b
    if not held_out:
        held_out = training[::_HELD_OUT]
        training = [source for source in training if source not in held_out] or held_out
    return training, held_out
