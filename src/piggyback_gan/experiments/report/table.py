"""Tables of a report: the same cells for the page, for CSV (all digits) and for LaTeX (as on the page)."""

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
"""In place of a number of digits: show whole numbers."""
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
    """One cell.

    Attributes:
        text: what is shown.
        number: what the text stands for, with all digits; None where it is no number.
        bounds: the number's interval, shown below it where it is wider than the digits shown.
        digits: how many are shown of the bounds.
        of: what the number is a count of; only CSV needs it, the text says it.
        note: more words below; not in CSV.
        shade: how strongly the page colours it, 0 to 1; below 0 in the colour of what got better.
        strong: whether it is set in bold type.
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
    """A table with a name of its own, which its files have too.

    Attributes:
        name: of its files, without a suffix.
        title: what it shows, in a few words.
        headings: one for each column.
        rows: as many cells each as there are headings.
        words: how many columns, from the left, hold words.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1

    def csv(self) -> bytes:
        """As CSV (RFC 4180, UTF-8).

        A column with intervals is followed by its "low" and "high", one of counts by its "of". What is not
        there is an empty field.
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
        """As a plain `tabular`, which needs no package; intervals stand behind their values."""
        lines = [
            rf"\begin{{tabular}}{{{'l' * self.words}{'r' * (len(self.headings) - self.words)}}}"
        ]
        lines += [r"\hline", " & ".join(map(escape, self.headings)) + r" \\", r"\hline"]
        for row in self.rows:
            cells = (escape(" ".join((c.text, c.interval, c.note and f"({c.note})"))) for c in row)
            lines.append(" & ".join(cells) + r" \\")
        return ("\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n").encode()


def csv_bytes(lines: Sequence[Sequence[str]]) -> bytes:
    """Lines of cells as a CSV file."""
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
    """Text as LaTeX sets it, whatever is in it, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def show(value: float, digits: int = 4) -> str:
    """A number for the eye: so many digits that say something, a true minus sign."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:#.{digits}g}"
    if digits == WHOLE or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    return text.replace("-", MINUS)


def words(text: object) -> Cell:
    """A cell without a number."""
    return Cell(str(text))


def spread_cell(spread: Spread | None, digits: int = 4) -> Cell:
    """The mean over seeds, with the smallest and largest where there are several."""
    if spread is None:
        return Cell(NOTHING)
    bounds = (spread.low, spread.high) if len(spread.by_seed) > 1 else None
    return Cell(show(spread.mean, digits), spread.mean, bounds, digits)


def figure_cell(figures: Mapping[int, Figure]) -> Cell:
    """A metric: with several seeds their mean, smallest and largest; with one its bootstrap interval."""
    if len(figures) == 1:
        (figure,) = figures.values()
        return Cell(show(figure.value), figure.value, (figure.low, figure.high))
    return spread_cell(Spread({seed: f.value for seed, f in figures.items()}) if figures else None)
