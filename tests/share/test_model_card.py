"""Claims about the README that a push writes: what it says, that it is true, and what it leaves alone."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from banks import card, contents, file_of, forge, with_metadata
from commands import pbgan
from data_sets import refusal
from mixed_banks import CONFIG, FULL, LOW, Task, learn
from piggyback_gan import Bank, PiggybackError, Transfer, push
from piggyback_gan.bank.bank import open_or_new
from piggyback_gan.bank.card import ImportCard
from piggyback_gan.bank.store import Store
from piggyback_gan.images.display import display
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.names import BACKWARD, FORWARD
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.share import transfer
from piggyback_gan.share.notes import BankNotes, TaskNotes, parse_notes

RGB = ImageFormat()
FORMATS = {
    "maps": (RGB, RGB),
    "deep": (
        ImageFormat(channels=2, depth="uint16", high=1000.0),
        ImageFormat(channels=1, depth="float32", high=1.0),
    ),
    "classes": (ImageFormat(channels=3, labels=True), ImageFormat(depth="uint16", high=65535.0)),
    "winter": (RGB, RGB),
}
MORE: dict[str, dict[str, Any]] = {
    "maps": {"validation": {"l1": 0.03125, "psnr": 24.12345}},
    "winter": {"imported": ImportCard(distances={"BtoA": {"l1": 0.01}, "AtoB": {"l1": 0.02}})},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of many formats; winter goes both ways, and was trained from B to A."""
    path = tmp_path_factory.mktemp("template") / "bank"
    networks = {which: Bank.new(path, CONFIG).empty_network(which) for which in (FORWARD, BACKWARD)}
    for name, (first, second) in FORMATS.items():
        unpaired = name == "winter"
        channels = (first.channels, second.channels)
        task = Task(name, 0.25, FULL if name == "maps" else LOW, channels=channels)
        ways = (FORWARD, BACKWARD) if unpaired else (FORWARD,)
        states = [learn(networks[which], task, which) for which in ways]
        words = card(
            networks[FORWARD],
            name,
            unpaired=unpaired,
            direction="BtoA" if unpaired else "AtoB",
            formats=(first, second),
            size=16,
            **MORE.get(name, {}),
        )
        bank = open_or_new(path, CONFIG)
        with bank.writing("test"):
            bank.add(states[0], words, *states[1:])
    return path


@pytest.fixture
def bank(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "bank")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "shared bank"


def readme(dest: Path) -> str:
    return (dest / "README.md").read_text()


# --- what it says ---


def test_the_table_tells_what_each_task_takes_gives_and_costs(bank: Path, dest: Path) -> None:
    (bank / "card.toml").write_text(
        'license = "mit"\n[tasks.deep]\nlicense = "Mine | <b>free</b>"\n'
    )
    push(bank, dest)
    opened = Bank.open(bank)
    rows = [line for line in readme(dest).splitlines() if line.startswith("| `")]
    for row, entry, said, licence in zip(
        rows,
        opened.entries,
        (
            "paired, AtoB | RGB 8 bit → RGB 8 bit",
            "paired, AtoB | 2 channels 16 bit from 0 to 1000 → gray float32 from 0 to 1",
            "paired, AtoB | label map of 3 classes → RGB 16 bit",
            "unpaired, imported, BtoA and AtoB | RGB 8 bit → RGB 8 bit",
        ),
        ("mit", "Mine \\| &lt;b\\>free&lt;/b\\>", "mit", "mit"),
        strict=True,
    ):
        count = opened.card(entry.name).parameters
        costs = f"{count.total:,} parameters, {count.share:.3f} of a network"
        assert row == (
            f"| `{entry.name}` | {said} | 16 px | {costs} | {entry.bytes:,} | {licence} |"
        )


