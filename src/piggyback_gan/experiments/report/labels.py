"""How metrics and directions are called in a report."""

from piggyback_gan.evaluation.metric_names import higher_is_better, metric_label
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.results import Results

DIRECTIONS = {"AtoB": " A → B", "BtoA": " B → A", "": ""}
"""How a direction is called behind a task's or strategy's name."""


def name_of(base: str) -> str:
    """A metric as it is called in headings."""
    return metric_label(base, unit=True)


def arrow(base: str) -> str:
    """Which way is better."""
    return "↑" if higher_is_better(base) else "↓"


def heading(base: str) -> str:
    """A metric's name, and which way is better."""
    return f"{name_of(base)} {arrow(base)}"


def metric_of(results: Results, task: str, base: str, direction: str) -> str:
    """The name under which a task's figures have a base and a direction."""
    names = (m for s in results.stages for m in s.figures.get(task, {}))
    return next((m for m in names if summary.base_of(m) == (base, direction)), base)
