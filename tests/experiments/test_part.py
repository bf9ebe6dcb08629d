"""Claims about a whole experiment of three tiny tasks: what each strategy learns, keeps and is measured by."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from banks import contents
from data_sets import RGB, refusal
from drawn import draw_pairs
from judging_networks import Colours, Difference, Thirds, saved
from piggyback_gan import Bank
from piggyback_gan.cli import verify
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.experiments.report.page import write_report
from piggyback_gan.experiments.results import Results, Stage, held_out_sample, part_folder
from piggyback_gan.experiments.strategies import STRATEGIES
from piggyback_gan.experiments.strategies.base import bytes_of, count
from piggyback_gan.images.display import display
from piggyback_gan.images.tensors import to_pixels
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.training.augment import Augmentation
from piggyback_gan.training.paired import PairedTrainer
from tiny_experiments import (
    HEAD,
    TASKS,
    draw,
    figures,
    run,
    stages,
    strategies_text,
    tasks_text,
    write,
)
from tiny_experiments import STRATEGIES as LABELS

KEEPING = ("standalone", "piggyback")
CONFIG = GeneratorConfig(name="resnet-6", ngf=4)
PAIRED = {"l1", "psnr", "ssim", "perceptual_distance", "frechet_distance", "kernel_distance"}
UNPAIRED = {f"{name}_{way}" for name in PAIRED for way in ("AtoB", "BtoA")}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def out(file: Path) -> Path:
    """Three strategies, all done. No test changes it."""
    folder = file.parent / "out"
    assert run(file, folder) == 0
    return folder


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(out, tmp_path / "out"))


def by_strategy(out: Path) -> Mapping[str, list[Stage]]:
    return {label: stages(out, label) for label in LABELS}


def generated(out: Path, label: str, task: str, which: str = "forward") -> Tensor:
    """What a strategy's generator, as kept, makes of one image."""
    folder = part_folder(out, label, 0)
    generator = STRATEGIES[label]().generator(folder, task, which, build_generator(CONFIG))
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made: Tensor = generator(image)
    return made


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_strategy_learns_every_task_in_order(out: Path) -> None:
    for found in by_strategy(out).values():
        assert [stage.task for stage in found] == list(TASKS)
        assert [stage.order for stage in found] == [1, 2, 3]
        assert [list(stage.figures) for stage in found] == [list(TASKS)[:n] for n in (1, 2, 3)]


def test_the_first_tasks_network_is_the_same_for_all(out: Path) -> None:
    first = stages(out, "first")
    for label, found in by_strategy(out).items():
        assert found[0].figures == first[0].figures
        assert found[0].steps == 0 and found[0].seconds == 0 and found[0].peak_memory is None
        if label in KEEPING:
            assert torch.equal(
                generated(out, label, "boxes"), generated(out, "standalone", "boxes")
            )
    assert first[0].steps == 4


@pytest.mark.parametrize("label", KEEPING)
def test_kept_tasks_have_the_same_outputs_and_figures_at_every_stage(label: str, out: Path) -> None:
    learned = {stage.task: stage.figures[stage.task] for stage in stages(out, label)}
    for stage in stages(out, label):
        assert stage.identical == {
            task: (6, 6) if TASKS[task] == "unpaired" else (3, 3) for task in stage.figures
        }
        assert stage.figures == {task: learned[task] for task in stage.figures}


def test_a_network_that_trains_on_and_on_changes_its_outputs_and_is_judged_anew(out: Path) -> None:
    first, second, third = stages(out, "finetune")
    assert second.identical == {"boxes": (0, 3), "night": (3, 3)}
    assert third.identical == {"boxes": (0, 3), "night": (0, 3), "winter": (6, 6)}
    values = [stage.figures["boxes"]["l1"].value for stage in (first, second, third)]
    assert len(set(values)) == 3


