"""Read an experiment's file: tasks, strategies, seeds, training and evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies import STRATEGIES, Strategy
from piggyback_gan.names import AUTO, PREVIOUS, STANDALONE, check_name, check_task_name
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.checks import check_choice
from piggyback_gan.system.toml_options import check_keys, known_options, options_from, read_toml
from piggyback_gan.training.options import TrainingOptions

FIRST = "first"
"""The part that trains the first task's network, which most strategies have in common."""

SEARCH_METRICS = ("l1", "perceptual_distance", "frechet_distance")
"""Metrics to choose a learning rate by: lower is better, and never negative."""

# Set by strategies, seeds, the command line and the search, not by tasks.
_NOT_A_TASKS = (
    *known_options(FilterOptions),
    *("learning_rate", "backward_learning_rate"),
    *("seed", "device", "val_fraction", "keep_best", "patience", "log", "samples"),
)
TASK_OPTIONS = sorted(set(known_options(TrainingOptions)) - set(_NOT_A_TASKS))


@dataclass(frozen=True)
class TaskSettings:
    """A task: name, folder of images, and options except learning rates and seeds.

    `steps` is the minimum number of steps, in whole epochs; None: the options' epochs.
    """

    name: str
    data: Path
    options: TrainingOptions
    steps: int | None


