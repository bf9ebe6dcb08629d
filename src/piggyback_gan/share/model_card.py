"""The README of a shared bank: a model card, made from the tasks' cards and the owner's notes."""

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.card import TaskCard
from piggyback_gan.bank.manifest import SAMPLES_FOLDER, TaskEntry
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import CustomGeneratorConfig
from piggyback_gan.share.notes import BankNotes, TaskNotes
from piggyback_gan.system.user_code import VARIABLE

_FENCE = "\n---\n\n"
"""The end of the front matter."""
_SAMPLES = 3
_ACTIVE = re.compile(r"[\\`*_\[\]|~$>]")
"""Characters that are escaped; `<` and `&` become entities."""
_KNOWN_LICENSES = [
    *("apache-2.0", "artistic-2.0", "mit", "mpl-2.0", "pddl", "unlicense", "wtfpl"),
    *("bsd", "bsd-2-clause", "bsd-3-clause"),
    *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0"),
    *("cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0"),
    *("creativeml-openrail-m", "openrail", "openrail++"),
]
"""Values of the hub's field `license`; others use `license_name`."""


def is_ours(readme: bytes) -> bool:
    """Return whether `model_card` wrote this file, and it is unchanged since."""
    head, _, rest = readme.replace(b"\r\n", b"\n").partition(_FENCE.encode())
    mark, _, text = rest.partition(b"\n")
    return mark.startswith(_mark(head, text).encode())


def _mark(head: bytes, text: bytes) -> str:
    """Return the start of the comment between head and text, with their hash."""
    digest = hashlib.sha256(head + text).hexdigest()
    return f"<!-- Written by pbgan push, {digest}: "


def sample_names(task: str) -> tuple[str, ...]:
    """Return the possible paths of a task's sample pictures in a bank."""
    return tuple(f"{SAMPLES_FOLDER}/{task}-{number}.png" for number in range(1, _SAMPLES + 1))


def model_card(bank: Bank, notes: BankNotes, shown: Collection[str], address: str) -> str:
    """Write the model card: Markdown with the Hugging Face hub's front matter.

    Args:
        bank: the bank, of which file headers are read.
        notes: the owner's notes.
        shown: paths of pictures in the bank; those in `sample_names` are shown.
        address: `hf://OWNER/NAME` on the hub, else the name of the bank's directory.

    Raises:
        PiggybackError: a file is missing or damaged.
    """
    rows, sections, modes, unmeasured = [], [], [], []
    for entry in bank.entries:
        task, card = entry.name, bank.card(entry.name)
        rows.append(_row(entry, card, notes.of(task)))
        modes.append(card.mode)
        figures = _figures(card)
        if not figures:
            unmeasured.append(task)
        pictures = [name for name in sample_names(task) if name in shown]
        sections.append(_section(task, notes.of(task), figures, pictures))
    generator, title = bank.config, address.rsplit("/", 1)[-1].split("@")[0]
    intro = (
        f"A bank of {len(rows)} image-to-image translators that share their filters ({_plain(generator.summary)}): "
        "later tasks are mixed from the filters of earlier ones, which never change. Made with Piggyback GAN (Zhai et al., ECCV 2020, "
        "[arXiv 2104.11939](https://arxiv.org/abs/2104.11939))."
    )
    checks = (
        "`bank.json` names the SHA-256 of each task's file, and each file contains the SHA-256 of the file before it. The newest "
        f"one's, `{bank.entries[-1].sha256}`, covers all {len(rows)}: `pbgan verify` reads every file and says "
        "whether each bit is as it was written, and `pbgan pull` checks every file it copies. There is no pickle in "
        "them, and no code."
    )
    code = (
        f"The code that makes its networks, `{generator.name}`, is not in it: have that importable, and say that "
        f"you trust it with `export {VARIABLE}={generator.name}`."
        if isinstance(generator, CustomGeneratorConfig)
        else None
    )
    parts = [
        f"# {_plain(title)}",
        notes.description,
        intro,
        "## Tasks",
        _table(("task", "mode", "input → output", "size", "adds", "bytes", "licence"), rows),
        f"There are no held-out metrics for {', '.join(unmeasured)}." if unmeasured else None,
        *sections,
        "## Use",
        code,
        _use(bank, address),
        "## What is checked",
        checks,
    ]
    head = _front_matter(bank.tasks, notes, modes)
    text = "\n" + "\n\n".join(part for part in parts if part) + "\n"
    mark = _mark(head.encode(), text.encode())
    return f"{head}{_FENCE}{mark}Once this file is edited, a push does not change it; card.toml can add to it. -->\n{text}"


