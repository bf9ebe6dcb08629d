"""Teaching a bank one task, from the beginning or from where an earlier run stopped."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from piggyback_gan.bank.bank import open_or_new
from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.runs.run import TrainingRun
from piggyback_gan.runs.run_folder import Run, RunFolder, training_purpose
from piggyback_gan.runs.tensorboard import require_tensorboard
from piggyback_gan.system.device import choose_device
from piggyback_gan.system.distributed import Processes, processes
from piggyback_gan.system.user_code import allow_generator
from piggyback_gan.training.callbacks import Callback, Interrupted, Position
from piggyback_gan.training.options import TrainingOptions
from piggyback_gan.training.plan import plan_task

__all__ = ["Callback", "Interrupted", "Position", "recorded_options", "teach"]

# A resumed run may do these otherwise: they are no part of what is learned.
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
    """Train a task and add it to a bank, which is made if it is not there.

    The task enters the bank only when it is finished: whatever happens before, the bank is as it was.
    Metrics, sample pictures and what a resumed run goes on from are in `bank_path/runs/task`. Processes
    that torchrun or accelerate launch started train together, if each calls this alike.

    Args:
        bank_path: the bank's directory.
        task: the new task's name.
        data: a folder of images (`folders.find_pairs`, `folders.find_unpaired`).
        options: how to train.
        generator: the architecture, for a new bank. Code that it names is run; what a bank or a begun run
            names is not, unless it was allowed (`own_code.allow_generator`).
        resume: go on with the run that was begun for this task. All else may be left out; what is
            given must be as it was, but for device and log.
        callback: its methods are called as training goes on.
        should_stop: asked in every step; training ends after it, and can be resumed.

    Returns:
        The bank's entry of the new task.

    Raises:
        PiggybackError: anything that makes training impossible, or a loss that is not finite.
        Interrupted: `should_stop` said so.
    """
    bank_path = Path(bank_path)
    if generator is not None and generator.code is not None and not resume:
        allow_generator(generator.code)
    folder = RunFolder(bank_path, task)
    run = None
    if resume:
        run = folder.read()
        recorded, architecture = recorded_options(run)
        if options:
            options = _as_then(run, recorded, options)
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
    choose_device(options.device)
    # Refuses a folder of other things before the lock is put into it.
    bank = open_or_new(bank_path, generator.for_new_bank(options.image_size))
    with processes() as team:
        purpose = training_purpose(task)
        with bank.writing(purpose) if team.is_first else contextlib.nullcontext():
            if run is not None and (entry := _already_there(folder, run, team)):
                return entry
            if run is not None and run.state == "finished":
                raise PiggybackError(
                    f"the run of {task!r} is finished, and its task no longer in {bank_path}: train it anew, "
                    "without --resume"
                )
            plan = plan_task(
                bank_path,
                task,
                Path(data),
                options if run is None else _as_resolved(run, options),
                generator,
                processes=team.world,
                effective_batch=run.effective_batch if run else None,
            )
            hashes = [entry.sha256 for entry in plan.bank.entries]
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
                    bank_tasks=hashes,
                )
            elif list(run.bank_tasks) != hashes:
                later = folder.later_tasks(run)
                undo = f"remove {', '.join(later)} (pbgan remove), or " if later else ""
                raise PiggybackError(
                    f"{bank_path} has other tasks than when the run of {task!r} began, from which its "
                    f"filters are mixed: {undo}discard it (pbgan runs {bank_path} --discard {task})"
                )
            else:
                # What may change is remembered as it is now: the next --resume needs no more than that.
                run = replace(run, data=str(Path(data).absolute()), options=asdict(options))
            training = TrainingRun(plan, run, team, callback or Callback(), should_stop)
            return training.run(resume=resume)


def recorded_options(run: Run) -> tuple[TrainingOptions, GeneratorOptions]:
    """The options that a run was begun with.

    Raises:
        PiggybackError: this version does not know them.
    """
    try:
        return _options(run.options), GeneratorOptions(**run.generator)
    except (TypeError, PiggybackError) as error:
        raise _unknown(run, error) from None


def _as_resolved(run: Run, given: TrainingOptions) -> TrainingOptions:
    """The options of the run's beginning with its defaults, which may be others in this version."""
    try:
        free = {name: getattr(given, name) for name in _FREE_OPTIONS}
        return replace(_options(run.resolved), **free)
    except (TypeError, PiggybackError) as error:
        raise _unknown(run, error) from None


def _as_then(run: Run, recorded: TrainingOptions, given: TrainingOptions) -> TrainingOptions:
    """What is given, where the version that began the run knew less: that can be a default only."""
    new = [f.name for f in fields(FilterOptions) if f.name not in run.options]
    if "budget" in new and given.unconstrained is None:
        new.append("unconstrained")
    return replace(given, **{name: getattr(recorded, name) for name in new})


def _options(recorded: Mapping[str, Any]) -> TrainingOptions:
    """Options from JSON, which has no tuples; older runs know of no other allocation than an even one."""
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items()
    }
    return TrainingOptions(**{"allocation": "even", **fields})


def _unknown(run: Run, error: Exception) -> PiggybackError:
    return PiggybackError(
        f"the run of {run.task!r} has options that this version does not know: {error}"
    )


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
    """What can still be resumed is not thrown away unasked."""
    if folder.exists and folder.checkpoint.exists():
        position = folder.read().position
        raise PiggybackError(
            f"{folder.task!r} was begun before and stands at step {position.step} of {position.steps}: "
            f"go on with --resume, or discard it (pbgan runs {folder.bank} --discard {folder.task})"
        )


def _already_there(folder: RunFolder, run: Run, team: Processes) -> TaskEntry | None:
    """The task's entry, if the process that was killed had just added it: the run is at its end then."""
    entry = next((entry for entry in folder.bank_entries() if entry.name == folder.task), None)
    if entry is not None and team.is_first:
        epochs, steps = run.position.epochs, run.position.steps
        at_end = Position(epochs, epochs, steps, steps)
        folder.write(replace(run, state="finished", position=at_end))
        folder.remove_checkpoint()
    return entry
