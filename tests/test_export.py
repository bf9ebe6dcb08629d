"""Exported files: what they compute, what they say of themselves, and that they need no more."""

import functools
import json
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from banks import card, contents, file_of, forge, network, pbgan, with_metadata
from piggyback_gan import (
    Exported,
    ExportOptions,
    GeneratorConfig,
    PiggybackError,
    export_task,
    import_task,
)
from piggyback_gan.bank import Bank, open_or_new
from piggyback_gan.config import Architecture, CustomGeneratorConfig
from piggyback_gan.export.contract import CONTRACT_KEY, ImageContract
from piggyback_gan.export.onnx_file import open_onnx, require
from piggyback_gan.image_formats import ImageFormat
from piggyback_gan.images import encode, read_image
from piggyback_gan.names import EXPORT_FORMATS, ExportFormat
from piggyback_gan.own_code import VARIABLE
from piggyback_gan.store import Store
from running import start

RESNET = GeneratorConfig(name="resnet-6", ngf=4)
UNET = GeneratorConfig(name="unet-64", ngf=2)
EIGHT_BITS = ImageFormat()


def bank_of(
    path: Path,
    config: Architecture = RESNET,
    formats: tuple[ImageFormat, ImageFormat] = (EIGHT_BITS, EIGHT_BITS),
    *,
    unpaired: bool = False,
) -> Bank:
    """A bank of two tasks, the second mixed from the first; every value of theirs is drawn."""
    channels = formats[0].channels, formats[1].channels
    config = replace(config, input_channels=channels[0], output_channels=channels[1])
    bank = open_or_new(path, config)
    networks = {"forward": network(config), "backward": bank.empty_network("backward")}
    for task in ("first", "second"):
        states = []
        for learner in networks.values():
            learner.add_task(task, 0.25)
            chance = torch.Generator().manual_seed(len(learner.tasks))
            with torch.no_grad():
                for tensor in learner.trainable_parameters():
                    tensor.add_(torch.randn(tensor.shape, generator=chance), alpha=0.05)
                for name, tensor in learner.module.named_buffers():
                    if name.endswith("running_mean"):
                        tensor.add_(0.1)
            learner.finish_task()
            states.append(learner.task_state(task))
        about = card(networks["forward"], task, 0.25)
        about["image"] |= {"input": asdict(formats[0]), "output": asdict(formats[1])}
        about |= {"mode": "unpaired"} if unpaired else {}
        with bank.writing("test"):
            bank.add(states[0], about, states[1] if unpaired else None)
    return Bank.open(path)


MIXED = {"name": "custom_nets:Mixed", "size_multiple": 2, "minimum_size": 2}
BANKS = {"resnet": RESNET, "unet": UNET}


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bank]:
    """A bank for each kind of network."""
    folder = tmp_path_factory.mktemp("banks")
    return {name: bank_of(folder / name, config) for name, config in BANKS.items()}


@pytest.fixture(scope="module")
def exported(
    banks: Mapping[str, Bank], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, ExportFormat], Exported]:
    """(bank's name, format) -> its second task, exported once for all tests."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(which: str, format: ExportFormat) -> Exported:
        path = folder / f"{which}'s {format}.pt2"
        return export_task(banks[which], "second", path, ExportOptions(format=format))

    return export


@pytest.fixture
def resnet(banks: Mapping[str, Bank]) -> Bank:
    return banks["resnet"]


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


def photograph(path: Path, height: int = 37, width: int = 50) -> Path:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def pixels(path: Path) -> NDArray[np.int64]:
    """As integers that can be subtracted."""
    return np.asarray(Image.open(path)).astype(np.int64)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    session = require("onnxruntime").InferenceSession(path)
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


def run_alone(example: Path, *arguments: Path) -> None:
    """Run an example where this library can't be imported."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's
        patch.setitem(sys.modules, "piggyback_gan", None)
        patch.setattr(sys, "argv", [str(example), *map(str, arguments)])
        runpy.run_path(str(example), run_name="__main__")


# --- what files compute ---


