"""Statistics of an experiment: quality, forgetting, transfer and cost of each strategy, by seed.

Parts may be unfinished or missing: what was not measured is left out. "Final" is after the last task that a
strategy has learned with any of its seeds; seeds that are behind are left out of it.

A metric's *base* is its name without the direction: "l1" of "l1_AtoB". Figures of a base are means over
the directions, ratios are means of the directions' ratios; a task that is learned in one direction has no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.evaluation.metric_names import METRICS, higher_is_better, split_metric
from piggyback_gan.experiments.results import Results, Stage
from piggyback_gan.names import STANDALONE

# Not the cycle's L1: a generator that changes nothing has a low one.
_CURVE_METRICS = ("perceptual_distance", "l1")


@dataclass(frozen=True)
class Spread:
    """Values by seed, at least one."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.by_seed.values())

    @property
    def low(self) -> float:
        """Minimum over the seeds."""
        return min(self.by_seed.values())

    @property
    def high(self) -> float:
        """Maximum over the seeds."""
        return max(self.by_seed.values())


@dataclass(frozen=True)
class Cost:
    """Cost of one task with a strategy.

    Attributes:
        task: its name.
        order: number of tasks learned with it.
        added: stored parameters that the task adds, in 32-bit values.
        predicted: the same by formula.
        standalone: parameters of the task's standalone network, or networks.
        share: `added` divided by `standalone`.
        total: parameters of all tasks so far, divided by those of the first task's standalone network.
        bytes: of the files of all tasks so far.
        steps: of the task's training.
        seconds: of training; 0 if the first task's network was taken over.
        peak_memory: in bytes; None if unknown for all seeds.
    """

    task: str
    order: int
    added: Spread
    predicted: Spread
    standalone: float
    share: Spread
    total: Spread
    bytes: Spread
    steps: Spread
    seconds: Spread
    peak_memory: Spread | None


def base_of(metric: str) -> tuple[str, str]:
    """Return a metric's base and its direction: "AtoB", "BtoA" or ""."""
    base, suffix = split_metric(metric)
    # A cycle that begins in A counts as A -> B.
    return base, {"A": "AtoB", "B": "BtoA"}.get(suffix, suffix)


def tasks(results: Results) -> tuple[str, ...]:
    """Return all tasks of the experiment, learned yet or not, in order."""
    return tuple(task["name"] for task in results.experiment["tasks"])


def strategies(results: Results) -> tuple[str, ...]:
    """Return the labels of all strategies, in order."""
    return tuple(strategy["label"] for strategy in results.experiment["strategies"])


def metrics(results: Results, task: str | None = None) -> tuple[str, ...]:
    """Return the bases of all measured metrics, of a task or of any, in the order of `METRICS`."""
    found = {
        base_of(metric)[0]: None
        for stage in results.stages
        for name, figures in stage.figures.items()
        if task in (None, name)
        for metric in figures
    }
    known = [base for base in METRICS if base in found]
    return (*known, *(base for base in found if base not in known))


def directions(results: Results, task: str) -> tuple[str, ...]:
    """Return the directions of a task's metrics: ("",) for a paired task."""
    found = {base_of(m)[1] for stage in results.stages for m in stage.figures.get(task, {})}
    return tuple(sorted(found)) or ("",)


def standalone_label(results: Results, label: str | None = None) -> str | None:
    """Return the strategy to compare with: the given label, or the first of that kind, or None.

    Raises:
        PiggybackError: no strategy has the given label.
    """
    if label is not None and label not in strategies(results):
        known = ", ".join(strategies(results))
        raise PiggybackError(f"no strategy is called {label!r}; there are: {known}")
    kinds = (s["label"] for s in results.experiment["strategies"] if s.get("kind") == STANDALONE)
    return label or next(kinds, None)


def headline(results: Results) -> str:
    """Return the base that most tasks have; of several the first in the order of `METRICS`."""

    def count(base: str) -> int:
        return sum(base in metrics(results, task) for task in tasks(results))

    return max(metrics(results), key=count, default=next(iter(METRICS)))


def reached(results: Results, strategy: str) -> int:
    """Return the number of tasks that a strategy has learned with any seed."""
    return max((s.order for s in results.stages if s.strategy == strategy), default=0)


def figures(
    results: Results, strategy: str, task: str, metric: str, order: int
) -> dict[int, Figure]:
    """Return each seed's figure after `order` tasks; `metric` includes the direction."""
    return {
        stage.seed: stage.figures[task][metric]
        for stage in _stages(results, strategy, order)
        if metric in stage.figures.get(task, {})
    }


