"""Claims about folders: unpaired layouts, splits made by seed, fingerprints of what lies in them."""

from pathlib import Path

import pytest

from data_sets import refusal, side_by_side, two_folders
from piggyback_gan.data.fingerprint import changes, fingerprint
from piggyback_gan.data.folders import find_pairs, find_unpaired
from piggyback_gan.images.read import Source


def names(sources: tuple[Source, ...]) -> list[str]:
    return [source.path.name for source in sources]


# Unpaired


def test_sides_of_any_counts_and_names_are_found(tmp_path: Path) -> None:
    root = two_folders(
        tmp_path / "horses", trainA=["1.png", "2.JPG", "3.png"], trainB=["x.png"], testA=["4.png"],
        testB=["y.png", "z.png"],
    )  # fmt: skip
    folder = find_unpaired(root)
    assert (folder.name, folder.layout, folder.held_out_name) == ("horses", "two folders", "test")
    assert names(folder.train_a) == ["1.png", "2.JPG", "3.png"]
    assert names(folder.train_b) == ["x.png"]
    assert (names(folder.held_out_a), names(folder.held_out_b)) == (["4.png"], ["y.png", "z.png"])
    assert folder.paired_held_out == ()
    assert len(folder.paths) == 7


def test_the_halves_of_side_by_side_images_are_two_sides(tmp_path: Path) -> None:
    folder = find_unpaired(side_by_side(tmp_path, train=3, val=2))
    assert folder.layout == "side-by-side"
    assert [source.half for source in folder.train_a] == ["left"] * 3
    assert [source.half for source in folder.train_b] == ["right"] * 3
    assert [pair.name for pair in folder.paired_held_out] == ["0.png", "1.png"]
    assert all(pair.side_by_side for pair in folder.paired_held_out)
    assert len(folder.paths) == 5


def test_held_out_images_with_partners_are_pairs_too(tmp_path: Path) -> None:
    held_out = {"valA": ["1.png", "2.png"], "valB": ["1.jpg", "2.png"]}
    root = two_folders(tmp_path, trainA=["a.png"], trainB=["b.png"], **held_out)
    pairs = find_unpaired(root).paired_held_out
    assert [(pair.a.name, pair.b.name) for pair in pairs] == list(
        zip(*held_out.values(), strict=True)
    )
    (root / "valB" / "2.png").unlink()
    assert find_unpaired(root).paired_held_out == ()


def test_a_side_without_images_is_refused(tmp_path: Path) -> None:
    root = two_folders(tmp_path, trainA=["a.png"])
    assert "no images in trainB/" in refusal(lambda: find_unpaired(root))
    two_folders(root, trainB=["a.png"], testB=["a.png"])
    assert "images in testB/, but none in testA/" in refusal(lambda: find_unpaired(root))
    (tmp_path / "one" / "train").mkdir(parents=True)
    assert "no images in train/" in refusal(lambda: find_unpaired(tmp_path / "one"))
    assert "no such folder" in refusal(lambda: find_unpaired(tmp_path / "nowhere"))
    assert "found neither" in refusal(lambda: find_unpaired(tmp_path / "trainA"))


# Splits


def test_a_split_is_made_of_train_by_seed_and_nothing_is_in_both(tmp_path: Path) -> None:
    folder = find_pairs(side_by_side(tmp_path, train=20))
    split = folder.with_held_out(0.2, seed=0)
    assert (len(split.train), len(split.held_out)) == (16, 4)
    assert sorted(split.train + split.held_out, key=lambda p: p.name) == sorted(
        folder.train, key=lambda p: p.name
    )
    assert [p for p in folder.train if p in split.train] == list(split.train)
    assert split.held_out_name == "0.2 of train"
    assert split == folder.with_held_out(0.2, seed=0)
    assert len({folder.with_held_out(0.2, seed).held_out for seed in range(8)}) > 4
    assert split.paths == folder.paths


def test_a_split_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    here, there = (
        find_pairs(side_by_side(tmp_path / place, train=20)).with_held_out(0.3, 5).held_out
        for place in ("here", "there")
    )
    assert [pair.name for pair in here] == [pair.name for pair in there]


