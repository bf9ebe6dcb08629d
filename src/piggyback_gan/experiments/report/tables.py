"""The tables of a report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.labels import DIRECTIONS, arrow, heading, metric_of, name_of
from piggyback_gan.experiments.report.summary import Cost, Spread
from piggyback_gan.experiments.report.table import (
    NOTHING,
    WHOLE,
    Cell,
    Table,
    csv_bytes,
    figure_cell,
    show,
    spread_cell,
    words,
)
from piggyback_gan.experiments.results import Results, has_diverged, rate_folder

_FULL_SHADE = 0.5  # the relative change from which a cell's colour is full


def overview(results: Results, standalone: str | None) -> Table:
    """One line for each strategy."""
    base = summary.headline(results)
    name = name_of(base)
    rows = []
    for label in summary.strategies(results):
        costs = summary.cost(results, label)
        total = costs[-1].total if costs else None
        ratio = summary.mean_ratio(results, label, standalone, base) if standalone else None
        compared = _ratio(results, label, ratio)
        forgotten = spread_cell(summary.forgetting(results, label, base))
        minutes = _sum([cost.seconds for cost in costs[1:]], 1 / 60)
        rows.append(
            {
                "strategy": _label(results, label),
                f"{name}, ratio to standalone, tasks 2 and on {arrow(base)}": compared,
                f"{name}, average forgetting ↓": forgotten,
                "earlier outputs bit-identical": _same(*summary.identical_in_all(results, label)),
                "parameters of all tasks, in networks ↓": spread_cell(total, 3),
                "minutes of training, tasks 2 and on": spread_cell(minutes, 3),
            }
        )
    return _of_rows("overview", "All strategies, after the last task", rows)


def quality(results: Results, task: str) -> Table:
    """A task's figures at the end; if one changed since it was learned, also those when learned."""
    bases = summary.metrics(results, task)
    rows: list[list[Cell]] = []
    for label in summary.strategies(results):
        for direction in summary.directions(results, task):
            now, then = [], []
            for base in bases:
                metric = metric_of(results, task, base, direction)
                last = summary.final(results, label, task, metric)
                first = summary.when_learned(results, label, task, metric)
                now.append(figure_cell(last))
                then.append(figure_cell({seed: first[seed] for seed in last if seed in first}))
            if any(cell.number is not None for cell in now):
                rows.append([_label(results, label, DIRECTIONS[direction]), *now])
                if then != now:
                    earlier = f"{DIRECTIONS[direction]}, when learned"
                    rows.append([_label(results, label, earlier), *then])
    index = summary.tasks(results).index(task) + 1
    headings = ("strategy", *map(heading, bases))
    return Table(f"quality-{index}", f"Task {index}, {task}", headings, tuple(map(tuple, rows)))


def ratios(results: Results, standalone: str) -> Table:
    """Final quality divided by that of standalone networks."""
    bases = summary.metrics(results)
    rows = []
    for label in summary.strategies(results):
        if label == standalone:
            continue
        for task in summary.tasks(results):
            spreads = [summary.ratio(results, label, standalone, task, base) for base in bases]
            cells = [_ratio(results, label, spread) for spread in spreads]
            rows.append((_label(results, label), words(task), *cells))
        means = [summary.mean_ratio(results, label, standalone, base) for base in bases]
        cells = [replace(_ratio(results, label, spread), strong=True) for spread in means]
        rows.append((_label(results, label), words("mean, tasks 2 and on"), *cells))
    title = f"Final value by that of {standalone}, the same seed"
    return Table("ratios", title, ("strategy", "task", *map(heading, bases)), tuple(rows), 2)


def matrix(results: Results, base: str) -> Table:
    """Every task's value after every task, and the change since it was learned in percent and as shade."""
    rows = []
    for label in summary.strategies(results):
        for task in summary.tasks(results):
            for direction in summary.directions(results, task):
                metric = metric_of(results, task, base, direction)
                spreads = summary.matrix(results, label, metric).get(task)
                if spreads is not None:
                    row = _changes(spreads, base)
                    rows.append((_label(results, label), words(task + DIRECTIONS[direction]), *row))
    after = [f"after {task}" for task in summary.tasks(results)]
    return Table(f"matrix-{base}", heading(base), ("strategy", "task", *after), tuple(rows), 2)