def test_it_tells_figures_notes_and_the_hash_that_stands_for_all(bank: Path, dest: Path) -> None:
    (bank / "card.toml").write_text(
        'description = "Maps and\\n\\nmore."\n'
        '[tasks.maps]\ndata = "https://example.org"\ndescription = "Aerial *photos*."\n'
    )
    push(bank, dest)
    text = readme(dest)
    assert "\n\nMaps and\n\nmore.\n\n" in text
    assert (
        "### maps\n\nAerial *photos*.\n\nTrained on: https://example.org\n\n"
        "Metrics on held-out images after training: l1 0.03125, psnr 24.12.\n\n### winter\n\n"
        "Distance of its outputs from the imported network's, AtoB: l1 0.02.\n\n"
        "Distance of its outputs from the imported network's, BtoA: l1 0.01.\n\n## Use"
    ) in text
    assert "There are no held-out metrics for deep, classes.\n" in text
    assert f"`{Bank.open(bank).entries[-1].sha256}`, covers all 4" in text


@pytest.mark.parametrize(
    ("notes", "license", "name"),
    [
        (None, "unknown", None),
        ('license = "CC-BY-4.0"', "cc-by-4.0", None),
        ('license = "For Friends, only!"', "other", "for-friends-only"),
        ('license = "mit"\n[tasks.maps]\nlicense = "cc0-1.0"', "other", "several"),
        ('[tasks.maps]\nlicense = "mit"', "other", "several"),
    ],
)
def test_the_hub_understands_its_head(
    bank: Path, dest: Path, notes: str | None, license: str, name: str | None
) -> None:
    if notes is not None:
        (bank / "card.toml").write_text(notes)
    push(bank, dest)
    data = ModelCard(readme(dest)).data
    assert (data.license, data.license_name) == (license, name)
    assert (data.library_name, data.pipeline_tag) == ("piggyback-gan", "image-to-image")
    assert {"piggyback-gan", "cyclegan"} <= set(data.tags or [])


def test_what_it_tells_to_do_works_as_it_is_written(bank: Path, dest: Path, tmp_path: Path) -> None:
    push(bank, dest)
    away = tmp_path / "away"
    away.mkdir()
    dest.rename(away / dest.name)
    shell, python = re.findall(r"```(?:python)?\n(.*?)```", readme(away / dest.name), re.DOTALL)
    (away / "photos").mkdir()
    Image.fromarray(noise(20, 24)).save(away / "photos" / "a.png")
    shutil.copy(away / "photos" / "a.png", away / "photo.png")
    for line in shell.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "pbgan"
        done = pbgan(*arguments, folder=away)
        assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-c", python], cwd=away, check=True)
    expected = np.asarray(Bank.open(bank).translate("maps", Image.open(away / "photo.png")))
    for made in ("translated/a.png", "translated.png"):
        assert np.array_equal(np.asarray(Image.open(away / made)), expected)


# --- sample pictures ---


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, *images: np.ndarray[Any, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number}.png")


def test_samples_are_the_middle_of_an_image_beside_what_its_task_makes_of_it(
    bank: Path, dest: Path, tmp_path: Path
) -> None:
    images = [noise(16, 20, seed) for seed in range(4)]
    save(tmp_path / "images" / "maps", *images)
    save(tmp_path / "images" / "classes", np.arange(256, dtype=np.uint8).reshape(16, 16) % 3)
    done = push(bank, dest, samples=tmp_path / "images")
    names = [f"samples/{name}.png" for name in ("maps-1", "maps-2", "maps-3", "classes-1")]
    assert done.documents == (*names, "README.md")
    assert re.findall(r"!\[\w+: input, output\]\((.*?)\)", readme(dest)) == names
    opened = Bank.open(bank)
    for name, image in zip(names[:3], images, strict=False):
        shown = np.asarray(Image.open(dest / name))
        assert shown.shape == (16, 34, 3)
        square = np.ascontiguousarray(image[:, 2:18])
        output = opened.translate("maps", to_tensor(square, RGB))
        assert np.array_equal(shown[:, :16], square)
        assert np.array_equal(shown[:, 18:], to_pixels(output, RGB))
    first, second = FORMATS["classes"]
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1) % 3
    output = opened.translate("classes", to_tensor(labels, first))
    shown = np.asarray(Image.open(dest / names[3]))
    assert np.array_equal(shown[:, :16], display(labels, first))
    assert np.array_equal(shown[:, 18:], display(to_pixels(output, second), second))


