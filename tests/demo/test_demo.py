"""The demo, with fewer and shorter steps: the same path, the same files."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from piggyback_gan import Bank, GeneratorOptions
from piggyback_gan.demo.report import COLUMNS, HEADINGS, table_rows, write_report
from piggyback_gan.demo.run import OPTIONS, prepare, run_demo
from piggyback_gan.demo.scenes import SCENE_TASKS
from piggyback_gan.errors import PiggybackError

SHORT = dataclasses.replace(OPTIONS, epochs=1, batch_size=2, ndf=8)


def test_the_demo_teaches_three_tasks_and_reports_that_none_changed(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    prepare(out, overwrite=False)
    generator = GeneratorOptions(generator="resnet-6", ngf=8)
    learned = run_demo(out, options=SHORT, generator=generator, train_pairs=4, test_pairs=3)
    assert tuple(task.task for task in learned) == SCENE_TASKS == Bank.open(out / "bank").tasks
    assert all(task.identical for task in learned)
    assert learned[0].share == 1.0
    assert learned[1].share < 0.4
    figures = json.loads((out / "demo.json").read_text())
    assert [task["bit_identical"] for task in figures] == [True] * 3

    sheet, page = write_report(out, learned)
    with Image.open(sheet) as picture:
        assert picture.width > len(COLUMNS) * 2 * 64
        assert len(picture.getcolors(1 << 24)) > 1000
    text = page.read_text()
    assert sheet.name in text
    for cell in (*HEADINGS, *SCENE_TASKS, *table_rows(learned)[2]):
        assert cell in text
    assert "is bit-identical" in text
    assert "http" not in text, "the page needs no network"

    changed = dataclasses.replace(
        learned[0], after_last=dataclasses.replace(learned[0].after_last, output_hashes=("0",) * 3)
    )
    assert not changed.identical
    assert "NO" in table_rows([changed])[0]
    write_report(out, [changed, *learned[1:]])
    assert "NOT every output" in page.read_text()


def test_the_demo_replaces_only_its_own_folder_and_only_when_told(tmp_path: Path) -> None:
    prepare(tmp_path / "demo", overwrite=False)
    with pytest.raises(PiggybackError, match="give --overwrite"):
        prepare(tmp_path / "demo", overwrite=False)
    (tmp_path / "demo" / "bank").mkdir()
    (tmp_path / "demo" / "bank" / "bank.json").touch()
    prepare(tmp_path / "demo", overwrite=True)
    assert not (tmp_path / "demo" / "bank").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for _ in range(2):
        with pytest.raises(PiggybackError, match="contains other files"):
            prepare(tmp_path / "mine", overwrite=True)
        (tmp_path / "mine" / "demo.json").touch()
    assert (tmp_path / "mine" / "thesis.tex").exists()