def identity(results: Results) -> Table:
    """Number of outputs of each earlier task that are bit-identical to when it was learned."""
    names = summary.tasks(results)[:-1]
    title = "Outputs with the same bits as when learned"
    rows = []
    for label in summary.strategies(results):
        counts = summary.identical(results, label)
        rows.append((_label(results, label), *(_same(*counts.get(task, (0, 0))) for task in names)))
    return Table("identity", title, ("strategy", *names), tuple(rows))


def by_strategy(
    results: Results, name: str, title: str, measure: Callable[[Results, str, str], Spread | None]
) -> Table:
    """A measure of every strategy and metric: forgetting, backward transfer."""
    bases = summary.metrics(results)
    rows = tuple(
        (_label(results, label), *(spread_cell(measure(results, label, base)) for base in bases))
        for label in summary.strategies(results)
    )
    return Table(name, title, ("strategy", *map(name_of, bases)), rows)


def forward_transfer(results: Results, standalone: str) -> Table:
    """Steps until a task is as good as the standalone network at its end."""
    names = summary.tasks(results)[1:]
    rows = []
    for label in summary.strategies(results):
        row = [_label(results, label)]
        for task in names:
            found = summary.steps_to_reach(results, label, standalone, task)
            steps = {seed: count for seed, count in found.items() if count is not None}
            if len(steps) == len(found) and steps:
                row.append(spread_cell(Spread(steps), WHOLE))
            elif found:
                each = (f"{steps.get(seed, 'never')} (seed {seed})" for seed in found)
                row.append(words(", ".join(each) if steps else "never"))
            else:
                row.append(Cell(NOTHING))
        rows.append(tuple(row))
    title = f"Steps until as good as {standalone} at its end"
    return Table("forward-transfer", title, ("strategy", *names), tuple(rows))


def costs(results: Results) -> Table:
    """The cost of every task with every strategy."""
    rows = [
        {"strategy": _label(results, label), "task": words(cost.task), **_cost_cells(cost)}
        for label in summary.strategies(results)
        for cost in summary.cost(results, label)
    ]
    return _of_rows("costs", "Cost of each task", rows, 2)


def rates_tried(results: Results) -> Table | None:
    """The search metric of each candidate learning rate; None if no strategy had several."""
    metric = (results.experiment.get("search") or {}).get("metric", "")
    directions = {t["name"]: t.get("direction") for t in results.experiment["tasks"]}
    scores: dict[tuple[str, float], dict[str, Cell]] = {}
    for stage in results.tried:
        figures = stage.figures.get(stage.task, {})
        figure = figures.get(metric) or figures.get(f"{metric}_{directions[stage.task]}")
        cell = figure_cell({0: figure} if figure else {})
        scores.setdefault((stage.strategy, stage.learning_rate), {})[stage.task] = cell
    candidates = [
        (strategy["label"], rate)
        for strategy in results.experiment["strategies"]
        if len(strategy.get("learning_rates", ())) > 1
        for rate in strategy["learning_rates"]
    ]
    failed = {pair for pair in candidates if has_diverged(rate_folder(results.folder, *pair))}
    if not scores and not failed:
        return None
    used = {(s.strategy, s.learning_rate) for s in results.stages if s.order > 1}
    tasks = dict.fromkeys(task for cells in scores.values() for task in cells)
    rows = tuple(
        (
            words(pair[0]),
            Cell(f"{pair[1]:g}", pair[1]),
            *(scores.get(pair, {}).get(task, Cell(NOTHING)) for task in tasks),
            words("diverged" if pair in failed else "yes" if pair in used else ""),
        )
        for pair in candidates
        if pair in scores or pair in failed
    )
    title = f"Learning rates tried: {name_of(metric)} on a part of the training images"
    return Table("learning-rates", title, ("strategy", "rate", *tasks, "used"), rows)


def every_figure(results: Results) -> bytes:
    """All figures with their bootstrap intervals as CSV, one a line."""
    lines = [("strategy", "seed", "after", "task", "metric", "value", "low", "high")]
    for s in results.stages:
        for task, figures in s.figures.items():
            for metric, f in figures.items():
                numbers = (repr(f.value), repr(f.low), repr(f.high))
                lines.append((s.strategy, str(s.seed), str(s.order), task, metric, *numbers))
    return csv_bytes(lines)


