"""Claims about translating: images of any size, files and folders, and what is refused before it begins."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from piggyback_gan.bank.bank import Bank
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import read_image
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.outputs import Outcome, plan_outputs
from piggyback_gan.inference.tiling import Tiling
from piggyback_gan.inference.translate import translate_batch, translate_files
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.launch import Place, find_place

RGB = (ImageFormat(), ImageFormat())
SIZES = [(1, 1), (5, 3), (1, 40), (37, 51), (64, 64), (130, 70)]
FITTING = {
    "resnet-6": [(8, 8), (12, 20), (64, 64), (132, 72)],
    "unet-64": [(64, 64), (128, 64)],
}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def batch(height: int, width: int, channels: int = 3, count: int = 1) -> Tensor:
    chance = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(count, channels, height, width, generator=chance) * 2 - 1


def small(name: str, **settings: int) -> tuple[GeneratorConfig, nn.Module]:
    """A generator whose outputs are far from gray."""
    config = GeneratorConfig(name=name, ngf=8, init="kaiming", **settings)
    torch.manual_seed(0)
    return config, build_generator(config).eval()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(PiggybackError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tensors


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_of_any_size_come_back_in_their_size(name: str, size: tuple[int, int]) -> None:
    config, generator = small(name)
    images = batch(*size, count=2)
    given = images.clone()
    outputs = translate_batch(generator, config, images)
    assert (outputs.shape, outputs.dtype) == ((2, 3, *size), torch.float32)
    assert outputs.isfinite().all()
    assert outputs.abs().max() <= 1
    assert torch.equal(images, given)


@pytest.mark.parametrize(("name", "size"), [(n, size) for n in FITTING for size in FITTING[n]])
def test_what_fits_is_translated_by_the_plain_network(name: str, size: tuple[int, int]) -> None:
    config, generator = small(name)
    images = batch(*size, count=2)
    with torch.inference_mode():
        expected = generator(images)
    assert expected.std() > 0.1
    assert torch.equal(translate_batch(generator, config, images), expected)


@pytest.mark.parametrize(
    ("name", "size", "padded"),
    [
        ("resnet-6", (37, 51), ((1, 2), (0, 1))),
        ("resnet-6", (1, 3), ((3, 4), (2, 3))),
        ("unet-64", (37, 70), ((13, 14), (29, 29))),
    ],
)
def test_what_does_not_fit_is_mirrored_all_around_and_cropped_back(
    name: str, size: tuple[int, int], padded: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    config, generator = small(name)
    images = batch(*size)
    mirrored = np.pad(images.numpy(), ((0, 0), (0, 0), *padded), mode="symmetric")
    with torch.inference_mode():
        whole = generator(torch.from_numpy(mirrored))
    (top, _), (left, _) = padded
    expected = whole[:, :, top : top + size[0], left : left + size[1]]
    assert torch.equal(translate_batch(generator, config, images), expected)


def test_outputs_have_the_networks_output_channels() -> None:
    config, generator = small("resnet-6", input_channels=1, output_channels=3)
    assert translate_batch(generator, config, batch(9, 11, 1)).shape == (1, 3, 9, 11)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8), (8, 8)])
def test_wrong_channels_and_shapes_are_refused(shape: tuple[int, ...]) -> None:
    config, generator = small("resnet-6")
    message = refusal(lambda: translate_batch(generator, config, torch.zeros(shape)))
    assert message == (
        f"expected float images (B, 3, H, W) in [-1, 1], found torch.float32 {shape}"
    )


def test_outputs_carry_no_gradient_and_no_padding_along() -> None:
    config, generator = small("resnet-6")
    output = translate_batch(generator, config, batch(5, 3).requires_grad_())
    assert not output.requires_grad
    assert output.untyped_storage().nbytes() == output.numel() * 4


# Plans


def files(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(9, 11, seed=i)).save(path)
    return folder


def plan(
    *inputs: Path, out: Path, same_format: bool = False, overwrite: bool = False
) -> list[tuple[str, str]]:
    planned = plan_outputs(inputs, out, same_format=same_format, overwrite=overwrite)
    assert all(outcome.problem is None for outcome in planned)
    assert all(outcome.output.parent == out for outcome in planned)
    return [(outcome.source.name, outcome.output.name) for outcome in planned]


def test_outputs_keep_their_names_and_become_png_or_stay_what_they_are(tmp_path: Path) -> None:
    folder, out = files(tmp_path / "in", "b.v2.jpg", "a.webp", "c.PNG"), tmp_path / "out"
    single = files(tmp_path, "d.bmp") / "d.bmp"
    names = ["a.webp", "b.v2.jpg", "c.PNG", "d.bmp"]
    assert plan(folder, single, out=out) == list(
        zip(names, ["a.png", "b.v2.png", "c.png", "d.png"], strict=True)
    )
    assert plan(folder, single, out=out, same_format=True) == list(zip(names, names, strict=True))
    assert not out.exists()


def test_two_inputs_for_one_output_are_refused(tmp_path: Path) -> None:
    first, second = files(tmp_path / "x", "a.jpg"), files(tmp_path / "y", "a.png")
    out = tmp_path / "out"
    message = refusal(lambda: plan(first, second, out=out))
    assert f"{first / 'a.jpg'} and {second / 'a.png'} would both become {out / 'a.png'}" in message
    assert len(plan(first, second, out=out, same_format=True)) == 2
    assert len(plan(first, first / "a.jpg", out=out)) == 1, "the same file twice is one input"


def test_existing_outputs_are_refused_without_overwrite(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    out = files(tmp_path / "out", "b.png", "c.png")
    message = refusal(lambda: plan(folder, out=out))
    assert message.startswith(f"2 outputs exist, the first is {out / 'b.png'}: ")
    assert "--overwrite" in message
    assert len(plan(folder, out=out, overwrite=True)) == 3
    assert len(plan(folder, out=out, same_format=True)) == 3


def test_outputs_that_would_replace_their_inputs_are_refused(tmp_path: Path) -> None:
    folder = files(tmp_path, "a.jpg")
    assert "a.jpg is an input" in refusal(lambda: plan(folder, out=folder, same_format=True))
    assert plan(folder, out=folder) == [("a.jpg", "a.png")]


def test_missing_inputs_other_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    good = files(tmp_path / "in", "a.jpg")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "nowhere.png": "no such file or folder",
        "notes.txt": "not an image; known are .jpg",
        "empty": "there are no images in this folder",
    }.items():
        message = refusal(lambda name=name: plan(good, tmp_path / name, out=tmp_path / "out"))
        assert message.startswith(f"{tmp_path / name}: {words}")


def test_a_tree_of_folders_is_kept_and_links_that_go_round_end(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.png", "day/a.png", "day/dusk/b.JPG")
    (folder / "day" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    out = tmp_path / "out"
    planned = plan_outputs([folder], out, same_format=False, overwrite=False, recursive=True)
    outputs = {str(o.output.relative_to(out)) for o in planned}
    assert outputs == {"a.png", "self.png", "day/a.png", "day/dusk/b.png"}
    flat = plan_outputs([folder], out, same_format=False, overwrite=False)
    assert {o.source.name for o in flat} == {"a.png", "self.png"}


def test_outputs_within_an_input_folder_are_not_inputs_the_next_time(tmp_path: Path) -> None:
    folder = files(tmp_path, "a.jpg", "out/a.png", "out/deep/b.png")
    planned = plan_outputs(
        [folder], folder / "out", same_format=False, overwrite=True, recursive=True
    )
    assert [(o.source, o.output) for o in planned] == [(folder / "a.jpg", folder / "out" / "a.png")]


def test_no_output_lies_outside_of_the_folder_for_them(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "sub/a.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "sub").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    message = refusal(
        lambda: plan_outputs([folder], out, same_format=False, overwrite=True, recursive=True)
    )
    assert message == f"{out / 'sub'} is a link that leads out of {out}: give another --out"
    above = plan_outputs(
        [out / ".." / "in" / "sub" / "a.png"], out, same_format=False, overwrite=True
    )
    assert [o.output for o in above] == [out / "a.png"]


def test_names_of_any_length_and_script_are_kept_or_refused_beforehand(tmp_path: Path) -> None:
    unicode = "é" * 60 + "猫"
    longest = "n" * 251
    folder = files(tmp_path / "in", f"{unicode}.png", f"{longest}.png")
    out = tmp_path / "out"
    assert {name for _, name in plan(folder, out=out)} == {f"{unicode}.png", f"{longest}.png"}
    files(folder, f"{'m' * 250}.webp")
    assert len(plan(folder, out=out)) == 3


def test_a_suffix_that_can_not_hold_the_outputs_is_refused_before_anything(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.png", "b.jpg")
    deep = ImageFormat(depth="uint16", low=0, high=65535)
    message = refusal(
        lambda: plan_outputs(
            [folder], tmp_path / "out", same_format=True, overwrite=False, output_format=deep
        )
    )
    assert message.startswith(f"{folder / 'b.jpg'}: .jpg files can't hold this task's outputs")
    assert ".png can: leave out --format same" in message


def test_processes_share_the_files_and_each_minds_its_own(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", *(f"{i}.png" for i in range(5)))
    out = files(tmp_path / "out", "0.png", "2.png")

    def share(rank: int, inputs: Path = folder, out: Path = out) -> list[str]:
        place = Place(rank, 2, rank)
        planned = plan_outputs([inputs], out, same_format=False, overwrite=False, place=place)
        return [o.source.name for o in planned]

    assert share(1) == ["1.png", "3.png"]
    assert refusal(lambda: share(0)).startswith("2 outputs exist")
    message = refusal(lambda: share(0, folder, folder))
    assert "is an input" in message
    jpgs = files(tmp_path / "jpgs", "a.jpg", "b.jpg")
    assert "several processes need another --out" in refusal(lambda: share(0, jpgs, jpgs))


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "1"}, Place(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({"RANK": "2", "WORLD_SIZE": "2"}, None),
        ({"RANK": "one", "WORLD_SIZE": "2"}, None),
    ],
)
def test_a_process_finds_its_place_or_says_what_is_wrong_with_it(
    environment: dict[str, str], place: Place | None
) -> None:
    if place is None:
        assert "WORLD_SIZE=2" in refusal(lambda: find_place(environment))
    else:
        assert find_place(environment) == place


# Files


def expected_pixels(generator: nn.Module, config: GeneratorConfig, source: Path) -> Pixels:
    taken, made = (ImageFormat(channels=n) for n in (config.input_channels, config.output_channels))
    image = to_tensor(read_image(source, taken), taken)
    return to_pixels(translate_batch(generator, config, image[None])[0], made)


def test_files_of_mixed_sizes_are_translated_in_batches_of_one_size(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    sizes = [(9, 11), (9, 11), (9, 11), (5, 3), (9, 11), (9, 11)]
    for i, size in enumerate(sizes):
        Image.fromarray(noise(*size, seed=i)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    out.mkdir()
    planned = plan_outputs([tmp_path], out, same_format=False, overwrite=False)
    seen: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = generator
            self.batches: list[int] = []

        def forward(self, images: Tensor) -> Tensor:
            self.batches.append(len(images))
            return self.inner(images)

    counting = Counting()
    outcomes = translate_files(counting, config, planned, RGB, batch_size=2, on_done=seen.append)
    assert outcomes == planned
    assert counting.batches == [2, 1, 1, 2]
    assert seen == [2, 3, 4, 6, 6]
    for source, output in ((o.source, o.output) for o in outcomes):
        difference = read_image(output, ImageFormat()).astype(int) - expected_pixels(
            generator, config, source
        )
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("tiling", [None, Tiling(tile=32, overlap=8)], ids=["whole", "tiled"])
@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        (ImageFormat(channels=1, depth="uint16", low=0, high=65535), ".png"),
        (ImageFormat(channels=3, depth="uint16", low=0, high=65535), ".png"),
        (ImageFormat(channels=5, depth="float32", low=-3, high=7), ".tif"),
        (ImageFormat(channels=4, labels=True), ".png"),
    ],
    ids=["gray16", "rgb16", "five floats", "labels"],
)
def test_files_of_every_format_are_taken_and_made(
    tmp_path: Path, format: ImageFormat, suffix: str, tiling: Tiling | None
) -> None:
    config, generator = small(
        "resnet-6", input_channels=format.channels, output_channels=format.channels
    )
    chance = np.random.default_rng(0)
    channels = 1 if format.labels else format.channels
    high = format.channels if format.labels else format.high
    pixels = chance.uniform(0, high, (40, 51, channels)).astype(format.depth)
    source = tmp_path / f"a{suffix}"
    source.write_bytes(encode(pixels, suffix))
    (tmp_path / "out").mkdir()
    planned = plan_outputs(
        [source], tmp_path / "out", same_format=False, overwrite=False, output_format=format
    )
    (outcome,) = translate_files(generator, config, planned, (format, format), tiling=tiling)
    assert outcome.problem is None
    assert outcome.output.name == f"a{suffix}"
    expected = translate_batch(generator, config, to_tensor(pixels, format)[None], tiling)[0]
    found = read_image(outcome.output, format)
    assert found.dtype == format.depth
    assert np.array_equal(found, to_pixels(expected, format))


def test_an_output_that_its_kind_of_file_can_not_hold_is_one_files_problem(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    files(tmp_path, "b.webp")
    Image.fromarray(noise(1, 16384)).save(tmp_path / "a.png")
    planned = [
        Outcome(tmp_path / "a.png", tmp_path / "out.webp"),
        Outcome(tmp_path / "b.webp", tmp_path / "out.png"),
    ]
    first, second = translate_files(generator, config, planned, RGB)
    assert first.problem == (
        f"{tmp_path / 'a.png'}: .webp files can't hold 16384x1 pixels with 3 channels of uint8: "
        ".png or .tif can"
    )
    assert second.problem is None


def test_an_unreadable_file_is_said_and_the_others_are_done(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    files(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_text("hello")
    out = tmp_path / "out"
    out.mkdir()
    planned = plan_outputs([tmp_path], out, same_format=False, overwrite=False)
    outcomes = translate_files(generator, config, planned, RGB, batch_size=8)
    problems = {outcome.source.name: outcome.problem for outcome in outcomes}
    assert problems.pop("b.png") == f"{tmp_path / 'b.png'}: can't be read: not an image"
    assert problems == {"a.png": None, "c.png": None}
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]


def test_an_output_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    config, generator = small("resnet-6")
    source = files(tmp_path, "a.png") / "a.png"
    planned = [Outcome(source, tmp_path / "nowhere" / "a.png")]
    message = refusal(lambda: translate_files(generator, config, planned, RGB, batch_size=1))
    assert "nowhere/a.png can't be written" in message


# The command line


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("translate") / "bank"
    new = Bank.new(path, GeneratorConfig(name="resnet-6", ngf=8))
    torch.manual_seed(0)
    network = PiggybackNetwork(build_generator(new.config))
    with new.writing("test"):
        for name in ("maps", "night"):
            network.add_task(name)
            network.finish_task()
            new.add(network.task_state(name), card={})
    return path


PROGRAM = "import sys; from piggyback_gan.cli.main import main; sys.exit(main())"


def translate(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "translate", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_and_folders_are_translated_and_a_corrupt_one_is_named_with_status_1(
    tmp_path: Path, bank: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sizes = {"a.png": (9, 11), "b.png": (9, 11), "d.webp": (40, 21), "e.tif": (9, 11)}
    for i, (name, size) in enumerate(sizes.items()):
        Image.fromarray(noise(*size, seed=i)).save(folder / name, lossless=True)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:200])
    single, out = tmp_path / "z.bmp", tmp_path / "deep" / "out"
    Image.fromarray(noise(64, 32)).save(single)
    done = translate(bank, "night", folder, single, "--out", out, "--batch-size", 2)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        line for line in done.stderr.splitlines() if line.startswith("pbgan: ")
    ]
    assert f"{folder / 'c.png'}: can't be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == f"5 images in {out}, 1 could not be translated"
    opened = Bank.open(bank)
    generator = opened.generator("night")
    assert set(contents(out)) == {"a.png", "b.png", "d.png", "e.png", "z.png"}
    for source in [folder / name for name in sizes] + [single]:
        found = read_image(out / f"{source.stem}.png", ImageFormat()).astype(int)
        expected = expected_pixels(generator, opened.config, source)
        assert found.shape == expected.shape
        # Another batch size may round otherwise, by one step.
        assert np.abs(found - expected).max() <= 1


def test_a_misspelt_task_lists_those_there_are(tmp_path: Path, bank: Path) -> None:
    folder, out = files(tmp_path / "in", "a.png"), tmp_path / "out"
    done = translate(bank, "nihgt", folder, "--out", out)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("pbgan: error: ")
    assert "nihgt" in line
    assert "maps, night" in line
    assert not out.exists()


def test_nothing_is_replaced_or_written_without_overwrite(tmp_path: Path, bank: Path) -> None:
    folder, out = files(tmp_path / "in", "a.png", "b.png"), files(tmp_path / "out", "b.png")
    before = contents(out)
    done = translate(bank, "maps", folder, "--out", out)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pbgan: error: 1 outputs exist, the first is {out / 'b.png'}")
    assert contents(out) == before


def test_same_format_keeps_formats_and_overwrite_replaces(tmp_path: Path, bank: Path) -> None:
    folder = files(tmp_path / "in", "a.jpg", "b.TIFF", "c.webp")
    out = files(tmp_path / "out", "a.jpg")
    before = contents(out)
    done = translate(bank, "maps", folder, "--out", out, "--format", "same", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"3 images in {out}"
    after = contents(out)
    formats = {name: Image.open(io.BytesIO(content)).format for name, content in after.items()}
    assert formats == {"a.jpg": "JPEG", "b.TIFF": "TIFF", "c.webp": "WEBP"}
    assert after["a.jpg"] != before["a.jpg"]


def test_a_list_of_paths_is_read_from_stdin_by_lines_or_by_nul(tmp_path: Path, bank: Path) -> None:
    folder = files(tmp_path / "in", "a.png", "ü b.png", "c.png")
    for i, between in enumerate((b"\n", b"\r\n", b"\0")):
        listed = between.join(bytes(folder / name) for name in ("a.png", "ü b.png")) + between
        out = tmp_path / f"out{i}"
        done = translate(bank, "maps", "-", "--out", out, stdin=listed)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(contents(out)) == {"a.png", "ü b.png"}
    nothing = translate(bank, "maps", "-", "--out", tmp_path / "out", stdin=b"\n")
    assert nothing.returncode == 2
    assert nothing.stderr == "pbgan: error: give at least one image or folder to translate\n"


def test_listed_files_keep_the_tree_that_their_paths_name(
    tmp_path: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path / "in", "x/a.png", "y/a.png")
    monkeypatch.chdir(tmp_path / "in")
    listed = b"x/a.png\n./y/a.png\n"
    done = translate(bank, "maps", "-", "--recursive", "--out", tmp_path / "out", stdin=listed)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(contents(tmp_path / "out")) == {"x/a.png", "y/a.png"}
    refused = translate(bank, "maps", "-", "--out", tmp_path / "flat", stdin=listed)
    assert refused.returncode == 2
    assert "would both become" in refused.stderr and "--recursive" in refused.stderr
    # A path that leads up, or from the root, has no place in the tree.
    listed = f"{tmp_path}/in/x/a.png\n".encode()
    done = translate(bank, "maps", "-", "--recursive", "--out", tmp_path / "flat", stdin=listed)
    assert set(contents(tmp_path / "flat")) == {"a.png"}


def test_two_processes_translate_what_one_does_each_its_own_half(
    tmp_path: Path, bank: Path
) -> None:
    folder = files(tmp_path / "in", *(f"{i}/a.png" for i in range(3)))
    (folder / "bad.png").write_text("hello")
    command = [sys.executable, "-c", PROGRAM, "translate", str(bank), "maps", str(folder)]
    command += ["--recursive", "--out"]
    both = tmp_path / "both"
    processes = [
        subprocess.Popen(
            [*command, str(both)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    # By name: 0/a, 1/a, 2/a and bad, or bad first; the others are of the process without it.
    assert sorted(process.returncode for process in processes) == [0, 1], said
    assert sorted(out.partition(": ")[2].split(" image")[0] for out, _ in said) == ["1", "2"]
    assert [out.partition(": ")[0] for out, _ in said] == ["process 0 of 2", "process 1 of 2"]
    alone = translate(bank, "maps", folder, "--recursive", "--out", tmp_path / "alone")
    assert alone.returncode == 1
    assert contents(both) == contents(tmp_path / "alone")
    assert set(contents(both)) == {f"{i}/a.png" for i in range(3)}


def test_tiles_on_the_command_line_and_flags_that_need_them(tmp_path: Path, bank: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(noise(90, 70)).save(source)
    tiles = ("--tile", 48, "--overlap", 16, "--norm-from", "image")
    done = translate(bank, "maps", source, "--out", out, *tiles)
    assert (done.returncode, done.stderr) == (0, "")
    opened = Bank.open(bank)
    image = to_tensor(noise(90, 70), RGB[0])
    tiling = Tiling(tile=48, overlap=16, norm_from="image")
    expected = to_pixels(opened.translate("maps", image, tiling=tiling), RGB[1])
    assert np.array_equal(read_image(out / "a.png", RGB[1]), expected)
    for flags, words in {
        ("--overlap", "8"): "--overlap applies to tiles: give --tile too",
        ("--norm-from", "image"): "--norm-from applies to tiles: give --tile too",
        (
            "--tile",
            "50",
        ): "invalid tile: found 50, but resnet-6 takes multiples of 4 from 8 on: give",
        ("--max-pixels", "0"): "invalid max_pixels: found 0",
    }.items():
        refused = translate(bank, "maps", source, "--out", tmp_path / "none", *flags)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert not (tmp_path / "none").exists()


def test_the_limit_of_pixels_is_a_flag_that_its_error_names(tmp_path: Path, bank: Path) -> None:
    folder, out = files(tmp_path / "in", "a.png"), tmp_path / "out"
    refused = translate(bank, "maps", folder, "--out", out, "--max-pixels", 98)
    assert refused.returncode == 1
    assert "give --max-pixels 99" in refused.stderr
    assert translate(bank, "maps", folder, "--out", out, "--max-pixels", 99).returncode == 0
