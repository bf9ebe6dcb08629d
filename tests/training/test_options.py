"""Claims about options: defaults, checks, TOML files, and what goes before what on the command line."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from banks import card
from commands import run_here
from piggyback_gan.bank.bank import Bank
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import DiscriminatorConfig, GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.training.options import TrainingOptions, read_options

WRONG = {
    "direction": ["AtoC", 1, ["AtoB"]],
    "epochs": [0, -1, "3", 2.5, True, {"a": 1}],
    "batch_size": [0, "1", 1.0],
    "image_size": [0, "256", 25.6],
    "unconstrained": [-0.1, 1.1, "0.5", True, [0.5], float("nan"), {"*": 2}, {"*": "x"},
                      {"model": {"1": 0.5}}],
    "budget": [0, -0.1, 1.1, "0.05", True, float("nan")],
    "quality": [0.9, 2.1, "1.03", True, float("nan")],
    "allocation": ["first", 1],
    "mixing": ["none", 1],
    "rank": [0, "16", 1.5, True],
    "bank_filters": [0, "32", 1.5],
    "storage": ["fp64", 16],
    "init": [5, True, ["maps"]],
    "learn": ["freely", 1],
    "free_share": [-0.1, 1, "0.5", True, float("nan")],
    "pull_share": [-0.1, 1, "0.5", True, float("nan")],
    "factorized_rate": [-1, 0, "3", True, float("nan"), float("inf")],
    "start_noise": [-0.1, 1.1, "0.5", True],
    "learning_rate": [-1, "2e-4", float("nan"), float("inf"), True],
    "seed": [-1, 2**31, "0", 1.5, True],
    "device": ["gpu", 0],
    "decay_epochs": [-1, "1", 1.5, True],
    "load_size": [0, "286", 286.5, True],
    "flip": [1, "yes"],
    "discriminator_learning_rate": [-1, "1", float("nan")],
    "beta1": [-0.1, 1, "0.5", float("nan"), True],
    "gan_loss": ["gan", 1],
    "l1_weight": [-1, "100", float("inf")],
    "discriminator": ["patches", 1],
    "discriminator_layers": [0, "3", 1.5],
    "ndf": [0, "64"],
    "discriminator_norm": ["layer", 1],
    "discriminator_init": ["zeros", 1],
    "samples": [0, "4"],
    "generator_arguments": [3, "width", ["width"], {"input_channels": 3}, {"width": float("nan")}],
    "generator": ["resnet-7", 9],
    "ngf": [0, "64", 1.5],
    "norm": ["layer", 1, ["instance"]],
    "dropout": [1, "yes"],
    "antialias": ["yes", 1, "all"],
    "weight_init": ["zeros", 1],
    "input_channels": [0, "3", True, 3.0],
    "output_channels": [-1, "1"],
    "mode": ["both", 1],
    "accumulate": [0, "2", 1.5],
    "identity_weight": [-1, "5", float("nan"), True],
    "cycle_weight": [-1, "10", float("inf")],
    "backward_learning_rate": [-1, "2e-4", float("nan")],
    "pool_size": [-1, 65537, "50", 1.5, True],
    "augment": ["yes", True],
    "augment_policy": [["colour"], ["color", 1], "color", 5],
    "val_fraction": [-0.1, 1, "0.1", float("nan"), True],
    "keep_best": [1, True],
    "patience": [0, "5", 1.5],
    "input_labels": [0, "19", 2.5],
    "input_range": [[1, 0], [0, 0], [0], 5, "all", ["0", "1"]],
    "output_range": [[1, 0], [0, float("nan")], [0, 1, 2]],
    "precision": ["fp16", 16],
    "log": ["wandb", 1],
}  # fmt: skip
CASES = [(key, value) for key, values in WRONG.items() for value in values]
TRAINING = {field.name for field in dataclasses.fields(TrainingOptions)}
GENERATOR = {field.name for field in dataclasses.fields(GeneratorOptions)}


def literal(value: object) -> str:
    """A value in TOML."""
    if isinstance(value, dict):
        inner = ", ".join(f'"{key}" = {literal(item)}' for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def refusal(path: Path) -> str:
    with pytest.raises(PiggybackError) as caught:
        read_options(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


# Checks


def test_every_option_has_a_check_that_is_tested() -> None:
    assert set(WRONG) == TRAINING | GENERATOR


@pytest.mark.parametrize(("key", "value"), CASES, ids=str)
def test_a_wrong_value_is_one_line_with_the_key_and_the_value(key: str, value: Any) -> None:
    kind = TrainingOptions if key in TRAINING else GeneratorOptions
    with pytest.raises(PiggybackError) as caught:
        kind(**{key: value})
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), CASES, ids=str)
def test_a_wrong_value_in_a_file_is_one_line_with_file_and_key(
    tmp_path: Path, key: str, value: Any
) -> None:
    path = tmp_path / "options.toml"
    path.write_text(f"{key} = {literal(value)}\n")
    assert refusal(path).startswith(f"{path}: ")
    assert key in refusal(path)


def test_a_load_size_smaller_than_the_crops_is_refused() -> None:
    with pytest.raises(PiggybackError, match="load_size 63 is smaller than image_size 64"):
        TrainingOptions(image_size=64, load_size=63).resolved(earlier=(), device="cpu")
    with pytest.raises(PiggybackError, match="decay_epochs 6 is more than epochs 5"):
        TrainingOptions(epochs=5, decay_epochs=6).resolved(earlier=(), device="cpu")
    assert TrainingOptions(image_size=64, load_size=64).load_size == 64


def test_bounds_themselves_are_allowed() -> None:
    nothing = {"unconstrained": 0, "learning_rate": 0, "l1_weight": 0, "beta1": 0}
    options = TrainingOptions(**nothing, seed=2**31 - 1, epochs=1, decay_epochs=1)
    assert (options.unconstrained, options.seed) == (0, 2**31 - 1)
    assert TrainingOptions(decay_epochs=0, unconstrained={}).unconstrained == {}
    assert TrainingOptions(unconstrained={"*": 1, "model.1": 0.0}).unconstrained != {}


# Defaults


def test_resolving_fills_in_what_depends_on_the_task() -> None:
    first = TrainingOptions().resolved(earlier=(), device="cpu")
    later = TrainingOptions().resolved(earlier=("one",), device="cpu")
    assert (first.learning_rate, later.learning_rate) == (2e-4, 1e-3)
    assert (first.load_size, first.decay_epochs, first.device) == (286, 100, "cpu")
    assert dataclasses.replace(first, learning_rate=1e-3, init="auto") == later
    previous = TrainingOptions(init="previous").resolved(earlier=("one", "two"), device="cpu")
    assert previous.init == "two"


@pytest.mark.parametrize(
    ("size", "epochs", "load", "decay"), [(256, 200, 286, 100), (64, 5, 72, 2), (128, 1, 143, 0)]
)
def test_load_size_and_decay_follow_image_size_and_epochs(
    size: int, epochs: int, load: int, decay: int
) -> None:
    options = TrainingOptions(image_size=size, epochs=epochs)
    options = options.resolved(earlier=(), device="cpu")
    assert (options.load_size, options.decay_epochs) == (load, decay)


def test_resolving_changes_nothing_that_was_given() -> None:
    given = TrainingOptions(
        learning_rate=0.0, backward_learning_rate=0.5, identity_weight=0.0, decay_epochs=0,
        load_size=300, image_size=300, init="maps", augment="on", seed=7, budget=0.5,
        mixing="full", learn="mixed",
    )  # fmt: skip
    resolved = given.resolved(earlier=("one",), device="cpu")
    assert resolved == dataclasses.replace(given, device="cpu")
    assert resolved.resolved(earlier=(), device="cpu") == resolved


def test_the_discriminator_gets_its_options() -> None:
    options = TrainingOptions(
        discriminator="pixel",
        ndf=16,
        discriminator_layers=2,
        discriminator_norm="none",
        discriminator_init="xavier",
    )
    expected = DiscriminatorConfig(
        name="pixel", input_channels=4, ndf=16, layers=2, norm="none", init="xavier"
    )
    assert options.discriminator_config(4) == expected


# The architecture


def test_a_new_bank_gets_a_resnet_by_its_image_size() -> None:
    assert GeneratorOptions().for_new_bank(256) == GeneratorConfig(name="resnet-9")
    assert GeneratorOptions().for_new_bank(255) == GeneratorConfig(name="resnet-6")


def test_a_new_bank_gets_what_was_chosen() -> None:
    given = {"ngf": 8, "norm": "batch", "dropout": True}
    chosen = GeneratorOptions(generator="unet-64", weight_init="xavier", **given)
    channels = {"input_channels": 1, "output_channels": 1}
    expected = GeneratorConfig(name="unet-64", init="xavier", **given, **channels)
    assert chosen.for_new_bank(64, (1, 1)) == expected
    assert chosen.for_bank(expected) is expected
    assert GeneratorOptions().for_bank(expected) is expected


@pytest.mark.parametrize(
    ("option", "value"),
    [("generator", "resnet-9"), ("ngf", 64), ("norm", "batch"), ("dropout", True),
     ("weight_init", "xavier")],
)  # fmt: skip
def test_a_later_task_can_not_ask_for_another_architecture(option: str, value: Any) -> None:
    bank = GeneratorConfig(name="resnet-6", ngf=8)
    with pytest.raises(PiggybackError) as caught:
        GeneratorOptions(**{option: value}).for_bank(bank)
    assert str(caught.value).startswith(f"{option} {value!r} does not fit the bank")
    assert "\n" not in str(caught.value)


# Files


def test_a_file_sets_options_of_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text('epochs = 3\nlearning_rate = 1\nflip = false\nngf = 8\nnorm = "batch"\n')
    assert read_options(path) == (
        TrainingOptions(epochs=3, learning_rate=1, flip=False),
        GeneratorOptions(ngf=8, norm="batch"),
    )
    path.write_text("")
    assert read_options(path) == (TrainingOptions(), GeneratorOptions())


def test_every_option_can_be_set_in_a_file(tmp_path: Path) -> None:
    training = TrainingOptions(
        init="maps", keep_best="ssim", patience=3, input_channels=1, output_channels=4,
        input_range=(0, 1.5), output_range=(-1, 1), rank=4, bank_filters=8, quality=1.05,
    )  # fmt: skip
    training = training.resolved(earlier=("one",), device="cpu")
    generator = GeneratorOptions(
        generator="resnet-6", ngf=8, norm="none", dropout=False, antialias="both",
        weight_init="normal",
    )  # fmt: skip
    values = dataclasses.asdict(training) | dataclasses.asdict(generator)
    path = tmp_path / "options.toml"
    del values["input_labels"]  # it does not go with input_channels
    del values["unconstrained"]  # nor this with a budget
    del values["generator_arguments"]  # nor this with a built-in network
    assert None not in values.values()
    path.write_text("\n".join(f"{key} = {literal(value)}" for key, value in values.items()))
    assert read_options(path) == (training, generator)
    path.write_text("input_labels = 19\nunconstrained = 0.5\n")
    assert read_options(path)[0] == TrainingOptions(input_labels=19, unconstrained=0.5)
    path.write_text(
        'generator = "nets:build"\n[generator_arguments]\nwidth = 8\nmore = [1.5, "x"]\n'
    )
    arguments = {"width": 8, "more": [1.5, "x"]}
    expected = GeneratorOptions(generator="nets:build", generator_arguments=arguments)
    assert read_options(path)[1] == expected


def test_the_unconstrained_table_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text('epochs = 3\n[unconstrained]\n"model.1" = 1\n"*.conv*" = 0.5\n"*" = 0.25\n')
    options, _ = read_options(path)
    assert isinstance(options.unconstrained, dict)
    expected = [("model.1", 1), ("*.conv*", 0.5), ("*", 0.25)]
    assert list(options.unconstrained.items()) == expected


def test_a_layers_name_without_quotes_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("[unconstrained]\nmodel.1 = 0.5\n")
    assert "put names with dots in quotes" in refusal(path)


def test_unknown_keys_are_named_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("epoch = 3\n[training]\nngf = 8\n")
    message = refusal(path)
    assert "unknown options epoch, training; known: " in message
    assert all(key in message for key in TRAINING | GENERATOR)


def test_files_that_are_no_toml_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    for content in (b"epochs", b"epochs = 3\nepochs = 4\n", b"\xff\xfe", b"lr = 2e-\n"):
        path.write_bytes(content)
        assert refusal(path).startswith(f"{path} is not valid TOML: ")
    path.unlink()
    assert refusal(path) == f"{path} can't be read: No such file or directory"
    assert "Is a directory" in refusal(tmp_path)


# The command line


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 5), ("val", 2)):
        (root / split).mkdir()
        for i in range(count):
            Image.fromarray(np.full((32, 64, 3), i, np.uint8)).save(root / split / f"{i}.png")
    return root


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_here("train", *arguments)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that did nothing else than say it."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("pbgan: error: ")
    return line.removeprefix("pbgan: error: ")


BASE = 'image_size = 32\ngenerator = "resnet-6"\nngf = 8\nndf = 4\ndiscriminator_layers = 2\n'


def test_what_is_given_on_the_command_line_goes_before_the_file(tmp_path: Path, data: Path) -> None:
    bank, path = tmp_path / "bank", tmp_path / "options.toml"
    path.write_text(BASE + 'epochs = 9\nbatch_size = 2\ndirection = "BtoA"\ndevice = "cpu"\n')
    done = train(
        bank, "maps", "--data", data, "--dry-run", "--config", path,
        "--epochs", 4, "--norm", "batch", "--learning-rate", 0.5,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rgb = "RGB 8 bit -> RGB 8 bit"
    expected = [
        f"task       maps, number 1 of {bank}; starts from: random filters",
        f"data       {data} (side-by-side, paired, BtoA): 5 pairs, 2 held out (val); {rgb}",
        "network    resnet-6, ngf 8, batch norm, 3 -> 3 channels, 32 px",
        (
            "steps      12 of 2 images each, in 4 epochs, on cpu; rate 0.5, falling in the last 2 epochs; "
            "augmented"
        ),
    ]
    assert lines[:4] == expected
    assert not bank.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["options.toml"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("options") / "bank"
    new = Bank.new(path, GeneratorConfig(name="resnet-6", ngf=8))
    torch.manual_seed(0)
    network = PiggybackNetwork(build_generator(new.config))
    network.add_task("maps")
    network.finish_task()
    with new.writing("test"):
        new.add(network.task_state("maps"), card(network, "maps"))
    return path


def test_a_table_of_shares_in_a_file_reaches_the_layers(
    tmp_path: Path, data: Path, bank: Path
) -> None:
    path = tmp_path / "options.toml"
    path.write_text(BASE + '[unconstrained]\n"model.1" = 0.125\n"*" = 0.75\n')
    done = train(bank, "night", "--data", data, "--dry-run", f"--config={path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "number 2 of" in done.stdout
    assert "rate 0.001, falling in the last 100 epochs" in done.stdout
    # name, kind, filters, length, bank, lambda, ...
    table = [line.split() for line in done.stdout.splitlines() if "model." in line]
    shares = {cells[0]: next(cell for cell in cells if cell.startswith("0.")) for cells in table}
    assert shares.pop("model.1") == "0.125"
    assert len(shares) == 17
    assert set(shares.values()) == {"0.75"}


def test_an_option_against_the_banks_architecture_is_one_line(data: Path, bank: Path) -> None:
    done = train(bank, "night", "--data", data, "--dry-run", "--image-size", 32, "--ngf", 16)
    assert one_line(done).startswith("ngf 16 does not fit the bank, whose first task fixed it to 8")


def test_a_config_file_that_is_not_there_is_one_line(tmp_path: Path, data: Path) -> None:
    common = (tmp_path / "bank", "maps", "--data", data, "--dry-run")
    done = train(*common, "--config", tmp_path / "nowhere.toml")
    assert one_line(done) == f"{tmp_path / 'nowhere.toml'} can't be read: No such file or directory"
    one_line(train(*common, "--config"))


def test_unknown_flags_and_bad_values_are_one_line(tmp_path: Path, data: Path) -> None:
    common = (tmp_path / "bank", "maps", "--data", data, "--dry-run")
    assert "--epoch-count" in one_line(train(*common, "--epoch-count", 3))
    assert "invalid epochs: found 0" in one_line(train(*common, "--epochs", 0))


def test_a_rate_of_0_for_the_backward_generator_is_kept() -> None:
    options = TrainingOptions(mode="unpaired", learning_rate=3e-4, backward_learning_rate=0.0)
    assert options.resolved(earlier=(), device="cpu").backward_learning_rate == 0


def test_an_identity_weight_in_a_shared_file_does_not_concern_paired_tasks() -> None:
    options = TrainingOptions(identity_weight=5.0)
    assert options.resolved(earlier=(), device="cpu", equal_channels=False).mode == "paired"
    with pytest.raises(PiggybackError, match="identity_weight 5 needs sides of equal channels"):
        dataclasses.replace(options, mode="unpaired").resolved(
            earlier=(), device="cpu", equal_channels=False
        )