@pytest.mark.parametrize(
    "config",
    [
        RESNET,
        GeneratorConfig(name="resnet-9", ngf=4, norm="batch", dropout=True),
        GeneratorConfig(name="resnet-6", ngf=4, norm="none", antialias="both"),
        UNET,
        GeneratorConfig(name="unet-128", ngf=2, norm="batch", dropout=True),
        GeneratorConfig(name="unet-256", ngf=2),
    ],
    ids=lambda config: f"{config.name}-{config.norm}-{config.antialias}",
)
def test_onnx_gives_the_banks_outputs_for_any_batch_and_size(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", config)
    made = export_task(bank, "second", tmp_path / "second.onnx")
    assert made.largest < 1e-4
    generator, exported = bank.generator("second"), run_onnx(made.path)
    multiple = config.size_multiple
    least = max(multiple, config.minimum_size)
    sizes = [(1, least, least), (1, 2 * least, least), (3, least, least + 2 * multiple)]
    for batch, height, width in sizes:
        images = noise(batch, 3, height, width)
        with torch.no_grad():
            expected = generator(images)
        assert (exported(images) - expected).abs().max() < 1e-4
        assert expected.std() > 0.01  # two constants would agree as well


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
@pytest.mark.parametrize("which", BANKS)
def test_programs_of_torch_give_the_banks_outputs_for_any_batch_and_size(
    format: ExportFormat,
    which: str,
    banks: Mapping[str, Bank],
    exported: Callable[[str, ExportFormat], Exported],
) -> None:
    made = exported(which, format)
    with pytest.warns(DeprecationWarning) if format == "torchscript" else torch.no_grad():
        program = (
            torch.export.load(made.path).module()
            if format == "torch-export"
            else torch.jit.load(made.path)  # type: ignore[no-untyped-call]
        )
    for shape in ((1, 3, 64, 64), (3, 3, 128, 192)):
        images = noise(*shape)
        with torch.no_grad():
            expected = banks[which].generator("second")(images)
            assert torch.allclose(program(images), expected, atol=1e-5)


@pytest.mark.parametrize("format", ["safetensors", "state-dict"])
def test_weights_are_the_banks_bit_for_bit(
    format: ExportFormat, resnet: Bank, exported: Callable[[str, ExportFormat], Exported]
) -> None:
    made = exported("resnet", format)
    found = (
        safetensors.torch.load_file(made.path)
        if format == "safetensors"
        else torch.load(made.path, weights_only=True)
    )
    expected = resnet.generator("second").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert made.largest == 0


def test_a_state_dict_comes_back_by_import(banks: Mapping[str, Bank], tmp_path: Path) -> None:
    unet = banks["unet"]
    path = tmp_path / "checkpoints/second/latest_net_G.pth"
    export_task(unet, "second", path, ExportOptions(format="state-dict"))
    import_task(tmp_path / "bank", "again", path)
    images = noise(2, 3, 64, 64)
    again = Bank.open(tmp_path / "bank").generator("again")
    assert torch.equal(again(images), unet.generator("second")(images))


def test_both_directions_of_an_unpaired_task_are_exported(tmp_path: Path) -> None:
    gray = ImageFormat(channels=1)
    bank = bank_of(tmp_path / "bank", formats=(EIGHT_BITS, gray), unpaired=True)
    for direction, channels in (("AtoB", 3), ("BtoA", 1)):
        made = export_task(
            bank, "second", tmp_path / f"{direction}.onnx", ExportOptions(direction=direction)
        )
        assert (made.contract.direction, made.contract.input.channels) == (direction, channels)
        images = noise(1, channels, 16, 16)
        expected = bank.generator("second", direction=direction)(images)
        assert (run_onnx(made.path)(images) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_half_precision_halves_the_weights_and_says_its_error(
    format: ExportFormat, tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", replace(RESNET, ngf=16))
    sizes = {}
    for precision in ("fp32", "fp16"):
        made = export_task(
            bank,
            "second",
            tmp_path / f"{precision}.pt2",
            ExportOptions(format=format, precision=precision),
        )
        sizes[precision] = made.path.stat().st_size
    assert sizes["fp16"] < 0.65 * sizes["fp32"]
    assert 1e-6 < made.mean < made.largest < 0.05
    assert made.contract.precision == "fp16"


def test_bf16_is_written_where_it_can_be_checked(resnet: Bank, tmp_path: Path) -> None:
    bf16 = ExportOptions(format="torch-export", precision="bf16")
    made = export_task(resnet, "second", tmp_path / "second.pt2", bf16)
    assert 0 < made.mean < 0.05
    with pytest.raises(PiggybackError, match=r"onnxruntime .* choose fp16"):
        export_task(resnet, "second", tmp_path / "second.onnx", replace(bf16, format="onnx"))
    assert not (tmp_path / "second.onnx").exists()


@pytest.mark.parametrize("config", [replace(RESNET, ngf=32), replace(UNET, ngf=16)])
def test_int8_is_a_quarter_of_the_size_and_near_the_bank(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", config)
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(3):
        photograph(folder / f"{number}.png", 32 + 3 * number, 40)
    plain = export_task(bank, "second", tmp_path / "plain.onnx", ExportOptions(images=[folder]))
    eight = ExportOptions(precision="int8", calibration=[folder], images=[folder])
    made = export_task(bank, "second", tmp_path / "eight.onnx", eight)
    assert made.path.stat().st_size < 0.35 * plain.path.stat().st_size
    assert 1e-4 < made.mean < 0.1
    assert (made.inputs, made.contract.precision) == (3, "int8")
    assert stored_contract(made.path, "onnx") == made.contract.to_json()
    run_alone(made.beside[0], folder / "0.png", tmp_path / "out.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int8"}, "int8 is calibrated"),
        ({"calibration": [Path("inputs")]}, "int8 is calibrated"),
        ({"precision": "int8", "calibration": [Path("x")], "format": "torchscript"}, "choose onnx"),
        ({"precision": "int4"}, "unknown precision"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PiggybackError, match=said):
        ExportOptions(**options)


# --- what they say of themselves ---


def stored_contract(path: Path, format: ExportFormat) -> str:
    """The contract as others find it, without this library's readers."""
    if format == "onnx":
        return next(p.value for p in onnx.load(path).metadata_props if p.key == CONTRACT_KEY)
    if format == "safetensors":
        with safetensors.safe_open(path, "pt") as file:
            return str(file.metadata()[CONTRACT_KEY])
    if format == "state-dict":
        return path.with_name(f"{path.name}.json").read_text()
    archive = zipfile.ZipFile(path)
    return archive.read(next(n for n in archive.namelist() if "image_contract" in n)).decode()


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_file_says_what_its_images_are(format: ExportFormat, tmp_path: Path) -> None:
    formats = ImageFormat(channels=2, depth="uint16", high=4095.0), ImageFormat(channels=1)
    bank = bank_of(tmp_path / "bank", formats=formats)
    made = export_task(bank, "second", tmp_path / "file.pt2", ExportOptions(format=format))
    text = stored_contract(made.path, format)
    said = json.loads(text)
    assert (said["task"], said["direction"], said["size_multiple"]) == ("second", "AtoB", 4)
    assert said["minimum_size"] == 8
    assert said["tensor_range"] == [-1, 1]
    assert (said["input"]["channels"], said["input"]["high"]) == (2, 4095)
    assert said["task_sha256"] == bank.entries[1].sha256
    assert ImageContract.from_json(text) == made.contract


def test_an_onnx_file_names_its_axes(
    exported: Callable[[str, ExportFormat], Exported],
) -> None:
    model = onnx.load(exported("resnet", "onnx").path)
    for value in (model.graph.input[0], model.graph.output[0]):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert axes == ["batch", 3, "height", "width"]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


# --- the examples beside them ---


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("which", BANKS)
def test_the_example_translates_as_the_bank_does_without_this_library(
    format: ExportFormat,
    which: str,
    banks: Mapping[str, Bank],
    exported: Callable[[str, ExportFormat], Exported],
    tmp_path: Path,
) -> None:
    bank, made = banks[which], exported(which, format)
    source = photograph(tmp_path / "photo.png")
    run_alone(made.beside[0], source, tmp_path / "out.png")
    found = pixels(tmp_path / "out.png")
    expected = np.asarray(bank.translate("second", Image.open(source)))
    assert np.abs(found - expected).max() <= 1  # where a value lies between two, rounding decides


@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig(name="resnet-9", ngf=4, norm="batch", dropout=True),
        GeneratorConfig(name="resnet-6", ngf=4, antialias="both"),
        GeneratorConfig(name="resnet-6", ngf=4, norm="none", antialias="up"),
        GeneratorConfig(name="unet-128", ngf=2, norm="batch", dropout=True),
        GeneratorConfig(name="unet-256", ngf=2, norm="none"),
    ],
    ids=lambda config: f"{config.name}-{config.norm}-{config.antialias}",
)
def test_examples_for_weights_have_the_network_that_they_are_of(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", config)
    options = ExportOptions(format="safetensors")
    made = export_task(bank, "second", tmp_path / "second.safetensors", options)
    source = photograph(tmp_path / "photo.png")
    run_alone(made.beside[0], source, tmp_path / "out.png")
    found = pixels(tmp_path / "out.png")
    expected = np.asarray(bank.translate("second", Image.open(source)))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("formats", "suffixes"),
    [
        ((ImageFormat(channels=1), ImageFormat(channels=4)), (".png", ".png")),
        (
            (ImageFormat(depth="uint16", high=65535.0), ImageFormat(channels=1)),
            (".tif", ".png"),
        ),
        (
            (
                ImageFormat(channels=5, depth="float32", low=-2.0, high=3.0),
                ImageFormat(channels=2, depth="float32", low=0.0, high=0.5),
            ),
            (".tif", ".tif"),
        ),
        (
            (ImageFormat(channels=6, labels=True), ImageFormat(depth="uint16", high=65535.0)),
            (".png", ".tif"),
        ),
    ],
    ids=["gray-to-rgba", "16-bit-to-gray", "float-channels", "labels-to-16-bit"],
)
def test_examples_read_and_write_what_the_task_does(
    formats: tuple[ImageFormat, ImageFormat], suffixes: tuple[str, str], tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", formats=formats)
    options = ExportOptions(format="safetensors")
    made = export_task(bank, "second", tmp_path / "second.safetensors", options)
    source, out = tmp_path / f"source{suffixes[0]}", tmp_path / f"out{suffixes[1]}"
    chance = np.random.default_rng(2)
    first, second = formats
    if first.labels or suffixes[0] == ".png":
        most = first.channels if first.labels else 256
        Image.fromarray(chance.integers(0, most, (37, 50), np.uint8)).save(source)
    else:
        values = chance.uniform(first.low, first.high, (37, 50, first.channels))
        source.write_bytes(encode(values.astype(first.depth), ".tif"))
    run_alone(made.beside[0], source, out)
    found = read_image(out, second)
    done = pbgan("translate", bank.path, "second", source, "--out", tmp_path / "translated")
    assert done.returncode == 0, done.stderr
    expected = read_image(next((tmp_path / "translated").iterdir()), second)
    assert found.shape == expected.shape
    step = 1e-6 if second.depth == "float32" else 1
    assert np.abs(found.astype(float) - expected.astype(float)).max() <= step


# --- networks of a user's own ---


def own_bank(path: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Bank:
    own = CustomGeneratorConfig(**config)
    monkeypatch.setenv(VARIABLE, own.name)
    return bank_of(path, own)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_network_of_ones_own_is_exported_and_its_example_names_the_code(
    format: ExportFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"name": "custom_nets:Nets.plain", "arguments": {"levels": 2}, "size_multiple": 4}
    bank = own_bank(tmp_path / "bank", monkeypatch, minimum_size=4, **config)
    made = export_task(bank, "second", tmp_path / "second.pt2", ExportOptions(format=format))
    assert made.largest < 1e-4
    assert ImageContract.from_json(stored_contract(made.path, format)).generator == (
        CustomGeneratorConfig(minimum_size=4, **config)
    )
    source = photograph(tmp_path / "photo.png")
    run_alone(made.beside[0], source, tmp_path / "out.png")
    expected = np.asarray(bank.translate("second", Image.open(source)))
    assert np.abs(pixels(tmp_path / "out.png") - expected).max() <= 1
    needs_code = format in ("safetensors", "state-dict")
    assert ("from custom_nets import Nets" in made.beside[0].read_text()) == needs_code


def test_attention_and_odd_sizes_go_into_onnx_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = own_bank(tmp_path / "bank", monkeypatch, name="custom_nets:NoMultiple")
    made = export_task(bank, "second", tmp_path / "second.onnx")
    images = noise(1, 3, 17, 23)
    expected = bank.generator("second")(images)
    assert (run_onnx(made.path)(images) - expected).abs().max() < 1e-4


def test_weights_that_do_not_make_the_network_are_no_export_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = own_bank(tmp_path / "bank", monkeypatch, **MIXED)  # it draws a buffer that none keeps
    path = tmp_path / "second.safetensors"
    with pytest.raises(PiggybackError, match="over the tolerance"):
        export_task(bank, "second", path, ExportOptions(format="safetensors"))
    assert not path.exists()
    assert export_task(bank, "second", path, ExportOptions(format="onnx")).largest < 1e-4


def test_a_network_that_an_exporter_can_not_follow_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = own_bank(tmp_path / "bank", monkeypatch, name="custom_nets:Branching")
    # Another one's program loads, and then takes no batch of one.
    attentive = own_bank(tmp_path / "attentive", monkeypatch, **MIXED)
    for given, format in ((bank, "onnx"), (attentive, "torch-export")):
        monkeypatch.setenv(VARIABLE, given.config.name)
        options = ExportOptions(format=format)
        said = rf"can't be written as {format}: .*; try another format"
        with pytest.raises(PiggybackError, match=said) as raised:
            export_task(given, "second", tmp_path / "file.pt2", options)
        assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attentive", "bank"]


# --- what comes from elsewhere ---


def with_card(bank: Bank, path: Path, change: Callable[[dict[str, Any]], Any]) -> Bank:
    """The same bank, whole and with all its hashes, whose last task says other things of itself."""
    shutil.copytree(bank.path, path)
    store = Store.open(path)
    card = dict(bank.card("second"))
    change(card)
    forge(store, "second", with_metadata(file_of(store, "second"), card=json.dumps(card)))
    return Bank.open(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card["options"].update(direction='AtoB"""\nimport os\n"""'), "direction"),
        (lambda card: card.update(options=None), "options"),
        (lambda card: card.update(image=None), "image"),
        (lambda card: card["image"].pop("size"), "image_size"),
        (lambda card: card["image"].update(size="64\n"), "image_size"),
        (lambda card: card["image"]["input"].update(channels="3 or 4"), "image format"),
        (lambda card: card["image"]["input"].update(low="0"), "image format"),
        (lambda card: card["image"]["output"].update(high=float("inf")), "image format"),
        (lambda card: card["image"].pop("output"), "image format"),
    ],
)
def test_no_word_of_a_forged_card_gets_into_a_program(
    change: Callable[[dict[str, Any]], Any], said: str, resnet: Bank, tmp_path: Path
) -> None:
    forged = with_card(resnet, tmp_path / "forged", change)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(PiggybackError, match=said) as raised:
        export_task(forged, "second", out / "x.pth", ExportOptions(format="state-dict"))
    assert "\n" not in str(raised.value)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ['a"""b.pth', r"a\N{x}b.pth", "a\nimport os.pth", "a'b.pth"])