def test_few_outputs_can_be_compared_on_the_way_and_all_after_the_last_task(tmp_path: Path) -> None:
    draw(tmp_path)
    modes = {"boxes": "paired", "winter": "unpaired", "night": "paired", "dawn": "paired"}
    for seed, task in enumerate(modes):
        shutil.rmtree(tmp_path / task, ignore_errors=True)
        draw_pairs(tmp_path / task, train=4, test=10, size=20, seed=seed)
    text = HEAD.replace("steps = 4", "steps = 1")
    text += tasks_text(**modes) + strategies_text("piggyback", "finetune")
    few = write(tmp_path, "compare_images = 3\n" + text, "few.toml")
    assert run(few, tmp_path / "few") == 0
    assert run(write(tmp_path, text), tmp_path / "every") == 0
    _, second, third, last = stages(tmp_path / "few", "piggyback")
    # Whole batches: 8 images, of an unpaired task of each side.
    assert second.identical == {"boxes": (8, 8), "winter": (20, 20)}
    assert third.identical == {"boxes": (8, 8), "winter": (16, 16), "night": (10, 10)}
    assert last.identical == dict(zip(modes, [(10, 10), (20, 20), (10, 10), (10, 10)], strict=True))
    tuned = stages(tmp_path / "few", "finetune")
    # What is not as it was is judged on all images. No other task trains the way back.
    assert tuned[2].identical == {"boxes": (0, 10), "winter": (10, 20), "night": (10, 10)}
    for label in ("piggyback", "finetune"):
        assert [stage.figures for stage in stages(tmp_path / "few", label)] == [
            stage.figures for stage in stages(tmp_path / "every", label)
        ]


def test_strategies_differ_after_the_first_task(out: Path) -> None:
    nights = [found[1].figures["night"]["l1"].value for found in by_strategy(out).values()]
    assert len(set(nights)) == len(LABELS)


def test_every_task_has_the_figures_that_it_allows(out: Path) -> None:
    for found in by_strategy(out).values():
        assert set(found[2].figures["night"]) == PAIRED
        assert set(found[2].figures["winter"]) == {*UNPAIRED, "cycle_l1_A", "cycle_l1_B"}
        for figure in found[2].figures["winter"].values():
            assert figure.low <= figure.value <= figure.high


def test_what_is_kept_is_what_the_formulas_predict(out: Path) -> None:
    network = count(build_generator(CONFIG))
    for label, found in by_strategy(out).items():
        assert [stage.standalone for stage in found] == [network, network, 2 * network]
        before = 0.0
        for order, stage in enumerate(found):
            added, before = stage.parameters - before, stage.parameters
            if (
                label == "piggyback" and order
            ):  # trained free: the budget's, of which little is left
                assert 0.85 * stage.predicted < added <= stage.predicted
            else:
                assert added == stage.predicted
    standalone, finetune, piggyback = (found[2].parameters for found in by_strategy(out).values())
    assert (standalone, finetune) == (4 * network, 2 * network)
    # The second direction is new to the third task, and has a network of its own.
    assert 2 * network < piggyback < 3 * network


def test_bytes_are_those_of_the_files_that_keep_the_tasks(out: Path) -> None:
    for label, found in by_strategy(out).items():
        folder = part_folder(out, label, 0)
        kept = folder / "bank/tasks" if label == "piggyback" else folder / "kept-0003"
        assert found[2].bytes == bytes_of(kept) > 4 * found[2].parameters


def test_steps_are_equal_and_curves_have_a_point_for_each_epoch(out: Path) -> None:
    for found in by_strategy(out).values():
        for stage in found[1:]:
            assert (stage.steps, stage.learning_rate) == (4, 0.002)
            assert [point["step"] for point in stage.curve] == [2, 4]
            assert {"step", "l1", "perceptual_distance"} <= {
                name.removesuffix("_AtoB") for name in stage.curve[0]
            }
            assert stage.seconds > 0
            # No process that has torch loaded takes less.
            assert stage.peak_memory is not None and stage.peak_memory > 50e6


