"""Claims about experiments' files: what they hold, what is filled in, what is refused, and in which words."""

import re
from pathlib import Path

import pytest

from data_sets import refusal
from paths import ROOT
from piggyback_gan import TrainingOptions
from piggyback_gan.experiments.settings import Search, read_experiment
from piggyback_gan.experiments.strategies import STRATEGIES
from piggyback_gan.experiments.strategies.piggyback import Piggyback
from piggyback_gan.networks.options import GeneratorOptions
from tiny_experiments import read, strategies_text, tasks_text, write

DOCS = ROOT / "docs"
TASKS = tasks_text(maps="paired", night="unpaired")
SMALL = TASKS + strategies_text("standalone")
EVERY_KEY = """
title = "All keys"
seeds = [3, 5]
steps = 100
first_learning_rate = 1e-4
features = "judges/features.pt"
distance = "package.module:distance"
samples = 6
curve_images = 8
compare_images = 9
val_fraction = 0.1
[options]
batch_size = 4
l1_weight = 10
[generator]
generator = "unet-64"
ngf = 8
norm = "batch"
dropout = true
weight_init = "xavier"
[search]
val_fraction = 0.2
tasks = 1
steps = 50
metric = "frechet_distance"
[[task]]
name = "maps"
data = "elsewhere/maps"
steps = 70
l1_weight = 20
[[task]]
name = "night"
mode = "unpaired"
direction = "BtoA"
epochs = 9
[[task]]
name = "winter"
[[strategy]]
name = "standalone"
learning_rate = [1e-4, 2e-4]
[[strategy]]
name = "piggyback-1-8"
kind = "piggyback"
unconstrained = 0.125
init = "previous"
learning_rate_of = "standalone"
seeds = [7]
"""


def test_every_key_of_a_file_says_what_it_is_to_say(tmp_path: Path) -> None:
    write(tmp_path, "", "features.pt")
    (tmp_path / "judges").mkdir()
    (tmp_path / "features.pt").rename(tmp_path / "judges/features.pt")
    found = read(tmp_path, EVERY_KEY)
    assert (found.title, found.seeds, found.samples) == ("All keys", (3, 5), 6)
    assert (found.first_learning_rate, found.curve_images) == (1e-4, 8)
    assert found.compare_images == 9
    assert found.val_fraction == 0.1
    assert found.features == str(tmp_path / "judges/features.pt")
    assert found.distance == "package.module:distance"
    assert found.generator == GeneratorOptions(
        generator="unet-64", ngf=8, norm="batch", dropout=True, weight_init="xavier"
    )
    assert found.search == Search(val_fraction=0.2, tasks=1, steps=50, metric="frechet_distance")
    assert found.text == EVERY_KEY
    maps, night, winter = found.tasks
    assert maps.data == tmp_path / "elsewhere/maps" and night.data == tmp_path / "night"
    assert maps.options == TrainingOptions(batch_size=4, l1_weight=20)
    assert night.options == TrainingOptions(
        batch_size=4, l1_weight=10, mode="unpaired", direction="BtoA", epochs=9
    )
    assert [task.steps for task in found.tasks] == [70, None, 100]
    standalone, piggyback = found.strategies.values()
    assert (standalone.label, standalone.kind, standalone.rate_of) == ("standalone",) * 2 + (None,)
    assert (standalone.learning_rates, standalone.seeds) == ((1e-4, 2e-4), (3, 5))
    assert (piggyback.label, piggyback.kind) == ("piggyback-1-8", "piggyback")
    assert piggyback.strategy == Piggyback(unconstrained=0.125, init="previous")
    assert (piggyback.learning_rates, piggyback.rate_of) == ((), "standalone")
    assert piggyback.seeds == (7,)


def test_what_a_file_leaves_out_has_the_defaults_that_the_docs_tell(tmp_path: Path) -> None:
    found = read(tmp_path, SMALL)
    assert (found.title, found.seeds, found.first_learning_rate) == ("boxes", (0,), 2e-4)
    assert (found.features, found.distance, found.val_fraction) == (None, None, None)
    assert (found.samples, found.curve_images, found.compare_images) == (4, 64, None)
    assert found.generator == GeneratorOptions() and found.search == Search()
    assert found.tasks[0].options == TrainingOptions() and found.tasks[0].steps is None
    assert found.search == Search(
        val_fraction=0.15, tasks=2, steps=None, metric="perceptual_distance"
    )


