"""Write the demo's report: a contact sheet, and a static HTML page with the sheet and a table."""

import html
from collections.abc import Sequence
from pathlib import Path

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
    atomic_write(page, _page(learned, sheet.name).encode())
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


def _page(learned: Sequence[Learned], sheet: str) -> str:
    head = "".join(f"<th scope=col>{html.escape(heading)}</th>" for heading in HEADINGS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table_rows(learned)
    )
    whole = sum(task.parameters for task in learned) / learned[0].parameters
    kept = all(task.identical for task in learned)
    verdict = (
        "every output of every task is bit-identical to what it was when the task was learned"
        if kept
        else "NOT every output is bit-identical to what it was when its task was learned"
    )
    first = learned[0].when_learned.images
    return f"""<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>Piggyback GAN demo</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
        color: #1b1b1b; background: #fff }}
 table {{ border-collapse: collapse; display: block; overflow-x: auto }}
 th, td {{ padding: .35rem .9rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }}
 th:first-child, td:first-child {{ text-align: left }}
 img {{ max-width: 100%; height: auto; image-rendering: pixelated }}
 code {{ background: #f1f1f1; padding: .1rem .3rem }}
</style>
<h1>{len(learned)} tasks, one bank</h1>
<p>One bank learned {len(learned)} image-to-image tasks in turn. Together they take {whole:.2f} times the
parameters of one network, and {verdict} ({first} test images per task, hashed from the bank on disk).</p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}</tbody>
</table>
<h2>Test images</h2>
<p>For each test pair: the input, the task's output when it was learned, its output after the last
task, and the target.</p>
<img src="{html.escape(sheet)}" alt="contact sheet: test images of each task">
<p>PSNR in dB, the mean over all test images; higher is closer to the target. The bank is in
<code>bank/</code>: try <code>pbgan tasks bank</code> and <code>pbgan verify bank</code> here.</p>
</html>
"""
