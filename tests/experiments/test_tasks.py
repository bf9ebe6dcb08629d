"""Claims about an experiment's tasks as they are found: steps, what is held out, channels."""

import dataclasses
from pathlib import Path

import pytest
import torch

from data_sets import refusal
from drawn import draw_pairs
from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import PairedFolder, UnpairedFolder
from piggyback_gan.experiments.tasks import architecture, find_search_tasks, find_tasks
from piggyback_gan.networks.options import GeneratorOptions
from tiny_experiments import HEAD, TASKS, read, strategies_text, tasks_text

ALL = HEAD + tasks_text(**TASKS) + strategies_text("standalone")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """7 training pairs and 3 held-out ones of each task."""
    for seed, task in enumerate(TASKS):
        draw_pairs(tmp_path / task, train=7, test=3, seed=seed)
    return tmp_path


@pytest.mark.parametrize(
    ("steps", "epochs", "trained"), [(1, 1, 4), (4, 1, 4), (5, 2, 8), (13, 4, 16)]
)
def test_steps_are_rounded_up_to_whole_epochs(
    steps: int, epochs: int, trained: int, images: Path
) -> None:
    experiment = read(images, ALL.replace("steps = 4", f"steps = {steps}"))
    for task in find_tasks(experiment, "cpu"):
        # 7 images, 2 in a step.
        assert (task.options.epochs, task.epoch_steps, task.steps) == (epochs, 4, trained)
        assert task.options.decay_epochs == epochs // 2


def test_a_tasks_own_epochs_go_before_the_files_steps(images: Path) -> None:
    own = tasks_text(boxes="paired") + "epochs = 3\naccumulate = 2\n" + tasks_text(night="paired")
    found = find_tasks(read(images, HEAD + own + strategies_text("standalone")), "cpu")
    assert [(task.options.epochs, task.steps) for task in found] == [(3, 6), (1, 4)]


def test_counts_are_of_pairs_or_of_the_images_of_both_sides(images: Path) -> None:
    boxes, _, winter = find_tasks(read(images, ALL), "cpu")
    assert (boxes.train_images, boxes.held_out_images) == (7, 3)
    assert (winter.train_images, winter.held_out_images) == (7, 6)


def test_a_task_without_held_out_images_is_refused(images: Path) -> None:
    draw_pairs(images / "bare", train=2, test=0)
    text = HEAD + tasks_text(boxes="paired", bare="paired") + strategies_text("standalone")
    said = refusal(lambda: find_tasks(read(images, text), "cpu"))
    assert said.startswith(f"task 'bare': {images / 'bare'} has no val or test images")


def test_the_search_holds_out_training_images_and_never_sees_held_out_ones(images: Path) -> None:
    experiment = read(images, ALL)
    whole = {task.name: task for task in find_tasks(experiment, "cpu")}
    first, *later = find_search_tasks(experiment, "cpu")
    assert first == whole["boxes"] and [task.name for task in later] == ["night", "winter"]
    for task in later:
        train, judged = _paths(task.folder)
        all_train, held_out = _paths(whole[task.name].folder)
        assert train and judged and not train & judged
        assert train | judged == all_train
        assert not (train | judged) & held_out


def test_the_search_spares_the_training_images_that_judge_the_experiment(images: Path) -> None:
    experiment = read(images, "val_fraction = 0.3\n" + ALL)
    judging = {task.name: _paths(task.folder)[1] for task in find_tasks(experiment, "cpu")}
    for task in find_search_tasks(experiment, "cpu")[1:]:
        train, judged = _paths(task.folder)
        assert train and judged and not (train | judged) & judging[task.name]


def test_a_part_of_the_training_images_can_judge_instead_of_held_out_ones(images: Path) -> None:
    held_out = [_paths(task.folder)[1] for task in find_tasks(read(images, ALL), "cpu")]
    for task, never in zip(
        find_tasks(read(images, "val_fraction = 0.3\n" + ALL), "cpu"), held_out, strict=True
    ):
        train, judged = _paths(task.folder)
        assert (len(train), len(judged)) == (5, 2)
        assert not train & judged and not (train | judged) & never


def test_the_search_trains_as_many_tasks_and_steps_as_are_set(images: Path) -> None:
    text = ALL.replace("val_fraction = 0.34", "val_fraction = 0.34\ntasks = 1\nsteps = 9")
    found = find_search_tasks(read(images, text), "cpu")
    # Of 7 training pairs 5 are left: 3 steps in an epoch.
    assert [(task.name, task.steps) for task in found] == [("boxes", 4), ("night", 9)]


def test_a_few_held_out_images_are_the_first_of_all(images: Path) -> None:
    experiment = read(
        images, ALL.replace('mode = "unpaired"', 'mode = "unpaired"\ndirection="BtoA"')
    )
    boxes, _, winter = find_tasks(experiment, "cpu")
    for task in (boxes, winter):
        some, every = task.held_out(2), task.load().held_out
        assert isinstance(some, PairedDataset | UnpairedDataset) and every is not None
        assert (len(some), len(every)) == (2, 3)
        for index in range(2):
            for one, other in zip(some.pair(index), every.pair(index), strict=True):
                assert torch.equal(one, other)


def test_tasks_of_other_channels_are_refused(images: Path) -> None:
    gray = tasks_text(boxes="paired", night="paired") + "output_channels = 1\n"
    experiment = read(images, HEAD + gray + strategies_text("standalone"))
    found = find_tasks(experiment, "cpu")
    said = refusal(lambda: architecture(experiment, found))
    assert "task 'night' has 3 channels in and 1 out, the first task 3 and 3" in said


def test_a_network_of_ones_own_is_refused(images: Path) -> None:
    experiment = dataclasses.replace(
        read(images, ALL), generator=GeneratorOptions(generator="custom_nets:Plain")
    )
    found = find_tasks(experiment, "cpu")
    assert "on built-in networks, not on custom_nets:Plain" in refusal(
        lambda: architecture(experiment, found)
    )


def test_an_image_size_that_the_architecture_cannot_take_is_refused(images: Path) -> None:
    experiment = read(images, ALL.replace("resnet-6", "unet-64"))
    assert "16" in refusal(lambda: architecture(experiment, find_tasks(experiment, "cpu")))


def _paths(folder: PairedFolder | UnpairedFolder) -> tuple[set[Path], set[Path]]:
    """The files that train, and those that are held out."""
    if isinstance(folder, PairedFolder):
        return tuple(
            {source.path for pair in pairs for source in pair.sources}
            for pairs in (folder.train, folder.held_out)
        )
    return (
        {source.path for source in folder.train_a + folder.train_b},
        {source.path for source in folder.held_out_a + folder.held_out_b},
    )