@dataclass(frozen=True)
class StrategySettings:
    """A strategy and its name in tables.

    Attributes:
        label: its name.
        kind: which of `STRATEGIES`.
        strategy: with its options.
        learning_rates: the generator's for all tasks but the first; of several, the best is chosen.
        rate_of: the strategy whose learning rate it uses instead.
        seeds: it learns the sequence once with each.
    """

    label: str
    kind: str
    strategy: Strategy
    learning_rates: tuple[float, ...]
    rate_of: str | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the best of several learning rates is chosen, on a part of the training images."""

    val_fraction: float = 0.15
    """Share of the training images for evaluation; the others are for training."""
    tasks: int = 2
    """Number of tasks after the first to train."""
    steps: int | None = None
    """Minimum steps per task; by default those of the experiment."""
    metric: str = "perceptual_distance"
    """The metric to minimize, averaged over those tasks (relative to the candidates' mean).

    One of `SEARCH_METRICS`.
    """

    def __post_init__(self) -> None:
        _check_fraction(self.val_fraction)
        check_choice("metric", self.metric, SEARCH_METRICS)
        _check_counts(tasks=self.tasks, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment's file, parsed and validated.

    Attributes:
        title: a line for the report.
        tasks: in the order in which they are learned.
        strategies: by label, in order.
        seeds: of strategies without seeds of their own.
        first_learning_rate: the generator's for the first task.
        generator: the architecture; not all fields need be given.
        features, distance, recogniser: evaluation networks, as for `pbgan evaluate`; None for none.
            The recogniser is for tasks whose inputs are label maps.
        samples: number of held-out images of each task to keep as pictures.
        curve_images: number of held-out images for the learning curves, evaluated after each epoch.
        compare_images: number of outputs of each earlier task to compare after each task but the last;
            None: all, as after the last.
        search: how learning rates are chosen.
        val_fraction: share of the training images to evaluate on in place of the held-out ones, for
            trying options; None to use these.
        text: the file's text.
    """

    title: str
    tasks: tuple[TaskSettings, ...]
    strategies: Mapping[str, StrategySettings]
    seeds: tuple[int, ...]
    first_learning_rate: float
    generator: GeneratorOptions
    search: Search
    features: str | None
    distance: str | None
    recogniser: str | None
    samples: int = 4
    curve_images: int = 64
    compare_images: int | None = None
    val_fraction: float | None = None
    text: str

    def __post_init__(self) -> None:
        if self.val_fraction is not None:
            _check_fraction(self.val_fraction)
        images = {key: getattr(self, key) for key in ("samples", "curve_images", "compare_images")}
        _check_counts(**images)
        for label, settings in self.strategies.items():
            if settings.rate_of is not None and self.strategy(settings.rate_of).rate_of:
                raise PiggybackError(
                    f"strategy {label!r}: learning_rate_of must name a strategy with a "
                    f"learning_rate of its own, {settings.rate_of!r} has none"
                )
        metric = self.search.metric
        network = {"perceptual_distance": "distance", "frechet_distance": "features"}.get(metric)
        several = [label for label, s in self.strategies.items() if len(s.learning_rates) > 1]
        if several and network and getattr(self, network) is None:
            raise PiggybackError(
                f"strategy {several[0]!r}: its learning rate is chosen by the {metric}, which no "
                f"network measures: give {network}, or another [search] metric "
                f"({', '.join(SEARCH_METRICS)})"
            )
        if len(self.tasks) < 2:
            raise PiggybackError("give two or more [[task]]: one task alone can't be forgotten")

    def strategy(self, label: str) -> StrategySettings:
        """Return a strategy by its label.

        Raises:
            PiggybackError: it does not exist; the message lists the others.
        """
        if label not in self.strategies:
            raise PiggybackError(f"unknown strategy {label!r}; found: {', '.join(self.strategies)}")
        return self.strategies[label]


_TABLES = {"steps", "options", "task", "strategy"}
_KEYS = _TABLES | set(known_options(Experiment)) - {"tasks", "strategies", "text"}


def read_experiment(
    path: Path,
    *,
    data: Path | None = None,
    features: str | None = None,
    distance: str | None = None,
    recogniser: str | None = None,
) -> Experiment:
    """Read an experiment's file. Paths in it are relative to it.

    Args:
        path: a TOML file; docs/experiments.md says what it holds.
        data: the folder that the tasks' folders are in, instead.
        features, distance, recogniser: instead of the file's.

    Raises:
        PiggybackError: the file can't be read or is not valid.
    """
    content = read_toml(path)
    check_keys(content, _KEYS, str(path))
    networks: dict[str, Any]
    networks = {"features": features, "distance": distance, "recogniser": recogniser}
    plain = ("samples", "curve_images", "compare_images", "val_fraction")
    try:
        steps = content.get("steps")
        _check_counts(steps=steps)
        common = _table(content, "options", TASK_OPTIONS)
        if steps is not None and "epochs" in common:
            raise PiggybackError("give steps or [options] epochs, not both")
        root = path.parent if data is None else data
        tasks = tuple(_task(table, common, steps, root) for table in _tables(content, "task"))
        _distinct("task", [task.name for task in tasks])
        seeds = _seeds(content.get("seeds", [0]))
        first = tasks[0].name if tasks else ""
        strategies = [_strategy(table, seeds, first) for table in _tables(content, "strategy")]
        _distinct("strategy", [strategy.label for strategy in strategies])
        for key, given in networks.items():
            networks[key] = _network(content, key, given, path.parent)
        search = _table(content, "search", known_options(Search))
        generator = _table(content, "generator", known_options(GeneratorOptions))
        first_rate = content.get("first_learning_rate", 2e-4)
        return Experiment(
            title=str(content.get("title", path.stem)),
            tasks=tasks,
            strategies={strategy.label: strategy for strategy in strategies},
            seeds=seeds,
            first_learning_rate=_rate(first_rate, "first_learning_rate"),
            generator=options_from(GeneratorOptions, generator, "[generator]"),
            search=options_from(Search, search, "[search]"),
            text=path.read_text(encoding="utf-8"),
            **networks,
            **{key: content[key] for key in plain if key in content},
        )
    except PiggybackError as error:
        raise PiggybackError(f"{path}: {error}") from None


def _task(
    table: Mapping[str, Any], common: Mapping[str, Any], steps: int | None, root: Path
) -> TaskSettings:
    name = table.get("name")
    if not isinstance(name, str):
        raise PiggybackError("a [[task]] has no name")
    check_task_name(name)
    where = f"task {name!r}"
    check_keys(table, ("name", "data", "steps", *TASK_OPTIONS), where)
    folder = table.get("data", name)
    if not isinstance(folder, str):
        raise PiggybackError(f"{where}: data must be a folder, found {folder!r}")
    if {"steps", "epochs"} <= table.keys():
        raise PiggybackError(f"{where}: give steps or epochs, not both")
    _check_counts(steps=table.get("steps"))
    steps = table.get("steps", None if "epochs" in table else steps)
    options = options_from(TrainingOptions, {**common, **table}, where)
    return TaskSettings(name, root / folder, options, steps)


def _strategy(table: Mapping[str, Any], seeds: tuple[int, ...], first: str) -> StrategySettings:
    kind = table.get("kind", table.get("name"))
    label = table.get("name", kind)
    if not isinstance(label, str) or not isinstance(kind, str):
        raise PiggybackError("a [[strategy]] has no name")
    check_name(label, "a strategy")
    where = f"strategy {label!r}"
    if label == FIRST:
        raise PiggybackError(f"{where}: the name is taken by the first task's common network")
    if kind not in STRATEGIES:
        raise PiggybackError(
            f"{where}: unknown kind {kind!r}; give one of {', '.join(STRATEGIES)} as its name or kind"
        )
    own = known_options(STRATEGIES[kind])
    check_keys(table, ("name", "kind", "seeds", "learning_rate", "learning_rate_of", *own), where)
    strategy = options_from(STRATEGIES[kind], table, where)
    init = getattr(strategy, "init", None)
    if init not in (None, AUTO, STANDALONE, PREVIOUS, first):
        # Only the first task exists for every later one, in both directions.
        raise PiggybackError(
            f"{where}: init must be {AUTO}, {STANDALONE}, {PREVIOUS} or the first task, {first}, found {init!r}"
        )
    rate, rate_of = table.get("learning_rate"), table.get("learning_rate_of")
    if (rate is None) == (rate_of is None):
        raise PiggybackError(
            f"{where}: give learning_rate, a number or a list to choose from, or learning_rate_of, the "
            "strategy whose rate to take"
        )
    listed = rate if isinstance(rate, list) else [] if rate is None else [rate]
    rates = tuple(_rate(value, where) for value in listed)
    if rate == [] or len(set(rates)) < len(rates):
        raise PiggybackError(f"{where}: learning_rate must list different numbers, found {rate!r}")
    if rate_of is not None and not isinstance(rate_of, str):
        raise PiggybackError(f"{where}: learning_rate_of must name a strategy, found {rate_of!r}")
    if "seeds" in table:
        seeds = _seeds(table["seeds"])
    return StrategySettings(label, kind, strategy, rates, rate_of, seeds)


def _network(content: Mapping[str, Any], key: str, given: str | None, root: Path) -> str | None:
    """Return an evaluation network: a file relative to the experiment's, or another name unchanged."""
    word = content.get(key) if given is None else given
    if word is not None and not isinstance(word, str):
        raise PiggybackError(f"{key} must be a file or package.module:callable, found {word!r}")
    if given is None and word is not None and (root / word).exists():
        return str(root / word)
    return word


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise PiggybackError(f"seeds must be a list of whole numbers, found {value!r}")
    for seed in value:
        TrainingOptions(seed=seed)
    if len(set(value)) < len(value):
        raise PiggybackError(f"seeds must be different, found {value!r}")
    return tuple(value)


def _rate(value: Any, where: str) -> float:
    options_from(TrainingOptions, {"learning_rate": value}, where)
    return float(value)


def _check_fraction(value: object) -> None:
    if not isinstance(value, float) or not 0 < value < 1:
        raise PiggybackError(
            f"invalid val_fraction: found {value!r}, give a number between 0 and 1"
        )


def _check_counts(**values: object) -> None:
    """Check that each value is a whole number from 1 on, or None."""
    for name, value in values.items():
        if value is not None and (type(value) is not int or value < 1):
            raise PiggybackError(f"invalid {name}: found {value!r}, give a whole number from 1 on")


def _table(content: Mapping[str, Any], key: str, known: Sequence[str]) -> Mapping[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise PiggybackError(f"[{key}] must be a table, found {table!r}")
    check_keys(table, known, f"[{key}]")
    return table


def _tables(content: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PiggybackError(f"write each {key} as a [[{key}]] table")
    if not tables:
        raise PiggybackError(f"[[{key}]] is missing")
    return tables


def _distinct(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise PiggybackError(f"there are two [[{what}]] named {name!r}")