def test_images_for_all_tasks_go_to_those_without_a_folder_and_new_ones_replace_old(
    template: Path, dest: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    push(template, bank)
    images = tmp_path / "images"
    save(images, noise(16, 16), noise(18, 16))
    for task in ("deep", "classes"):
        (images / task).mkdir()
    assert len(push(bank, dest, samples=images).documents) == 5
    before = contents(dest)
    assert push(bank, dest).documents == (), "they stay without images, too"
    (images / "1.png").unlink()
    done = push(bank, dest, samples=images)
    assert done.documents == ("samples/maps-2.png", "samples/winter-2.png", "README.md")
    assert before.keys() - contents(dest).keys() == {"samples/maps-2.png", "samples/winter-2.png"}
    assert "maps-2" not in readme(dest)


def test_an_empty_folder_of_a_task_takes_its_pictures_away_and_no_folder_leaves_them(
    bank: Path, dest: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    save(images / "maps", noise(16, 16), noise(16, 16, 1))
    save(images / "winter", noise(16, 16, 2))
    push(bank, dest, samples=images)
    for path in (*images.glob("maps/*"), *images.glob("winter/*")):
        path.unlink()
    (images / "winter").rmdir()
    done = push(bank, dest, samples=images)
    assert done.documents == ("samples/maps-1.png", "samples/maps-2.png", "README.md")
    assert [path.name for path in (dest / "samples").iterdir()] == ["winter-1.png"]
    assert "maps-" not in readme(dest)
    assert "](samples/winter-1.png)" in readme(dest)


def test_images_that_a_task_does_not_take_are_told_before_anything_is_written(
    bank: Path, dest: Path, tmp_path: Path
) -> None:
    save(tmp_path / "images", noise(16, 16))
    (tmp_path / "none").mkdir()
    for folder, words in (
        ("images", "images/0.png: "),
        ("none", "none has no images, and no folder of images named as a task"),
        ("nowhere", "nowhere: no such folder of sample images"),
    ):
        with pytest.raises(PiggybackError, match=words):
            push(bank, dest, samples=tmp_path / folder)
    assert not dest.exists()


# --- what is left alone ---


STAYS = "was written or edited by hand and stays as it is: remove it to have one written"


def test_a_readme_by_hand_stays_and_that_is_told(bank: Path, dest: Path) -> None:
    push(bank, dest)
    card = readme(dest)
    fields, mark, text = re.split(r"(<!-- Written by pbgan push.*-->\n)", card)
    for by_hand in (
        "# Mine\n",
        "",
        f"# Mine\n\nTheirs begins with\n\n{mark}",
        f"{fields}# Mine, which begins with\n\n{mark}",
        f"{fields}{mark}\nMine, after the same words.\n",
        f"# Mine, which quotes all of it\n\n{card}",
    ):
        (dest / "README.md").write_text(by_hand)
        assert f"{dest}/README.md {STAYS}" in push(bank, dest).remarks
        assert readme(dest) == by_hand


def test_an_edited_card_stays_and_one_that_was_not_follows_the_bank(bank: Path, dest: Path) -> None:
    push(bank, dest)
    card = readme(dest)
    for edited in (
        card.replace("license: unknown", "license: mit"),
        card.replace("## Use", "## How to use it"),
        f"{card}\nMore.\n",
    ):
        assert edited != card
        (dest / "README.md").write_text(edited)
        assert f"{dest}/README.md {STAYS}" in push(bank, dest).remarks
        assert readme(dest) == edited
    (bank / "card.toml").write_text('license = "cc0-1.0"\n')
    (dest / "README.md").write_bytes(card.replace("\n", "\r\n").encode())
    assert push(bank, dest).remarks == ()
    assert "license: cc0-1.0\n" in readme(dest)
    (dest / "README.md").unlink()
    assert push(bank, dest).documents == ("README.md",)


def test_the_card_of_a_bank_with_later_tasks_stays(bank: Path, dest: Path) -> None:
    push(bank, dest)
    with (earlier := Bank.open(bank)).writing("test"):
        earlier.remove("winter")
    before = contents(dest)
    done = push(bank, dest)
    assert done.remarks == (
        f"{dest} goes on after the last task of {bank}: its model card stays as it is; pull first",
    )
    assert contents(dest) == before


def test_no_tasks_and_a_damaged_card_are_refused_before_any_writing(bank: Path, dest: Path) -> None:
    config = Bank.open(bank).config
    with (opened := open_or_new(bank.parent / "odd", config)).writing("test"):
        network = opened.empty_network()
        opened.add(learn(network, Task("maps", 1.0, FULL), FORWARD), {"mode": "paired"})
    with pytest.raises(PiggybackError, match=r"task 'maps': .*0001-maps.* has a damaged card"):
        push(opened.path, dest)
    with opened.writing("test"):
        opened.remove("maps")
    with pytest.raises(PiggybackError, match="odd has no tasks yet: there is nothing to copy"):
        push(opened.path, dest)
    assert not dest.exists()


DAMAGED = r"task .winter.: .*0004-winter.* damaged card"


def with_card(bank: Path, **changes: object) -> None:
    """Give the newest task another card, and have the manifest vouch for it."""
    store, card = Store.open(bank), Bank.open(bank).card("winter").to_json()
    forge(store, "winter", with_metadata(file_of(store, "winter"), card=json.dumps(card | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"imported": [1]},
        {"imported": {"distances": ["AtoB"]}},
        {"imported": {"distances": {"AtoB": {"l1": "small"}}}},
        {"validation": "good"},
        {"validation": ["good"]},
        {"validation": {"l1": None}},
        {"validation": {"l1": 10**400}},
        {"mode": None, "parameters": 3},
        {"parameters": {"total": "many", "share": 1}},
        {"image": {}},
        {"image": None},
        {"options": []},
        {"options": {"direction": "up"}},
        {"options": {"budget": "small"}},
        {"mode": "x\n\x1b[31m# Big"},
        {"library_version": 1},
    ],
)
def test_a_card_from_elsewhere_that_has_other_things_is_one_line(
    bank: Path, dest: Path, changes: dict[str, object]
) -> None:
    with_card(bank, **changes)
    said = refusal(lambda: push(bank, dest))
    assert re.search(DAMAGED, said) and said.isprintable()
    assert not dest.exists()


EVIL = "x\n\n# Big | `code` <script> [a](b) *c* _d_ ~~e~~ &lt; \\"
TAME = r"x # Big \| \`code\` &lt;script\> \[a\](b) \*c\* \_d\_ \~\~e\~\~ &amp;lt; \\"


def test_words_in_cards_from_elsewhere_are_shown_and_make_no_markup(bank: Path, dest: Path) -> None:
    with_card(bank, validation={EVIL: 1.0}, imported={"distances": {EVIL: {EVIL: 0.5}}})
    push(bank, dest)
    lines = readme(dest).splitlines()
    (row,) = [line for line in lines if line.startswith("| `winter`")]
    assert row.startswith("| `winter` | unpaired, imported, BtoA and AtoB | ")
    assert f"Metrics on held-out images after training: {TAME} 1." in lines
    assert f"Distance of its outputs from the imported network's, {TAME}: {TAME} 0.5." in lines
    assert not [line for line in lines if line.startswith("# Big")]


def test_arguments_of_a_users_own_generator_make_no_markup(
    bank: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = property(lambda self: f"nets:make, width {EVIL}")
    monkeypatch.setattr(GeneratorConfig, "summary", summary)
    push(bank, dest)
    assert f"share their filters (nets:make, width {TAME}): later" in readme(dest)


@pytest.mark.parametrize("size", [0, -1, None, "x\ny", [16]])
def test_sample_pictures_of_a_task_without_a_size_are_one_line(
    bank: Path, dest: Path, tmp_path: Path, size: object
) -> None:
    with_card(bank, image=Bank.open(bank).card("winter").to_json()["image"] | {"size": size})
    save(tmp_path / "images" / "winter", noise(16, 16))
    assert re.search(DAMAGED, refusal(lambda: push(bank, dest, samples=tmp_path / "images")))
    assert not dest.exists()


def test_a_card_too_deep_is_told_by_the_commands_that_read_it(bank: Path, tmp_path: Path) -> None:
    store = Store.open(bank)
    forge(store, "winter", with_metadata(file_of(store, "winter"), card="[" * 200_000))
    for arguments in (("pull", bank, tmp_path / "copy"), ("verify", bank)):
        done = pbgan(*arguments)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "winter" in done.stderr + done.stdout
    assert not (tmp_path / "copy").exists()


def test_notes_at_the_destination_serve_where_the_bank_has_none(bank: Path, dest: Path) -> None:
    push(bank, dest)
    (dest / "card.toml").write_text('license = "mit"\n')
    assert push(bank, dest).remarks == ()
    assert "license: mit\n" in readme(dest)
    (dest / "card.toml").write_text("[tasks.deep]\ndata = 'drawn'")
    assert push(bank, dest).remarks == (
        f"no licence is stated for maps, deep, classes, winter: state it in {dest}/card.toml",
    )


def test_other_notes_at_the_destination_stay_and_the_card_says_them(bank: Path, dest: Path) -> None:
    (bank / "card.toml").write_text('license = "mit"\n[tasks.deep]\ndata = "drawn"\n')
    dest.mkdir()
    for theirs, license in (
        ('license = "cc0-1.0"\n', "cc0-1.0"),
        ('description = "Ours."\n', "unknown"),
        ('license = "mit"\n[tasks.maps]\nlicense = "mit"\ndata = "ours"\n', "mit"),
        ('[tasks.deep]\nlicense = "cc0-1.0"\n', "several"),
    ):
        (dest / "card.toml").write_text(theirs)
        done = push(bank, dest)
        assert "card.toml" not in done.documents
        assert done.remarks[0] == (
            f"{dest}/card.toml stays as it is, and the model card tells what it says: {bank}/card.toml says "
            f"other things; remove {dest}/card.toml and push again to send yours"
        )
        assert (dest / "card.toml").read_text() == theirs
        data = ModelCard(readme(dest)).data
        assert license in (data.license, data.license_name)
    (dest / "card.toml").unlink()
    done = push(bank, dest)
    assert (done.documents, done.remarks) == (("card.toml", "README.md"), ())


def test_a_licence_at_the_destination_stays_if_the_sender_has_more(bank: Path, dest: Path) -> None:
    (bank / "card.toml").write_text('license = "mit"\n[tasks.maps]\nlicense = "cc0-1.0"\n')
    dest.mkdir()
    (dest / "card.toml").write_text('license = "mit"\n')
    assert push(bank, dest).documents == ("card.toml", "README.md"), "no task was there yet"
    (dest / "card.toml").write_text('license = "mit"\n')
    assert "stays as it is" in push(bank, dest).remarks[0]
    assert (dest / "card.toml").read_text() == 'license = "mit"\n'


def test_lesser_notes_there_are_brought_up_and_equal_ones_stay(bank: Path, dest: Path) -> None:
    dest.mkdir()
    mine = 'license = "mit"\n[tasks.maps]\ndata = "drawn"\n'
    (bank / "card.toml").write_text(mine)
    (dest / "card.toml").write_text('[tasks.maps]\ndata = "drawn"\n')
    assert push(bank, dest).documents == ("card.toml", "README.md")
    assert (dest / "card.toml").read_text() == mine
    (dest / "card.toml").write_text(f"# ours\n{mine}")
    assert push(bank, dest) == Transfer((), 0, 4)
    assert (dest / "card.toml").read_text() == f"# ours\n{mine}"


def test_damaged_notes_at_the_destination_stay_and_are_told(bank: Path, dest: Path) -> None:
    dest.mkdir()
    (dest / "card.toml").write_text("license = mit")
    damaged = f"{dest}/card.toml is not valid TOML: "
    for advice in ("mend it", f"remove {dest}/card.toml and push again to send yours"):
        remark = push(bank, dest).remarks[0]
        assert remark.startswith(damaged)
        assert remark.endswith(f"; it stays, and what it says is not told: {advice}")
        assert "license: unknown\n" in readme(dest)
        (bank / "card.toml").write_text('license = "cc0-1.0"\n')
    assert (dest / "card.toml").read_text() == "license = mit"


def test_the_notes_that_were_checked_are_those_that_are_sent(
    bank: Path, dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_meanwhile(*_: object) -> dict[str, list[bytes]]:
        (bank / "card.toml").write_text("license = mit")
        return {}

    (bank / "card.toml").write_text('license = "mit"\n')
    monkeypatch.setattr(transfer, "sample_pictures", changed_meanwhile)
    push(bank, dest, samples=tmp_path)
    assert (dest / "card.toml").read_text() == 'license = "mit"\n'
    assert "license: mit\n" in readme(dest)


# --- card.toml ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("license = mit", "card.toml is not valid TOML: "),
        (
            'licence = "mit"',
            "card.toml: unknown options licence; known: description, license, tasks",
        ),
        ("license = 3", "card.toml: license must be text of one line, found 3"),
        ('license = " "', "card.toml: license must be text of one line, found ' '"),
        ('license = "a\\nb"', r"card.toml: license must be text of one line, found 'a\\nb'"),
        ("description = []", r"card.toml: description must be text, found \[\]"),
        ("tasks = 3", r"card.toml: tasks must be tables such as \[tasks.maps\]"),
        ("[tasks]\nmaps = 3", r"card.toml: maps must be a table: \[tasks.maps\]"),
        (
            "[tasks.night]",
            "card.toml names a task that the bank does not have: 'night'; tasks: maps, deep, classes, winter",
        ),
        (
            '[tasks.maps]\nmode = "x"',
            r"card.toml, \[tasks.maps\]: unknown options mode; known: data, description, license",
        ),
    ],
)
def test_a_damaged_card_toml_is_one_line(bank: Path, dest: Path, text: str, words: str) -> None:
    (bank / "card.toml").write_text(text)
    assert re.search(words, refusal(lambda: push(bank, dest)))
    assert not dest.exists()


said = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
line = said.filter(lambda text: text is None or len(text.splitlines()) == 1)


@given(
    st.builds(
        BankNotes,
        license=line,
        description=said,
        tasks=st.dictionaries(
            st.sampled_from(["maps", "a.b"]),
            st.builds(TaskNotes, license=line, data=line, description=said),
        ),
    )
)
def test_notes_that_are_written_are_read_as_they_were(notes: BankNotes) -> None:
    assert parse_notes(notes.render(), "card.toml", ["maps", "a.b"]) == notes


def test_a_command_says_whose_licence_is_not_stated(bank: Path, dest: Path, tmp_path: Path) -> None:
    (bank / "card.toml").write_text('[tasks.maps]\nlicense = "mit"\n')
    save(tmp_path / "images" / "maps", noise(16, 16))
    done = pbgan("push", bank, dest, "--samples", tmp_path / "images")
    assert done.returncode == 0
    assert done.stderr == (
        f"pbgan: no licence is stated for deep, classes, winter: state it in {bank}/card.toml\n"
    )
    assert done.stdout.endswith("\nchanged: card.toml, samples/maps-1.png, README.md\n")
    assert Image.open(io.BytesIO((dest / "samples" / "maps-1.png").read_bytes())).mode == "RGB"