def test_data_and_networks_can_be_given_in_place_of_the_files(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f'features = "a:b"\n{SMALL}',
        data=Path("/images"),
        features="c:d",
        distance="e.pt",
    )
    assert [task.data for task in found.tasks] == [Path("/images/maps"), Path("/images/night")]
    assert (found.features, found.distance) == ("c:d", "e.pt")


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_strategy_can_be_named_in_a_file(kind: str, tmp_path: Path) -> None:
    found = read(tmp_path, TASKS + strategies_text(kind)).strategies[kind]
    assert isinstance(found.strategy, STRATEGIES[kind])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "is not valid TOML"),
        ("", "[[task]] is missing"),
        (TASKS, "[[strategy]] is missing"),
        ("task = 3\n", "write each task as a [[task]] table"),
        ("options = 3\n" + SMALL, "[options] must be a table, found 3"),
        ("epochs = 3\n" + SMALL, "unknown options epochs; known: compare_images"),
        ("steps = 3\n" + SMALL + "[options]\nepochs = 3\n", "give steps or [options] epochs"),
        (SMALL.replace('name = "maps"', 'name = "maps"\nsteps = 3\nepochs = 3'), "steps or epochs"),
        ("seeds = 3\n" + SMALL, "seeds must be a list of whole numbers, found 3"),
        ("seeds = []\n" + SMALL, "seeds must be a list of whole numbers, found []"),
        ("seeds = [1.5]\n" + SMALL, "invalid seed: found 1.5"),
        ("seeds = [1, 2, 1]\n" + SMALL, "seeds must be different, found [1, 2, 1]"),
        ("steps = 0\n" + SMALL, "invalid steps: found 0"),
        ("samples = true\n" + SMALL, "invalid samples: found True"),
        ("val_fraction = 1.0\n" + SMALL, "invalid val_fraction: found 1.0"),
        ("curve_images = -1\n" + SMALL, "invalid curve_images: found -1"),
        ("compare_images = 0\n" + SMALL, "invalid compare_images: found 0"),
        ("features = 3\n" + SMALL, "features must be a file or package.module:callable, found 3"),
        ("distance = []\n" + SMALL, "distance must be a file or package.module:callable, found []"),
        ('first_learning_rate = "x"\n' + SMALL, "first_learning_rate: invalid learning_rate"),
        ("[options]\nlearning_rate = 1\n" + SMALL, "[options]: unknown options learning_rate"),
        ("[options]\nseed = 1\n" + SMALL, "[options]: unknown options seed"),
        ("[options]\nsamples = 1\n" + SMALL, "[options]: unknown options samples"),
        ("[options]\nbatch_size = 0\n" + SMALL, "task 'maps': invalid batch_size: found 0"),
        ("[generator]\nnfg = 1\n" + SMALL, "[generator]: unknown options nfg"),
        ('[generator]\ngenerator = "vgg"\n' + SMALL, "[generator]: unknown generator: found 'vgg'"),
        ("[search]\ntask = 1\n" + SMALL, "[search]: unknown options task"),
        ("[search]\ntasks = 0\n" + SMALL, "[search]: invalid tasks: found 0"),
        ("[search]\nsteps = 0.5\n" + SMALL, "[search]: invalid steps: found 0.5"),
        ("[search]\nval_fraction = 1\n" + SMALL, "[search]: invalid val_fraction: found 1"),
        ('[search]\nmetric = "psnr"\n' + SMALL, "[search]: unknown metric: found 'psnr'"),
        ("[[task]]\n" + SMALL, "a [[task]] has no name"),
        ('[[task]]\nname = "A b"\n' + SMALL, "'A b' can't name a task"),
        ('[[task]]\nname = "previous"\n' + SMALL, "'previous' can't name a task"),
        (SMALL + tasks_text(maps="paired"), "there are two [[task]] named 'maps'"),
        (tasks_text(maps="both") + SMALL, "task 'maps': unknown mode: found 'both'"),
        ('[[task]]\nname = "a"\ndata = 3\n' + SMALL, "task 'a': data must be a folder, found 3"),
        ('[[task]]\nname = "a"\nepoch = 3\n' + SMALL, "task 'a': unknown options epoch"),
        ('[[task]]\nname = "a"\nsteps = 0\n' + SMALL, "invalid steps: found 0"),
        (tasks_text(maps="paired") + strategies_text("finetune"), "give two or more [[task]]"),
        (SMALL + "[[strategy]]\nlearning_rate = 1\n", "a [[strategy]] has no name"),
        (SMALL + strategies_text("standalone"), "two [[strategy]] named 'standalone'"),
        (SMALL + strategies_text("first"), "strategy 'first': the name is taken"),
        (SMALL + strategies_text("magic"), "strategy 'magic': unknown kind 'magic'; give one of"),
        (SMALL + strategies_text("A/b"), "'A/b' can't name a strategy"),
        (SMALL + strategies_text("finetune") + "unconstrained = 1\n", "unknown options unconstr"),
        (SMALL + strategies_text("narrow") + "unconstrained = 2\n", "invalid unconstrained"),
        (
            SMALL + strategies_text("piggyback") + 'init = "none"\n',
            "init must be auto, standalone, prev",
        ),
        (SMALL + strategies_text("piggyback") + "seeds = 1\n", "seeds must be a list"),
        (SMALL + '[[strategy]]\nname = "lora"\n', "strategy 'lora': give learning_rate, a number"),
        (
            SMALL + strategies_text("lora") + 'learning_rate_of = "standalone"\n',
            "strategy 'lora': give learning_rate, a number or a list",
        ),
        (SMALL + strategies_text("lora", rate=[]), "learning_rate must list different numbers"),
        (SMALL + strategies_text("lora", rate=[1, 1.0]), "learning_rate must list different"),
        (SMALL + strategies_text("lora", rate='"x"'), "strategy 'lora': invalid learning_rate"),
        (SMALL + strategies_text("lora", rate=-1), "strategy 'lora': invalid learning_rate"),
        (
            SMALL + '[[strategy]]\nname = "lora"\nlearning_rate_of = "x"\n',
            "unknown strategy 'x'; found",
        ),
        (
            SMALL + '[[strategy]]\nname = "lora"\nlearning_rate_of = ["x"]\n',
            "strategy 'lora': learning_rate_of must name a strategy, found ['x']",
        ),
        (
            SMALL + '[[strategy]]\nname = "lora"\nlearning_rate_of = "lora"\n',
            "must name a strategy with a learning_rate of its own, 'lora' has none",
        ),
        (
            SMALL + strategies_text("lora", rate=[1e-4, 2e-4]),
            "its learning rate is chosen by the perceptual_distance, which no network measures: give dis",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_file_and_fault(
    text: str, words: str, tmp_path: Path
) -> None:
    said = refusal(lambda: read(tmp_path, text))
    assert said.startswith(str(tmp_path / "boxes.toml"))
    assert words in said


def test_a_rate_can_be_chosen_by_what_needs_no_network(tmp_path: Path) -> None:
    text = '[search]\nmetric = "l1"\n' + TASKS + strategies_text("lora", rate=[1e-4, 2e-4])
    assert read(tmp_path, text).strategies["lora"].learning_rates == (1e-4, 2e-4)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    assert "can't be read" in refusal(lambda: read_experiment(tmp_path / "none.toml"))


def test_the_docs_example_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    found = read(tmp_path, example())
    assert [task.options.mode for task in found.tasks] == ["paired", "paired", "unpaired"]
    assert {"standalone", "finetune", "piggyback"} <= set(found.strategies)
    assert any(len(strategy.learning_rates) > 1 for strategy in found.strategies.values())


@pytest.mark.parametrize(
    "text",
    ["x = 1\n", "[search]\nx = 1\n" + SMALL, "[generator]\nx = 1\n" + SMALL, "[[task]]\nx = 1\n"],
    ids=["file", "search", "generator", "task"],
)
def test_the_docs_name_every_key_that_an_error_lists(text: str, tmp_path: Path) -> None:
    text = text.replace("x = 1", 'name = "x"\nx = 1')
    known = refusal(lambda: read(tmp_path, text)).partition("known: ")[2]
    docs = (DOCS / "experiments.md").read_text() + (DOCS / "training.md").read_text()
    assert known
    assert [key for key in known.split(", ") if not re.search(rf"[`\[]{key}[`\]]", docs)] == []


def example() -> str:
    """The file that the docs show."""
    found = re.search(r"```toml\n(.*?)```", (DOCS / "experiments.md").read_text(), re.DOTALL)
    assert found
    return found.group(1)
