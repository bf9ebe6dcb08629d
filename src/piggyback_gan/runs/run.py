"""One training run: validates the data, trains or resumes, and adds the finished task to the bank."""

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.core.task import ParameterCount
from piggyback_gan.data.fingerprint import changes, fingerprint
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import evaluate
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.runs.checkpoint import resume_from_checkpoint
from piggyback_gan.runs.recorder import Recorder
from piggyback_gan.runs.run_folder import Run, RunFolder, State
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.callbacks import Callback, Diverged, Interrupted, Position
from piggyback_gan.training.loop import TrainingLoop
from piggyback_gan.training.plan import TaskPlan
from piggyback_gan.training.task_card import task_card
from piggyback_gan.training.task_data import TaskData, load_task_data


class TrainingRun:
    """The training of one planned task, in each process; the first one holds the bank's writer lock.

    `begun` is what `run.json` contains, or is to contain; the other arguments are as for `TrainingLoop`.
    """

    def __init__(
        self,
        plan: TaskPlan,
        begun: Run,
        team: Processes,
        callback: Callback,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.begun = begun
        self.team = team
        self.callback = callback if team.is_first else Callback()
        self.should_stop = should_stop
        self.folder = RunFolder(plan.bank.path, plan.task)
        self.position = begun.position
        self.started = time.monotonic()

    def run(self, *, resume: bool) -> TaskEntry:
        """Train from the beginning or the checkpoint to the end, and add the task to the bank.

        Raises:
            PiggybackError: as `teach`.
            Interrupted: training was stopped; the checkpoint is up to date.
        """
        self.callback.planned(self.plan)
        data = self._load_data(resume=resume)
        try:
            entry = self._train(data, resume=resume)
        except Interrupted:
            self._ended("interrupted")
            raise
        except BaseException as error:
            is_known = isinstance(error, PiggybackError)
            self._ended("failed", str(error) if is_known else type(error).__name__)
            raise
        self._ended("finished")
        return entry

    def _ended(self, state: State, problem: str | None = None) -> None:
        # The error that ended the run matters more than one in recording it.
        with suppress(PiggybackError):
            if self.team.is_first and self.folder.exists:
                self._write_state(state, problem)
                if state == "finished":
                    self.folder.remove_checkpoint()

    def _load_data(self, *, resume: bool) -> TaskData:
        """Decode and check the images; they must be those that a resumed run was begun with."""
        plan, folder = self.plan, self.plan.folder
        hashes = fingerprint(
            folder.paths,
            root=folder.root,
            on_progress=lambda done: self._checked("files", done, len(folder.paths)),
        )
        before = self.folder.read_fingerprint() if resume else None
        if before is None and resume and self.folder.checkpoint.exists():
            raise PiggybackError(
                f"{self.folder.path} is damaged: it has a checkpoint, but no hashes of the data"
            )
        if before is not None and (changed := changes(before, hashes)):
            raise PiggybackError(
                f"the data in {folder.root} is not what {plan.task!r} was begun with: {changed}"
            )
        data = load_task_data(folder, plan.formats, plan.options, self._checked)
        if before is None and self.team.is_first:
            self.folder.begin(self._state("running"), hashes)
        return data

    def _train(self, data: TaskData, *, resume: bool) -> TaskEntry:
        """Train the epochs that are left and add the task to the bank."""
        plan, device = self.plan, torch.device(self.plan.options.device)
        networks = {name: network.to(device) for name, network in plan.networks.items()}
        generators = tuple(networks.values())

        def validate() -> dict[str, float] | None:
            if data.held_out is None:
                return None
            return evaluate(
                generators,
                data.held_out,
                device,
                direction=plan.options.direction,
                paired=data.partners,
                between=loop.stop_if_asked,
            ).metrics

        recorder = Recorder(self.folder, plan.options, generators, data.shown, self._checkpointed)
        loop = TrainingLoop(
            networks,
            plan.config,
            plan.options,
            data,
            validate,
            effective_batch=plan.effective_batch,
            team=self.team,
            callbacks=(recorder, self.callback),
            should_stop=self.should_stop,
        )
        self._begin(loop, resume=resume)
        try:
            loop.run()
        except Diverged as error:
            raise PiggybackError(
                f"{error}: the bank is unchanged; try a lower --learning-rate (now "
                f"{plan.options.learning_rate})"
            ) from None
        finally:
            self.position = loop.position
            with suppress(PiggybackError):
                recorder.close()
        for network in networks.values():
            network.finish_task()
        counts = [network.parameter_count(plan.task) for network in networks.values()]
        added = self._add_to_bank(loop, sum(counts[1:], counts[0])) if self.team.is_first else None
        entry: TaskEntry = self.team.from_first(added)
        return entry

    def _begin(self, loop: TrainingLoop, *, resume: bool) -> None:
        """Begin the loop, or resume it from the checkpoint, if there is one."""
        if not resume:
            loop.begin()
            return
        if self.team.is_first:
            self.folder.remove_leftovers()
        if resume_from_checkpoint(loop, self.folder.checkpoint):
            if self.team.is_first:
                # A killed process may have written a line for an epoch after its checkpoint.
                self.folder.write_metrics(loop.progress.records)
            self.callback.resumed(loop.position, self._differences())
        else:
            loop.begin()
        # No process may finish, and remove the checkpoint, before all have loaded it.
        self.team.from_first(None)

    def _add_to_bank(self, loop: TrainingLoop, parameters: ParameterCount) -> TaskEntry:
        plan = self.plan
        states = {name: network.task_state(plan.task) for name, network in plan.networks.items()}
        last = loop.progress.records[-1]
        kept = loop.progress.best or {"epoch": last["epoch"], "metrics": last["validation"]}
        decided = loop.banked.decided
        budgets = [own["budget"] for own in decided.values() if own.get("budget")]
        options = replace(
            plan.options,
            init=decided.get(FORWARD, {}).get("start", plan.options.init),
            budget=max(budgets, default=plan.options.budget),
        )
        card = task_card(
            plan.folder,
            plan.formats,
            options,
            plan.config,
            data_name=self.begun.data_name,
            effective_batch=plan.effective_batch,
            parameters=parameters,
            epoch=kept["epoch"],
            validation=kept["metrics"],
        )
        return plan.bank.add(states[FORWARD], card.to_json(), states.get(BACKWARD))

    def _checked(self, split: str, done: int, total: int) -> None:
        self.callback.checked(split, done, total)
        if self.should_stop():
            raise Interrupted(self.position)

    def _checkpointed(self, position: Position) -> None:
        self.position = position
        self._write_state("running")

    def _environment(self) -> dict[str, Any]:
        """What equal bytes depend on besides data and options."""
        return {
            "library": version("piggyback-gan"),
            "torch": torch.__version__,
            "processes": self.team.world,
            "threads": torch.get_num_threads(),
            "device": self.plan.options.device,
            "machine": platform.machine(),
        }

    def _differences(self) -> Sequence[str]:
        """What has changed since the run began."""
        before, now = self.begun.surroundings, self._environment()
        return [f"{n} was {before[n]}, is {now[n]}" for n in now if before.get(n, now[n]) != now[n]]

    def _state(self, state: State, problem: str | None = None) -> Run:
        seconds = round(time.monotonic() - self.started, 1)
        return replace(
            self.begun,
            state=state,
            position=self.position,
            surroundings={**self._environment(), "seconds": seconds},
            problem=problem,
        )

    def _write_state(self, state: State, problem: str | None = None) -> None:
        self.folder.write(self._state(state, problem))
