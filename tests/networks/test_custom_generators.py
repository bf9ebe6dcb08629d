"""Generators that a user's own code makes: what fits is a bank's network as any other, the rest is refused."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import custom_nets
from banks import contents, images, in_process
from data_sets import refusal
from drawn import draw_pairs
from piggyback_gan import (
    Bank,
    GeneratorOptions,
    ImportOptions,
    PiggybackError,
    Tiling,
    import_task,
    pack,
    pull,
    push,
    teach,
)
from piggyback_gan.cli.progress import describe
from piggyback_gan.networks.config import CustomGeneratorConfig, GeneratorConfig
from piggyback_gan.networks.custom import build_custom, fitted
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.user_code import VARIABLE
from piggyback_gan.training.plan import plan_task
from running import GENERATOR, OPTIONS, bank_files, files, run_folder, stop

pytestmark = pytest.mark.usefixtures("without_curves", "same_time", "consent")

MIXED = GeneratorOptions(generator="custom_nets:mixed", generator_arguments={"width": 12})
BUDGET = dataclasses.replace(OPTIONS, budget=0.4)
FROM_GRAY = dataclasses.replace(BUDGET, epochs=1, input_channels=1)
TO_GRAY = dataclasses.replace(BUDGET, epochs=1, output_channels=1)


@pytest.fixture
def consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this file's networks may be made, and nothing else is remembered by later tests."""
    monkeypatch.setattr("piggyback_gan.system.user_code._allowed", set())
    names = [*vars(custom_nets), "Nets.plain", "nothing"]
    monkeypatch.setenv(VARIABLE, ", ".join(f"custom_nets:{name}" for name in names))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("pairs") / "boxes", train=4)


def config(name: str, **arguments: Any) -> CustomGeneratorConfig:
    return CustomGeneratorConfig(name=f"custom_nets:{name}", arguments=arguments)


# Sizes


@pytest.mark.parametrize(
    ("name", "arguments", "multiple", "least"),
    [
        ("Plain", {"levels": 0}, 1, 1),
        ("Plain", {"levels": 1}, 2, 2),
        ("Nets.plain", {"levels": 4}, 16, 16),
        ("InstanceNormed", {}, 4, 8),
        ("mixed", {}, 2, 2),
        ("Stated", {}, 12, 24),
    ],
)
def test_the_sizes_that_a_network_takes_are_found_or_as_it_says(
    name: str, arguments: Mapping[str, Any], multiple: int, least: int
) -> None:
    found = fitted(config(name, **arguments))
    assert (found.size_multiple, found.minimum_size) == (multiple, least)
    assert fitted(GeneratorConfig(ngf=8)) == GeneratorConfig(ngf=8)


def test_finding_out_draws_on_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    fitted(config("mixed"))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("HalfSize", {}, "found (1, 3, 768, 640); no image whose sides are multiples of 1, 2, 4 ... 256"),
        ("OneChannel", {}, "should return images of shape (1, 3, 17, 19) from"),
        ("TwoOutputs", {}, "should return a tensor of shape (1, 3, 17, 19); found tuple"),
        ("NotFinite", {}, "should return finite floats"),
        ("Raises", {}, "fails for images of shape (1, 3, 768, 1280): ValueError: no such ("),
        ("RandomAttribute", {}, "must be parameters or buffers (register_buffer)"),
        ("Noisy", {}, "must always give the same output"),
        ("Growing", {}, "a network whose 'mask' changes its shape"),
        ("Stated", {"size_multiple": 0}, "invalid size_multiple: found 0"),
        ("Stated", {"size_multiple": "2"}, "invalid size_multiple: found '2'"),
        ("Stated", {"minimum_size": 30}, "give a multiple of size_multiple 12"),
        ("Stated", {"size_multiple": 3, "minimum_size": 3}, "should return images of shape"),
        ("fails", {}, "fails, called with input_channels=3, output_channels=3: SystemExit: not today ("),
        ("mixed", {"depth": 3}, "input_channels=3, output_channels=3, depth=3: TypeError: mixed() got"),
        ("no_module", {}, "should return a torch module; found str"),
        ("nothing", {}, "can't be imported: AttributeError: module 'custom_nets'"),
    ],
)  # fmt: skip
def test_what_is_no_generator_is_refused_in_one_line(
    name: str, arguments: Mapping[str, Any], words: str
) -> None:
    assert words in refusal(lambda: fitted(config(name, **arguments)))


