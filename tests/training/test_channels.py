"""Images of any channels and depth in one bank: from files, through training, to files again."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from piggyback_gan import Bank, PiggybackError, TrainingOptions, teach
from piggyback_gan.cli import translate as translate_command
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.training.own_layers import own_layers
from running import GENERATOR, OPTIONS

pytestmark = pytest.mark.usefixtures("without_curves")

ONE_EPOCH = dataclasses.replace(OPTIONS, epochs=1)
SIZE = (20, 24)  # height, width
CHANCE = np.random.default_rng(0)


def png(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pixels = CHANCE.integers(0, 256, (*SIZE, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
        Image.frombytes(mode, SIZE[::-1], pixels.tobytes()).save(path.with_suffix(".png"))

    return write


def deep_png(path: Path) -> None:
    pixels = CHANCE.integers(0, 65536, SIZE, np.uint16)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def tiff(channels: int, kind: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pixels = CHANCE.random((*SIZE, channels)) * (1.0 if kind == np.float32 else 65535)
        tifffile.imwrite(
            path.with_suffix(".tif"),
            pixels.astype(kind),
            photometric="minisblack",
            planarconfig="contig" if channels > 1 else None,
        )

    return write


def label_map(path: Path) -> None:
    image = Image.fromarray(CHANCE.integers(0, 5, SIZE, np.uint8), "P")
    image.putpalette([value for i in range(5) for value in (i * 50, 255 - i * 50, 7)])
    image.save(path.with_suffix(".png"))


def draw(root: Path, a: Callable[[Path], None], b: Callable[[Path], None]) -> Path:
    for split, count in (("train", 3), ("test", 1)):
        for side, write in (("A", a), ("B", b)):
            (root / f"{split}{side}").mkdir(parents=True)
            for i in range(count):
                write(root / f"{split}{side}" / f"{i}")
    return root


# Each task: files of A and of B, options, and its output's (channels, type).
TASKS: dict[str, tuple[Any, Any, dict[str, Any], tuple[int, type]]] = {
    "color": (png("RGB"), png("RGB"), {}, (3, np.uint8)),
    "deep": (deep_png, deep_png, {}, (1, np.uint16)),
    "bands": (tiff(5, np.float32), png("RGB"), {}, (3, np.uint8)),
    "alpha": (png("RGB"), png("RGBA"), {"output_channels": 4}, (4, np.uint8)),
    "bands16": (png("L"), tiff(4, np.uint16), {"input_channels": 1}, (4, np.uint16)),
    "height": (png("RGB"), tiff(1, np.float32), {"output_range": (-1.0, 2.0)}, (1, np.float32)),
    "labels": (label_map, png("RGB"), {"input_labels": 5}, (3, np.uint8)),
    "both": (png("RGB"), tiff(2, np.float32), {"mode": "unpaired"}, (2, np.float32)),
}


def drawn(root: Path, task: str, **changes: Any) -> tuple[Path, TrainingOptions]:
    """The task's files, and options for an epoch of it."""
    a, b, own, _ = TASKS[task]
    return draw(root / task, a, b), dataclasses.replace(ONE_EPOCH, **own, **changes)


def read(path: Path) -> NDArray[Any]:
    """A file's values as they are, (H, W, C)."""
    if path.suffix == ".tif":
        pixels = tifffile.imread(path)
    else:
        pixels = imagecodecs.png_decode(path.read_bytes())  # Pillow would make 8 bits of 16
    return pixels.reshape(*SIZE, -1)


def translated(bank: Path, task: str, source: Path, out: Path, *flags: str) -> Path:
    """The file that the command line makes of another."""
    shutil.rmtree(out, ignore_errors=True)
    assert translate_command.run([str(bank), task, str(source), "--out", str(out), *flags]) == 0
    (made,) = out.iterdir()
    return made


