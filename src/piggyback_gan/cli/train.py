"""pbgan train: train a task of a bank, or resume a training."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import BankPath, TaskName, optional, parse
from piggyback_gan.cli.signals import stopped_by_signals
from piggyback_gan.errors import PartnerEnded, PiggybackError
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.launch import find_place
from piggyback_gan.system.user_code import allow_generator
from piggyback_gan.training.options import TrainingOptions, read_options


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train an image-to-image task of a bank; a missing bank is created.

    DIR contains train/ and val/ or test/ with side-by-side images (A left, B right), or trainA/ and
    trainB/ (testA/, testB/); for paired tasks, with equal file names. The task is added to the bank when it
    is finished. Metrics, curves, samples and the checkpoint for --resume are in BANK/runs/TASK.
    """

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The new task's name."""
    data: Annotated[Path | None, optional("DIR")] = None
    """Folder of images."""
    config: Annotated[Path | None, optional("FILE")] = None
    """TOML file of options: those here and further ones. Options on the command line take precedence."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume this task's training; needs no other option."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print the plan: images, steps, layers, parameters, memory."""
    training: tyro.conf.OmitArgPrefixes[TrainingOptions] = field(default_factory=TrainingOptions)
    """Training."""
    generator: tyro.conf.OmitArgPrefixes[GeneratorOptions] = field(default_factory=GeneratorOptions)
    """Generator of a new bank."""


def run(arguments: list[str]) -> int:
    """Train, or with --dry-run only plan; of several processes, only rank 0 prints."""
    if find_place().count == 1:
        return _run(arguments, is_first=True, world=1)
    # First of all, so that an error common to all processes is printed once.
    from piggyback_gan.system.distributed import processes

    with processes() as team:
        return _run(arguments, is_first=team.is_first, world=team.world)


def _run(arguments: list[str], *, is_first: bool, world: int) -> int:
    given = _parse(arguments)
    if given.data is None and not given.resume:
        raise PiggybackError("--data DIR is missing: the folder of images (pbgan train --help)")
    # Imported late: --help and wrong arguments should not wait for torch.
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.cli.progress import TrainingProgress, print_plan
    from piggyback_gan.runs.run_folder import RunFolder
    from piggyback_gan.runs.teach import teach
    from piggyback_gan.system.distributed import idle_cores
    from piggyback_gan.training.callbacks import Interrupted
    from piggyback_gan.training.plan import plan_task

    if given.dry_run:
        if given.data is None:
            raise PiggybackError("--dry-run plans a new training: give --data, and no --resume")
        plan = plan_task(
            given.bank, given.task, given.data, given.training, given.generator, processes=world
        )
        if is_first:
            print_plan(plan)
        return 0
    if is_first and (hint := idle_cores()):
        print(f"pbgan: {hint}", file=sys.stderr)
    folder = RunFolder(given.bank, given.task)
    with stopped_by_signals() as stop, TrainingProgress() as progress:
        try:
            entry = teach(
                given.bank,
                given.task,
                given.data,
                given.training,
                given.generator,
                resume=given.resume,
                callback=progress,
                should_stop=stop.asked,
            )
        except (Interrupted, PartnerEnded) as end:
            # All processes receive a signal, and another one may have ended first.
            if isinstance(end, PartnerEnded) and not stop.asked():
                raise
            on = f"pbgan train {given.bank} {given.task} --resume"
            if given.generator.code is not None:
                on += f" --generator {given.generator.code}"
            words = f"resume with: {on}" if folder.exists else "nothing was trained yet"
            if is_first:
                print(f"pbgan: {end}; {given.bank} is unchanged; {words}", file=sys.stderr)
            return stop.status
    if is_first:
        kept = ""
        if metric := given.training.keep_best:
            epoch = Bank.open(given.bank).card(given.task).epoch
            kept = f" as it was after epoch {epoch}, the best by {metric}"
        print(
            f"{given.task} is in {given.bank}{kept} ({entry.bytes / 1e6:,.2f} MB); metrics, curves and "
            f"samples: {folder.path}"
        )
    return 0


def _parse(arguments: list[str]) -> Arguments:
    """Parse the arguments; defaults are from the --config file, or from the run to resume."""
    default = Arguments(bank=tyro.MISSING, task=tyro.MISSING)
    given = parse(Arguments, "train", arguments, _with(default, *_from_file(arguments)))
    if given.generator.code is not None:
        allow_generator(given.generator.code)
    if given.resume and given.config is None:
        from piggyback_gan.runs.run_folder import RunFolder
        from piggyback_gan.runs.teach import recorded_options

        recorded = recorded_options(RunFolder(given.bank, given.task).read())
        given = parse(Arguments, "train", arguments, _with(default, *recorded))
    return given


def _with(
    arguments: Arguments, training: TrainingOptions, generator: GeneratorOptions
) -> Arguments:
    return Arguments(
        bank=arguments.bank, task=arguments.task, training=training, generator=generator
    )


def _from_file(arguments: list[str]) -> tuple[TrainingOptions, GeneratorOptions]:
    """Read the --config file, whose options are defaults of the command line."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            value = value if equals else next(iter(arguments[index + 1 : index + 2]), "")
            if not value:
                raise PiggybackError("--config needs a TOML file (pbgan train --help)")
            return read_options(Path(value))
    return TrainingOptions(), GeneratorOptions()