def test_the_piggyback_part_is_a_bank_whose_generators_were_judged(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = part_folder(out, "piggyback", 0) / "bank"
    assert verify.run([str(path)]) == 0
    bank = Bank.open(path)
    assert bank.tasks == tuple(TASKS)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for task in TASKS:
        assert torch.equal(bank.generator(task)(image), generated(out, "piggyback", task))
    back = bank.generator("winter", direction="BtoA")
    assert torch.equal(back(image), generated(out, "piggyback", "winter", "backward"))
    assert bank.card("night").options["learning_rate"] == 0.002


def test_pictures_of_inputs_targets_and_outputs_are_kept(out: Path) -> None:
    results = Results.read(out)
    assert len(results.stages) == 9
    boxes = find_pairs(out.parent / "boxes").held_out
    dataset = PairedDataset(boxes, direction="AtoB", formats=(RGB, RGB), size=16)
    for number in range(2):
        for image, what in zip(dataset.pair(number), ("input", "target"), strict=True):
            expected = display(to_pixels(image, RGB), RGB)
            assert np.array_equal(picture(held_out_sample(out, "boxes", number, what)), expected)
    assert not held_out_sample(out, "boxes", 2, "input").exists()
    for task in TASKS:
        for stage in results.stages:
            if task in stage.figures:
                shown = picture(results.output_sample(stage, task, 1))
                same = stage.identical[task][0] > 0
                learned = next(
                    s for s in results.stages if (s.strategy, s.task) == (stage.strategy, task)
                )
                then = picture(results.output_sample(learned, task, 1))
                assert np.array_equal(shown, then) == same


def test_a_report_can_be_written_of_it(copy: Path) -> None:
    page = write_report(copy).read_text()
    for words in ("Boxes", "in the features of\ncolours", *TASKS, *LABELS):
        assert words in page
    assert list((copy / "report/pictures").glob("*boxes*input*.png"))


def test_a_second_run_touches_nothing_but_the_record(out: Path, file: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert run(file, out) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {out / "experiment.json"}


def test_a_removed_newest_stage_is_measured_again_without_training(copy: Path, file: Path) -> None:
    expected = figures(copy)
    parts = [part_folder(copy, label, 0) for label in LABELS]
    kept = [{n: c for n, c in contents(p).items() if not n.startswith("stage")} for p in parts]
    for part in parts:
        (part / "stage-3.json").unlink()
    shutil.rmtree(copy / "cache")
    assert run(file, copy) == 0
    assert figures(copy) == expected
    for part, before in zip(parts, kept, strict=True):
        assert {n: c for n, c in contents(part).items() if not n.startswith("stage")} == before


def test_an_older_stage_that_is_gone_is_not_measured_by_what_later_tasks_left(
    copy: Path, file: Path
) -> None:
    part = part_folder(copy, "finetune", 0)
    for order in (2, 3):
        (part / f"stage-{order}.json").unlink()
    said = refusal(lambda: run(file, copy))
    assert said.startswith(f"{part / 'stage-2.json'} is missing, and can't be measured any more")
    assert f"remove {part}" in said


def test_a_damaged_stage_is_named(copy: Path, file: Path) -> None:
    stage = part_folder(copy, "standalone", 0) / "stage-2.json"
    stage.write_text("{")
    assert str(stage) in refusal(lambda: Results.read(copy))


def test_the_list_says_what_is_done_and_what_it_needs(
    copy: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (part_folder(copy, "finetune", 0) / "stage-3.json").unlink()
    assert run(file, copy, "--list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "done  first/seed-0",
        "done  standalone/seed-0  needs first/seed-0",
        "open  finetune/seed-0  needs first/seed-0",
        "done  piggyback/seed-0  needs first/seed-0",
    ]


def draw_signs(folder: Path) -> None:
    """Label maps of three classes, and noise."""
    chance = np.random.default_rng(0)
    for side, shape in (("A", (20, 20)), ("B", (20, 20, 3))):
        for split in ("train", "test"):
            (folder / f"{split}{side}").mkdir(parents=True)
            for name in "abc":
                values = chance.integers(0, 3 if side == "A" else 256, shape, np.uint8)
                Image.fromarray(values).save(folder / f"{split}{side}" / f"{name}.png")


def test_recognition_is_judged_where_inputs_are_label_maps(tmp_path: Path) -> None:
    draw(tmp_path)
    saved(Thirds(), tmp_path / "thirds.pt")
    draw_signs(tmp_path / "signs")
    text = HEAD.replace("steps = 4", "steps = 1") + tasks_text(boxes="paired", signs="paired")
    file = write(tmp_path, text + "input_labels = 3\n" + strategies_text("standalone"))
    assert run(file, tmp_path / "out", "--recogniser", str(tmp_path / "thirds.pt")) == 0
    learned = stages(tmp_path / "out", "standalone")[-1].figures
    assert {"pixel_accuracy", "mean_iou"} <= learned["signs"].keys()
    assert not {"pixel_accuracy", "mean_iou"} & learned["boxes"].keys()


def test_inputs_are_colour_augmented_unless_they_are_label_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    augment = Augmentation.__call__

    def watched(self: Augmentation, sides: Any, draws: Tensor, *, coloured: Any = None) -> Any:
        seen.append(tuple(coloured))
        return augment(self, sides, draws, coloured=coloured)

    monkeypatch.setattr(Augmentation, "__call__", watched)
    draw(tmp_path)
    draw_signs(tmp_path / "signs")
    head = HEAD.replace("steps = 4", "steps = 1").replace("[options]", '[options]\naugment = "on"')
    text = head + tasks_text(boxes="paired", signs="paired") + "input_labels = 3\n"
    file = write(tmp_path, text + strategies_text("standalone"))
    assert run(file, tmp_path / "out") == 0
    assert list(dict.fromkeys(seen)) == [(True, True), (False, True)]


def test_a_network_that_cannot_judge_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = draw(tmp_path)
    saved(Difference(), tmp_path / "colours.pt")  # wants two batches
    said = refusal(lambda: run(file, tmp_path / "out"))
    assert said.startswith("task 'boxes' can't be evaluated: ") and "\n" not in said
    assert not list((tmp_path / "out").rglob("training-*.json"))
    saved(Colours(), tmp_path / "colours.pt")
    assert run(file, tmp_path / "out", "--part", "first/seed-0") == 0


def test_too_few_held_out_images_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = draw(tmp_path)
    (tmp_path / "night" / "test" / "000.png").unlink()
    said = refusal(lambda: run(file, tmp_path / "out", "--part", "first/seed-0"))
    assert said.startswith(
        "task 'night' can't be evaluated: a set of 2 is too small for a distance"
    )
    assert not list((tmp_path / "out").rglob("training-*.json"))


def test_the_bank_says_which_share_and_start_a_strategy_had(tmp_path: Path) -> None:
    text = HEAD.replace("steps = 4", "steps = 1") + tasks_text(boxes="paired", night="paired")
    text += strategies_text("piggyback") + 'unconstrained = 0.5\nallocation = "even"\n'
    file = draw(tmp_path, text + 'init = "standalone"\n')
    assert run(file, tmp_path / "out") == 0
    bank = Bank.open(part_folder(tmp_path / "out", "piggyback", 0) / "bank")
    options = [bank.card(task).options for task in bank.tasks]
    keys = ("unconstrained", "allocation", "init")
    assert [tuple(o[key] for key in keys) for o in options] == [
        (0.5, "even", None),
        (0.5, "even", "standalone"),
    ]


def test_rates_fall_to_0_in_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = PairedTrainer.step

    def watched(self: PairedTrainer, *given: Any) -> Any:
        done = step(self, *given)
        rates.append(self.learning_rate())
        return done

    monkeypatch.setattr(PairedTrainer, "step", watched)
    text = HEAD.replace("steps = 4", "steps = 8") + tasks_text(boxes="paired", night="paired")
    file = draw(tmp_path, text + strategies_text("finetune"))
    assert run(file, tmp_path / "out") == 0
    falling = [1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert rates == pytest.approx([0.002 * factor for factor in falling * 2])
