"""Plot a run's losses and validation metrics by epoch."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.metric_names import higher_is_better, metric_label
from piggyback_gan.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDES = ("A", "B", "AtoB", "BtoA")
_DASHED = ("B", "BtoA")
_ADVERSARIAL = ("discriminator", "gan")
_ADVERSARIAL_TITLE, _OTHER_TITLE = "adversarial losses", "other losses"
_WIDE_RANGE = 15  # from this ratio of largest to smallest on, values are read better on a log scale
_FEW = 40  # with no more epochs than this, each has a dot
_WIDTH, _HEIGHT, _DPI = 5.2, 2.3, 100  # of one panel, in inches
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.62, 0.15, 0.28, 0.44  # a panel's margins
_FONT = 8


class _Curve(NamedTuple):
    """Values of one loss or metric; `kind` is its name without the side, and `side` is "" if it has none."""

    name: str
    kind: str
    side: str
    epochs: list[int]
    values: list[float]


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw `draw_curves`'s figure into a PNG file, which is replaced atomically.

    The same records give the same bytes.

    Args:
        records: as for `draw_curves`.
        path: the file to write, in an existing folder.

    Raises:
        PiggybackError: there is nothing to draw, or the file can't be written; an earlier file is unchanged.
    """
    figure = draw_curves(records)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    atomic_write(path, picture.getvalue())


def draw_curves(records: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw a run's losses and validation metrics by epoch.

    Adversarial losses (discriminator, gan) share one panel, all other losses another; every metric has
    a panel of its own, with a ring around its best epoch (the lowest, for PSNR and SSIM the highest).
    Names of the two sides of an unpaired task (``cycle_A`` and ``cycle_B``, ``{"AtoB": {"l1": .}}``)
    share a panel and a colour, B and BtoA dashed. Values that are missing or not finite are left out.

    Args:
        records: the lines of metrics.jsonl, an epoch each: ``epoch``, ``loss`` (name to number) and
            ``validation`` (name to number or to such a mapping; None where nothing is held out).

    Raises:
        PiggybackError: there is nothing to draw.
    """
    # Imported late, as it takes half a second. No pyplot: its figures are global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = _loss_panels(_curves(records, "loss"))
    metrics = _metric_panels(_curves(records, "validation"))
    columns = [column for column in (losses, metrics) if column]
    if not columns:
        raise PiggybackError("no curves to draw: found no loss and no metric that is a number")
    width, height = _WIDTH * len(columns), _HEIGHT * max(1.5, *map(len, columns))
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    last_epoch = max(int(record["epoch"]) for record in records)
    for index, column in enumerate(columns):
        tall = height / len(column)
        for row, (title, curves) in enumerate(column.items()):
            left, bottom = index * _WIDTH + _LEFT, height - (row + 1) * tall + _BELOW
            across, up = _WIDTH - _LEFT - _RIGHT, tall - _BELOW - _ABOVE
            # Placed by hand: a layout engine draws all panels twice, for twice the time.
            axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
            _draw(axes, title, curves, last_epoch)
            if column is losses:
                _scale(axes, title, curves)
            else:
                _mark_best(axes, curves)
            if row == len(column) - 1:
                axes.set_xlabel("epoch", fontsize=_FONT)
    return figure


def _curves(records: Sequence[Mapping[str, Any]], part: str) -> list[_Curve]:
    """Collect all names in a part of the records, in the order of their first appearance."""
    curves: dict[str, _Curve] = {}
    for record in records:
        for name, value in _flat(record.get(part) or {}).items():
            if name not in curves:
                words = re.split(r"[_/. ]", name)
                side = next((word for word in words if word in _SIDES), "")
                kind = "_".join(word for word in words if word not in _SIDES)
                curves[name] = _Curve(name, kind or name, side, [], [])
            if isinstance(value, int | float) and math.isfinite(value):
                curves[name].epochs.append(int(record["epoch"]))
                curves[name].values.append(float(value))
    return [curve for curve in curves.values() if curve.values]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, joining names by a space."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[prefix + name] = value
    return flat


def _loss_panels(curves: Sequence[_Curve]) -> dict[str, list[_Curve]]:
    panels: dict[str, list[_Curve]] = {_ADVERSARIAL_TITLE: [], _OTHER_TITLE: []}
    for curve in curves:
        title = _ADVERSARIAL_TITLE if curve.kind in _ADVERSARIAL else _OTHER_TITLE
        panels[title].append(curve)
    return {title: members for title, members in panels.items() if members}


def _metric_panels(curves: Sequence[_Curve]) -> dict[str, list[_Curve]]:
    panels: dict[str, list[_Curve]] = {}
    for curve in curves:
        better = "higher" if higher_is_better(curve.kind) else "lower"
        title = f"held-out {metric_label(curve.kind, unit=True)}: {better} is better"
        panels.setdefault(title, []).append(curve)
    return panels


def _draw(axes: "Axes", title: str, curves: Sequence[_Curve], last_epoch: int) -> None:
    from matplotlib.ticker import MaxNLocator

    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    for curve in curves:
        axes.plot(
            curve.epochs,
            curve.values,
            color=f"C{kinds.index(curve.kind)}",
            linestyle="--" if curve.side in _DASHED else "-",
            marker="." if last_epoch <= _FEW else "",
            linewidth=1.4,
            label=curve.name,
        )
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlim(0.5, last_epoch + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(which="both", labelsize=_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: "Axes", title: str, curves: Sequence[_Curve]) -> None:
    """Scale a loss panel. Adversarial losses are never logarithmic: near 0 they should look like 0."""
    values = [value for curve in curves for value in curve.values]
    positive = min(values) > 0
    if title == _ADVERSARIAL_TITLE:
        if positive:
            axes.set_ylim(bottom=0)
    elif positive and max(values) > _WIDE_RANGE * min(values):
        axes.set_yscale("log")
    axes.legend(fontsize=_FONT, frameon=False)


def _mark_best(axes: "Axes", curves: Sequence[_Curve]) -> None:
    """Draw a ring around each curve's best epoch; the legend has the epoch and its value."""
    for line, curve in zip(list(axes.lines), curves, strict=True):
        pick = max if higher_is_better(curve.kind) else min
        value = pick(curve.values)
        epoch = curve.epochs[curve.values.index(value)]
        axes.plot(
            epoch, value, "o", markersize=8, mfc="none", color=line.get_color(), clip_on=False
        )
        whose = f"{curve.side}, " if curve.side else ""
        line.set_label(f"{whose}best: {value:.4g} in epoch {epoch}")
    axes.legend(fontsize=_FONT, frameon=False)