@pytest.mark.parametrize(
    "name", ["nets", "nets:", ":build", "a b:c", "a:b:c", "os:system('x')", "a..b:c"]
)
def test_only_dotted_names_can_name_code(name: str) -> None:
    assert "package.module:callable" in refusal(lambda: CustomGeneratorConfig(name=name))


@pytest.mark.parametrize(
    "arguments", [{"size": (1, 2)}, {"x": {1: 2}}, {"x": object()}, {"x": float("inf")}]
)
def test_arguments_that_json_does_not_keep_are_refused(arguments: Mapping[str, Any]) -> None:
    assert "JSON" in refusal(lambda: config("mixed", **arguments))


# Banks


def outputs(bank: Path, *tasks: str, direction: str | None = None) -> list[bytes]:
    """What each task makes of a picture."""
    opened, picture = Bank.open(bank), images(23, 18)
    made = (opened.translate(task, picture, direction=direction) for task in tasks)
    return [image.numpy().tobytes() for image in made]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"budget": None, "unconstrained": 0.25},
        {"mixing": "selected"},
        {"storage": "bf16"},
        {"init": "standalone", "mixing": "full", "budget": 0.9},
    ],
    ids=["low-rank", "full", "selected", "bf16", "standalone"],
)
def test_a_bank_of_a_network_of_ones_own_forgets_nothing(
    tmp_path: Path, pairs: Path, changes: dict[str, Any]
) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", pairs, BUDGET, MIXED)
    before = outputs(bank, "one")
    teach(bank, "two", pairs, dataclasses.replace(BUDGET, epochs=1, **changes))
    after = outputs(bank, "one", "two")
    assert after[:1] == before
    assert after[1:] != before
    # A process that knows nothing of it opens it, and makes the same.
    assert in_process(outputs, bank, "one", "two") == after
    assert [finding.problem for finding in Bank.open(bank).verify()] == [None, None]