def test_any_name_of_a_file_gives_a_program(name: str, resnet: Bank, tmp_path: Path) -> None:
    made = export_task(resnet, "second", tmp_path / name, ExportOptions(format="state-dict"))
    source = photograph(tmp_path / "photo.png")
    run_alone(made.beside[0], source, tmp_path / "out.png")
    assert pixels(tmp_path / "out.png").shape == pixels(source).shape


def test_an_example_refuses_what_its_task_does_not_take(tmp_path: Path) -> None:
    formats = ImageFormat(channels=3, labels=True), ImageFormat(channels=1)
    bank = bank_of(tmp_path / "labels", formats=formats)
    options = ExportOptions(format="safetensors")
    made = export_task(bank, "second", tmp_path / "labels.safetensors", options)
    values = np.full((16, 16), 3, np.uint8)
    Image.fromarray(values).save(tmp_path / "classes.png")
    with pytest.raises(SystemExit, match="classes below 3"):
        run_alone(made.beside[0], tmp_path / "classes.png", tmp_path / "out.png")
    bank = bank_of(tmp_path / "gray", formats=formats[1:] * 2)
    made = export_task(bank, "second", tmp_path / "gray.safetensors", options)
    Image.fromarray(values.astype(np.uint16) * 9999).save(tmp_path / "deep.png")
    with pytest.raises(SystemExit, match="8 bits"):
        run_alone(made.beside[0], tmp_path / "deep.png", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda said: "[" * 200_000,
        lambda said: said | {"format": "another's"},
        lambda said: said | {"format_version": 9},
        lambda said: said | {"image_size": float("inf")},
        lambda said: said | {"task": "../maps"},
        lambda said: said | {"size_multiple": 3},
        lambda said: [said],
        lambda said: said | {"direction": "up"},
        lambda said: said | {"input": said["input"] | {"low": "0"}},
        lambda said: said | {"generator": {"name": "os:system"}, "input": None},
    ],
)
def test_a_contract_of_elsewhere_is_checked(
    change: Callable[[dict[str, Any]], Any],
    exported: Callable[[str, ExportFormat], Exported],
    tmp_path: Path,
) -> None:
    model = onnx.load(exported("resnet", "onnx").path)
    said = change(json.loads(exported("resnet", "onnx").contract.to_json()))
    text = said if isinstance(said, str) else json.dumps(said)
    onnx.helper.set_model_props(model, {CONTRACT_KEY: text})
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(PiggybackError, match=r"x\.onnx: "):
        open_onnx(tmp_path / "x.onnx")


