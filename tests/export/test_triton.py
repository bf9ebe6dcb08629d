"""Model folders for Triton Inference Server: what they compute and say, and which are replaced."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from banks import contents
from commands import run_here
from exports import PLAIN, bank_of, photograph, pixels, plain_may_run, run_alone, run_example
from fake_triton import read_config, serving
from piggyback_gan import Exported, ExportOptions, PiggybackError, export_task
from piggyback_gan.bank.bank import Bank
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import read_image
from running import start, wait_for

FILES = ["1/model.onnx", "client.py", "config.pbtxt"]
OPTIONS = ExportOptions(format="triton")
AGAIN = ExportOptions(format="triton", overwrite=True)


@pytest.fixture(scope="module")
@plain_may_run()
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return bank_of(tmp_path_factory.mktemp("banks") / "bank", PLAIN, unpaired=True)


@pytest.fixture(scope="module")
@plain_may_run()
def written(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The model `maps`, of the first task."""
    return export_task(bank, "first", tmp_path_factory.mktemp("models") / "maps", OPTIONS)


@pytest.fixture
def folder(written: Exported, tmp_path: Path) -> Path:
    """A copy of it that a test may do with as it likes."""
    return shutil.copytree(written.path, tmp_path / "models/maps")


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- what is in it ---


