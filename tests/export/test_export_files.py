"""Exporting: networks of a user's own, what is refused, and that nothing half-written is left."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from banks import contents
from commands import pbgan, run_here
from exports import (
    BANKS,
    MIXED,
    bank_of,
    noise,
    photograph,
    pixels,
    run_example,
    run_onnx,
    stored_contract,
)
from piggyback_gan import Exported, ExportOptions, PiggybackError, export_task
from piggyback_gan.bank.bank import Bank
from piggyback_gan.export.contract import ImageContract
from piggyback_gan.names import EXPORT_FORMATS, ExportFormat
from piggyback_gan.networks.config import CustomGeneratorConfig
from piggyback_gan.system.user_code import VARIABLE
from running import start, wait_for

# --- networks of a user's own ---


def own_bank(path: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Bank:
    own = CustomGeneratorConfig(**config)
    monkeypatch.setenv(VARIABLE, own.name)
    return bank_of(path, own)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_network_of_ones_own_is_exported_and_its_example_names_the_code(
    format: ExportFormat,
    banks: Mapping[str, Bank],
    exported: Callable[..., Exported],
    tmp_path: Path,
) -> None:
    made = exported("plain", format)
    assert made.largest < 1e-4
    said = ImageContract.from_json(stored_contract(made.path, format))
    assert said.generator == BANKS["plain"]
    source = photograph(tmp_path / "photo.png")
    run_example(made, source, tmp_path / "out.png")
    expected = np.asarray(banks["plain"].translate("second", Image.open(source)))
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


# --- what is refused, and then nothing is written ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bank.json", "would be inside the bank"),
        ("tasks/0002-second.safetensors", "would be inside the bank"),
        ("runs/second/x.onnx", "would be inside the bank"),
        ("", "can't name a file"),
        ("..", "can't name a file"),
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
    options = ExportOptions(format="safetensors", precision="fp16", tolerance=1e-7)
    with pytest.raises(PiggybackError, match="over the tolerance of 1e-07: nothing was written"):
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
    wait_for(lambda: any(tmp_path.iterdir()), lambda: process.poll() is None)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
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
    done = run_here("export", resnet.path, *words)
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


def test_a_task_is_exported_compared_on_images_and_tried(
    banks: Mapping[str, Bank], tmp_path: Path
) -> None:
    bank = banks["plain"].path
    source = photograph(tmp_path / "photo.png")
    path = tmp_path / "second.onnx"
    words = ("--format", "onnx", "--out", path, "--check", source, source)
    done = run_here("export", bank, "second", *words)
    assert done.returncode == 0, done.stderr
    assert "second, AtoB, onnx, opset 20, fp32" in done.stdout
    assert "compared on 2 images" in done.stdout
    assert done.stderr == ""
    example = [sys.executable, f"{path}.py", source, tmp_path / "example.png"]
    subprocess.run(example, check=True)
    assert pixels(tmp_path / "example.png").shape == pixels(source).shape
    tried = pbgan("translate", "--runtime", "onnx", path, source, "--out", tmp_path / "onnx")
    assert tried.returncode == 0, tried.stderr
    whole = run_here("translate", bank, "second", source, "--out", tmp_path / "bank")
    assert whole.returncode == 0, whole.stderr
    found, expected = (pixels(tmp_path / folder / "photo.png") for folder in ("onnx", "bank"))
    assert np.abs(found - expected).max() <= 1
    tiled = run_here(
        "translate", path, source, "--out", tmp_path / "tiled", "--tile", "32", "--runtime=onnx"
    )
    assert tiled.returncode == 0, tiled.stderr


def test_only_files_of_export_can_be_tried(tmp_path: Path) -> None:
    source = photograph(tmp_path / "photo.png")

    def tried(path: Path, *words: str) -> str:
        done = run_here(
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
