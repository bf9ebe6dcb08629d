"""Run an experiment's parts: validation, order, and choice of learning rates."""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import filelock
import torch

from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.feature_networks import load_distance, load_features, load_recogniser
from piggyback_gan.evaluation.judge import Judge
from piggyback_gan.experiments.part_names import PartName, part_names
from piggyback_gan.experiments.results import (
    DIVERGED,
    PARTS,
    has_diverged,
    read_stages,
    read_table,
    stage_file,
    to_json,
)
from piggyback_gan.experiments.run.examine import Say
from piggyback_gan.experiments.run.part import Part
from piggyback_gan.experiments.run.plan import PartPlan
from piggyback_gan.experiments.run.record import (
    check_record,
    describe,
    source_sha256,
    through_json,
    write_record,
)
from piggyback_gan.experiments.settings import FIRST, Experiment, StrategySettings
from piggyback_gan.experiments.strategies import Strategy
from piggyback_gan.experiments.strategies.whole_networks import Standalone
from piggyback_gan.experiments.tasks import Task, architecture, find_search_tasks, find_tasks
from piggyback_gan.names import Device
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.files import atomic_write, require_writable
from piggyback_gan.training.callbacks import Diverged

_Network = TypeVar("_Network")

_BEGUN = "part.json"


class Runner:
    """Runs an experiment's parts.

    Args:
        experiment: its settings.
        out: the folder of results; finished parts are not repeated.
        device: as returned by `choose_device`.

    Raises:
        PiggybackError: a task or strategy is not valid.
    """

    def __init__(self, experiment: Experiment, out: Path, device: Device) -> None:
        self.experiment = experiment
        self.out = out
        self.device = device
        self.tasks = find_tasks(experiment, device)
        self.config = architecture(experiment, self.tasks)
        self.names = part_names(experiment)
        for label, settings in experiment.strategies.items():
            try:
                # A second task of this architecture must be possible.
                settings.strategy.predicted(build_generator(self.config), 1)
            except PiggybackError as error:
                raise PiggybackError(f"strategy {label!r}: {error}") from None

    def check(self) -> None:
        """Check that the folder's results, if any, are of the same settings.

        Raises:
            PiggybackError: names the difference.
        """
        check_record(self.out, self._content)
        for part in self.names:
            # A changed first learning rate is found in the record.
            if part.label != FIRST and all(map(self.is_done, part.needs)):
                self._check_unchanged(part)

    def begin(self, command: str) -> None:
        """Write the settings into the folder; call it before running a part.

        Args:
            command: the command line.

        Raises:
            PiggybackError: as `check`, or the folder can't be written.
        """
        self.check()
        write_record(self.out, self._content, self.device, command)

    @functools.cached_property
    def _content(self) -> Mapping[str, Any]:
        return describe(self.experiment, self.tasks, self.config)

    def part(self, name: str) -> PartName:
        """Find a part by its name.

        Raises:
            PiggybackError: it does not exist; the message lists some.
        """
        for part in self.names:
            if str(part) == name:
                return part
        raise PiggybackError(
            f"unknown part {name!r}; parts: {', '.join(map(str, self.names[:12]))}, ... (--list)"
        )

    def folder(self, part: PartName) -> Path:
        """Folder of a part."""
        return self.out / PARTS / str(part)

    def is_done(self, part: PartName) -> bool:
        """Whether a part is finished."""
        count = 1 if part.label == FIRST else len(self.tasks)
        if part.rate is not None:
            count = min(count, 1 + self.experiment.search.tasks)
        folder = self.folder(part)
        return stage_file(folder, count).exists() or has_diverged(folder)

    def is_running(self, part: PartName) -> bool:
        """Whether a process is running it."""
        try:
            with self._alone(part, begins=False):
                return False
        except PiggybackError:
            return True

    def run(
        self, part: PartName, say: Say, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Run what is left of a part.

        Raises:
            PiggybackError: a part that it needs is not finished, another process runs it, or as `Part.run`.
            Stopped: `should_stop` returned True.
        """
        if self.is_done(part):
            return
        if missing := [str(need) for need in part.needs if not self.is_done(need)]:
            raise PiggybackError(f"{part} needs other parts first: {', '.join(missing)}")
        plan = self._plan(part)
        with self._alone(part):
            self.remember(part)
            say(f"learning rate {plan.later_rate:g}{self._candidates(part)}")
            distance = self._network("distance", load_distance)
            features = self._network("features", load_features)
            recogniser = self._network("recogniser", load_recogniser)
            judge = Judge(features, distance, recogniser, self.out / "cache")
            if part.rate is not None and self.experiment.search.metric != "frechet_distance":
                judge = Judge(distance=distance)
            work = Part(plan, judge, torch.device(self.device), say, should_stop)
            # The first part serves all later ones.
            tasks = self.tasks if part.label == FIRST else plan.tasks
            measured = work.examiner.rehearse(tasks)
            if part.rate is not None:
                for task, figures in list(measured.items())[1:]:
                    self._search_figure(task, figures)
            try:
                work.run()
            except Diverged as error:
                if part.rate is None:
                    raise
                # Divergence only rules this learning rate out.
                atomic_write(plan.folder / DIVERGED, to_json({"problem": str(error)}))
                say(str(error))

    def _network(self, key: str, load: Callable[[str, str], _Network]) -> _Network | None:
        """Load an evaluation network, if the file names one."""
        spec = getattr(self.experiment, key)
        try:
            return load(spec, self.device) if spec else None
        except PiggybackError as error:
            raise PiggybackError(f"{key}: {error}") from None

    def chosen_rate(self, settings: StrategySettings) -> float:
        """Choose the learning rate of a strategy.

        Raises:
            PiggybackError: the search has not measured the metric, or diverged at all rates.
        """
        settings = self.experiment.strategy(settings.rate_of or settings.label)
        if len(settings.learning_rates) == 1:
            return settings.learning_rates[0]
        scores = {
            part.rate: self._scores(part)
            for part in self.names
            if part.label == settings.label
            and part.rate is not None
            and not has_diverged(self.folder(part))
        }
        found = {rate: own for rate, own in scores.items() if all(map(math.isfinite, own))}
        if not found:
            raise PiggybackError(
                f"strategy {settings.label!r} diverged at every learning rate: give lower ones"
            )
        # Relative to the candidates' mean, so that tasks have equal weight.
        means = [fmean(task) for task in zip(*found.values(), strict=True)]

        def score(rate: float) -> float:
            return sum(s / m for s, m in zip(found[rate], means, strict=True))

        return min(found, key=score)

    def _scores(self, part: PartName) -> list[float]:
        """The search metric of each task after the first, when it was learned."""
        later = list(read_stages(self.folder(part)))[1:]
        own = [(stage.task, stage.figures[stage.task]) for stage in later]
        return [figures[self._search_figure(task, figures)].value for task, figures in own]

    def _candidates(self, part: PartName) -> str:
        """Describe the candidates of a part's learning rate."""
        if part.label == FIRST or part.rate is not None:
            return ""
        found = [
            f"{need.rate:g} ({', '.join(f'{score:.4g}' for score in self._scores(need))})"
            for need in part.needs
            if need.rate is not None and not has_diverged(self.folder(need))
        ]
        metric = self.experiment.search.metric
        return f", the best by {metric} of {'; '.join(found)}" if found else ""

    def _search_figure(self, task: str, figures: Collection[str]) -> str:
        """The name of a task's search metric; of an unpaired task, in the trained direction.

        Raises:
            PiggybackError: it is not measured.
        """
        metric = self.experiment.search.metric
        direction = next(t.options.direction for t in self.tasks if t.name == task)
        for name in (metric, f"{metric}_{direction}"):
            if name in figures:
                return name
        raise PiggybackError(
            f"[search] metric {metric!r} is not measured for task {task!r}; there are: "
            f"{', '.join(sorted(figures))}"
        )

    def _plan(self, part: PartName) -> PartPlan:
        tasks: Sequence[Task] = self.tasks
        rate = self.experiment.first_learning_rate
        strategy: Strategy = Standalone()
        first = None
        if part.label == FIRST:
            tasks = tasks[:1]
        else:
            settings = self.experiment.strategy(part.label)
            strategy = settings.strategy
            if strategy.shares_first_task:
                first = self.folder(PartName(FIRST, part.seed))
            if part.rate is None:
                rate = self.chosen_rate(settings)
            else:
                rate, tasks = part.rate, find_search_tasks(self.experiment, self.device)
        return PartPlan(
            label=part.label,
            strategy=strategy,
            seed=part.seed,
            folder=self.folder(part),
            tasks=tasks,
            config=self.config,
            experiment=self.experiment,
            first=first,
            later_rate=rate,
            pictures=self.out if part.rate is None else None,
        )

    @contextlib.contextmanager
    def _alone(self, part: PartName, *, begins: bool = True) -> Iterator[None]:
        folder = self.folder(part)
        if begins:
            require_writable(folder)
        elif not (folder / "part.lock").exists():
            yield
            return
        lock = filelock.FileLock(folder / "part.lock", timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise PiggybackError(f"{part} is being run by another process") from None

    def remember(self, part: PartName) -> None:
        """Record the settings of a part.

        Raises:
            PiggybackError: it was begun with other settings; names the difference.
        """
        self._check_unchanged(part)
        path = self.folder(part) / _BEGUN
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, to_json(self._begun(part)))

    def _begun(self, part: PartName) -> dict[str, Any]:
        """Settings that must not change while a part has results: strategy, and what bits depend on."""
        if part.label == FIRST:
            kind, options, rate = FIRST, {}, self.experiment.first_learning_rate
        else:
            settings = self.experiment.strategy(part.label)
            kind, options = settings.kind, asdict(settings.strategy)
            rate = self.chosen_rate(settings) if part.rate is None else part.rate
        return {
            "kind": kind,
            "options": options,
            "learning_rate": rate,
            "device": torch.device(self.device).type,
            "torch": torch.__version__,
            "source_sha256": source_sha256(),
        }

    def _check_unchanged(self, part: PartName) -> None:
        """Raise PiggybackError if a part was begun with other settings."""
        path = self.folder(part) / _BEGUN
        if not path.exists():
            return
        before, now = read_table(path, f"{path} is damaged"), through_json(self._begun(part))
        for key in ("kind", "options", "learning_rate"):
            if before.get(key) != now[key]:
                raise PiggybackError(
                    f"{part} has results with other {key} ({before.get(key)}, now {now[key]}): give the "
                    f"strategy another name, or remove {path.parent}"
                )
        for key in ("device", "torch"):
            if before.get(key) != now[key] and not self.is_done(part):
                raise PiggybackError(
                    f"{part} was begun with {key} {before.get(key)}, this is {now[key]}: its outputs would "
                    f"have other bits; go on there, or remove {path.parent}"
                )
