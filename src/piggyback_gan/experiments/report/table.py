"""Cells and tables of a report, for the page, CSV (all digits) and LaTeX (as on the page)."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.report.summary import Spread

NOTHING = "—"
MINUS = "\u2212"
WHOLE = 0
"""A number of digits: show whole numbers."""
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "\u00d7": r"$\times$",
    MINUS: "$-$",
    "∞": r"$\infty$",
    "\u2013": "--",
    "—": "---",
}


@dataclass(frozen=True)
class Cell:
    """Cell of a table.

    Attributes:
        text: shown in the page and in LaTeX.
        number: with all digits; None if the cell is not a number.
        bounds: the number's interval, shown if its ends differ in the digits shown.
        digits: significant digits of the bounds.
        of: for a count, the number of all; for CSV, it is in the text.
        note: shown below; not in CSV.
        shade: strength of the page's colour, 0 to 1 for worse, 0 to -1 for better.
        strong: bold.
    """

    text: str
    number: float | None = None
    bounds: tuple[float, float] | None = None
    digits: int = 4
    of: int | None = None
    note: str = ""
    shade: float = 0
    strong: bool = False

    @property
    def interval(self) -> str:
        """The bounds as text."""
        low, high = (show(bound, self.digits) for bound in self.bounds or (0, 0))
        return "" if low == high else f"[{low}, {high}]"

    @property
    def colour(self) -> str:
        """The shade as a CSS colour: orange for worse, blue for better; dark text can be read on all."""
        hue = "230, 140, 30" if self.shade > 0 else "70, 150, 220"
        return f"rgba({hue}, {min(abs(self.shade), 1) * 0.6:.2f})"


@dataclass(frozen=True)
class Table:
    """Table of a report.

    Attributes:
        name: of its files, without a suffix.
        title: a caption.
        headings: one for each column.
        rows: one cell for each heading.
        words: number of columns, from the left, that are text.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1

    def csv(self) -> bytes:
        """Encode as CSV (RFC 4180, UTF-8).

        A column with intervals is followed by its "low" and "high", one of counts by its "of". A missing
        value is an empty field.
        """
        columns = []
        for index, heading in enumerate(self.headings):
            cells = [row[index] for row in self.rows]
            columns.append([heading, *(_field(cell) for cell in cells)])
            if any(cell.bounds for cell in cells):
                for end, name in enumerate(("low", "high")):
                    bounds = (_digits(cell.bounds[end]) if cell.bounds else "" for cell in cells)
                    columns.append([f"{heading} {name}", *bounds])
            if any(cell.of for cell in cells):
                columns.append([f"{heading} of", *(str(cell.of or "") for cell in cells)])
        return csv_bytes(list(zip(*columns, strict=True)))

    def latex(self) -> bytes:
        """Encode as a LaTeX `tabular`, which needs no package; intervals are behind their values."""
        columns = "l" * self.words + "r" * (len(self.headings) - self.words)
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
        lines += [" & ".join(map(escape, self.headings)) + r" \\", r"\hline"]
        for row in self.rows:
            cells = (escape(" ".join((c.text, c.interval, c.note and f"({c.note})"))) for c in row)
            lines.append(" & ".join(cells) + r" \\")
        return ("\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n").encode()


def csv_bytes(lines: Sequence[Sequence[str]]) -> bytes:
    """Encode lines of cells as CSV."""
    written = io.StringIO(newline="")
    csv.writer(written).writerows(lines)
    return written.getvalue().encode()


def _field(cell: Cell) -> str:
    if cell.number is not None:
        return _digits(cell.number)
    return "" if cell.text == NOTHING else cell.text


def _digits(number: float) -> str:
    """All digits, and no ".0" behind a whole number."""
    return str(int(number)) if float(number).is_integer() else repr(number)


def escape(text: str) -> str:
    """Escape text for LaTeX, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def show(value: float, digits: int = 4) -> str:
    """Format a number with this number of significant digits and a typographic minus sign."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:#.{digits}g}"
    if digits == WHOLE or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    return text.replace("-", MINUS)


def words(text: object) -> Cell:
    """Make a cell without a number."""
    return Cell(str(text))


def spread_cell(spread: Spread | None, digits: int = 4) -> Cell:
    """Make a cell of the mean over seeds, with minimum and maximum of several."""
    if spread is None:
        return Cell(NOTHING)
    bounds = (spread.low, spread.high) if len(spread.by_seed) > 1 else None
    return Cell(show(spread.mean, digits), spread.mean, bounds, digits)


def figure_cell(figures: Mapping[int, Figure]) -> Cell:
    """Make a cell of a metric: mean, minimum and maximum over seeds, or one seed's bootstrap interval."""
    if len(figures) == 1:
        (figure,) = figures.values()
        return Cell(show(figure.value), figure.value, (figure.low, figure.high))
    return spread_cell(Spread({seed: f.value for seed, f in figures.items()}) if figures else None)