def test_buffers_that_no_state_dict_has_are_kept_with_a_task(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    for seed, (task, init) in enumerate((("one", None), ("two", "one"))):
        teach(bank, task, pairs, dataclasses.replace(BUDGET, seed=seed, init=init), MIXED)
    first, second = (Bank.open(bank).generator(task) for task in ("one", "two"))
    assert "table" not in first.state_dict()
    # Task two started as task one, and went on counting.
    assert torch.equal(first.table, second.table)
    assert second.calls > first.calls > 0


def test_complex_parameters_beside_the_filters_are_kept_too(tmp_path: Path, pairs: Path) -> None:
    network = GeneratorOptions(generator="custom_nets:Fourier")
    teach(tmp_path, "one", pairs, BUDGET, network)
    before = outputs(tmp_path, "one")
    teach(tmp_path, "two", pairs, BUDGET)
    assert outputs(tmp_path, "one") == before
    assert Bank.open(tmp_path).generator("one").waves.dtype == torch.cfloat


def test_the_plan_says_how_much_can_not_be_shared(tmp_path: Path, pairs: Path) -> None:
    narrow = dataclasses.replace(MIXED, generator_arguments={"width": 4})
    unpaired = dataclasses.replace(BUDGET, mode="unpaired")
    for options, network, expected in (
        (BUDGET, narrow, True),
        (unpaired, narrow, True),
        (BUDGET, GENERATOR, False),
    ):
        plan = plan_task(tmp_path / "bank", "one", pairs, options, network)
        share = plan.parameters.private / plan.parameters.standalone
        words = f"1.000 of a standalone network; {share:.3f} is not in conv filters"
        assert (words in describe(plan)) == expected
    small = dataclasses.replace(BUDGET, budget=0.05)
    teach(tmp_path / "bank", "one", pairs, dataclasses.replace(BUDGET, epochs=1), narrow)
    said = refusal(lambda: plan_task(tmp_path / "bank", "two", pairs, small, narrow))
    assert said.startswith("budget 0.05 is too small")
    assert (
        "for parameters outside conv filters (norms, biases, linear and attention layers)" in said
    )


def test_the_bank_says_which_code_makes_its_network(tmp_path: Path, pairs: Path) -> None:
    teach(tmp_path, "one", pairs, BUDGET, MIXED)
    manifest = json.loads((tmp_path / "bank.json").read_text())
    assert manifest["architecture"]["generator"] == {
        "name": "custom_nets:mixed",
        "arguments": {"width": 12},
        "input_channels": 3,
        "output_channels": 3,
        "size_multiple": 2,
        "minimum_size": 2,
    }
    for other in (
        GeneratorOptions(generator="resnet-6"),
        GeneratorOptions(generator="custom_nets:Plain"),
        dataclasses.replace(MIXED, generator_arguments={"width": 8}),
        GeneratorOptions(ngf=4),
    ):
        with pytest.raises(PiggybackError, match="does not fit the bank, whose first task fixed"):
            teach(tmp_path, "two", pairs, BUDGET, other)


def test_it_is_shared_and_packed_and_its_readme_names_the_code(tmp_path: Path, pairs: Path) -> None:
    options = dataclasses.replace(BUDGET, epochs=1)
    for task in ("first", "second"):
        teach(tmp_path / "bank", task, pairs, options, MIXED)
    push(tmp_path / "bank", tmp_path / "shelf")
    pull(tmp_path / "shelf", tmp_path / "copy")
    assert pack(tmp_path / "copy", tmp_path / "small", ["first"]).tasks == ("first",)
    expected = outputs(tmp_path / "bank", "first")
    assert outputs(tmp_path / "copy", "first") == outputs(tmp_path / "small", "first") == expected
    assert f"export {VARIABLE}=custom_nets:mixed" in (tmp_path / "shelf/README.md").read_text()


def test_a_first_task_starts_with_the_weights_that_the_code_draws(
    tmp_path: Path, pairs: Path
) -> None:
    still = dataclasses.replace(BUDGET, learning_rate=0.0, epochs=1, seed=3)
    teach(tmp_path, "one", pairs, still, MIXED)
    torch.manual_seed(3)
    drawn = build_custom(config("mixed", width=12))
    learned = dict(Bank.open(tmp_path).generator("one").named_parameters())
    assert all(torch.equal(p, learned[key]) for key, p in drawn.named_parameters())


def test_unpaired_tasks_translate_both_ways(tmp_path: Path, pairs: Path) -> None:
    unpaired = dataclasses.replace(BUDGET, mode="unpaired", epochs=1)
    teach(tmp_path, "one", pairs, unpaired, MIXED)
    before = outputs(tmp_path, "one"), outputs(tmp_path, "one", direction="BtoA")
    teach(tmp_path, "two", pairs, unpaired)
    after = outputs(tmp_path, "one"), outputs(tmp_path, "one", direction="BtoA")
    assert after == before
    assert before[0] != before[1]


def test_large_images_are_translated_in_tiles(tmp_path: Path, pairs: Path) -> None:
    plain = GeneratorOptions(generator="custom_nets:Plain")
    teach(tmp_path, "one", pairs, dataclasses.replace(BUDGET, epochs=1), plain)
    bank, picture = Bank.open(tmp_path), images(70, 53)
    tiled = bank.translate("one", picture, tiling=Tiling(tile=32, overlap=16))
    assert torch.allclose(tiled, bank.translate("one", picture), atol=1e-5)
    with pytest.raises(PiggybackError, match="custom_nets:Plain takes multiples of 2 from 2 on"):
        bank.translate("one", picture, tiling=Tiling(tile=31, overlap=0))


@pytest.mark.parametrize(
    "changes", [{}, {"mode": "unpaired"}, {"keep_best": "ssim", "epochs": 3}], ids=str
)
def test_a_run_that_was_stopped_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, changes: dict[str, Any]
) -> None:
    options = dataclasses.replace(BUDGET, **changes)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    teach(alone, "one", pairs, options, MIXED)
    for at in (1, 2):
        stop(at, stopped, "one", pairs, options, MIXED, resume=at > 1)
    teach(stopped, "one", resume=True)
    assert bank_files(stopped) == bank_files(alone)
    name = "metrics.jsonl"
    assert files(run_folder(stopped, "one"))[name] == files(run_folder(alone, "one"))[name]


