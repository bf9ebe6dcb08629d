"""Claims about `pbgan import`: networks trained elsewhere in a bank, whole or folded, and nothing half-done."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from banks import contents, images
from commands import run_here
from paths import ROOT
from piggyback_gan.bank.bank import Bank
from piggyback_gan.errors import PiggybackError
from piggyback_gan.importing.folder import find_checkpoints, import_checkpoints, with_recorded
from piggyback_gan.importing.import_task import import_task
from piggyback_gan.importing.options import ImportOptions
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

CONFIG = GeneratorConfig(name="resnet-6", ngf=4)
PICTURE = images(1, 32, 32)


def network(seed: int, config: GeneratorConfig = CONFIG) -> nn.Module:
    torch.manual_seed(seed)
    return build_generator(config).eval()


def saved(path: Path, seed: int, config: GeneratorConfig = CONFIG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network(seed, config).state_dict(), path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve small images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(12):
        values = chance.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    import_task(folder / "bank", "first", saved(folder / "first.pth", 0))
    return folder / "bank"


@pytest.fixture
def bank(imported: Path, tmp_path: Path) -> Path:
    """A bank with one imported task."""
    return Path(shutil.copytree(imported, tmp_path / "bank"))


def test_a_first_network_enters_whole_and_translates_as_it_did(bank: Path) -> None:
    opened = Bank.open(bank)
    assert torch.equal(opened.generator("first")(PICTURE), network(0)(PICTURE))
    assert opened.config == CONFIG
    assert all(finding.problem is None for finding in opened.verify())


def test_a_later_network_takes_less_and_finetuning_brings_it_closer(
    bank: Path, tmp_path: Path, pictures: Path
) -> None:
    before = contents(bank)
    options = ImportOptions(unconstrained=0.25, finetune=30, image_size=32)
    imported = import_task(bank, "second", saved(tmp_path / "G.pth", 1), options, images=pictures)
    assert imported.parameters.share < 0.6
    assert imported.distances["AtoB"]["l1"] < imported.before["AtoB"]["l1"]
    opened = Bank.open(bank)
    made = opened.generator("second")
    assert torch.equal(opened.generator("first")(PICTURE), network(0)(PICTURE))
    assert {k: v for k, v in contents(bank).items() if k in before and k.startswith("tasks")} == {
        k: v for k, v in before.items() if k.startswith("tasks")
    }
    card = opened.card("second")
    assert card.imported.distances == {"AtoB": dict(imported.distances["AtoB"])}
    assert card.imported.files["AtoB"].name == "G.pth"
    assert made(PICTURE).shape == (1, 3, 32, 32)
    # What is reported is what the bank's own generator gives.
    import_again = import_task(
        bank,
        "third",
        saved(tmp_path / "H.pth", 1),
        replace(options, finetune=0, max_error=0.0, unconstrained=None),
        images=pictures,
    )
    assert import_again.distances["AtoB"]["l1"] == 0


def test_without_finetuning_outputs_are_those_of_the_folded_filters(
    bank: Path, tmp_path: Path
) -> None:
    imported = import_task(
        bank, "second", saved(tmp_path / "G.pth", 1), ImportOptions(max_error=0.2)
    )
    assert imported.distances == {} and imported.before == {}
    assert {fit.layer for fit in imported.fits["AtoB"]} == {
        name
        for name, layer in network(0).named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    }
    assert all(fit.error <= 0.2 + 1e-6 for fit in imported.fits["AtoB"])


def test_both_directions_of_a_cyclegan_become_one_unpaired_task(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    config = replace(CONFIG, input_channels=1)
    back = replace(CONFIG, output_channels=1)
    import_task(
        bank,
        "winter",
        saved(tmp_path / "latest_net_G_A.pth", 0, config),
        backward=saved(tmp_path / "latest_net_G_B.pth", 1, back),
        direction="BtoA",
    )
    opened = Bank.open(bank)
    assert opened.directions("winter") == ("BtoA", "AtoB")
    assert torch.equal(
        opened.generator("winter", direction="AtoB")(PICTURE), network(1, back)(PICTURE)
    )
    with pytest.raises(PiggybackError, match="not the other direction"):
        import_task(
            bank, "other", tmp_path / "latest_net_G_A.pth", backward=tmp_path / "latest_net_G_A.pth"
        )


def test_other_channels_dropout_and_first_weights_do_not_keep_a_network_out(
    bank: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, input_channels=1, output_channels=2, dropout=True)
    import_task(bank, "gray", saved(tmp_path / "G.pth", 1, config), ImportOptions(max_error=0.0))
    gray = PICTURE[:, :1]
    made = Bank.open(bank).generator("gray")(gray)
    assert torch.equal(made, network(1, config)(gray))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(CONFIG, ngf=8), "its ngf 8, not 4"),
        (replace(CONFIG, norm="batch"), "its norm 'batch', not 'instance'"),
        (replace(CONFIG, name="resnet-9"), "'resnet-9', not 'resnet-6'"),
        (replace(CONFIG, antialias="both"), "antialias"),
    ],
)
def test_a_network_of_another_architecture_is_refused_and_the_bank_stays(
    config: GeneratorConfig, words: str, bank: Path, tmp_path: Path
) -> None:
    before = contents(bank)
    done = run_here("import", bank, "second", saved(tmp_path / "G.pth", 1, config))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert contents(bank) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("first", "G.pth"), "has a task 'first' already"),
        (("Second", "G.pth"), "can't name a task"),
        (("second", "missing.pth"), "can't be read"),
        (("second", "G.pth", "--finetune", "5"), "give a folder of inputs"),
        (("second", "G.pth", "--images", "nowhere"), "this folder of images does not exist"),
        (("second", "G.pth", "--images", "."), "neither"),
        (("second", "G.pth", "--max-error", "2"), "invalid max_error"),
        (("second", "G.pth", "--max-error", ".2", "--unconstrained", ".2"), "exclude each other"),
        (("second", "G.pth", "--image-size", "30"), "multiples of 4"),
        (("second",), "give TASK and FILE, or --all DIR"),
        (("second", "G.pth", "--all", "."), "give TASK and FILE, or --all DIR"),
        (("--all", "empty"), "contains no generators"),
        (("--all", "nowhere"), "this folder of networks does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_changed(
    arguments: tuple[str, ...],
    words: str,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved(tmp_path / "G.pth", 1)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = contents(bank)
    done = run_here("import", "bank", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert contents(bank) == before


# --- checkpoint folders ---


def test_a_folder_of_networks_becomes_one_bank(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder / "Day 2" / "latest_net_G.pth", 1)
    saved(folder / "Day 2" / "5_net_G.pth", 9)
    (folder / "Day 2" / "train_opt.txt").write_text(
        "     crop_size: 32      \t[default: 256]\n     direction: BtoA    \t[default: AtoB]\n"
    )
    saved(folder / "cycle" / "100_net_G_A.pth", 2)
    saved(folder / "cycle" / "100_net_G_B.pth", 3)
    saved(folder / "cycle" / "20_net_G_A.pth", 9)
    saved(folder / "a.pth", 0)
    (folder / "notes.txt").write_text("nothing")
    (folder / "logs").mkdir()
    done = run_here(
        "import", tmp_path / "bank", "--all", folder, "--images", pictures, "--image-size", "32"
    )
    assert done.returncode == 0, done.stderr
    bank = Bank.open(tmp_path / "bank")
    assert bank.tasks == ("day-2", "a", "cycle")
    assert torch.equal(bank.generator("day-2")(PICTURE), network(1)(PICTURE))
    assert bank.directions("day-2") == ("BtoA",)
    assert bank.directions("cycle") == ("AtoB", "BtoA")
    assert "together" in done.stdout and "differs from the imported network" in done.stderr
    listed = run_here("tasks", tmp_path / "bank")
    assert listed.returncode == 0 and "imported" in listed.stdout
    rows = json.loads(run_here("tasks", tmp_path / "bank", "--json").stdout)["tasks"]
    assert rows[0]["card"]["image"]["size"] == 32
    # Once more, with another network: what is there is passed over.
    saved(folder / "b.pth", 4)
    again = run_here("import", tmp_path / "bank", "--all", folder, "--max-error", "0.3")
    assert again.returncode == 0 and again.stderr.count("already") == 3
    assert Bank.open(tmp_path / "bank").tasks == ("day-2", "a", "cycle", "b")
    assert run_here("verify", tmp_path / "bank").returncode == 0


def test_one_file_that_does_not_fit_stops_a_folder_before_anything_is_imported(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    saved(folder / "a.pth", 0)
    saved(folder / "z.pth", 1, replace(CONFIG, ngf=8))
    with pytest.raises(PiggybackError, match=r"z\.pth does not fit .*a\.pth"):
        list(import_checkpoints(tmp_path / "bank", find_checkpoints(folder)))
    assert not (tmp_path / "bank").exists()


def test_two_networks_of_one_name_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "A.pth", 0)
    saved(tmp_path / "a.pth", 0)
    with pytest.raises(PiggybackError, match="two networks are named 'a'"):
        find_checkpoints(tmp_path)


def test_what_pix2pix_wrote_down_is_read_and_nonsense_is_not(tmp_path: Path) -> None:
    weights, options = tmp_path / "latest_net_G.pth", ImportOptions()
    assert with_recorded(options, None, weights) == (options, "AtoB")
    (tmp_path / "train_opt.txt").write_text("  crop_size: -3\n direction: up\n")
    assert with_recorded(options, None, weights) == (options, "AtoB")
    (tmp_path / "train_opt.txt").write_bytes(b"\xff\xfe direction: BtoA")
    assert with_recorded(options, None, weights) == (options, "AtoB")


# --- the docs ---


def test_the_five_commands_of_the_docs_work_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On small networks and images; with fewer steps and epochs than the page has."""
    words = "  crop_size: 16 \t[default: 256]\n"
    for seed, name in enumerate(("facades", "maps")):
        saved(tmp_path / "checkpoints" / name / "latest_net_G.pth", seed)
        (tmp_path / "checkpoints" / name / "train_opt.txt").write_text(words)
    for name in ("facades", "maps", "night"):
        for split in ("train", "test"):
            folder = tmp_path / "datasets" / name / split
            folder.mkdir(parents=True)
            for number in range(2):
                values = np.full((20, 40, 3), 40 * number, dtype=np.uint8)
                Image.fromarray(values).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "from-pix2pix.md"
    found = re.search(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    assert found
    commands = found[1].splitlines()
    assert len(commands) == 5
    for command in commands:
        arguments = command.replace("1000", "5").replace("--epochs 100", "--epochs 1").split()[1:]
        if arguments[0] == "train":
            arguments += ["--image-size", "24"]
        done = run_here(*arguments)
        assert done.returncode == 0, done.stderr
    assert Bank.open("bank").tasks == ("facades", "maps", "night")
    assert len(list(Path("translated").iterdir())) == 2


def test_a_network_with_anti_alias_layers_shares_filters_as_others_do(tmp_path: Path) -> None:
    config = replace(CONFIG, antialias="both")
    bank = tmp_path / "bank"
    for seed, name in enumerate(("one", "two")):
        import_task(bank, name, saved(tmp_path / f"{name}.pth", seed, config))
    opened = Bank.open(bank)
    assert torch.equal(opened.generator("one")(PICTURE), network(0, config)(PICTURE))
    assert opened.translate("two", PICTURE[:, :, :30, :21]).shape == (1, 3, 30, 21)
    assert all(finding.problem is None for finding in opened.verify())
