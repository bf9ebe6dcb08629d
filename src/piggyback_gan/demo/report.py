"""Write the demo's report: a contact sheet, and a static HTML page with the sheet and a table."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from piggyback_gan.demo.run import Learned
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.system.files import atomic_write

COLUMNS = ("input", "when learned", "after the last", "target")
HEADINGS = (
    "task",
    "parameters added",
    "share of standalone",
    "PSNR learned",
    "PSNR now",
    "bit-identical",
)
_ZOOM = 2
_GAP = 6
_TITLE = 34


def table_rows(learned: Sequence[Learned]) -> list[tuple[str, ...]]:
    """Return the figures as text, in the order of `HEADINGS`."""
    return [
        (
            task.task,
            f"{task.parameters:,}",
            f"{task.share:.3f}",
            f"{task.when_learned.metrics['psnr']:.2f} dB",
            f"{task.after_last.metrics['psnr']:.2f} dB",
            "yes" if task.identical else "NO",
        )
        for task in learned
    ]


def write_report(out: Path, learned: Sequence[Learned]) -> tuple[Path, Path]:
    """Write contact-sheet.png and index.html into a folder and return both paths."""
    sheet, page = out / "contact-sheet.png", out / "index.html"
    _contact_sheet(learned).save(sheet)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("piggyback_gan.demo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    text = environment.get_template("page.html").render(
        learned=learned,
        headings=HEADINGS,
        rows=table_rows(learned),
        size=sum(task.parameters for task in learned) / learned[0].parameters,
        kept=all(task.identical for task in learned),
        sheet=sheet.name,
    )
    atomic_write(page, text.encode())
    return sheet, page


def _contact_sheet(learned: Sequence[Learned]) -> Image.Image:
    """Draw the tasks below each other, with two test pairs per line and four images per pair."""
    size = learned[0].sheet[0][0].shape[0] * _ZOOM
    pairs_a_line = 2
    block = len(COLUMNS) * (size + _GAP) + 2 * _GAP
    lines = [-(-len(task.sheet) // pairs_a_line) for task in learned]
    height = sum(_TITLE + n * (size + _GAP) for n in lines) + _GAP
    picture = Image.new("RGB", (pairs_a_line * block, height), "white")
    draw = ImageDraw.Draw(picture)
    title, small = ImageFont.load_default(16), ImageFont.load_default(11)
    top = 0
    for task, count in zip(learned, lines, strict=True):
        draw.text((_GAP, top + 1), task.task, fill="black", font=title)
        for pair in range(pairs_a_line):
            for column, words in enumerate(COLUMNS):
                left = pair * block + _GAP + column * (size + _GAP)
                draw.text((left, top + _TITLE - 14), words, fill="#444444", font=small)
        for index, images in enumerate(task.sheet):
            line, pair = divmod(index, pairs_a_line)
            for column, image in enumerate(images):
                place = (
                    pair * block + _GAP + column * (size + _GAP),
                    top + _TITLE + line * (size + _GAP),
                )
                picture.paste(_enlarged(image), place)
        top += _TITLE + count * (size + _GAP)
    return picture


def _enlarged(image: Pixels) -> Image.Image:
    return Image.fromarray(np.repeat(np.repeat(image, _ZOOM, axis=0), _ZOOM, axis=1))