def final(results: Results, strategy: str, task: str, metric: str) -> dict[int, Figure]:
    """Return each seed's figure after the last task."""
    return figures(results, strategy, task, metric, reached(results, strategy))


def when_learned(results: Results, strategy: str, task: str, metric: str) -> dict[int, Figure]:
    """Return each seed's figure when the task was the newest."""
    return figures(results, strategy, task, metric, tasks(results).index(task) + 1)


def matrix(results: Results, strategy: str, metric: str) -> dict[str, list[Spread | None]]:
    """Return every task's values after each task: task -> a spread for each number of tasks, from 1 on.

    It is None before the task is learned, and if nothing was measured. Seeds that are behind are left out:
    means over different seeds would look like a change.
    """
    last = {stage.seed for stage in _stages(results, strategy, reached(results, strategy))}
    orders = range(1, len(tasks(results)) + 1)
    every = {
        task: [_values(figures(results, strategy, task, metric, order), last) for order in orders]
        for task in tasks(results)
    }
    return {task: spreads for task, spreads in every.items() if any(spreads)}


def forgetting(results: Results, strategy: str, base: str) -> Spread | None:
    """Return average forgetting, in the metric's unit; positive is worse.

    The mean, over all tasks but the newest, of how much worse the task is than it ever was
    (Chaudhry et al., "Riemannian walk", ECCV 2018, section 4.1).
    """
    return _over_earlier_tasks(results, strategy, base, lambda good: max(good[:-1]) - good[-1])


def backward_transfer(results: Results, strategy: str, base: str) -> Spread | None:
    """Return backward transfer, in the metric's unit; positive is better.

    The mean, over all tasks but the newest, of the final value less the one when learned, with the sign
    turned where lower is better (Lopez-Paz and Ranzato, "Gradient episodic memory", NeurIPS 2017).
    """
    return _over_earlier_tasks(results, strategy, base, lambda good: good[-1] - good[0])


def ratio(results: Results, strategy: str, standalone: str, task: str, base: str) -> Spread | None:
    """Return a task's final value divided by a standalone network's of the same seed, when it was learned.

    The mean of the directions' ratios, so that both weigh the same. None if a value is missing, or a
    standalone's is not positive.
    """
    order = tasks(results).index(task) + 1
    reference = {s.seed: _directed(s, task, base) for s in _stages(results, standalone, order)}
    by_seed = {}
    for stage in _stages(results, strategy, reached(results, strategy)):
        values, wholes = _directed(stage, task, base), reference.get(stage.seed, {})
        if values and values.keys() == wholes.keys() and min(wholes.values()) > 0:
            by_seed[stage.seed] = fmean(values[way] / wholes[way] for way in values)
    return Spread(by_seed) if by_seed else None


def mean_ratio(results: Results, strategy: str, standalone: str, base: str) -> Spread | None:
    """Return the mean of `ratio` over tasks 2, 3, ...: the first is the same network for most strategies.

    Seeds that lack a task's ratio are left out, so that tasks weigh the same in every seed.
    """
    ratios = [ratio(results, strategy, standalone, task, base) for task in tasks(results)[1:]]
    found = [spread.by_seed for spread in ratios if spread is not None]
    seeds = [seed for seed in found[0] if all(seed in r for r in found)] if found else []
    return Spread({seed: fmean(r[seed] for r in found) for seed in seeds}) if seeds else None


def identical(results: Results, strategy: str) -> dict[str, tuple[int, int]]:
    """Count outputs that are bit-identical to when their task was learned: task -> (identical, all).

    At the end, for all tasks but the newest, over all seeds.
    """
    counts: dict[str, tuple[int, int]] = {}
    for stage in _stages(results, strategy, reached(results, strategy)):
        for task, (same, of) in stage.identical.items():
            if task != stage.task:
                before = counts.get(task, (0, 0))
                counts[task] = (before[0] + same, before[1] + of)
    return counts


def identical_in_all(results: Results, strategy: str) -> tuple[int, int]:
    """Return the sums of `identical` over all earlier tasks."""
    counts = identical(results, strategy).values()
    return sum(same for same, _ in counts), sum(of for _, of in counts)


