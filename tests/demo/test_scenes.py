"""The drawn scenes: repeatable, varied, and with targets that can be told from the inputs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piggyback_gan.demo.scenes import (
    SCENE_TASKS,
    Scene,
    draw_day,
    draw_edges,
    draw_labels,
    draw_night,
    draw_pair,
    random_scene,
    write_dataset,
)

DRAWINGS = (draw_labels, draw_day, draw_edges, draw_night)


def scene(seed: int) -> Scene:
    return random_scene(np.random.default_rng(seed))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize("size", [1, 32, 65])
def test_every_drawing_is_rgb_of_the_size_asked_for(draw, size):
    image = draw(scene(0), size)
    assert (image.mode, image.size) == ("RGB", (size, size))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_size_below_one_is_refused(draw):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw(scene(0), 0)


def test_equal_generators_give_equal_scenes_and_pictures():
    assert scene(3) == scene(3)
    for draw in DRAWINGS:
        assert draw(scene(3), 32).tobytes() == draw(scene(3), 32).tobytes()


def test_no_two_of_many_scenes_look_alike():
    drawn = np.stack([pixels(draw_day(scene(seed), 32)) for seed in range(24)])
    apart = np.abs(drawn[:, None] - drawn[None]).mean(axis=(2, 3, 4))
    assert apart[~np.eye(24, dtype=bool)].min() > 5


def test_scenes_vary_in_what_they_hold():
    scenes = [scene(seed) for seed in range(40)]
    walls = {sum(shape.material.endswith("wall") for shape in s.shapes) for s in scenes}
    kinds = {shape.material for s in scenes for shape in s.shapes}
    assert {1, 2, 3} <= walls
    assert {"lake", "mountain", "cloud", "pine", "round", "poplar", "lantern"} <= kinds


def test_every_scene_fits_the_map_of_shape_numbers():
    # shapes are numbered in 8 bits; a scene with more would be drawn wrong
    assert max(len(scene(seed).shapes) for seed in range(200)) < 256


def test_edges_are_dark_lines_on_mostly_white_paper():
    for seed in range(8):
        edges = pixels(draw_edges(scene(seed), 64))
        assert (edges[..., :1] == edges).all()
        assert (edges == 255).mean() > 0.5
        assert (edges < 64).mean() > 0.02


def test_the_night_is_dark_with_a_few_bright_lights():
    for seed in range(8):
        day, night = (pixels(draw(scene(seed), 64)) for draw in (draw_day, draw_night))
        assert night.mean() < 0.5 * day.mean()
        assert night.max() > 200


@pytest.mark.parametrize("draw", [draw_day, draw_night])
def test_pixels_of_one_label_look_much_alike_in_every_scene(draw):
    # without this no network could tell the target from the input; 45 is what shading, shadow
    # and lamp light may take, while the pictures themselves vary by far more
    labels, looks = [], []
    for seed in range(12):
        labels.append(pixels(draw_labels(scene(seed), 64)).reshape(-1, 3))
        looks.append(pixels(draw(scene(seed), 64)).reshape(-1, 3))
    label, look = np.concatenate(labels), np.concatenate(looks)
    flat, where, counts = np.unique(label, axis=0, return_inverse=True, return_counts=True)
    for number in np.flatnonzero(counts > 400):
        if draw is draw_night and tuple(flat[number]) == (255, 230, 0):
            continue  # the sun's disc turns into a crescent moon and the sky beside it
        assert look[where.ravel() == number].std(axis=0).max() < 45, flat[number]


def test_each_task_pairs_its_two_drawings():
    drawings = {
        "labels2scene": (draw_labels, draw_day),
        "edges2scene": (draw_edges, draw_day),
        "day2night": (draw_day, draw_night),
    }
    assert set(drawings) == set(SCENE_TASKS)
    for task, halves in drawings.items():
        pair = draw_pair(task, scene(1), 32)
        assert [half.tobytes() for half in pair] == [
            draw(scene(1), 32).tobytes() for draw in halves
        ]


def test_an_unknown_task_lists_the_tasks_there_are(tmp_path):
    listed = "'maps'; choose one of labels2scene, edges2scene, day2night"
    with pytest.raises(ValueError, match=listed):
        draw_pair("maps", scene(0), 32)
    with pytest.raises(ValueError, match=listed):
        write_dataset(tmp_path / "data", "maps", train=1, test=1, size=32, seed=0)
    assert not (tmp_path / "data").exists()


def test_a_dataset_holds_the_pairs_side_by_side(tmp_path):
    write_dataset(tmp_path, "day2night", train=3, test=2, size=32, seed=0)
    assert list(contents(tmp_path)) == [
        "test/0000.png",
        "test/0001.png",
        "train/0000.png",
        "train/0001.png",
        "train/0002.png",
    ]
    with Image.open(tmp_path / "train" / "0001.png") as image:
        assert (image.mode, image.size) == ("RGB", (64, 32))
        day, night = pixels(image)[:, :32], pixels(image)[:, 32:]
    assert day.mean() > 2 * night.mean()


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_the_same_seed_draws_the_same_files(tmp_path, task):
    for name in ("one", "two"):
        write_dataset(tmp_path / name, task, train=2, test=2, size=32, seed=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_or_task_draws_other_scenes(tmp_path):
    for name, task, seed in (("a", "labels2scene", 0), ("b", "labels2scene", 1)):
        write_dataset(tmp_path / name, task, train=2, test=1, size=32, seed=seed)
    write_dataset(tmp_path / "c", "day2night", train=2, test=1, size=32, seed=0)
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "b").values())
    days = [pixels(Image.open(tmp_path / name / "train" / "0000.png")) for name in "ac"]
    assert (days[0][:, 32:] != days[1][:, :32]).any()


def test_train_and_test_scenes_differ(tmp_path):
    write_dataset(tmp_path, "labels2scene", train=20, test=20, size=16, seed=0)
    assert len(set(contents(tmp_path).values())) == 40


def test_a_longer_dataset_begins_with_the_shorter_one(tmp_path):
    write_dataset(tmp_path / "short", "edges2scene", train=1, test=2, size=16, seed=0)
    write_dataset(tmp_path / "long", "edges2scene", train=4, test=3, size=16, seed=0)
    assert contents(tmp_path / "short").items() <= contents(tmp_path / "long").items()


def test_writing_again_replaces_but_never_mixes_with_other_pictures(tmp_path):
    write_dataset(tmp_path, "day2night", train=3, test=1, size=16, seed=0)
    write_dataset(tmp_path, "day2night", train=3, test=1, size=16, seed=0)
    before = contents(tmp_path)
    for split, counts in (("train", (2, 1)), ("test", (3, 0))):
        with pytest.raises(FileExistsError, match=f"{split} already holds other pictures: 000"):
            write_dataset(tmp_path, "day2night", train=counts[0], test=counts[1], size=16, seed=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("wrong", [{"train": -1}, {"test": -1}, {"size": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused_before_anything_is_written(tmp_path, wrong):
    numbers = {"train": 1, "test": 1, "size": 16, "seed": 0} | wrong
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        write_dataset(tmp_path / "data", "day2night", **numbers)
    assert not (tmp_path / "data").exists()