def rate_used(results: Results, label: str) -> str:
    """The learning rate of a strategy's tasks 2 and on; each seed's where they differ."""
    by_seed = {
        s.seed: s.learning_rate for s in results.stages if s.strategy == label and s.order > 1
    }
    if len(set(by_seed.values())) < 2:
        return "".join(f"{rate:g}" for rate in set(by_seed.values())) or NOTHING
    return ", ".join(f"{rate:g} (seed {seed})" for seed, rate in by_seed.items())


def side_by_side(name: str, title: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """Settings of several things, each a column; a line for each setting of any."""
    flat = {key: _flat(content) for key, content in columns.items()}
    keys = dict.fromkeys(key for lines in flat.values() for key in lines)
    rows = tuple(
        (words(key), *(words(lines.get(key, NOTHING)) for lines in flat.values())) for key in keys
    )
    return Table(name, title, ("setting", *flat), rows, 1 + len(flat))


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings: dotted name -> text."""
    lines: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines |= _flat(value, f"{prefix}{key}.")
        else:
            lines[f"{prefix}{key}"] = _plain(value)
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOTHING if value is None else str(value)


def _label(results: Results, label: str, more: str = "") -> Cell:
    """A strategy's name, with a note if its row is not of all tasks or seeds."""
    reached, tasks = summary.reached(results, label), len(summary.tasks(results))
    seeds = _seeds(results, label)
    notes = [f"{reached} of {tasks} tasks"] if reached < tasks else []
    if reached and len(seeds) < len(results.experiment["seeds"]):
        notes.append(_only(seeds))
    return Cell(label + more, note=", ".join(notes))


def _ratio(results: Results, label: str, spread: Spread | None) -> Cell:
    """A ratio, with a note if it is of fewer seeds than the rest of the strategy's row."""
    cell = spread_cell(spread, 3)
    if spread is None or spread.by_seed.keys() == _seeds(results, label):
        return cell
    return replace(cell, note=_only(spread.by_seed))


def _seeds(results: Results, label: str) -> set[int]:
    """The seeds of a strategy that are not behind."""
    reached = summary.reached(results, label)
    return {s.seed for s in results.stages if (s.strategy, s.order) == (label, reached)}


def _only(seeds: Iterable[int]) -> str:
    return f"seed {', '.join(map(str, sorted(seeds)))} only"


def _same(same: int, of: int) -> Cell:
    return Cell(f"{same} of {of}", same, of=of, shade=1 - same / of) if of else Cell(NOTHING)


def _changes(spreads: list[Spread | None], base: str) -> list[Cell]:
    sign = -1 if higher_is_better(base) else 1
    learned = next(spread.mean for spread in spreads if spread is not None)
    cells = []
    for spread in spreads:
        cell = spread_cell(spread)
        if spread is not None and learned and spread.mean != learned:
            change = (spread.mean - learned) / abs(learned)
            worse = "worse" if change * sign > 0 else "better"
            note = f"{worse} {show(abs(change) * 100, 2)} %"
            cell = replace(cell, shade=change * sign / _FULL_SHADE, note=note)
        cells.append(cell)
    return cells


def _sum(spreads: list[Spread], scale: float) -> Spread | None:
    """The sum over tasks, for the seeds that have all of them."""
    if not spreads:
        return None
    seeds = spreads[-1].by_seed
    return Spread({seed: scale * sum(s.by_seed[seed] for s in spreads) for seed in seeds})


def _cost_cells(cost: Cost) -> dict[str, Cell]:
    def scaled(spread: Spread | None, scale: float) -> Cell:
        return spread_cell(_sum([spread], scale) if spread else None, 3)

    is_shared = cost.seconds.high == 0
    return {
        "parameters added": spread_cell(cost.added, WHOLE),
        "by formula": spread_cell(cost.predicted, WHOLE),
        "share of standalone": spread_cell(cost.share, 3),
        "all tasks, in networks": spread_cell(cost.total, 3),
        "all files, MB": scaled(cost.bytes, 1e-6),
        "steps": spread_cell(cost.steps, WHOLE),
        "minutes": Cell(NOTHING, note="shared") if is_shared else scaled(cost.seconds, 1 / 60),
        "peak memory, MB": scaled(cost.peak_memory, 1e-6),
    }


def _of_rows(name: str, title: str, rows: Sequence[Mapping[str, Cell]], words: int = 1) -> Table:
    """Make a table of rows that map headings to cells."""
    return Table(name, title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows), words)
