"""Teach a bank one task, from the start or from where an earlier run stopped."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from piggyback_gan.bank.bank import has_bank
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest, TaskEntry
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.runs.run import TrainingRun
from piggyback_gan.runs.run_folder import Run, RunFolder, training_purpose
from piggyback_gan.runs.tensorboard import require_tensorboard
from piggyback_gan.system.device import choose_device
from piggyback_gan.system.distributed import Processes, processes
from piggyback_gan.system.user_code import allow_generator
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.plan import TaskPlan, plan_task

_Options = TypeVar("_Options", TrainingOptions, GeneratorOptions)

# A resumed run may change these: the trained task does not depend on them.
_FREE_OPTIONS = ("device", "log")


def teach(
    bank_path: str | Path,
    task: str,
    data: str | Path | None = None,
    options: TrainingOptions | None = None,
    generator: GeneratorOptions | None = None,
    *,
    resume: bool = False,
    callback: Callback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TaskEntry:
    """Train a task and add it to a bank, which is created if it does not exist.

    The task is added when training is finished; until then the bank is unchanged. Metrics, sample images
    and the checkpoint of a run are in `bank_path/runs/task`. Processes that torchrun or accelerate launch
    started train together if each calls this with the same arguments.

    Args:
        bank_path: the bank's directory.
        task: the new task's name.
        data: a folder of images (see `find_pairs` and `find_unpaired`).
        options: how to train.
        generator: the architecture of a new bank. Code that it names is executed; code that a bank or a
            run names is not, unless `allow_generator` was called.
        resume: continue the run of this task. All other arguments are optional; those that are given must
            be as before, except for `device` and `log`.
        callback: its methods are called during training.
        should_stop: called in every step; training stops after a step in which it returns True, and can
            be resumed.

    Returns:
        The bank's entry of the new task.

    Raises:
        PiggybackError: an argument, the data or the bank can't be used, or a loss is not finite.
        Interrupted: `should_stop` returned True.
    """
    bank_path = Path(bank_path)
    if generator is not None and generator.code is not None and not resume:
        allow_generator(generator.code)
    folder = RunFolder(bank_path, task)
    run = None
    if resume:
        run = folder.read()
        recorded, architecture = recorded_options(run)
        _refuse_changes(recorded, options or recorded)
        _refuse_changes(architecture, generator or architecture)
        data, options = data or run.data, options or recorded
        if not Path(data).is_dir():
            raise PiggybackError(f"{data}: no such folder of data; if it moved, give --data")
        generator = architecture
    if data is None:
        raise PiggybackError("give the folder of images to train from")
    options, generator = options or TrainingOptions(), generator or GeneratorOptions()
    if options.log == "tensorboard":
        require_tensorboard()
    # It configures threads that are started later, those of the processes' sums among them.
    choose_device(options.device)
    # A folder of other things, or a damaged bank, is refused before the lock is put into it.
    if has_bank(bank_path):
        Manifest.read(bank_path)
    with processes() as team:
        purpose = training_purpose(task)
        with writer_lock(bank_path, purpose) if team.is_first else contextlib.nullcontext():
            planned = options
            if run is not None:
                if entry := _already_there(folder, run, team):
                    return entry
                if run.state == "finished":
                    raise PiggybackError(
                        f"the run of {task!r} is finished, and its task no longer in {bank_path}: train it "
                        "again, without --resume"
                    )
                # Its own defaults may differ from this version's.
                resolved = _options(run, TrainingOptions, run.resolved)
                planned = replace(resolved, device=options.device, log=options.log)
            plan = plan_task(
                *(bank_path, task, Path(data), planned, generator),
                processes=team.world,
                effective_batch=run.effective_batch if run else None,
            )
            if run is None:
                _refuse_to_overwrite(folder)
                run = Run(
                    task=task,
                    state="running",
                    position=Position(1, plan.options.epochs, 0, plan.steps),
                    data=str(Path(data).absolute()),
                    data_name=plan.folder.name,
                    options=asdict(options),
                    generator=asdict(generator),
                    resolved=asdict(plan.options),
                    effective_batch=plan.effective_batch,
                    bank_tasks=[entry.sha256 for entry in plan.bank.entries],
                )
            else:
                _check_bank(folder, run, plan)
                # The next --resume takes what may change from this one.
                run = replace(run, data=str(Path(data).absolute()), options=asdict(options))
            training = TrainingRun(plan, run, team, callback or Callback(), should_stop)
            return training.run(resume=resume)


def recorded_options(run: Run) -> tuple[TrainingOptions, GeneratorOptions]:
    """Read the options that a run was begun with.

    Raises:
        PiggybackError: this version has no such options.
    """
    training = _options(run, TrainingOptions, run.options)
    return training, _options(run, GeneratorOptions, run.generator)


def _check_bank(folder: RunFolder, run: Run, plan: TaskPlan) -> None:
    """Raise PiggybackError unless the bank has the tasks with which the run began."""
    if list(run.bank_tasks) != [entry.sha256 for entry in plan.bank.entries]:
        later = folder.later_tasks(run)
        undo = f"remove {', '.join(later)} (pbgan remove), or " if later else ""
        raise PiggybackError(
            f"{folder.bank} has other tasks than when the run of {run.task!r} began, from which its "
            f"filters are mixed: {undo}discard it (pbgan runs {folder.bank} --discard {run.task})"
        )


def _options(run: Run, kind: type[_Options], recorded: Mapping[str, Any]) -> _Options:
    """Options from JSON, which has no tuples."""
    values: dict[str, Any]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items()}
    try:
        return kind(**values)
    except (TypeError, PiggybackError) as error:
        raise PiggybackError(
            f"the run of {run.task!r} has options that this version does not know: {error}"
        ) from None


def _refuse_changes(
    recorded: TrainingOptions | GeneratorOptions, given: TrainingOptions | GeneratorOptions
) -> None:
    before, now = asdict(recorded), asdict(given)
    changed = [
        f"{name} was {before[name]!r}, is {now[name]!r}"
        for name in before
        if before[name] != now[name] and name not in _FREE_OPTIONS
    ]
    if changed:
        raise PiggybackError(
            f"a resumed run keeps its options: {'; '.join(changed)}; leave them out, or discard the run"
        )


def _refuse_to_overwrite(folder: RunFolder) -> None:
    """Raise PiggybackError if the folder has a run that can be resumed."""
    if folder.exists and folder.checkpoint.exists():
        position = folder.read().position
        raise PiggybackError(
            f"{folder.task!r} has an unfinished run, at step {position.step} of {position.steps}: "
            f"continue it with --resume, or discard it (pbgan runs {folder.bank} --discard {folder.task})"
        )


def _already_there(folder: RunFolder, run: Run, team: Processes) -> TaskEntry | None:
    """The task's entry, if a killed process had just added it; marks the run as finished."""
    entry = next((entry for entry in folder.bank_entries() if entry.name == folder.task), None)
    if entry is not None and team.is_first:
        epochs, steps = run.position.epochs, run.position.steps
        at_end = Position(epochs, epochs, steps, steps)
        folder.write(replace(run, state="finished", position=at_end))
        folder.remove_checkpoint()
    return entry