def test_unpaired_sides_are_split_each_for_itself(tmp_path: Path) -> None:
    root = two_folders(
        tmp_path, trainA=[f"{i}.png" for i in range(10)], trainB=[f"b{i}.png" for i in range(4)]
    )
    folder = find_unpaired(root)
    split = folder.with_held_out(0.3, seed=1)
    assert [len(split.train_a), len(split.held_out_a)] == [7, 3]
    assert [len(split.train_b), len(split.held_out_b)] == [3, 1]
    assert set(split.train_a) | set(split.held_out_a) == set(folder.train_a)
    assert set(split.train_b) | set(split.held_out_b) == set(folder.train_b)
    assert split.paired_held_out == ()


@pytest.mark.parametrize("together", [True, False])
def test_of_pairs_taken_unpaired_both_are_held_out(tmp_path: Path, together: bool) -> None:
    files = [f"{i}.png" for i in range(10)]
    root = tmp_path / "data"
    if together:
        side_by_side(root, train=10)
    else:
        two_folders(root, trainA=files, trainB=files)
    split = find_unpaired(root).with_held_out(0.3, seed=1)
    assert len(split.paired_held_out) == 3
    assert names(split.held_out_a) == names(split.held_out_b)
    assert names(split.train_a) == names(split.train_b)
    assert set(names(split.train_a)).isdisjoint(names(split.held_out_a))
    paired = find_pairs(root).with_held_out(0.3, seed=1)
    assert paired.held_out == split.paired_held_out


def test_splits_that_leave_nothing_and_second_splits_are_refused(tmp_path: Path) -> None:
    root = side_by_side(tmp_path, train=2)
    for find in (find_pairs, find_unpaired):
        assert "none left to train on" in refusal(lambda f=find: f(root).with_held_out(0.9, 0))
        for fraction in (0.0, 1.0, -1.0, 2.0):
            message = refusal(lambda f=find, x=fraction: f(root).with_held_out(x, 0))
            assert "--val-fraction" in message
        assert find(root).with_held_out(0.01, 0).held_out_name == "0.01 of train"
    side_by_side(tmp_path, val=1)
    for find in (find_pairs, find_unpaired):
        assert "val is held out already" in refusal(lambda f=find: f(root).with_held_out(0.5, 0))


# Fingerprints


def test_a_fingerprint_is_of_names_and_contents_wherever_they_lie(tmp_path: Path) -> None:
    seen: list[int] = []
    prints = []
    for place in ("here", "there"):
        root = two_folders(tmp_path / place, trainA=["a.png", "b.png"], trainB=["a.png", "b.png"])
        paths = find_pairs(root).paths
        prints.append(fingerprint(paths, root=root, on_progress=seen.append))
    assert seen == [1, 2, 3, 4] * 2
    assert sorted(prints[0]) == ["trainA/a.png", "trainA/b.png", "trainB/a.png", "trainB/b.png"]
    assert prints[0] == prints[1]
    assert prints[0]["trainA/a.png"] != prints[0]["trainB/a.png"]
    assert changes(*prints) is None


def test_every_kind_of_change_is_named(tmp_path: Path) -> None:
    root = two_folders(tmp_path, trainA=["a.png", "b.png", "c.png"])
    before = fingerprint(sorted((root / "trainA").iterdir()), root=root)
    (root / "trainA" / "a.png").unlink()
    (root / "trainA" / "b.png").write_bytes(b"x")
    two_folders(root, trainA=["d.png"])
    after = fingerprint(sorted((root / "trainA").iterdir()), root=root)
    assert changes(before, after) == (
        "1 added: trainA/d.png; 1 removed: trainA/a.png; 1 changed: trainA/b.png"
    )


def test_of_many_changes_twenty_are_named_and_the_rest_counted() -> None:
    before = {f"{i:02}.png": "x" for i in range(30)}
    after = {f"{i:02}.png": "y" for i in range(15)} | {"new.png": "z"}
    line = changes(before, after)
    assert line is not None
    assert "\n" not in line
    assert line.startswith("1 added: new.png; 15 removed: 15.png, 16.png")
    assert line.count(".png") == 20
    assert line.endswith("; 15 changed: 00.png, 01.png, 02.png, 03.png, and 11 more")
    assert changes({"a": "x"}, {"a": "x"}) is None


def test_a_file_that_went_missing_is_one_line(tmp_path: Path) -> None:
    message = refusal(lambda: fingerprint([tmp_path / "gone.png"], root=tmp_path))
    assert message == f"{tmp_path / 'gone.png'} can't be read: No such file or directory"
