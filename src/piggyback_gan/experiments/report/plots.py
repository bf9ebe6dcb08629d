"""Plots of a report. Every strategy has its own colour, marker and line style; lines are labelled at their ends."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.labels import DIRECTIONS, heading, metric_of, name_of
from piggyback_gan.experiments.results import Results, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow, which is too pale.
_COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "osD^vPX<>*"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_LEAST_SHARE = 1e-3
_WIDE_RANGE = 15  # ratio of largest to smallest from which a log scale reads better
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "text.parse_math": False,  # a task may have a dollar sign in its name
    "svg.hashsalt": "pbgan",  # the same figures give the same bytes
}
_POINTER = {"arrowstyle": "-", "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 10}
_Points = Mapping[float, float]


class _End(NamedTuple):
    """End of a line, and the line's style."""

    y: float
    x: float
    label: str
    look: Mapping[str, Any]


def quality(results: Results, base: str) -> "Figure":
    """A metric of every strategy, one panel a task and direction, with intervals; a dot for each seed."""
    panels = [
        (task, direction)
        for task in summary.tasks(results)
        if base in summary.metrics(results, task)
        for direction in summary.directions(results, task)
    ]
    labels = summary.strategies(results)
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(1.6 + 2.6 * columns, lines * (0.9 + 0.3 * len(labels)))
    for index, (task, direction) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, index + 1)
        metric = metric_of(results, task, base, direction)
        for row, label in enumerate(labels):
            found = summary.final(results, label, task, metric)
            for place, one in enumerate(found.values()):
                value = one.value
                if math.isfinite(value):
                    axes.errorbar(
                        value,
                        row + 0.22 * (place - (len(found) - 1) / 2),
                        xerr=[[max(value - one.low, 0)], [max(one.high - value, 0)]],
                        **_mark(row),
                        markersize=5,
                        capsize=2,
                    )
        names = [*labels] if index % columns == 0 else [""] * len(labels)
        axes.set_yticks(range(len(labels)), names)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_title(task + DIRECTIONS[direction])
        axes.set_xlabel(heading(base))
    return figure


def first_task(results: Results, base: str) -> "Figure":
    """The first task's metric after every task: the mean over seeds."""
    task = summary.tasks(results)[0]
    direction = summary.directions(results, task)[0]
    metric = metric_of(results, task, base, direction)
    lines = {}
    for label in summary.strategies(results):
        spreads = summary.matrix(results, label, metric).get(task, [])
        lines[label] = {float(k): s.mean for k, s in enumerate(spreads, 1) if s is not None}
    figure = _figure(7, 3.4)
    axes = figure.add_subplot(title=f"{task + DIRECTIONS[direction]}, after every task")
    _draw_lines(axes, lines)
    _name_tasks(axes, results)
    axes.set_ylabel(heading(base))
    return figure


def parameters(results: Results) -> "Figure":
    """Stored parameters of all tasks so far, in networks; on a log scale if the strategies differ much."""
    lines = {
        label: {float(cost.order): cost.total.mean for cost in summary.cost(results, label)}
        for label in summary.strategies(results)
    }
    figure = _figure(7, 3.4)
    axes = figure.add_subplot(title="Parameters of all tasks so far")
    last = [points[max(points)] for points in lines.values() if points]
    if min(last) > 0 and max(last) > _WIDE_RANGE * min(last):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(last))
    _draw_lines(axes, lines)
    _name_tasks(axes, results)
    axes.set_ylabel("parameters, in networks")
    return figure


def cost(results: Results, standalone: str, base: str) -> "Figure":
    """A metric against a later task's cost, both relative to standalone networks: means over tasks and seeds.

    Costs below a thousandth of a network, such as finetuning's, are at the left edge.
    """
    figure = _figure(7.6, 4.2)
    axes = figure.add_subplot(xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axhline(1, color="#777777", linewidth=1, linestyle=":")
    points = []
    for index, label in enumerate(summary.strategies(results)):
        later = summary.cost(results, label)[1:]
        found = summary.mean_ratio(results, label, standalone, base)
        if later and found is not None and math.isfinite(found.mean):
            share = max(_LEAST_SHARE, fmean(one.share.mean for one in later))
            points.append((share, found.mean, index, label))
    for share, mean, index, label in sorted(points):
        axes.plot(
            share,
            mean,
            **_mark(index),
            linestyle="none",
            markersize=6,
            label=label,
        )
    # Beside the axes, in the order of cost.
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, handletextpad=0.2)
    axes.set_xlabel("what a later task adds, in networks of its own")
    axes.set_ylabel(f"{heading(base)}, in {standalone}'s")
    return figure