def _front_matter(tasks: Iterable[str], notes: BankNotes, modes: Collection[Any]) -> str:
    found = {notes.of(task).license for task in tasks}
    name = str(found.pop() or "unknown").lower() if len(found) == 1 else "several"
    words = [f"license: {name}"]
    if name not in (*_KNOWN_LICENSES, "unknown"):
        # The hub accepts slugs only; the table has the licences as the owner wrote them.
        slug = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.") or "own"
        words = ["license: other", f"license_name: {json.dumps(slug)}"]
    tags = ["piggyback-gan", "gan", "pix2pix", "continual-learning"]
    tags += ["cyclegan"] if "unpaired" in modes else []
    words += ["library_name: piggyback-gan", "pipeline_tag: image-to-image", "tags:"]
    return "\n".join(["---", *words, *(f"- {tag}" for tag in tags)])


def _row(entry: TaskEntry, card: TaskCard, notes: TaskNotes) -> list[str]:
    cells = [
        f"{card.mode}{', imported' if card.imported else ''}, {' and '.join(card.directions)}",
        " → ".join(format.summary for format in card.formats),
        f"{card.image.size} px",
        f"{card.parameters.total:,} parameters, {card.parameters.share:.3f} of a network",
        f"{entry.bytes:,}",
        notes.license or "not stated",
    ]
    return [f"`{entry.name}`", *map(_plain, cells)]


def _figures(card: TaskCard) -> list[str]:
    """Return lines with the metrics in a task's card."""
    lines = []
    if card.validation:
        lines.append(f"Metrics on held-out images after training: {_listed(card.validation)}.")
    for way, distance in (card.imported.distances if card.imported else {}).items():
        lines.append(
            f"Distance of its outputs from the imported network's, {_plain(way)}: {_listed(distance)}."
        )
    return lines


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{_plain(name)} {value:.4g}" for name, value in figures.items())


def _section(task: str, notes: TaskNotes, figures: Iterable[str], pictures: Iterable[str]) -> str:
    images = " ".join(f"![{task}: input, output]({name})" for name in pictures)
    data = None if notes.data is None else f"Trained on: {notes.data}"
    said = [part for part in (notes.description, data, *figures, images) if part]
    return "\n\n".join([f"### {task}", *said]) if said else ""


def _use(bank: Bank, address: str) -> str:
    task = bank.tasks[0]
    on_hub = address.startswith("hf://")
    install = "pip install 'piggyback-gan[hub]'\n" if on_hub else ""
    place = "" if on_hub else "   # in the folder that holds this one"
    pull = f"pbgan pull {shlex.quote(address)} my-bank{place}"
    simple = next((task for task in bank.tasks if all(map(_in_pil, bank.formats(task)))), None)
    parts = [f"```\n{install}{pull}\npbgan translate my-bank {task} photos/ --out translated\n```"]
    if simple is not None:
        parts.append(
            "```python\nfrom PIL import Image\n\nfrom piggyback_gan import Bank\n\n"
            'bank = Bank.open("my-bank")\n'
            f'bank.translate("{simple}", Image.open("photo.png")).save("translated.png")\n```'
        )
    return "\n\n".join(parts)


def _in_pil(format: ImageFormat) -> bool:
    """Return whether Pillow has such images, and PNG files can store them."""
    gray = format.labels or format.channels == 1
    return (gray and format.depth != "float32") or (
        format.depth == "uint8" and format.channels in (3, 4)
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads)]
    lines.append(["---"] * len(lines[0]))
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Escape text for one line of Markdown, so that it makes no markup."""
    return (
        _ACTIVE.sub(r"\\\g<0>", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    )
