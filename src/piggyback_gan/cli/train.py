"""pbgan train: teach a bank a paired task."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import BankPath, TaskName, parse
from piggyback_gan.cli.signals import stopped_by_signals
from piggyback_gan.errors import PiggybackError
from piggyback_gan.options import GeneratorOptions, TrainingOptions, read_options


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Teach a bank a paired image-to-image task. A bank that is not there is begun with it.

    DIR holds train/ and val/ or test/ with side-by-side images (A left, B right), or trainA/ and
    trainB/ with files of the same names. The task enters the bank when it is finished; metrics and
    sample pictures of the run are in BANK.runs/TASK.
    """

    bank: BankPath
    """The bank's directory."""
    task: TaskName
    """The new task's name."""
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder of image pairs."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A TOML file of options: those here and the rarer ones. Options given here go before it."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print the plan: images, steps, layers, parameters, memory."""
    training: tyro.conf.OmitArgPrefixes[TrainingOptions] = field(default_factory=TrainingOptions)
    """How to train."""
    generator: tyro.conf.OmitArgPrefixes[GeneratorOptions] = field(default_factory=GeneratorOptions)
    """The network of a new bank."""


def run(arguments: list[str]) -> int:
    """Train, or with --dry-run only plan."""
    options, generator = _from_file(arguments)
    default = Arguments(
        bank=tyro.MISSING,
        task=tyro.MISSING,
        data=tyro.MISSING,
        training=options,
        generator=generator,
    )
    given = parse(Arguments, "train", arguments, default)
    # Imported late: --help and wrong arguments should not wait for torch.
    from piggyback_gan.cli.progress import TrainingProgress, print_plan
    from piggyback_gan.planning import plan_task
    from piggyback_gan.teaching import Interrupted, run_folder, teach

    if given.dry_run:
        plan = plan_task(given.bank, given.task, given.data, given.training, given.generator)
        print_plan(plan)
        return 0
    folder = run_folder(given.bank, given.task)
    with stopped_by_signals() as stop, TrainingProgress() as progress:
        try:
            entry = teach(
                given.bank,
                given.task,
                given.data,
                given.training,
                given.generator,
                reporter=progress,
                should_stop=stop.asked,
            )
        except Interrupted as interrupted:
            so_far = f"; metrics and samples so far: {folder}" if interrupted.position.step else ""
            print(
                f"pbgan: {interrupted}; {given.bank} is unchanged, and training {given.task!r} again "
                f"begins anew{so_far}",
                file=sys.stderr,
            )
            return stop.status
    print(
        f"{given.task} is in {given.bank} ({entry.bytes / 1e6:.1f} MB); metrics and samples: {folder}"
    )
    return 0


def _from_file(arguments: list[str]) -> tuple[TrainingOptions, GeneratorOptions]:
    """The options in the --config file, which are the defaults for those on the command line."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            value = value if equals else next(iter(arguments[index + 1 : index + 2]), "")
            if not value:
                raise PiggybackError("--config wants a TOML file (pbgan train --help)")
            return read_options(Path(value))
    return TrainingOptions(), GeneratorOptions()
