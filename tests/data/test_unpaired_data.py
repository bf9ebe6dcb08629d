"""Claims about unpaired data: two sides found, checked, and drawn from in orders of their own."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_sets import RGB, epoch, numbers, plain, refusal, same, save
from piggyback_gan.data.datasets import UnpairedDataset
from piggyback_gan.data.folders import find_unpaired
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import Source


def marked(root: Path, first: int, second: int, **settings: Any) -> UnpairedDataset:
    """Images whose pixels say where they are (R, G) and which they are (B)."""
    rows, columns = np.mgrid[:20, :20]
    sides = []
    for name, count in (("trainA", first), ("trainB", second)):
        for i in range(count):
            image = np.stack([rows * 12, columns * 12, np.full((20, 20), i)], 2).astype(np.uint8)
            save(root / name / f"{i:03}.png", image)
        sides.append([Source(path) for path in sorted((root / name).iterdir())])
    return UnpairedDataset(*sides, **({"formats": (RGB, RGB), "size": 20} | settings))


def order(batches: list[tuple[Tensor, Tensor]], side: int) -> list[int]:
    return [n for batch in batches for n in numbers(batch[side])]


def places(batches: list[tuple[Tensor, Tensor]], side: int) -> list[tuple[float, float, bool]]:
    """Where each crop lies and whether it is mirrored."""
    return [
        (image[0].min().item(), image[1].min().item(), bool(image[1, 0, 0] > image[1, 0, -1]))
        for batch in batches
        for image in batch[side]
    ]


@pytest.mark.parametrize(("first", "second"), [(11, 4), (4, 11), (5, 5), (1, 7)])
def test_the_larger_side_comes_once_and_the_smaller_as_evenly_as_it_can(
    tmp_path: Path, first: int, second: int
) -> None:
    data = marked(tmp_path, first, second)
    longest = max(first, second)
    assert len(data) == longest
    for number in range(3):
        batches = epoch(data, number)
        assert sum(len(inputs) for inputs, _ in batches) == longest
        for side, count in enumerate((first, second)):
            times = Counter(order(batches, side))
            assert set(times) == set(range(count))
            assert max(times.values()) - min(times.values()) <= 1


def test_the_two_sides_are_shuffled_cropped_and_mirrored_independently(tmp_path: Path) -> None:
    data = marked(tmp_path, 9, 9)
    batches = [batch for number in range(20) for batch in epoch(data, number)]
    first, second = order(batches, 0), order(batches, 1)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 40  # by chance: 20
    first_cuts, second_cuts = places(batches, 0), places(batches, 1)
    assert sum(a == b for a, b in zip(first_cuts, second_cuts, strict=True)) < 20
    agree = sum(a[2] == b[2] for a, b in zip(first_cuts, second_cuts, strict=True))
    assert 0.35 < agree / len(first_cuts) < 0.65


def test_the_smaller_side_has_a_fresh_order_each_time_it_begins_again(tmp_path: Path) -> None:
    found = order(epoch(marked(tmp_path, 18, 6), 1), 1)
    rounds = [tuple(found[start : start + 6]) for start in (0, 6, 12)]
    assert all(sorted(each) == list(range(6)) for each in rounds)
    assert len(set(rounds)) == 3


def test_an_epoch_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    data = marked(tmp_path, 7, 5)
    first = epoch(data, 1)
    torch.rand(3)
    assert same(first, epoch(data, 1))
    assert not same(first, epoch(data, 2))
    assert not same(first, epoch(data, 1, seed=1))
    assert same(first, epoch(marked(tmp_path, 7, 5, cache_bytes=0), 1))


def test_an_epoch_begins_at_any_batch_and_is_shared_among_processes(tmp_path: Path) -> None:
    data = marked(tmp_path, 11, 4)
    whole = epoch(data, 1)
    for start in range(5):
        assert same(epoch(data, 1, start=start), whole[start:])
    parts = [epoch(data, 1, part=(rank, 3), start=1) for rank in range(3)]
    for shares, batch in zip(zip(*parts, strict=True), whole[1:], strict=True):
        together = tuple(torch.cat(sides) for sides in zip(*shares, strict=True))
        assert same([together], [batch])
    assert [len(part[-1][0]) for part in parts] == [1, 1, 1]


def test_batches_before_the_start_are_not_decoded(tmp_path: Path) -> None:
    data = marked(tmp_path, 8, 8, cache_bytes=0)
    whole = epoch(data, 1)
    for number in numbers(whole[0][0]):
        data.first[number].path.unlink()
    assert same(epoch(data, 1, start=1), whole[1:])
    assert "no such file" in refusal(lambda: epoch(data, 1))


def test_pairs_and_order_for_samples_and_validation(tmp_path: Path) -> None:
    data = marked(tmp_path, 5, 2)
    for side, count in enumerate((5, 2)):
        batches = list(data.in_order(2, side))
        assert [n for batch in batches for n in numbers(batch)] == list(range(count))
        assert batches[0].shape == (2, 3, 20, 20)
    assert [numbers(image[None])[0] for image in data.pair(3)] == [3, 1]


def test_each_side_has_its_own_format(tmp_path: Path) -> None:
    deep = ImageFormat(channels=2, depth="uint16", high=65535.0)
    labels = ImageFormat(channels=3, labels=True)
    save(tmp_path / "a.tif", np.full((9, 9, 2), 65535, np.uint16))
    save(tmp_path / "b.png", np.full((7, 8, 1), 2, np.uint8))
    sources = ([Source(tmp_path / "a.tif")], [Source(tmp_path / "b.png")])
    data = UnpairedDataset(*sources, formats=(deep, labels), size=12)
    ((first, second),) = epoch(data, crop=8)
    assert torch.equal(first, torch.ones(1, 2, 8, 8))
    assert torch.equal(second, torch.tensor([-1.0, -1, 1]).view(1, 3, 1, 1).expand(1, 3, 8, 8))


def test_all_faults_of_both_sides_are_named_at_once(tmp_path: Path) -> None:
    save(tmp_path / "a.png", plain(9, (1, 2, 3)))
    (tmp_path / "text.png").write_text("hello")
    low = ImageFormat(high=2.0)
    first = [Source(tmp_path / "a.png"), Source(tmp_path / "text.png")]
    second = [Source(tmp_path / "a.png"), Source(tmp_path / "a.png", "left")]
    message = refusal(lambda: UnpairedDataset(first, second, formats=(RGB, low), size=8))
    assert message.startswith("3 of 4 images can't be used: ")
    assert "text.png: can't be read: not an image" in message
    assert "a.png: its values go from 1 to 3, beyond the range" in message
    assert "a.png: odd width 9" in message


def test_without_images_on_a_side_there_are_no_batches(tmp_path: Path) -> None:
    data = UnpairedDataset([], [], formats=(RGB, RGB), size=20)
    assert len(data) == 0
    assert epoch(data) == list(data.in_order(2, 0)) == []


def test_halves_of_paired_files_are_drawn_unpaired(tmp_path: Path) -> None:
    for i in range(6):
        both = np.concatenate([plain(20, (i, 0, i)), plain(20, (i, 255, i))], axis=1)
        save(tmp_path / "train" / f"{i}.png", both)
    folder = find_unpaired(tmp_path)
    data = UnpairedDataset(folder.train_a, folder.train_b, formats=(RGB, RGB), size=20)
    batches = epoch(data)
    assert all((first[:, 1] == -1).all() and (second[:, 1] == 1).all() for first, second in batches)
    assert order(batches, 0) != order(batches, 1)