def curve(stage: Stage) -> tuple[str, dict[int, float]]:
    """Return a stage's learning curve: a base, and steps -> value.

    The base is the perceptual distance if the curve has it, else L1; of an unpaired task the mean over
    both directions. ("", {}) without a curve.
    """
    for base in _CURVE_METRICS:
        points = {}
        for point in stage.curve:
            values = [value for key, value in point.items() if base_of(key)[0] == base]
            if values:
                points[int(point["step"])] = fmean(values)
        if points:
            return base, points
    return "", {}


def steps_to_reach(
    results: Results, strategy: str, standalone: str, task: str
) -> dict[int, int | None]:
    """Return forward transfer: seed -> steps until a task is as good as the standalone network at its end.

    By `curve`; None for never. Seeds without both curves are left out.
    """
    order = tasks(results).index(task) + 1
    goals = {s.seed: curve(s) for s in _stages(results, standalone, order)}
    found: dict[int, int | None] = {}
    for stage in _stages(results, strategy, order):
        base, points = curve(stage)
        goal_base, goal_points = goals.get(stage.seed, ("", {}))
        if points and base == goal_base:
            goal = goal_points[max(goal_points)]
            good = [step for step, value in points.items() if value <= goal]
            found[stage.seed] = min(good, default=None)
    return found


def cost(results: Results, strategy: str) -> list[Cost]:
    """Return the cost of each task, in the order of learning."""
    costs = []
    for order in range(1, reached(results, strategy) + 1):
        before = {s.seed: s.parameters for s in _stages(results, strategy, order - 1)}
        first = {s.seed: s.standalone for s in _stages(results, strategy, 1)}
        stages = {s.seed: s for s in _stages(results, strategy, order)}
        added = {seed: s.parameters - before.get(seed, 0) for seed, s in stages.items()}
        memory = {k: float(s.peak_memory) for k, s in stages.items() if s.peak_memory is not None}
        costs.append(
            Cost(
                task=tasks(results)[order - 1],
                order=order,
                added=Spread(added),
                predicted=Spread({seed: s.predicted for seed, s in stages.items()}),
                standalone=next(s.standalone for s in stages.values()),
                share=Spread({seed: added[seed] / s.standalone for seed, s in stages.items()}),
                total=Spread({seed: s.parameters / first[seed] for seed, s in stages.items()}),
                bytes=Spread({seed: s.bytes for seed, s in stages.items()}),
                steps=Spread({seed: s.steps for seed, s in stages.items()}),
                seconds=Spread({seed: s.seconds for seed, s in stages.items()}),
                peak_memory=Spread(memory) if memory else None,
            )
        )
    return costs


def missing(results: Results) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return what is not done yet: strategy, seed, and tasks."""
    names, done = tasks(results), {(s.strategy, s.seed, s.order) for s in results.stages}
    gaps = []
    for described in results.experiment["strategies"]:
        strategy = described["label"]
        for seed in described.get("seeds", results.experiment["seeds"]):
            last = sum((strategy, seed, k) in done for k in range(1, len(names) + 1))
            if last < len(names):
                gaps.append((strategy, seed, names[last:]))
    return gaps


def _stages(results: Results, strategy: str, order: int) -> list[Stage]:
    return [s for s in results.stages if s.strategy == strategy and s.order == order]


def _values(figures: Mapping[int, Figure], seeds: set[int]) -> Spread | None:
    by_seed = {seed: f.value for seed, f in figures.items() if seed in seeds}
    return Spread(by_seed) if by_seed else None


def _directed(stage: Stage, task: str, base: str) -> dict[str, float]:
    """A task's value after a stage, for each of its directions."""
    named = {base_of(metric): f.value for metric, f in stage.figures.get(task, {}).items()}
    return {direction: value for (of, direction), value in named.items() if of == base}


def _over_earlier_tasks(
    results: Results, strategy: str, base: str, measure: Callable[[list[float]], float]
) -> Spread | None:
    """Average a measure over all tasks but the newest, for each seed that is at the end.

    The measure takes a task's values from when it was learned to the end, with the sign such that higher is
    better.
    """
    by_seed = {}
    sign = 1 if higher_is_better(base) else -1
    for last in _stages(results, strategy, reached(results, strategy)):
        stages = [s for s in results.stages if (s.strategy, s.seed) == (strategy, last.seed)]
        measured = []
        for task in tasks(results)[: last.order - 1]:
            every = (_directed(stage, task, base).values() for stage in stages)
            values = [sign * fmean(directed) for directed in every if directed]
            if len(values) > 1:
                measured.append(measure(values))
        if measured:
            by_seed[last.seed] = fmean(measured)
    return Spread(by_seed) if by_seed else None
