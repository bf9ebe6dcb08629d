"""Claims about paired data: finding pairs, refusing faulty ones all at once, reproducible epochs."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from data_sets import (
    BLUE,
    GRAY,
    RED,
    RGB,
    corners,
    dataset,
    epoch,
    mapped,
    noise,
    numbers,
    plain,
    refusal,
    same,
    save,
    side_by_side,
    two_folders,
)
from piggyback_gan.data.folders import Pair, find_pairs
from piggyback_gan.images.format import ImageFormat

# Finding


def test_side_by_side_pairs_are_found_in_order_of_their_names(tmp_path: Path) -> None:
    folder = find_pairs(side_by_side(tmp_path / "maps", train=3, val=2))
    assert (folder.name, folder.layout, folder.held_out_name) == ("maps", "side-by-side", "val")
    assert [pair.name for pair in folder.train] == ["0.png", "1.png", "2.png"]
    assert len(folder.held_out) == 2
    assert all(pair.side_by_side for pair in folder.train)


def test_two_folders_pair_up_by_name_whatever_the_suffixes(tmp_path: Path) -> None:
    root = two_folders(
        tmp_path, trainA=["a.jpg", "b.png"], trainB=["b.webp", "a.png"], testA=["c.png"],
        testB=["c.bmp"],
    )  # fmt: skip
    folder = find_pairs(root)
    assert (folder.layout, folder.held_out_name) == ("two folders", "test")
    assert [(p.a.name, p.b.name) for p in folder.train] == [("a.jpg", "a.png"), ("b.png", "b.webp")]
    assert [(p.a.name, p.b.name) for p in folder.held_out] == [("c.png", "c.bmp")]


def test_val_is_preferred_to_test_and_an_empty_val_is_not(tmp_path: Path) -> None:
    assert find_pairs(side_by_side(tmp_path, train=1, test=3)).held_out_name == "test"
    (tmp_path / "val").mkdir()
    assert find_pairs(tmp_path).held_out_name == "test"
    folder = find_pairs(side_by_side(tmp_path, val=2))
    assert (folder.held_out_name, len(folder.held_out)) == ("val", 2)


def test_without_val_and_test_nothing_is_held_out(tmp_path: Path) -> None:
    for folder in (
        find_pairs(side_by_side(tmp_path / "one", train=1)),
        find_pairs(two_folders(tmp_path / "two", trainA=["a.png"], trainB=["a.png"])),
    ):
        assert (folder.held_out, folder.held_out_name) == ((), None)


def test_neither_and_both_layouts_are_refused(tmp_path: Path) -> None:
    assert "found neither" in refusal(lambda: find_pairs(tmp_path))
    side_by_side(tmp_path, train=1)
    two_folders(tmp_path, trainA=["a.png"], trainB=["a.png"])
    assert "found both" in refusal(lambda: find_pairs(tmp_path))
    assert "no such folder" in refusal(lambda: find_pairs(tmp_path / "nowhere"))
    assert "no such folder" in refusal(lambda: find_pairs(tmp_path / "train" / "0.png"))


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one" / "train").mkdir(parents=True)
    assert "no images in train/" in refusal(lambda: find_pairs(tmp_path / "one"))
    two_folders(tmp_path / "two", trainA=["a.png"])
    assert "trainB can't be read" in refusal(lambda: find_pairs(tmp_path / "two"))
    two_folders(tmp_path / "three", trainB=["a.png"])
    refusal(lambda: find_pairs(tmp_path / "three"))


def test_files_without_partners_are_named_from_both_sides(tmp_path: Path) -> None:
    root = two_folders(
        tmp_path, trainA=["a.png", "b.png"], trainB=["b.png", "c.png"], testA=["d.png"],
        testB=["e.png"],
    )  # fmt: skip
    message = refusal(lambda: find_pairs(root))
    assert "2 files have no partner: trainA/a.png; trainB/c.png" in message
    assert "2 files have no partner: testA/d.png; testB/e.png" in message


def test_of_many_files_without_partners_twenty_are_named_and_the_rest_counted(
    tmp_path: Path,
) -> None:
    names = [f"{i:02d}.png" for i in range(24)]
    root = two_folders(tmp_path, trainA=names, trainB=["23.png"])
    message = refusal(lambda: find_pairs(root))
    assert "23 files have no partner: trainA/00.png; trainA/01.png;" in message
    assert message.endswith("; trainA/19.png; and 3 more")


@pytest.mark.parametrize("there", ["A", "B"])
def test_half_a_held_out_set_is_refused_not_passed_over(tmp_path: Path, there: str) -> None:
    root = two_folders(tmp_path, trainA=["a.png"], trainB=["a.png"], **{f"val{there}": ["a.png"]})
    assert "val" in refusal(lambda: find_pairs(root))


def test_files_that_differ_only_in_their_suffix_are_refused(tmp_path: Path) -> None:
    root = two_folders(tmp_path, trainA=["a.jpg", "a.png", "b.png"], trainB=["a.png", "b.png"])
    message = refusal(lambda: find_pairs(root))
    assert "trainA/: files differ only in their suffix: a." in message


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    two_folders(tmp_path, trainA=["a.png"], trainB=["a.png"])
    (tmp_path / "trainA" / "._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "trainA" / "list.txt").write_text("a")
    (tmp_path / "trainB" / ".DS_Store").write_bytes(b"")
    (tmp_path / "trainB" / "more.png").mkdir()
    assert [pair.name for pair in find_pairs(tmp_path).train] == ["a.png"]


# Reading


def test_direction_says_which_side_is_translated(tmp_path: Path) -> None:
    one = find_pairs(side_by_side(tmp_path / "one", train=1)).train
    two = find_pairs(two_folders(tmp_path / "two", trainA=["0.png"], trainB=["0.png"])).train
    for pairs in (one, two):
        for direction, expected in (("AtoB", (RED, BLUE)), ("BtoA", (BLUE, RED))):
            images = dataset(pairs, direction=direction).pair(0)
            for image, color in zip(images, expected, strict=True):
                assert (image.dtype, image.shape) == (torch.float32, (3, 20, 20))
                assert (image == (torch.tensor(color) / 127.5 - 1)[:, None, None]).all()


def test_channels_are_of_input_and_target_in_either_direction(tmp_path: Path) -> None:
    one = find_pairs(side_by_side(tmp_path / "one", train=1)).train
    two = find_pairs(two_folders(tmp_path / "two", trainA=["0.png"], trainB=["0.png"])).train
    for pairs in (one, two):
        for direction in ("AtoB", "BtoA"):
            data = dataset(pairs, direction=direction, formats=(GRAY, RGB))
            assert [image.shape[0] for image in data.pair(0)] == [1, 3]


def test_halves_are_cut_exactly_and_resized(tmp_path: Path) -> None:
    a, b = noise(30, 40, 1), noise(30, 40, 2)
    save(tmp_path / "train" / "a.png", np.concatenate([a, b], axis=1))
    (pair,) = find_pairs(tmp_path).train
    found = pair.read("AtoB", (RGB, RGB))
    assert np.array_equal(found[0], a)
    assert np.array_equal(found[1], b)
    assert [image.shape for image in dataset((pair,), size=16).pair(0)] == [(3, 16, 16)] * 2


def faulty(root: Path) -> tuple[Pair, ...]:
    """A good pair and four bad ones of both layouts."""
    side_by_side(root / "one", train=1)
    save(root / "one" / "train" / "odd.png", noise(20, 41))
    (root / "one" / "train" / "text.png").write_text("hello")
    two_folders(root / "two", trainA=["small.png", "zero.png"], trainB=["small.png", "zero.png"])
    save(root / "two" / "trainB" / "small.png", noise(20, 19))
    (root / "two" / "trainB" / "zero.png").write_bytes(b"")
    return find_pairs(root / "one").train + find_pairs(root / "two").train


def test_all_faulty_files_are_named_in_one_error(tmp_path: Path) -> None:
    message = refusal(lambda: dataset(faulty(tmp_path)))
    assert message.startswith("4 of 5 pairs can't be used: ")
    assert "odd.png: odd width 41" in message
    assert "text.png: can't be read: not an image" in message
    assert "small.png and trainB/small.png differ in size: 20x20 and 19x20" in message
    assert "trainB/zero.png: can't be read" in message


def test_of_many_faults_twenty_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    side_by_side(tmp_path, train=1)
    for i in range(10, 32):
        (tmp_path / "train" / f"{i}.png").write_text("hello")
    message = refusal(lambda: dataset(find_pairs(tmp_path).train))
    assert message.startswith("22 of 23 pairs can't be used: ")
    assert message.endswith("; and 2 more")
    assert [f"{i}.png" in message for i in range(10, 32)] == [True] * 20 + [False] * 2


def test_no_fault_is_overlooked_among_many_pairs(tmp_path: Path) -> None:
    side_by_side(tmp_path, train=60)
    for i in (0, 31, 59):
        (tmp_path / "train" / f"{i}.png").write_text("hello")
    seen: list[int] = []
    message = refusal(lambda: dataset(find_pairs(tmp_path).train, on_progress=seen.append))
    assert message.startswith("3 of 60")
    assert seen == list(range(1, 61))


# Epochs


def test_each_pair_comes_once_an_epoch_and_the_last_batch_may_be_smaller(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11)
    for number in range(1, 4):
        batches = epoch(data, number)
        assert [inputs.shape for inputs, _ in batches] == [(4, 3, 16, 16)] * 2 + [(3, 3, 16, 16)]
        assert sorted(n for inputs, _ in batches for n in numbers(inputs)) == list(range(11))


def test_an_epoch_is_the_same_for_the_same_seed_and_number_and_no_other(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11)
    first = epoch(data, 1)
    torch.rand(5)  # torch's own chance plays no part
    epoch(data, 2)
    assert same(first, epoch(data, 1))
    orders = [
        [n for inputs, _ in batches for n in numbers(inputs)]
        for batches in (first, epoch(data, 2), epoch(data, 3), epoch(data, 1, seed=1))
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_an_epoch_leaves_torchs_own_chance_alone(tmp_path: Path) -> None:
    data = mapped(tmp_path, 3)
    before = torch.get_rng_state()
    epoch(data)
    assert torch.equal(before, torch.get_rng_state())


def test_input_and_target_are_cropped_and_flipped_alike(tmp_path: Path) -> None:
    for inputs, targets in epoch(mapped(tmp_path, 11)):
        assert torch.equal(inputs, targets)
        assert inputs.data_ptr() != targets.data_ptr()


def test_crops_lie_anywhere_and_half_are_flipped(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11)
    batches = [batch for number in range(30) for batch in epoch(data, number)]
    cuts = [corners(image) for inputs, _ in batches for image in inputs]
    assert {top for top, _, _ in cuts} == {left for _, left, _ in cuts} == set(range(5))
    assert 0.4 < sum(flipped for _, _, flipped in cuts) / len(cuts) < 0.6
    unflipped = [corners(i)[2] for inputs, _ in epoch(data, flip=False) for i in inputs]
    assert not any(unflipped)


def test_flipping_does_not_change_which_crops_are_taken(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11)
    with_flips, without = (
        [corners(i)[:2] for inputs, _ in epoch(data, flip=flip) for i in inputs]
        for flip in (True, False)
    )
    assert with_flips == without


def test_crops_of_the_whole_image_are_whole(tmp_path: Path) -> None:
    for inputs, _ in epoch(mapped(tmp_path, 3), crop=20):
        assert all(corners(image)[:2] == (0, 0) for image in inputs)


def test_batches_are_floats_from_minus_1_to_1(tmp_path: Path) -> None:
    pixels = np.concatenate([plain(20, (0, 255, 128)), plain(20, (255, 0, 127))], axis=1)
    save(tmp_path / "train" / "a.png", pixels)
    ((inputs, targets),) = epoch(dataset(find_pairs(tmp_path).train))
    for images, color in ((inputs, (0, 255, 128)), (targets, (255, 0, 127))):
        assert images.dtype == torch.float32
        expected = torch.tensor(color) / 127.5 - 1
        assert torch.equal(images, expected[None, :, None, None].expand(1, 3, 16, 16))


def test_without_a_cache_the_batches_are_the_same(tmp_path: Path) -> None:
    cached = mapped(tmp_path, 11)
    uncached = dataset(cached.pairs, cache_bytes=0)
    assert same(epoch(cached), epoch(uncached))
    assert same(list(cached.in_order(3)), list(uncached.in_order(3)))


def test_the_cache_spares_reading_files_again_and_only_the_cache_does(tmp_path: Path) -> None:
    cached = mapped(tmp_path, 3)
    uncached = dataset(cached.pairs, cache_bytes=3 * 6 * 20 * 20 - 1)
    just_cached = dataset(cached.pairs, cache_bytes=3 * 6 * 20 * 20)
    for pair in cached.pairs:
        pair.a.unlink()
    assert same(epoch(cached), epoch(just_cached))
    assert "no such file" in refusal(lambda: epoch(uncached))


def test_in_order_gives_all_pairs_whole_and_unflipped(tmp_path: Path) -> None:
    batches = list(mapped(tmp_path, 7).in_order(3))
    assert [len(inputs) for inputs, _ in batches] == [3, 3, 1]
    assert [n for inputs, _ in batches for n in numbers(inputs)] == list(range(7))
    for inputs, targets in batches:
        assert torch.equal(inputs, targets)
        for image in inputs:
            assert image.shape == (3, 20, 20)
            assert corners(image) == (0, 0, False)


def test_an_epoch_that_is_left_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11, cache_bytes=0)
    before = set(threading.enumerate())
    batches = data.epoch(1, batch_size=2, crop=16, flip=True, seed=0)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) == before
    assert list(batches) == []
    epoch(data)
    assert set(threading.enumerate()) == before


def test_a_dataset_of_no_pairs_is_empty(tmp_path: Path) -> None:
    data = dataset(())
    assert len(data) == 0
    assert list(data.in_order(2)) == epoch(data) == []


# Beginning anywhere, sharing batches


def test_an_epoch_can_begin_at_any_batch(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11)
    whole = epoch(data, 3)
    for start in range(5):
        assert same(epoch(data, 3, start=start), whole[start:])


def test_batches_before_the_start_are_not_decoded(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11, cache_bytes=0)
    whole = epoch(data, 1, crop=20, flip=False)
    for number in numbers(whole[0][0]) + numbers(whole[1][0]):
        data.pairs[number].a.unlink()
    assert same(epoch(data, 1, crop=20, flip=False, start=2), whole[2:])
    assert "no such file" in refusal(lambda: epoch(data, 1, start=1))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_parts_of_all_processes_together_are_the_batches(tmp_path: Path, world: int) -> None:
    data = mapped(tmp_path, 11)
    parts = [epoch(data, 2, part=(rank, world)) for rank in range(world)]
    together = [
        tuple(torch.cat(sides) for sides in zip(*shares, strict=True))
        for shares in zip(*parts, strict=True)
    ]
    assert same(together, epoch(data, 2))
    for shares in zip(*parts, strict=True):
        sizes = [len(inputs) for inputs, _ in shares]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1
        assert all(images.shape[1:] == (3, 16, 16) for share in shares for images in share)


def test_a_process_decodes_only_its_own_part(tmp_path: Path) -> None:
    data = mapped(tmp_path, 11, cache_bytes=0)
    own = epoch(data, 1, part=(1, 2))
    used = {n for inputs, _ in own for n in numbers(inputs)}
    for number, pair in enumerate(data.pairs):
        if number not in used:
            pair.a.unlink()
    assert same(epoch(data, 1, part=(1, 2)), own)


# Formats


def test_each_side_has_its_format(tmp_path: Path) -> None:
    labels = ImageFormat(channels=4, labels=True)
    deep = ImageFormat(channels=2, depth="float32", low=-3.0, high=5.0)
    indices = np.arange(400, dtype=np.uint8).reshape(20, 20, 1) % 4
    values = np.linspace(-3, 5, 800, dtype=np.float32).reshape(20, 20, 2)
    save(tmp_path / "trainA" / "x.png", indices)
    save(tmp_path / "trainB" / "x.tif", values)
    pairs = find_pairs(tmp_path).train
    for direction, formats in (("AtoB", (labels, deep)), ("BtoA", (deep, labels))):
        for cache_bytes in (0, 1 << 20):
            data = dataset(pairs, direction=direction, formats=formats, cache_bytes=cache_bytes)
            a, b = data.pair(0) if direction == "AtoB" else data.pair(0)[::-1]
            assert torch.equal(a.argmax(0), torch.from_numpy(indices[..., 0].astype(np.int64)))
            assert torch.allclose(
                b, torch.linspace(-1, 1, 800).view(20, 20, 2).permute(2, 0, 1), atol=1e-6
            )
            ((inputs, targets),) = epoch(data)
            assert [x.shape[1] for x in (inputs, targets)] == [f.channels for f in formats]
            assert inputs.dtype == targets.dtype == torch.float32
    small = dataset(pairs, formats=(labels, deep), size=13)
    assert set(small.pair(0)[0].unique().tolist()) == {-1.0, 1.0}
    assert small.pair(0)[1].abs().max() <= 1


def test_targets_beyond_their_range_are_named_and_inputs_are_not(tmp_path: Path) -> None:
    deep = ImageFormat(channels=1, depth="float32", low=0.0, high=1.0)
    for name, factor in (("inside.tif", 1.0), ("beyond.tif", 2.5)):
        for side in ("trainA", "trainB"):
            values = np.linspace(0, factor if side == "trainA" else 1, 400, dtype=np.float32)
            save(tmp_path / side / name, values.reshape(20, 20, 1))
    pairs = find_pairs(tmp_path).train
    data = dataset(pairs, formats=(deep, deep))
    assert data.pair(0)[0].max() == 4
    message = refusal(lambda: dataset(pairs, direction="BtoA", formats=(deep, deep)))
    assert message.startswith("1 of 2 pairs can't be used: ")
    assert "trainA/beyond.tif: its values go from 0 to 2.5, beyond the range" in message


def test_targets_stay_in_their_range_where_resizing_would_swing_beyond_it(tmp_path: Path) -> None:
    deep = ImageFormat(channels=1, depth="uint16", low=1000.0, high=3000.0)
    edge = np.full((20, 20, 1), 1000, np.uint16)
    edge[:, 10:] = 3000
    for side in ("trainA", "trainB"):
        save(tmp_path / side / "a.png", edge)
    _, target = dataset(find_pairs(tmp_path).train, formats=(deep, deep), size=47).pair(0)
    assert (target.min(), target.max()) == (-1, 1)


def test_16_bit_images_take_no_more_memory_than_in_their_files(tmp_path: Path) -> None:
    deep = ImageFormat(channels=1, depth="uint16", high=65535.0)
    for side in ("trainA", "trainB"):
        save(tmp_path / side / "a.png", np.full((20, 20, 1), 40000, np.uint16))
    (pair,) = find_pairs(tmp_path).train
    kept = dataset((pair,), formats=(deep, deep), cache_bytes=2 * 2 * 400)
    read_again = dataset((pair,), formats=(deep, deep), cache_bytes=2 * 2 * 400 - 1)
    pair.a.unlink()
    assert kept.pair(0)[0][0, 0, 0] == pytest.approx(40000 / 32767.5 - 1)
    assert "no such file" in refusal(lambda: read_again.pair(0))
