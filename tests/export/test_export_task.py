"""Exported files: what they compute, what they say of themselves, and that they need no more."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from banks import file_of, forge, with_metadata
from commands import pbgan
from data_sets import refusal
from exports import (
    EIGHT_BITS,
    RESNET,
    UNET,
    bank_of,
    noise,
    photograph,
    pixels,
    run_alone,
    run_example,
    run_onnx,
    stored_contract,
)
from piggyback_gan import (
    Exported,
    ExportOptions,
    GeneratorConfig,
    PiggybackError,
    export_task,
    import_task,
)
from piggyback_gan.bank.bank import Bank
from piggyback_gan.bank.store import Store
from piggyback_gan.export.contract import CONTRACT_KEY, ImageContract
from piggyback_gan.export.onnx_file import open_onnx
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import read_image
from piggyback_gan.names import EXPORT_FORMATS, ExportFormat, ExportPrecision

Exporting = Callable[..., Exported]


# --- what files compute ---


@pytest.mark.parametrize("which", ["resnet", "unet", "batch", "antialias"])
def test_onnx_agrees_at_any_batch_and_size(
    which: str, banks: Mapping[str, Bank], exported: Exporting
) -> None:
    made = exported(which, "onnx")
    assert made.largest < 1e-4
    generator, found = banks[which].generator("second"), run_onnx(made.path)
    config = banks[which].config
    multiple = config.size_multiple
    least = max(multiple, config.minimum_size)
    sizes = [(1, least, least), (1, 2 * least, least), (3, least, least + 2 * multiple)]
    for batch, height, width in sizes:
        images = noise(batch, 3, height, width)
        with torch.no_grad():
            expected = generator(images)
        assert (found(images) - expected).abs().max() < 1e-4
        assert expected.std() > 0.01  # two constants would agree as well


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
@pytest.mark.parametrize("which", ["resnet", "unet"])
def test_programs_of_torch_give_the_banks_outputs_for_any_batch_and_size(
    format: ExportFormat, which: str, banks: Mapping[str, Bank], exported: Exporting
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
    format: ExportFormat, resnet: Bank, exported: Exporting
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
        options = ExportOptions(format="safetensors", direction=direction)
        made = export_task(bank, "second", tmp_path / direction, options)
        assert (made.contract.direction, made.contract.input.channels) == (direction, channels)
        found = safetensors.torch.load_file(made.path)
        expected = bank.generator("second", direction=direction).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


# Triton's model is the ONNX file.
@pytest.mark.parametrize("format", [f for f in EXPORT_FORMATS if f != "onnx"])
def test_half_precision_halves_the_weights_and_says_its_error(
    format: ExportFormat, exported: Exporting
) -> None:
    whole, made = (exported("plain", format, precision) for precision in ("fp32", "fp16"))
    assert made.file.stat().st_size < 0.65 * whole.file.stat().st_size
    assert 1e-6 < made.mean < made.largest < 0.05
    assert made.contract.precision == "fp16"


@pytest.mark.parametrize(("format", "precision"), [("onnx", "fp16"), ("torch-export", "bf16")])
def test_half_precision_of_a_network_with_norms_is_near_the_bank(
    format: ExportFormat, precision: ExportPrecision, exported: Exporting
) -> None:
    made = exported("resnet", format, precision)
    assert 1e-6 < made.mean < 0.02 and made.largest < 0.2


def test_bf16_is_written_where_it_can_be_checked(
    banks: Mapping[str, Bank], exported: Exporting, tmp_path: Path
) -> None:
    assert 0 < exported("plain", "torch-export", "bf16").mean < 0.05
    options = ExportOptions(format="onnx", precision="bf16")
    with pytest.raises(PiggybackError, match=r"onnxruntime .* choose fp16"):
        export_task(banks["plain"], "second", tmp_path / "second.onnx", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trains  # 8 bits make rounding large, too
@pytest.mark.parametrize("config", [replace(RESNET, ngf=32), replace(UNET, ngf=16)])
def test_int8_is_a_quarter_and_near_the_bank(config: GeneratorConfig, tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", config)
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(3):
        photograph(folder / f"{number}.png", 32 + 3 * number, 40)
    weights = ExportOptions(format="safetensors")
    plain = export_task(bank, "second", tmp_path / "plain.safetensors", weights)
    # 8 bits of a random network: its worst pixel depends on rounding, the mean does not.
    eight = ExportOptions(precision="int8", calibration=[folder], images=[folder], tolerance=1.0)
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
        (
            {"precision": "int8", "calibration": [Path("x")], "format": "torchscript"},
            "choose onnx or triton",
        ),
        ({"precision": "int4"}, "unknown precision"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PiggybackError, match=said):
        ExportOptions(**options)


# --- what they say of themselves ---


@pytest.mark.parametrize("format", [f for f in EXPORT_FORMATS if f != "onnx"])
def test_a_file_says_what_its_images_are(
    format: ExportFormat, banks: Mapping[str, Bank], exported: Exporting
) -> None:
    made = exported("deep", format)
    text = stored_contract(made.path, format)
    said = json.loads(text)
    assert (said["task"], said["direction"], said["size_multiple"]) == ("second", "AtoB", 4)
    assert said["minimum_size"] == 8
    assert exported("resnet", "safetensors").contract.generator.minimum_size == 8
    assert said["tensor_range"] == [-1, 1]
    assert (said["input"]["channels"], said["input"]["high"]) == (2, 4095)
    assert said["task_sha256"] == banks["deep"].entries[1].sha256
    assert ImageContract.from_json(text) == made.contract


def test_an_onnx_file_names_its_axes(exported: Exporting) -> None:
    model = onnx.load(exported("resnet", "onnx").path)
    for value in (model.graph.input[0], model.graph.output[0]):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert axes == ["batch", 3, "height", "width"]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


# --- the examples beside them ---


@pytest.mark.parametrize("format", [f for f in EXPORT_FORMATS if f != "triton"])
@pytest.mark.parametrize("which", ["resnet", "unet"])
def test_the_example_translates_as_the_bank_does_without_this_library(
    format: ExportFormat,
    which: str,
    banks: Mapping[str, Bank],
    exported: Exporting,
    tmp_path: Path,
) -> None:
    bank, made = banks[which], exported(which, format)
    source = photograph(tmp_path / "photo.png")
    run_example(made, source, tmp_path / "out.png")
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
def test_examples_for_weights_have_their_network(config: GeneratorConfig, tmp_path: Path) -> None:
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
        ((ImageFormat(depth="uint16", high=65535.0), ImageFormat(channels=1)), (".tif", ".png")),
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


# --- what comes from elsewhere ---


def with_card(bank: Bank, path: Path, change: Callable[[dict[str, Any]], Any]) -> Bank:
    """The same bank, whole and with all its hashes, whose last task says other things of itself."""
    shutil.copytree(bank.path, path)
    store = Store.open(path)
    card = bank.card("second").to_json()
    change(card)
    forge(store, "second", with_metadata(file_of(store, "second"), card=json.dumps(card)))
    return Bank.open(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card["options"].update(direction='AtoB"""\nimport os\n"""'), "direction"),
        (lambda card: card.update(options=None), "options"),
        (lambda card: card.update(image=None), "image"),
        (lambda card: card["image"].pop("size"), "`size`"),
        (lambda card: card["image"].update(size="64\n"), r"image\.size"),
        (lambda card: card["image"]["input"].update(channels="3 or 4"), r"image\.input\.channels"),
        (lambda card: card["image"]["input"].update(low="0"), r"image\.input\.low"),
        (lambda card: card["image"]["output"].update(high=float("inf")), "image format"),
        (lambda card: card["image"].pop("output"), "`output`"),
        (lambda card: card["image"]["input"].update(gamma=2), "image format"),
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
    change: Callable[[dict[str, Any]], Any], exported: Exporting, tmp_path: Path
) -> None:
    model = onnx.load(exported("resnet", "onnx").path)
    said = change(json.loads(exported("resnet", "onnx").contract.to_json()))
    text = said if isinstance(said, str) else json.dumps(said)
    onnx.helper.set_model_props(model, {CONTRACT_KEY: text})
    onnx.save(model, tmp_path / "x.onnx")
    assert "x.onnx: " in refusal(lambda: open_onnx(tmp_path / "x.onnx"))


def test_an_onnx_network_that_gives_no_such_images_is_refused(
    exported: Exporting, tmp_path: Path
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
