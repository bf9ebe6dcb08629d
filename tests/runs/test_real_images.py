"""Real photographs from ../shared/data, where it is there: layouts, and a few steps on three sets."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from paths import SHARED
from piggyback_gan import Bank, GeneratorOptions, TrainingOptions, teach
from piggyback_gan.data.fingerprint import fingerprint
from piggyback_gan.data.folders import find_pairs, find_unpaired

DATA = SHARED / "data"

pytestmark = [
    pytest.mark.usefixtures("without_curves"),
    pytest.mark.skipif(
        not DATA.is_dir(), reason="../shared/data is missing: no real photographs to test on"
    ),
]

SETS = {
    "cityscapes": ("two folders", 1000, 200, "test"),
    "maps": ("side-by-side", 1096, 200, "val"),
    "facade_windows": ("side-by-side", 476, 128, "test"),
    "edges2clothes": ("side-by-side", 1000, 150, "test"),
}


@pytest.mark.parametrize("name", SETS)
def test_every_pair_of_a_real_data_set_is_found(name: str) -> None:
    folder = find_pairs(DATA / name)
    found = (folder.layout, len(folder.train), len(folder.held_out), folder.held_out_name)
    assert found == SETS[name]


@pytest.mark.parametrize("name", SETS)
def test_every_real_data_set_can_be_taken_unpaired(name: str) -> None:
    folder = find_unpaired(DATA / name)
    layout, train, held_out, _ = SETS[name]
    assert (folder.layout, len(folder.train_a), len(folder.train_b)) == (layout, train, train)
    assert len(folder.held_out_a) == len(folder.paired_held_out) == held_out
    assert folder.paired_held_out == find_pairs(DATA / name).held_out
    paths = folder.paths[:50]
    assert len(fingerprint(paths, root=DATA / name)) == 50


def linked_subset(name: str, place: Path, train: int, held_out: int) -> Path:
    """The first pairs of a set, as links: nothing is copied."""
    folder = find_pairs(DATA / name)
    splits = (("train", folder.train[:train]), (folder.held_out_name, folder.held_out[:held_out]))
    for split, pairs in splits:
        for pair in pairs:
            sides = (("", pair.a),) if pair.side_by_side else (("A", pair.a), ("B", pair.b))
            for side, source in sides:
                target = place / name / f"{split}{side}"
                target.mkdir(parents=True, exist_ok=True)
                (target / source.name).symlink_to(source.resolve())
    return place / name


def test_three_real_tasks_are_learned_and_the_first_two_stay_as_they_were(tmp_path: Path) -> None:
    options = {
        "epochs": 1, "batch_size": 4, "image_size": 64, "discriminator_layers": 2, "ndf": 8,
        "samples": 2,
    }  # fmt: skip
    bank = tmp_path / "bank"
    photo = Image.open(next((DATA / "edges2clothes" / "test").iterdir()))
    outputs: dict[str, bytes] = {}
    for name, direction in (("cityscapes", "AtoB"), ("maps", "BtoA"), ("facade_windows", "BtoA")):
        data = linked_subset(name, tmp_path, 8, 4)
        training = TrainingOptions(direction=direction, **options)
        teach(bank, name, data, training, GeneratorOptions(generator="resnet-6", ngf=8))
        outputs[name] = Bank.open(bank).translate(name, photo).tobytes()
        for earlier, pixels in outputs.items():
            assert Bank.open(bank).translate(earlier, photo).tobytes() == pixels
    assert len(set(outputs.values())) == 3
    assert all(finding.problem is None for finding in Bank.open(bank).verify())
    state = Bank.open(bank).generator("maps").state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
