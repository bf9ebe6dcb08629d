"""Claims about an experiment's parts: which there are, what each needs, chosen rates, what a begun folder refuses."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from data_sets import refusal
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.part_names import part_names
from piggyback_gan.experiments.results import Stage, read_experiment_file, to_json, write_stage
from piggyback_gan.experiments.run.runner import Runner
from tiny_experiments import HEAD, TASKS, draw, read, run, strategies_text, tasks_text, write

BASE = HEAD + tasks_text(**TASKS)
CHOICE = BASE + strategies_text("standalone", rate=[0.1, 0.2, 0.3])
TAKEN = CHOICE + '[[strategy]]\nname = "finetune"\nlearning_rate_of = "standalone"\n'


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return folder


def runner(drawn: Path, out: Path, text: str) -> Runner:
    run = Runner(read(drawn, text), out, "cpu")
    run.begin("pbgan experiment ...")
    return run


def stage(label: str, order: int, figures: Mapping[str, float]) -> Stage:
    """What was measured after a task, but for these figures made up."""
    task = list(TASKS)[order - 1]
    return Stage(
        strategy=label,
        seed=0,
        order=order,
        task=task,
        learning_rate=0.1,
        steps=4,
        seconds=1.0,
        peak_memory=None,
        parameters=1,
        predicted=1,
        standalone=1,
        bytes=1,
        figures={task: {name: Figure(value, value, value) for name, value in figures.items()}},
        identical={task: (3, 3)},
    )


def judged(run: Runner, name: str, *distances: float) -> None:
    """A candidate as if it were done: its metric for each task after the first."""
    folder = run.folder(run.part(name))
    folder.mkdir(parents=True)
    write_stage(folder, stage(name, 1, {"perceptual_distance": 1.0}))
    for order, (metric, value) in enumerate(
        zip(("perceptual_distance", "perceptual_distance_AtoB"), distances, strict=True), 2
    ):
        others = {"perceptual_distance_BtoA": 1 / value, "l1": 1 / value}
        write_stage(folder, stage(name, order, others | {metric: value}))


# --- which parts ---


def test_each_part_comes_after_those_that_it_needs(drawn: Path) -> None:
    text = TAKEN.replace('title = "Boxes"', "seeds = [4, 2]") + (
        '[[strategy]]\nname = "lora"\nlearning_rate = 1e-3\nseeds = [2]\n'
    )
    parts = part_names(read(drawn, text))
    needs = {str(part): [str(need) for need in part.needs] for part in parts}
    candidates = [f"standalone/rate-0.{n}" for n in (1, 2, 3)]
    assert needs == {
        "first/seed-2": [],
        "first/seed-4": [],
        **{name: ["first/seed-4"] for name in candidates},
        "standalone/seed-2": ["first/seed-2", *candidates],
        "finetune/seed-2": ["first/seed-2", *candidates],
        "lora/seed-2": ["first/seed-2"],
        "standalone/seed-4": ["first/seed-4", *candidates],
        "finetune/seed-4": ["first/seed-4", *candidates],
    }
    order = list(needs)
    assert all(order.index(need) < order.index(part) for part in order for need in needs[part])


def test_a_part_that_there_is_not_is_said_with_some_there_are(drawn: Path, tmp_path: Path) -> None:
    said = refusal(lambda: runner(drawn, tmp_path / "out", CHOICE).part("standalone/seed-9"))
    assert "unknown part 'standalone/seed-9'; parts: first/seed-0, standalone/rate-0.1" in said


def test_a_part_that_needs_others_says_which(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path / "out", CHOICE)
    said = refusal(lambda: run.run(run.part("standalone/rate-0.1"), print))
    assert said == "standalone/rate-0.1 needs other parts first: first/seed-0"


# --- which learning rate ---


def test_the_rate_of_the_smallest_relative_metric_is_chosen(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path / "out", TAKEN)
    # Absolutely 0.3 has the smallest sum; a second task on a small scale weighs as much as the first.
    judged(run, "standalone/rate-0.1", 11.0, 0.010)
    judged(run, "standalone/rate-0.2", 12.0, 0.040)
    judged(run, "standalone/rate-0.3", 10.0, 0.040)
    strategies = run.experiment.strategies
    assert run.chosen_rate(strategies["standalone"]) == 0.1
    assert run.chosen_rate(strategies["finetune"]) == 0.1


def test_a_rate_that_diverged_is_not_chosen(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path / "out", CHOICE)
    judged(run, "standalone/rate-0.1", 1.0, 1.0)
    judged(run, "standalone/rate-0.2", 2.0, 2.0)
    judged(run, "standalone/rate-0.3", 3.0, 3.0)
    diverged = run.folder(run.part("standalone/rate-0.1")) / "diverged.json"
    diverged.write_bytes(to_json({"problem": "nan"}))
    settings = run.experiment.strategies["standalone"]
    assert run.chosen_rate(settings) == 0.2
    for rate in (0.2, 0.3):
        diverged.with_name("..").joinpath(f"rate-{rate}", "diverged.json").write_text("{}")
    assert "diverged at every learning rate" in refusal(lambda: run.chosen_rate(settings))


def test_the_only_rate_of_a_strategy_needs_no_search(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path / "out", BASE + strategies_text("standalone", rate=0.7))
    assert run.chosen_rate(run.experiment.strategies["standalone"]) == 0.7


def test_a_metric_that_was_not_measured_is_said(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path / "out", CHOICE)
    folder = run.folder(run.part("standalone/rate-0.1"))
    folder.mkdir(parents=True)
    for order in (1, 2):
        write_stage(folder, stage("standalone", order, {"psnr": 1.0}))
    said = refusal(lambda: run.chosen_rate(run.experiment.strategies["standalone"]))
    assert "'perceptual_distance' is not measured for task 'night'; there are: psnr" in said


# --- what a begun folder takes ---


def begun(drawn: Path, out: Path, text: str) -> None:
    """A folder in which a part has learned its first task."""
    run = runner(drawn, out, text)
    part = run.part("first/seed-0")
    run.remember(part)
    write_stage(run.folder(part), stage("first", 1, {"l1": 1.0}))
    own = run.part("standalone/seed-0")
    if len(own.needs) == 1:  # no rate is to be chosen before
        run.remember(own)
        write_stage(run.folder(own), stage("standalone", 1, {"l1": 1.0}))


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("steps = 4", "steps = 9", "epochs of task "),
        ("batch_size = 2", "batch_size = 1", "epochs of task "),
        ('mode = "unpaired"', 'mode = "unpaired"\ndirection = "BtoA"', "direction of task "),
        ("ngf = 4", "ngf = 8", "generator"),
        ("first_learning_rate = 0.002", "first_learning_rate = 0.001", "first_learning_rate"),
        ("val_fraction = 0.34", "val_fraction = 0.5", "search"),
        ("samples = 2", "samples = 1", "samples"),
        ("samples = 2", "samples = 2\nval_fraction = 0.5", "val_fraction"),
        ("curve_images = 2", "curve_images = 1", "curve_images"),
        ("curve_images = 2", "curve_images = 2\ncompare_images = 8", "compare_images"),
        ("colours.pt", "difference.pt", "features"),
        ("difference.pt", "colours.pt", "distance"),
    ],
)
def test_a_begun_folder_refuses_what_could_not_be_compared(
    before: str, after: str, key: str, drawn: Path, tmp_path: Path
) -> None:
    begun(drawn, tmp_path, CHOICE)
    said = refusal(lambda: runner(drawn, tmp_path, CHOICE.replace(before, after)))
    assert said.startswith(f"{tmp_path} was started with different {key}")


def test_images_that_changed_are_noticed(tmp_path: Path) -> None:
    draw(tmp_path)
    begun(tmp_path, tmp_path / "out", CHOICE)
    runner(tmp_path, tmp_path / "out", CHOICE)
    image = next(path for path in sorted(tmp_path.rglob("*.png")) if "train" in str(path))
    with Image.open(image) as before:
        size = before.size
    Image.new("RGB", size).save(image)
    said = refusal(lambda: runner(tmp_path, tmp_path / "out", CHOICE))
    assert "was started with different images of task" in said


def test_a_network_that_judges_is_known_by_its_bytes(drawn: Path, tmp_path: Path) -> None:
    begun(drawn, tmp_path / "out", CHOICE)
    other = tmp_path / "colours.pt"
    other.write_bytes((drawn / "difference.pt").read_bytes())
    experiment = read(drawn, CHOICE, features=str(other))
    said = refusal(lambda: Runner(experiment, tmp_path / "out", "cpu").begin(""))
    assert "started with different features" in said


def test_a_begun_folder_refuses_a_strategy_with_other_options(drawn: Path, tmp_path: Path) -> None:
    begun(drawn, tmp_path, BASE + strategies_text("standalone"))
    said = refusal(lambda: runner(drawn, tmp_path, BASE + strategies_text("standalone", rate=1)))
    assert "standalone/seed-0 has results with other learning_rate (0.002, now 1.0)" in said


def test_a_list_of_parts_is_of_what_the_folder_has(drawn: Path, tmp_path: Path) -> None:
    begun(drawn, tmp_path, BASE + strategies_text("standalone"))
    written = (tmp_path / "experiment.json").read_bytes()
    changed = write(drawn, BASE + strategies_text("standalone", rate=1))
    said = refusal(lambda: run(changed, tmp_path, "--list"))
    assert "standalone/seed-0 has results with other learning_rate" in said
    assert (tmp_path / "experiment.json").read_bytes() == written


def test_a_strategy_once_left_out_comes_back_only_as_it_was(drawn: Path, tmp_path: Path) -> None:
    begun(drawn, tmp_path, BASE + strategies_text("standalone"))
    runner(drawn, tmp_path, BASE + strategies_text("finetune"))
    said = refusal(lambda: runner(drawn, tmp_path, BASE + strategies_text("standalone", rate=1)))
    assert "standalone/seed-0 has results with other learning_rate" in said
    runner(drawn, tmp_path, BASE + strategies_text("standalone", "finetune"))


def test_results_at_a_rate_no_longer_chosen_are_refused(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path, TAKEN)
    run.remember(run.part("first/seed-0"))
    write_stage(run.folder(run.part("first/seed-0")), stage("first", 1, {"l1": 1.0}))
    for rate, distance in ((0.1, 1.0), (0.2, 2.0), (0.3, 3.0)):
        judged(run, f"standalone/rate-{rate}", distance, distance)
    run.remember(run.part("finetune/seed-0"))
    shutil.rmtree(run.folder(run.part("standalone/rate-0.1")))
    judged(run, "standalone/rate-0.1", 9.0, 9.0)
    said = refusal(lambda: runner(drawn, tmp_path, TAKEN))
    assert "finetune/seed-0 has results with other learning_rate (0.1, now 0.2)" in said


def test_a_part_goes_on_only_where_its_bits_are_the_same(drawn: Path, tmp_path: Path) -> None:
    text = BASE + strategies_text("standalone")
    begun(drawn, tmp_path, text)
    path = tmp_path / "parts" / "standalone" / "seed-0" / "part.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    said = refusal(lambda: runner(drawn, tmp_path, text))
    assert "was begun with device cuda, this is cpu" in said


def test_rates_that_differ_little_are_parts_of_their_own(drawn: Path) -> None:
    names = part_names(
        read(drawn, BASE + strategies_text("standalone", rate=[0.001, 0.0010000001]))
    )
    assert [str(name) for name in names if name.rate] == [
        "standalone/rate-0.001",
        "standalone/rate-0.0010000001",
    ]


def test_a_rate_whose_distance_is_no_number_is_not_chosen(drawn: Path, tmp_path: Path) -> None:
    run = runner(drawn, tmp_path, CHOICE)
    judged(run, "standalone/rate-0.1", float("nan"), float("nan"))
    judged(run, "standalone/rate-0.2", 2.0, 2.0)
    judged(run, "standalone/rate-0.3", 1.0, 1.0)
    assert run.chosen_rate(run.experiment.strategy("standalone")) == 0.3


def test_a_begun_folder_takes_new_seeds_strategies_and_title(drawn: Path, tmp_path: Path) -> None:
    begun(drawn, tmp_path, BASE + strategies_text("standalone"))
    text = BASE.replace('title = "Boxes"', 'title = "More"\nseeds = [0, 1]')
    runner(drawn, tmp_path, text + strategies_text("standalone", "finetune"))
    found = read_experiment_file(tmp_path)
    assert (found["title"], found["seeds"]) == ("More", [0, 1])
    assert [strategy["label"] for strategy in found["strategies"]] == ["standalone", "finetune"]


def test_a_folder_without_results_takes_another_file(drawn: Path, tmp_path: Path) -> None:
    runner(drawn, tmp_path, CHOICE)
    runner(drawn, tmp_path, CHOICE.replace("ngf = 4", "ngf = 8"))
    assert read_experiment_file(tmp_path)["generator"]["ngf"] == 8


def test_the_folder_says_all_that_was_set(drawn: Path, tmp_path: Path) -> None:
    runner(drawn, tmp_path, CHOICE)
    found = json.loads((tmp_path / "experiment.json").read_text())
    assert found["file"] == CHOICE and found["command"] == "pbgan experiment ..."
    assert [(t["name"], t["mode"], t["steps"]) for t in found["tasks"]] == [
        ("boxes", "paired", 4),
        ("night", "paired", 4),
        ("winter", "unpaired", 4),
    ]
    assert found["strategies"][0]["learning_rates"] == [0.1, 0.2, 0.3]
    assert found["features"]["name"] == "colours" and len(found["features"]["sha256"]) == 64


def test_a_strategy_that_cannot_learn_a_second_task_is_refused_before_anything_is_trained(
    drawn: Path, tmp_path: Path
) -> None:
    text = BASE + strategies_text("piggyback") + "budget = 0.001\n"
    said = refusal(lambda: runner(drawn, tmp_path / "out", text))
    assert said.startswith("strategy 'piggyback': ") and "budget 0.001 is too small" in said
    assert not (tmp_path / "out").exists()
