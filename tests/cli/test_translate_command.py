"""Claims about `pbgan translate`: files, folders and lists, several processes, tiles, and what is refused."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from banks import card, contents, evenly
from commands import Program, pbgan
from image_files import noise
from piggyback_gan.bank.bank import Bank
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.read import read_image
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.tiling import Tiling
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from translated import RGB, expected_pixels, files


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("translate") / "bank"
    new = Bank.new(path, GeneratorConfig(name="resnet-6", ngf=8))
    torch.manual_seed(0)
    network = PiggybackNetwork(build_generator(new.config))
    with new.writing("test"):
        for name in ("maps", "night"):
            network.add_task(name, evenly())
            network.finish_task()
            new.add(network.task_state(name), card(network, name))
    return path


def translate(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    return pbgan("translate", *arguments, stdin=stdin)


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
    assert all(line.startswith("pbgan: ") for line in done.stderr.splitlines())
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
    both = tmp_path / "both"
    command = ("translate", bank, "maps", folder, "--recursive", "--out", both)
    processes = [
        Program(*command, environment={"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    said = [process.communicate() for process in processes]
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
        ("--tile", "50"): "invalid tile: found 50, but resnet-6 takes multiples of 4 from 8 on:",
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