def test_an_onnx_network_that_gives_no_such_images_is_refused(
    exported: Callable[[str, ExportFormat], Exported], tmp_path: Path
) -> None:
    made = exported("resnet", "onnx")
    model = onnx.load(made.path)
    said = json.loads(made.contract.to_json())
    said["output"]["channels"] = said["generator"]["output_channels"] = 1
    onnx.helper.set_model_props(model, {CONTRACT_KEY: json.dumps(said)})
    onnx.save(model, tmp_path / "x.onnx")
    generator, _ = open_onnx(tmp_path / "x.onnx")
    with pytest.raises(PiggybackError, match=r"should give float32 \(1, 1, 16, 16\); found"):
        generator(noise(1, 3, 16, 16))


# --- what is refused, and then nothing is written ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bank.json", "would lie in the bank"),
        ("tasks/0002-second.safetensors", "would lie in the bank"),
        ("runs/second/x.onnx", "would lie in the bank"),
        ("", "no file's name"),
        ("..", "no file's name"),
    ],
)
def test_no_export_goes_over_a_banks_own_files(
    name: str, said: str, resnet: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bank = shutil.copytree(resnet.path, tmp_path / "bank")
    before = contents(bank)
    path = bank / name if "bank" in said else name
    with pytest.raises(PiggybackError, match=said):
        export_task(bank, "second", path, ExportOptions(format="state-dict", overwrite=True))
    assert contents(bank) == before


def test_what_torch_can_not_read_by_its_name_is_not_written(resnet: Bank, tmp_path: Path) -> None:
    with pytest.raises(PiggybackError, match=r"files that end in \.pt2"):
        export_task(resnet, "second", tmp_path / "x.pt", ExportOptions(format="torch-export"))


def test_a_failed_export_leaves_no_folder_either(resnet: Bank, tmp_path: Path) -> None:
    options = ExportOptions(format="safetensors", precision="fp16", tolerance=0)
    with pytest.raises(PiggybackError, match="nothing was written"):
        export_task(resnet, "second", tmp_path / "a/b/second.safetensors", options)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PiggybackError, match="can't be written"):
        export_task(resnet, "second", tmp_path / "file/second.safetensors", options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    whole = ExportOptions(format="safetensors")
    assert export_task(resnet, "second", tmp_path / "a/b/c", whole).path.is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_half_written(
    number: signal.Signals, resnet: Bank, tmp_path: Path
) -> None:
    process = start(
        "export", resnet.path, "second", "--format", "onnx", "--out", tmp_path / "second.onnx"
    )
    while not any(tmp_path.iterdir()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_outputs_over_the_tolerance_leave_no_file(resnet: Bank, tmp_path: Path) -> None:
    options = ExportOptions(format="safetensors", precision="fp16", tolerance=1e-7)
    with pytest.raises(PiggybackError, match="over the tolerance of 1e-07: nothing was written"):
        export_task(resnet, "second", tmp_path / "second.safetensors", options)
    assert list(tmp_path.iterdir()) == []


def test_a_network_whose_file_gives_no_number_is_over_any_tolerance(
    resnet: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * torch.nan

    from piggyback_gan.export import exporting

    broken = replace(exporting.FORMATS["safetensors"], read=lambda path, generator: Broken())
    monkeypatch.setattr(exporting, "FORMATS", {"safetensors": broken})
    options = ExportOptions(format="safetensors", tolerance=100)
    with pytest.raises(PiggybackError, match="differ by up to nan"):
        export_task(resnet, "second", tmp_path / "second.safetensors", options)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_are_kept_unless_told_otherwise(resnet: Bank, tmp_path: Path) -> None:
    options = ExportOptions(format="state-dict")
    path = tmp_path / "second.pth"
    for name in ("second.pth", "second.pth.py", "second.pth.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(PiggybackError, match=f"{name} exists: give --overwrite"):
            export_task(resnet, "second", path, options)
        assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
        (tmp_path / name).unlink()
    path.write_text("mine")
    export_task(resnet, "second", path, replace(options, overwrite=True))
    assert len(torch.load(path, weights_only=True)) > 10
    with pytest.raises(PiggybackError, match="is a folder"):
        export_task(resnet, "second", tmp_path, options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["third", "--format", "onnx"], "no task 'third'; tasks: first, second"),
        (["first", "--format", "tflite"], "tflite"),
        (["first", "--format", "onnx", "--direction", "BtoA"], "does not translate BtoA"),
        (["first", "--format", "onnx", "--check", "no.png"], "no.png"),
        (["first", "--format", "onnx", "--tolerance", "-1"], "invalid tolerance"),
        (["first", "--format", "onnx", "--out", "/proc/x/y.onnx"], "/proc/x"),
    ],
)
def test_bad_input_is_told_in_one_line(
    resnet: Bank, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = pbgan("export", resnet.path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_it_is_said_how_to_get_it(
    resnet: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PiggybackError, match=r"pip install 'piggyback-gan\[export\]'"):
        export_task(resnet, "first", tmp_path / "first.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the command line ---


def test_a_task_is_exported_compared_on_images_and_tried(resnet: Bank, tmp_path: Path) -> None:
    source = photograph(tmp_path / "photo.png")
    path = tmp_path / "second.onnx"
    done = pbgan(
        "export",
        resnet.path,
        "second",
        "--format",
        "onnx",
        "--out",
        path,
        "--check",
        source,
        source,
    )
    assert done.returncode == 0, done.stderr
    assert "second, AtoB, onnx, opset 20, fp32" in done.stdout
    assert "compared on 2 images" in done.stdout
    assert done.stderr == ""
    example = [sys.executable, f"{path}.py", source, tmp_path / "example.png"]
    subprocess.run(example, check=True)
    assert pixels(tmp_path / "example.png").shape == pixels(source).shape
    tried = pbgan("translate", "--runtime", "onnx", path, source, "--out", tmp_path / "onnx")
    assert tried.returncode == 0, tried.stderr
    whole = pbgan("translate", resnet.path, "second", source, "--out", tmp_path / "bank")
    assert whole.returncode == 0, whole.stderr
    found, expected = (pixels(tmp_path / folder / "photo.png") for folder in ("onnx", "bank"))
    assert np.abs(found - expected).max() <= 1
    tiled = pbgan(
        "translate", path, source, "--out", tmp_path / "tiled", "--tile", "32", "--runtime=onnx"
    )
    assert tiled.returncode == 0, tiled.stderr


def test_only_files_of_export_can_be_tried(tmp_path: Path) -> None:
    source = photograph(tmp_path / "photo.png")

    def tried(path: Path, *words: str) -> str:
        done = pbgan(
            "translate", "--runtime", "onnx", path, source, "--out", tmp_path / "o", *words
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    text = tmp_path / "text.onnx"
    text.write_text("no model")
    assert "can't be run by onnxruntime" in tried(text)
    assert "no such file" in tried(tmp_path / "none.onnx")
    foreign = tmp_path / "foreign.onnx"
    identity = onnx.helper.make_node("Identity", ["image"], ["translated"])
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, "h", "w"])
        for name in ("image", "translated")
    ]
    graph = onnx.helper.make_graph([identity], "g", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), foreign)
    assert "has no image contract" in tried(foreign)
    assert "--norm-from image" in tried(foreign, "--tile", "32", "--norm-from", "image")
