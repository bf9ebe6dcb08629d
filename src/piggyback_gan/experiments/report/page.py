"""Report of an experiment: a static page, with its plots, tables and pictures as files beside it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.experiments.report import plots, summary
from piggyback_gan.experiments.report import tables as views
from piggyback_gan.experiments.report.contact_sheets import write_sheets
from piggyback_gan.experiments.report.findings import findings, notes_on_rates
from piggyback_gan.experiments.report.labels import name_of
from piggyback_gan.experiments.report.table import Table
from piggyback_gan.experiments.results import Results

PAGE = "index.html"
_CONTENTS = "contents.txt"
_SECTIONS = {
    "summary": "Summary",
    "quality": "Quality",
    "pictures": "Pictures",
    "forgetting": "Forgetting",
    "transfer": "Forward transfer",
    "costs": "Cost",
    "settings": "Settings",
}


@dataclass(frozen=True)
class Plot:
    """Plot of the page; `name` is that of its files, without suffix."""

    name: str
    alt: str
    caption: str


def write_report(folder: Path, out: Path | None = None, standalone: str | None = None) -> Path:
    """Write the report of an experiment, finished or not; an earlier report is replaced as a whole.

    Args:
        folder: the experiment's.
        out: the report's; None for `report` in the experiment's folder.
        standalone: the label of the strategy to compare with; None for the first of that kind.

    Returns:
        The page.

    Raises:
        PiggybackError: the folder is not an experiment's or is damaged, nothing is measured yet, no strategy
            has the label, or `out` has other files than a report's.
    """
    results = Results.read(folder)
    if not results.stages:
        raise PiggybackError(f"{folder} has no finished task yet: run the experiment first")
    compared = summary.standalone_label(results, standalone)
    out = (out or folder / "report").resolve()
    with _replacing(out) as new:
        for name in ("tables", "plots"):
            (new / name).mkdir()
        content = _content(results, compared, new)
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("piggyback_gan.experiments.report"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        page = environment.get_template("report.html").render(content)
        (new / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `out` at the end, if nothing is raised."""
    if out.exists():
        _refuse_foreign(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        (new / _CONTENTS).write_text("\n".join(_files(new)) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(Path(temporary) / "old")
        new.rename(out)


def _refuse_foreign(out: Path) -> None:
    """Raise PiggybackError if `out` has a file that was not written by a report."""
    problem = f"{out} is not a report's folder" if out.is_dir() else f"{out} is a file"
    contents = out / _CONTENTS
    known = contents.read_text(encoding="utf-8").split("\n") if contents.is_file() else []
    for file in _files(out) if out.is_dir() else [out.name]:
        if file not in (*known, _CONTENTS):
            raise PiggybackError(f"{problem}: found {file}; choose another with --out")


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def _content(results: Results, standalone: str | None, new: Path) -> dict[str, Any]:
    """Write the files that the page links to, and return the values of its template."""
    experiment = results.experiment
    features = experiment.get("features") or {}
    forgetting, backward = summary.forgetting, summary.backward_transfer
    single = {
        "overview": views.overview(results, standalone),
        "ratios": views.ratios(results, standalone) if standalone else None,
        "identity": views.identity(results),
        "forgetting": views.by_strategy(results, "forgetting", "Average forgetting", forgetting),
        "backward": views.by_strategy(results, "backward-transfer", "Backward transfer", backward),
        "forward": views.forward_transfer(results, standalone) if standalone else None,
        "costs": views.costs(results),
        "rates": views.rates_tried(results),
    }
    groups = {
        "quality": [views.quality(results, task) for task in summary.tasks(results)],
        "matrices": [views.matrix(results, base) for base in _bases(results)],
    }
    for table in (*single.values(), *groups["quality"], *groups["matrices"]):
        if table is not None:
            (new / "tables" / f"{table.name}.csv").write_bytes(table.csv())
            (new / "tables" / f"{table.name}.tex").write_bytes(table.latex())
    (new / "tables" / "figures.csv").write_bytes(views.every_figure(results))
    drawn = _plots(results, standalone, new)
    reading, reading_quality = _reading(results)
    hidden = () if single["forward"] or drawn["transfer_plots"] else ("transfer",)
    return {
        **single,
        **groups,
        **drawn,
        "title": experiment.get("title") or experiment.get("name") or results.folder.name,
        "subtitle": _subtitle(results),
        "contents": [pair for pair in _SECTIONS.items() if pair[0] not in hidden],
        "findings": findings(results, standalone),
        "missing": _missing(results, standalone),
        "reading": reading,
        "reading_quality": reading_quality,
        "notes": notes_on_rates(results),
        "features": features.get("name", ""),
        "seed": experiment["seeds"][0],
        "sheets": write_sheets(results, new),
        "warnings": _warnings(results),
        "settings": _settings(results),
        "file": experiment.get("file", ""),
    }


def _plots(results: Results, standalone: str | None, new: Path) -> dict[str, Any]:
    base = summary.headline(results)
    first = summary.tasks(results)[0]

    def save(name: str, figure: Any, alt: str, caption: str) -> Plot:
        for suffix, content in plots.files(figure):
            (new / "plots" / f"{name}{suffix}").write_bytes(content)
        return Plot(name, alt, caption)

    with plots.style():
        return {
            "quality_plots": [
                save(
                    f"quality-{metric}",
                    plots.quality(results, metric),
                    f"{name_of(metric)} of every task and strategy; the numbers are in the tables",
                    f"{name_of(metric)}: a mark for each seed, with its 95 % bootstrap interval.",
                )
                for metric in _bases(results)
            ],
            "first_task_plot": save(
                "first-task",
                plots.first_task(results, base),
                f"{name_of(base)} of {first} after every task; the numbers are in the tables below",
                "A line that stays level forgets nothing. Means over seeds.",
            ),
            "transfer_plots": [
                save(
                    f"forward-transfer-{order}",
                    figure,
                    f"Curves of every strategy while it learns {task}",
                    "Means over seeds. Dotted: the standalone network at its end; a ring: as good as that.",
                )
                for order, task in enumerate(summary.tasks(results)[1:], 2)
                if (figure := plots.transfer(results, standalone, task))
            ],
            "cost_plots": [
                save(
                    f"cost-{metric}",
                    plots.cost(results, standalone, metric),
                    f"{name_of(metric)} of every strategy against what its later tasks cost",
                    f"{name_of(metric)}, relative to standalone networks, against what a later task costs. "
                    "Means over tasks 2 and on, and over seeds.",
                )
                for metric in _bases(results)
                if standalone is not None
                and metric in (base, "frechet_distance")
                and any(
                    summary.mean_ratio(results, label, standalone, metric)
                    for label in summary.strategies(results)
                )
            ],
            "parameters_plot": save(
                "parameters",
                plots.parameters(results),
                "Parameters of all tasks so far, by strategy; the numbers are in the table below",
                "How much is kept after every task. Means over seeds.",
            ),
        }


def _bases(results: Results) -> list[str]:
    """All metrics, the summary's first."""
    first = summary.headline(results)
    return [first, *(base for base in summary.metrics(results) if base != first)]


def _subtitle(results: Results) -> str:
    counts = {
        ("task", "tasks"): len(summary.tasks(results)),
        ("strategy", "strategies"): len(summary.strategies(results)),
        ("seed", "seeds"): len(results.experiment["seeds"]),
    }
    parts = [f"{count} {names[count != 1]}" for names, count in counts.items()]
    started = results.experiment.get("started")
    return ", ".join(parts) + (f". Started {started}." if started else ".")


def _missing(results: Results, standalone: str | None) -> list[str]:
    lines = [
        f"{strategy}, seed {seed}: {', '.join(names)}"
        for strategy, seed, names in summary.missing(results)
    ]
    if standalone is None:
        lines.append("a strategy of the kind standalone: nothing is compared with one")
    return lines


def _reading(results: Results) -> tuple[str, str]:
    """Explain the intervals of most tables, and of those of metrics under Quality."""
    if len(results.experiment["seeds"]) == 1:
        figures = "One seed: how far another training would move these figures is unknown."
        metrics = (
            "Below a metric is its 95 % bootstrap interval over images: how far other images would move it, "
            "not how far another training would."
        )
        return figures, metrics
    spread = "Means over seeds. Below a mean are the smallest and the largest of any seed"
    metrics = (
        f"{spread}; where only one seed is done, a metric has its 95 % bootstrap interval over images. "
        "The intervals of every seed are in figures.csv and in the plots."
    )
    return f"{spread}.", metrics


def _warnings(results: Results) -> list[tuple[str, str]]:
    """Every warning once, and its places."""
    found: dict[str, list[str]] = {}
    for stage in results.stages:
        place = f"{stage.strategy}, seed {stage.seed}, {stage.task}"
        for warning in stage.warnings:
            found.setdefault(warning, []).append(place)
    return [(text, first_names(where, 1, ", ")) for text, where in found.items()]


def _settings(results: Results) -> list[Table]:
    """Every setting but the file's text; behind each strategy's candidates the learning rate used."""
    experiment = results.experiment
    apart = ("tasks", "strategies", "file", "generator", "title")
    general = {key: value for key, value in experiment.items() if key not in apart}
    by_task = {task["name"]: task for task in experiment["tasks"]}
    before = ("label", "kind", "options", "learning_rates")
    by_label = {
        strategy["label"]: {
            **{key: strategy[key] for key in before if key in strategy},
            "rate used": views.rate_used(results, strategy["label"]),
            **strategy,
        }
        for strategy in experiment["strategies"]
    }
    return [
        views.side_by_side("run", "The run", {"value": general}),
        views.side_by_side("generator", "Generator", {"value": experiment.get("generator", {})}),
        views.side_by_side("tasks", "Tasks", by_task),
        views.side_by_side("strategies", "Strategies", by_label),
    ]
