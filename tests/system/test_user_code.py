"""Claims about user code: what a bank names runs only with permission, and then commands work as with other banks."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from banks import contents
from commands import pbgan
from data_sets import refusal
from drawn import draw_pairs
from paths import ROOT
from piggyback_gan import Bank, GeneratorOptions, allow_generator, teach
from piggyback_gan.cli import tasks as tasks_command
from piggyback_gan.system.user_code import VARIABLE, call_allowed
from running import CONFIG, OPTIONS, bank_files, records, run_state, start

pytestmark = pytest.mark.usefixtures("same_time", "no_consent")

NAME = "examples.segmentation_unet:build"
OPTIONS_FILE = CONFIG.replace('generator = "resnet-6"\nngf = 4', "budget = 0.3")
EXAMPLES = ROOT / "examples"


@pytest.fixture
def no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piggyback_gan.system.user_code._allowed", set())
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: code, images, options."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    draw_pairs(tmp_path / "boxes", train=4, test=1)
    draw_pairs(tmp_path / "more", train=4, test=1, seed=1)
    (tmp_path / "options.toml").write_text(OPTIONS_FILE)
    return tmp_path


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bank]:
    """A bank that names code which writes a file when it is imported; the test fails if it was."""
    path, code = tmp_path / "bank", tmp_path / "evil.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code.write_text("from custom_nets import Plain as run\n")
    options = GeneratorOptions(generator="evil:run")
    teach(path, "one", draw_pairs(tmp_path / "boxes", train=2), OPTIONS, options)
    code.write_text("open('trace', 'w').close()\n")
    monkeypatch.delitem(sys.modules, "evil")
    monkeypatch.setattr("piggyback_gan.system.user_code._allowed", set())
    yield Bank.open(path)
    assert not (tmp_path / "trace").exists(), "code was run without permission"


def test_a_bank_is_opened_and_listed_without_running_what_it_names(
    bank: Bank, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bank.tasks == ("one",)
    assert bank.card("one").mode == "paired"
    assert bank.config.name == "evil:run"
    assert tasks_command.run([str(bank.path)]) == 0
    assert "one" in capsys.readouterr().out
    with bank.writing("remove one"):
        bank.remove("one")


def test_what_a_bank_names_is_not_run_unasked(bank: Bank, tmp_path: Path) -> None:
    picture = torch.zeros(3, 8, 8)
    for use in (
        bank.network,
        bank.verify,
        lambda: bank.generator("one"),
        lambda: bank.translate("one", picture),
        lambda: teach(bank.path, "two", tmp_path / "boxes", OPTIONS),
    ):
        said = refusal(use)
        assert "built by evil:run, and code that a bank names runs only with permission" in said
        assert f"set {VARIABLE}=evil:run" in said


def test_a_begun_run_in_a_bank_is_no_leave_either(tmp_path: Path, bank: Bank) -> None:
    run = bank.path / "runs" / "one" / "run.json"
    run.write_text(run.read_text().replace('"finished"', '"interrupted"'))
    with bank.writing("remove one"):
        bank.remove("one")
    assert "runs only with permission" in refusal(lambda: teach(bank.path, "one", resume=True))
    done = pbgan("train", bank.path, "one", "--resume", folder=tmp_path)
    assert done.returncode == 2
    assert "runs only with permission" in done.stderr


def test_leave_is_given_by_name_in_python_or_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channels = {"input_channels": 1, "output_channels": 2}
    assert "runs only with permission" in refusal(
        lambda: call_allowed("custom_nets:Plain", **channels)
    )
    monkeypatch.setenv(VARIABLE, "custom_nets:Mixed,custom_nets:Plain")
    call_allowed("custom_nets:Plain", **channels)
    assert "unexpected keyword argument 'name'" in refusal(
        lambda: call_allowed("custom_nets:Plain", **channels, name="os:system")
    )
    assert "runs only with permission" in refusal(
        lambda: call_allowed("custom_nets:OneWay", **channels)
    )
    allow_generator("custom_nets:OneWay")
    call_allowed("custom_nets:OneWay", **channels)
    assert "package.module:callable" in refusal(lambda: allow_generator("custom_nets"))


def test_the_command_line_teaches_and_uses_a_network_of_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ("--generator", NAME, "--generator-arguments", '{"width": 4, "depth": 2}')
    common = ("--config", "options.toml", "--epochs", "1")
    done = pbgan("train", "bank", "one", "--data", "boxes", *network, *common, folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"{NAME}, width 4, depth 2, 3 -> 3 channels" in done.stderr
    before = contents(folder / "bank")

    refused = pbgan("train", "bank", "two", "--data", "more", *common, folder=folder)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"pbgan: error: the bank's generator is built by {NAME}, and code that a bank names runs only with permission: "
        f"if you trust it, set {VARIABLE}={NAME} (in Python: piggyback_gan.allow_generator('{NAME}'))\n"
    )
    assert contents(folder / "bank") == before

    monkeypatch.setenv(VARIABLE, NAME)
    for arguments in (
        ("train", "bank", "two", "--data", "more", *common),
        ("verify", "bank"),
        ("translate", "bank", "one", "boxes/test", "--out", "made"),
        ("evaluate", "bank", "two", "--data", "more"),
    ):
        done = pbgan(*arguments, folder=folder)
        assert done.returncode == 0, done.stderr
    (made,) = (folder / "made").iterdir()
    with Image.open(made) as image:
        assert image.size == (48, 24)
    after = contents(folder / "bank" / "tasks")
    earlier = {name.removeprefix("tasks/"): content for name, content in before.items()}
    assert all(earlier.get(name, content) == content for name, content in after.items())


def test_a_run_of_ones_own_network_goes_on_after_a_signal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    network = ("--generator", NAME, "--generator-arguments", '{"width": 4, "depth": 2}')
    common = ("one", "--data", "boxes", "--config", "options.toml", *network)
    process = start("train", "bank", *common, "--epochs", "400")
    while not (folder / "bank/runs/one/metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert f"pbgan train bank one --resume --generator {NAME}" in said
    assert run_state(folder / "bank", "one")["state"] == "interrupted"
    done = records(folder / "bank", "one")
    assert bank_files(folder / "bank") == {}
    process = start("train", "bank", "one", "--resume", "--generator", NAME)
    while len(records(folder / "bank", "one")) <= len(done) + 1:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "resumed after step" in said


def test_wrong_names_and_arguments_are_one_line_each(folder: Path) -> None:
    for given, words in (
        (("--generator", "my nets:build"), "give package.module:callable"),
        (("--generator", "examples.nothing:build"), "No module named 'examples.nothing'"),
        (("--generator", NAME, "--generator-arguments", "{width: 4}"), "Error parsing --generator-arguments"),
    ):  # fmt: skip
        common = ("train", "bank", "one", "--data", "boxes", "--config", "options.toml")
        done = pbgan(*common, *given, folder=folder)
        assert done.returncode == 2
        assert done.stderr.startswith("pbgan: error: ") and done.stderr.count("\n") == 1
        assert words in done.stderr
    assert not (folder / "bank").exists()


def test_what_is_installed_was_named_and_not_a_file_of_the_working_folder(
    folder: Path, tmp_path: Path
) -> None:
    network = ("--generator", NAME, "--generator-arguments", '{"width": 4, "depth": 2}')
    common = ("--config", "options.toml", "--epochs", "1")
    done = pbgan("train", "bank", "one", "--data", "boxes", *network, *common, folder=folder)
    assert done.returncode == 0, done.stderr
    here = tmp_path / "downloads"
    mine = NAME.partition(":")[0].split(".")
    stranger = here.joinpath(*mine).with_suffix(".py")
    stranger.parent.mkdir(parents=True)
    stranger.write_text("raise SystemExit('a stranger')")
    done = subprocess.run(
        # -P: as the installed command, which has no folder of its own on the path.
        [sys.executable, "-P", "-m", "piggyback_gan", "verify", folder / "bank"],
        check=False,
        capture_output=True,
        text=True,
        cwd=here,
        env=os.environ | {VARIABLE: NAME, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
