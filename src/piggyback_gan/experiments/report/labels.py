"""Names of metrics and directions in a report."""

from piggyback_gan.evaluation.metric_names import higher_is_better, metric_label
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.results import Results

DIRECTIONS = {"AtoB": " A → B", "BtoA": " B → A", "": ""}
"""A direction as a suffix of a task's or strategy's name."""


def name_of(base: str) -> str:
    """Return a metric's name in headings."""
    return metric_label(base, unit=True)


def arrow(base: str) -> str:
    """Return an arrow to where values are better."""
    return "↑" if higher_is_better(base) else "↓"


def heading(base: str) -> str:
    """Return a metric's name and the arrow to better values."""
    return f"{name_of(base)} {arrow(base)}"


def metric_of(results: Results, task: str, base: str, direction: str) -> str:
    """Return the name of a base and direction among a task's figures."""
    names = (m for s in results.stages for m in s.figures.get(task, {}))
    return next((m for m in names if summary.base_of(m) == (base, direction)), base)