@pytest.mark.parametrize(
    "order",
    [
        ("color", "deep", "bands", "alpha", "bands16", "height", "labels", "both"),
        ("bands", "color", "labels", "deep"),
    ],
    ids=["RGB first", "five channels first"],
)
def test_tasks_of_all_kinds_share_a_bank_and_write_back_what_their_files_hold(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    bank = tmp_path / "bank"
    earlier: dict[str, bytes] = {}
    for task in order:
        channels, kind = TASKS[task][-1]
        # The default budget is too small for so small a network with so many channels.
        data, options = drawn(tmp_path / "data", task, budget=0.2)
        teach(bank, task, data, options, GENERATOR)
        (source,) = (data / "testA").iterdir()
        made = translated(bank, task, source, tmp_path / "out")
        pixels = read(made)
        assert (pixels.shape, pixels.dtype) == ((*SIZE, channels), kind), task
        assert len(np.unique(pixels)) > 5, "there is a picture in it"
        if kind == np.uint16:
            assert (pixels % 257).any(), "and not one of 8 bits"
        earlier[task] = made.read_bytes()
        for old, content in earlier.items():
            (source,) = (tmp_path / "data" / old / "testA").iterdir()
            assert translated(bank, old, source, tmp_path / "out").read_bytes() == content
    assert {finding.problem for finding in Bank.open(bank).verify()} == {None}


def test_only_the_first_and_last_layer_are_a_tasks_own(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    teach(bank, "color", *drawn(tmp_path, "color"), GENERATOR)
    data = draw(tmp_path / "bands", tiff(5, np.uint16), tiff(2, np.uint16))
    teach(bank, "bands", data, ONE_EPOCH, GENERATOR)
    opened = Bank.open(bank)
    color, bands = (opened.generator(task).state_dict() for task in opened.tasks)
    other = [name for name in color if color[name].shape != bands[name].shape]
    assert other == ["model.1.weight", "model.23.weight", "model.23.bias"]
    assert opened.card("bands").parameters.share < 0.6
    assert opened.generator_config("bands").input_channels == 5


def test_an_own_layer_starts_as_the_earlier_tasks_does_on_gray() -> None:
    config = GeneratorConfig(name="resnet-6", ngf=4)
    source = build_generator(config).eval()
    gray = torch.rand(1, 1, 16, 16) * 2 - 1
    own = own_layers(config, (5, 2), 0, source)
    wide = build_generator(dataclasses.replace(config, input_channels=5, output_channels=2)).eval()
    wide.load_state_dict(source.state_dict() | {
        f"{name}.{key}": value for name, layer in own.items()
        for key, value in layer.state_dict().items()
    })  # fmt: skip
    with torch.no_grad():
        features = source.model[1](torch.nn.functional.pad(gray.expand(-1, 3, -1, -1), (3,) * 4))
        widened = wide.model[1](torch.nn.functional.pad(gray.expand(-1, 5, -1, -1), (3,) * 4))
    torch.testing.assert_close(widened, features)
    last = own["model.23"].weight
    torch.testing.assert_close(last[0], source.model[23].weight.mean(0))
    assert own_layers(config, (3, 3), 0, source) == {}


def test_label_maps_are_classes_whatever_their_colours_are(tmp_path: Path) -> None:
    data, options = drawn(tmp_path / "data", "labels")
    teach(tmp_path / "bank", "labels", data, options, GENERATOR)
    bank = Bank.open(tmp_path / "bank")
    assert bank.card("labels").image.input.labels is True
    assert bank.generator_config("labels").input_channels == 5
    (source,) = (data / "testA").iterdir()
    made = translated(tmp_path / "bank", "labels", source, tmp_path / "out").read_bytes()
    with Image.open(source) as image:
        image.putpalette([0, 0, 0] * 5)
        image.save(source)
    assert translated(tmp_path / "bank", "labels", source, tmp_path / "out").read_bytes() == made


def test_a_class_beyond_the_count_is_named_before_training(tmp_path: Path) -> None:
    data, options = drawn(tmp_path / "data", "labels")
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(data / "trainA" / "2.png")
    with pytest.raises(PiggybackError, match=r"2\.png.*9"):
        teach(tmp_path / "bank", "labels", data, options, GENERATOR)
    assert not (tmp_path / "bank" / "bank.json").exists()


def test_label_maps_are_refused_for_an_unpaired_task(tmp_path: Path) -> None:
    data, options = drawn(tmp_path / "data", "labels", mode="unpaired")
    with pytest.raises(
        PiggybackError, match=r"generators can't output label maps: train this task paired"
    ):
        teach(tmp_path / "bank", "one", data, options, GENERATOR)
    assert not (tmp_path / "bank").exists()


def test_an_unpaired_task_translates_back_to_its_inputs_format(tmp_path: Path) -> None:
    data, options = drawn(tmp_path / "data", "both")
    teach(tmp_path / "bank", "both", data, options, GENERATOR)
    (source,) = (data / "testB").iterdir()
    out = tmp_path / "out"
    pixels = read(translated(tmp_path / "bank", "both", source, out, "--direction", "BtoA"))
    assert (pixels.shape, pixels.dtype) == ((*SIZE, 3), np.uint8)
