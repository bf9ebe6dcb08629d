"""What is asked for once is opened and decoded once: the bank, the device, the files of a data set."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, teach
from piggyback_gan.images.encode import encode
from piggyback_gan.runs import teach as teach_module
from running import GENERATOR, OPTIONS

pytestmark = pytest.mark.usefixtures("without_curves")

ONE_EPOCH = dataclasses.replace(OPTIONS, epochs=1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file was opened to be read."""
    counts: Counter[Path] = Counter()
    open_file = Path.open

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        counts[path] += 1
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting)
    return counts


def draw_floats(root: Path, *, side_by_side: bool) -> Path:
    chance = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for side in ("",) if side_by_side else ("A", "B"):
            (root / f"{split}{side}").mkdir(parents=True)
            for number in range(count):
                pixels = chance.random((16, 32 if side_by_side else 16, 1), np.float32)
                file = root / f"{split}{side}" / f"{number}.tif"
                file.write_bytes(encode(pixels, ".tif"))
    return root


def test_the_first_image_is_decoded_to_detect_its_format_and_all_to_be_trained_on(
    tmp_path: Path, opened: Counter[Path]
) -> None:
    data = draw_pairs(tmp_path / "boxes")
    opened.clear()
    teach(tmp_path / "bank", "one", data, ONE_EPOCH, GENERATOR)
    first, *others = sorted((data / "train").iterdir()) + sorted((data / "test").iterdir())
    # Each is read once more for its hash.
    assert opened[first] == 3
    assert {opened[path] for path in others} == {2}


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_float_images_are_decoded_for_their_range_and_to_be_trained_on(
    tmp_path: Path, opened: Counter[Path], side_by_side: bool, mode: Any
) -> None:
    data = draw_floats(tmp_path / "floats", side_by_side=side_by_side)
    halves = 2 if side_by_side and mode == "unpaired" else 1
    opened.clear()
    options = dataclasses.replace(ONE_EPOCH, mode=mode)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    read = {path: count for path, count in opened.items() if data in path.parents}
    assert set(read.values()) == {2 + halves}, "hashed, measured, and loaded"


def test_the_bank_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw_pairs(tmp_path / "boxes")
    teach(tmp_path / "bank", "one", data, ONE_EPOCH, GENERATOR)
    opened: list[Any] = []
    open_bank = Bank.open
    monkeypatch.setattr(Bank, "open", lambda path: opened.append(path) or open_bank(path))
    teach(tmp_path / "bank", "two", data, ONE_EPOCH)
    assert len(opened) == 1


def test_the_device_is_chosen_before_other_threads_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flushing denormals counts for threads that are started later."""
    calls: list[str] = []

    def note(name: str) -> None:
        real = getattr(teach_module, name)
        monkeypatch.setattr(teach_module, name, lambda *given: calls.append(name) or real(*given))

    note("choose_device")
    note("processes")
    teach(tmp_path / "bank", "one", draw_pairs(tmp_path / "boxes"), ONE_EPOCH, GENERATOR)
    assert calls == ["choose_device", "processes"]


def test_a_damaged_bank_is_named_before_the_data_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "bank.json").write_text("{")
    with pytest.raises(PiggybackError, match=r"bank\.json is damaged"):
        teach(tmp_path / "bank", "one", tmp_path / "nothing", ONE_EPOCH, GENERATOR)
    assert [path.name for path in (tmp_path / "bank").iterdir()] == ["bank.json"]