def transfer(results: Results, standalone: str | None, task: str) -> "Figure | None":
    """A task's curves, the mean over seeds; None if there are none.

    A ring is where a strategy is as good as the standalone network at its end, the dotted line.
    """
    order = summary.tasks(results).index(task) + 1
    lines, base = {}, ""
    for label in summary.strategies(results):
        stages = [s for s in results.stages if (s.strategy, s.order) == (label, order)]
        found, lines[label] = _mean_curve(stages)
        base = base or found
    if not base:
        return None
    figure = _figure(7, 3.2)
    axes = figure.add_subplot(title=f"Learning {task}", xlabel="steps")
    _draw_lines(axes, lines)
    whole = lines.get(standalone or "")
    if whole:
        goal = whole[max(whole)]
        axes.axhline(goal, color="black", linestyle=":", linewidth=1)
        for points in lines.values():
            good = [step for step, value in points.items() if value <= goal]
            if good:
                axes.plot(min(good), points[min(good)], "o", ms=11, mfc="none", mec="black")
    axes.set_ylabel(f"{name_of(base)}\nof some held-out images ↓")
    return figure


def files(figure: "Figure") -> Iterator[tuple[str, bytes]]:
    """Encode a figure as PNG and SVG: yield suffix and content."""
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        written = io.BytesIO()
        figure.savefig(written, format=suffix[1:], dpi=150, metadata=metadata)
        # Lay out only once: it takes most of the time, and both files must look the same.
        figure.set_layout_engine("none")
        yield suffix, written.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Context in which all plots are drawn and saved."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _mark(index: int) -> dict[str, Any]:
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def _draw_lines(axes: "Axes", lines: Mapping[str, _Points]) -> None:
    """Draw lines by name, in the order of all strategies, with labels at their ends."""
    ends = []
    for index, (label, points) in enumerate(lines.items()):
        points = {x: y for x, y in points.items() if math.isfinite(y)}
        if points:
            look = {
                **_mark(index),
                "linestyle": _LINES[index % len(_LINES)],
                "markersize": 5,
                "linewidth": 1.5,
            }
            axes.plot(list(points), list(points.values()), **look)
            ends.append(_End(points[max(points)], max(points), label, look))
    _name_ends(axes, sorted(ends, key=lambda end: end.y))


def _name_ends(axes: "Axes", ends: Sequence[_End]) -> None:
    """Write names right of the axes, far enough apart to be read, with a thin line to each end."""
    limits = axes.get_ylim()
    to_share = axes.transAxes.inverted().transform
    heights = [float(to_share(axes.transData.transform((end.x, end.y)))[1]) for end in ends]
    for end, place in zip(ends, _apart(heights, gap=0.075), strict=True):
        axes.annotate(
            end.label,
            (end.x, end.y),
            xytext=(1.09, place),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            arrowprops=_POINTER | {"color": end.look["color"]},
        )
        axes.plot(1.075, place, transform=axes.transAxes, clip_on=False, **end.look)
    axes.set_ylim(limits)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights, moved until each is `gap` above the one before and none is below 0."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) - _bottom(groups[-2], gap) < gap * len(
            groups[-2]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [_bottom(group, gap) + gap * k for group in groups for k in range(len(group))]
    # Below the axes are the names of the tasks.
    return [max(place, gap * k) for k, place in enumerate(places)]


def _bottom(group: Sequence[float], gap: float) -> float:
    """The place of a group's first height, with the group around its mean."""
    return fmean(group) - gap * (len(group) - 1) / 2


def _name_tasks(axes: "Axes", results: Results) -> None:
    names = summary.tasks(results)
    axes.set_xticks(range(1, len(names) + 1), names)
    if len(names) > 4:
        axes.tick_params(axis="x", labelrotation=20 if len(names) <= 8 else 60)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set_xlim(0.9, len(names) + 0.1)
    axes.set_xlabel("after learning")


def _mean_curve(stages: Sequence[Stage]) -> tuple[str, dict[float, float]]:
    """Average the seeds' curves at their common steps."""
    found = [curve for stage in stages if (curve := summary.curve(stage))[1]]
    if not found:
        return "", {}
    steps = sorted(set.intersection(*(set(points) for _, points in found)))
    mean = {float(step): fmean(points[step] for _, points in found) for step in steps}
    return found[0][0], mean