def test_both_directions_are_models_of_one_repository_under_their_default_names(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("export", bank.path, "second", "--format", "triton")
    done = run_here(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("second: second, AtoB, triton, opset 20, fp32, 0.")
    assert "second/client.py: an example program" in done.stdout
    assert "second/config.pbtxt: what Triton" in done.stdout
    assert run_here(*words, "--direction", "BtoA").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["second", "second-BtoA"]
    source = photograph(tmp_path / "photo.png")
    with serving(tmp_path) as server:
        for model, direction in (("second", "AtoB"), ("second-BtoA", "BtoA")):
            assert files_of(tmp_path / model) == FILES
            out = tmp_path / f"{direction}.png"
            client = [sys.executable, tmp_path / model / "client.py", source, out, server]
            subprocess.run(client, check=True)
            expected = np.asarray(bank.translate("second", Image.open(source), direction=direction))
            assert np.abs(pixels(out) - expected).max() <= 1


def test_the_configuration_says_what_images_are_and_lets_requests_be_batched(
    exported: Callable[..., Exported],
) -> None:
    made = exported("deep", "triton")
    assert made.file == made.path / "1/model.onnx"
    config = read_config(made.path)
    assert (config.name, config.backend) == ("second.pt2", "onnxruntime")
    assert config.HasField("dynamic_batching")
    assert config.max_batch_size > 1
    (image,), (translated,) = config.input, config.output
    assert (image.name, list(image.dims)) == ("image", [2, -1, -1])
    assert (translated.name, list(translated.dims)) == ("translated", [1, -1, -1])
    comments = [line for line in made.beside[1].read_text().splitlines() if line.startswith("#")]
    assert "# image: 2 channels 16 bit from 0 to 4095; 0 in the file is -1, 4095 is 1." in comments
    assert any("multiples of 4, 8 at least" in line for line in comments)
    contract = json.loads(config.parameters[0].value.string_value)
    assert contract["input"]["high"] == 4095


def test_label_maps_and_deep_images_go_through_a_server(tmp_path: Path) -> None:
    deep = ImageFormat(depth="uint16", high=65535.0)
    bank = bank_of(tmp_path / "bank", PLAIN, (ImageFormat(channels=6, labels=True), deep))
    made = export_task(bank, "second", tmp_path / "models/second", OPTIONS)
    assert "# image: label map of 6 classes; one channel a class" in made.beside[1].read_text()
    classes = np.random.default_rng(2).integers(0, 6, (37, 50), np.uint8)
    Image.fromarray(classes).save(tmp_path / "classes.png")
    run_example(made, tmp_path / "classes.png", tmp_path / "out.tif")
    done = run_here(
        "translate", bank.path, "second", tmp_path / "classes.png", "--out", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr
    found, expected = (
        read_image(path, deep).astype(int)
        for path in (tmp_path / "out.tif", next((tmp_path / "o").iterdir()))
    )
    assert np.abs(found - expected).max() <= 1


def test_int8_and_fp16_are_served_too(
    banks: Mapping[str, Bank], exported: Callable[..., Exported], tmp_path: Path
) -> None:
    source = photograph(tmp_path / "photo.png")
    # Of so small a network, 8 bits leave little.
    options = ExportOptions(format="triton", precision="int8", calibration=[source], tolerance=2)
    eight = export_task(banks["plain"], "second", tmp_path / "models/eight", options)
    for made, precision in ((eight, "int8"), (exported("plain", "triton", "fp16"), "fp16")):
        assert files_of(made.path) == FILES
        assert made.contract.precision == precision
        run_example(made, source, tmp_path / f"{precision}.png")
        assert pixels(tmp_path / f"{precision}.png").shape == pixels(source).shape


def test_its_client_says_what_the_server_refuses(written: Exported, tmp_path: Path) -> None:
    source, out = photograph(tmp_path / "photo.png"), tmp_path / "out.png"
    (tmp_path / "none").mkdir()
    unknown = pytest.raises(SystemExit, match=r"the server answers 400: .*unknown model")
    with serving(tmp_path / "none") as server, unknown:
        run_alone(written.beside[0], source, out, server)
    with pytest.raises(SystemExit, match="can't be asked"):
        run_alone(written.beside[0], source, out, server)
    assert not out.exists()


# --- what is replaced, and what is refused ---


def test_a_model_folder_is_replaced_when_told_so(bank: Bank, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(PiggybackError, match="maps exists: give --overwrite"):
        export_task(bank, "second", folder, OPTIONS)
    assert contents(folder) == before
    export_task(bank, "second", folder, AGAIN)
    assert files_of(folder) == FILES
    assert all(contents(folder)[name] != before[name] for name in ("1/model.onnx", "config.pbtxt"))
    assert [p.name for p in folder.parent.iterdir()] == ["maps"]


def _another_version(folder: Path) -> None:
    (folder / "2").mkdir()
    (folder / "2/model.onnx").write_text("mine")


def _another_program(folder: Path) -> None:
    (folder / "config.pbtxt").write_text('name: "maps"')


def _a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        _another_version,
        _another_program,
        _a_link,
        lambda folder: (folder / "client.py").unlink(),
        lambda folder: (folder / "labels.txt").write_text("mine"),
    ],
)
def test_a_folder_with_anything_of_another_is_kept(
    change: Callable[[Path], object], bank: Bank, folder: Path
) -> None:
    change(folder)
    before = contents(folder.parent)
    with pytest.raises(PiggybackError, match="maps is a folder that no such export wrote"):
        export_task(bank, "second", folder, AGAIN)
    assert contents(folder.parent) == before


def test_files_and_empty_folders_are_not_taken_for_model_folders(
    bank: Bank, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name, said in (("file", "is a file that no such"), ("empty", "is a folder that no such")):
        with pytest.raises(PiggybackError, match=said):
            export_task(bank, "second", tmp_path / name, AGAIN)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["my maps", "été", ".maps", 'a"b', "maps\n", "-maps"])
def test_a_name_that_does_not_fit_into_an_address_is_refused(
    name: str, bank: Bank, tmp_path: Path
) -> None:
    with pytest.raises(PiggybackError, match="the folder's name is the model's") as raised:
        export_task(bank, "second", tmp_path / name, OPTIONS)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_no_model_folder_goes_into_a_bank_or_over_one(bank: Bank) -> None:
    before = contents(bank.path)
    with pytest.raises(PiggybackError, match="would be inside the bank"):
        export_task(bank, "second", bank.path / "models/second", AGAIN)
    with pytest.raises(PiggybackError, match="bank is a folder that no such export wrote"):
        export_task(bank, "second", bank.path, AGAIN)
    assert contents(bank.path) == before


def test_outputs_over_the_tolerance_leave_the_old_folder(bank: Bank, folder: Path) -> None:
    before = contents(folder.parent)
    strict = ExportOptions(format="triton", precision="fp16", tolerance=0, overwrite=True)
    with pytest.raises(PiggybackError, match="nothing was written"):
        export_task(bank, "second", folder, strict)
    assert contents(folder.parent) == before


def test_a_signal_leaves_no_part_of_a_folder(resnet: Bank, tmp_path: Path) -> None:
    words = ("second", "--format", "triton", "--out", tmp_path / "models/second")
    process = start("export", resnet.path, *words)
    wait_for(lambda: any(tmp_path.iterdir()), lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