# Other channels


def test_a_task_of_other_channels_has_layers_of_its_own(tmp_path: Path, pairs: Path) -> None:
    teach(tmp_path, "one", pairs, BUDGET, MIXED)
    before = outputs(tmp_path, "one")
    teach(tmp_path, "gray", pairs, FROM_GRAY)
    assert Bank.open(tmp_path).translate("gray", images(9, 12)[:1]).shape == (3, 9, 12)
    assert outputs(tmp_path, "one") == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "ChannelNormed",
            "in custom_nets:ChannelNormed for these, 'norm.bias' is (1,), in the bank (3,)",
        ),
        ("AddsInput", "custom_nets:AddsInput fails for images"),
        ("OneWay", "custom_nets:OneWay fails, called with input_channels=3, output_channels=1"),
    ],
)
def test_channels_that_the_network_can_not_have_are_refused_in_one_line(
    tmp_path: Path, pairs: Path, name: str, words: str
) -> None:
    network = GeneratorOptions(generator=f"custom_nets:{name}")
    teach(tmp_path, "one", pairs, dataclasses.replace(BUDGET, epochs=1), network)
    before = contents(tmp_path)
    assert words in refusal(lambda: teach(tmp_path, "two", pairs, TO_GRAY))
    assert contents(tmp_path) == before


def test_a_paired_bank_needs_no_way_back(tmp_path: Path, pairs: Path) -> None:
    network = GeneratorOptions(generator="custom_nets:OneWay")
    teach(tmp_path, "one", pairs, FROM_GRAY, network)
    assert [finding.problem for finding in Bank.open(tmp_path).verify()] == [None]
    with pytest.raises(PiggybackError, match="colours can't become gray"):
        teach(tmp_path, "two", pairs, dataclasses.replace(FROM_GRAY, mode="unpaired"))


# What is for built-in networks only


@pytest.mark.parametrize(
    ("option", "value"),
    [("ngf", 8), ("norm", "batch"), ("dropout", False), ("antialias", "up"),
     ("weight_init", "normal")],
)  # fmt: skip
def test_options_of_built_in_networks_are_refused(option: str, value: Any) -> None:
    said = refusal(lambda: GeneratorOptions(generator="a:b", **{option: value}))
    assert said.startswith(f"{option} is an option of the built-in networks, not of a:b")


def test_arguments_want_code_that_takes_them(tmp_path: Path, pairs: Path) -> None:
    only = GeneratorOptions(generator_arguments={"width": 3})
    for options in (only, dataclasses.replace(only, generator="unet-64")):
        assert "generator_arguments are for code of yours" in refusal(
            lambda given=options: teach(tmp_path / "bank", "one", pairs, BUDGET, given)
        )
    assert not (tmp_path / "bank").exists()


def test_networks_of_others_are_not_imported_beside_ones_own(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    teach(bank, "one", pairs, dataclasses.replace(BUDGET, epochs=1), MIXED)
    torch.save(build_generator(GeneratorConfig(ngf=4)).state_dict(), tmp_path / "net.pth")
    network = GeneratorOptions(generator="custom_nets:mixed")
    for call in (
        lambda: import_task(bank, "two", tmp_path / "net.pth", ImportOptions()),
        lambda: import_task(tmp_path / "b", "two", tmp_path / "net.pth", architecture=network),
    ):
        assert "custom_nets:mixed" in refusal(call)
