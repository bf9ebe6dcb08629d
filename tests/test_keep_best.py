"""Which epoch is kept, when a run stops early, and which images are held out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, TrainingOptions, teach
from piggyback_gan.data import PairedDataset, UnpairedDataset
from piggyback_gan.evaluation import evaluate, evaluate_unpaired
from piggyback_gan.folders import find_pairs, find_unpaired
from piggyback_gan.image_formats import ImageFormat
from running import GENERATOR, OPTIONS, Watch, records, run_folder

pytestmark = pytest.mark.usefixtures("without_curves")

CPU = torch.device("cpu")
RGB = (ImageFormat(), ImageFormat())
# At such a rate it gets worse and better from epoch to epoch.
# Wild enough that an early epoch is the best.
WILD = dataclasses.replace(OPTIONS, epochs=5, decay_epochs=0, learning_rate=0.05, augment="off")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("data") / "boxes")


def best_epoch(bank: Path, metric: str) -> int:
    """The epoch that is best by the metrics file; the first of equals."""
    sign = 1 if metric.split("_")[0] in ("psnr", "ssim") else -1
    return max(records(bank, "one"), key=lambda r: sign * r["validation"][metric])["epoch"]


@pytest.mark.parametrize("metric", ["l1", "psnr", "ssim"])
def test_the_task_is_the_best_epochs_and_not_the_last_ones(
    tmp_path: Path, data: Path, metric: str
) -> None:
    # Which epochs are bad is chance, and differs between machines.
    for seed in range(8):
        path = tmp_path / f"bank{seed}"
        options = dataclasses.replace(WILD, keep_best=metric, seed=seed)
        teach(path, "one", data, options, GENERATOR)
        if (best := best_epoch(path, metric)) < options.epochs:
            break
    assert best < options.epochs, "this test wants a run whose last epoch is not its best"
    bank = Bank.open(path)
    assert bank.card("one")["epoch"] == best
    measured = records(bank.path, "one")[best - 1]["validation"]
    assert bank.card("one")["validation"] == measured
    held_out = PairedDataset(find_pairs(data).held_out, direction="AtoB", formats=RGB, size=16)
    assert evaluate(bank.generator("one"), held_out, CPU).metrics == measured


def test_the_best_epochs_weights_are_those_that_the_run_had_then(
    tmp_path: Path, data: Path
) -> None:
    options = dataclasses.replace(WILD, keep_best="ssim")
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    best = best_epoch(tmp_path / "bank", "ssim")
    # Without a decay, a run of that many epochs is the same until there.
    short = dataclasses.replace(WILD, epochs=best)
    teach(tmp_path / "short", "one", data, short, GENERATOR)
    kept = Bank.open(tmp_path / "bank").generator("one").state_dict()
    expected = Bank.open(tmp_path / "short").generator("one").state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_both_directions_of_an_unpaired_task_are_the_best_epochs(
    tmp_path: Path, data: Path
) -> None:
    options = dataclasses.replace(WILD, mode="unpaired", keep_best="psnr_BtoA")
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    best = best_epoch(tmp_path / "bank", "psnr_BtoA")
    bank = Bank.open(tmp_path / "bank")
    assert bank.card("one")["epoch"] == best
    folder = find_unpaired(data)
    held_out = UnpairedDataset(folder.held_out_a, folder.held_out_b, formats=RGB, size=16)
    both = bank.generator("one"), bank.generator("one", direction="BtoA")
    found = evaluate_unpaired(both, held_out, CPU, direction="AtoB", paired=True)
    assert found.metrics == records(bank.path, "one")[best - 1]["validation"]


def test_patience_ends_the_run_and_keeps_the_best_epoch(tmp_path: Path, data: Path) -> None:
    teach(tmp_path / "long", "one", data, WILD, GENERATOR)
    options = dataclasses.replace(WILD, keep_best="l1", patience=1)
    watch = Watch()
    teach(tmp_path / "bank", "one", data, options, GENERATOR, reporter=watch)
    done = records(tmp_path / "bank", "one")
    assert len(done) < options.epochs, "this test wants a run that gets worse"
    best = best_epoch(tmp_path / "bank", "l1")
    assert watch.early == (len(done), best)
    assert len(done) == best + 1
    assert Bank.open(tmp_path / "bank").card("one")["epoch"] == best
    assert done == records(tmp_path / "long", "one")[: len(done)]


def test_a_metric_that_is_not_measured_is_refused_with_those_that_are(
    tmp_path: Path, data: Path
) -> None:
    options = dataclasses.replace(OPTIONS, keep_best="fid")
    with pytest.raises(
        PiggybackError, match=r"'fid' is not measured: choose one of l1, psnr, ssim$"
    ):
        teach(tmp_path / "bank", "one", data, options, GENERATOR)
    options = dataclasses.replace(OPTIONS, keep_best="ssim", mode="unpaired")
    with pytest.raises(PiggybackError, match=r"choose one of l1_AtoB, .*, cycle_l1_B$"):
        teach(tmp_path / "bank", "one", data, options, GENERATOR)
    assert not (tmp_path / "bank").exists()


def test_without_held_out_images_no_best_can_be_kept(tmp_path: Path) -> None:
    data = draw_pairs(tmp_path / "boxes", test=0)
    options = dataclasses.replace(OPTIONS, keep_best="ssim")
    with pytest.raises(PiggybackError, match="wants held-out images: give val/ or --val-fraction"):
        teach(tmp_path / "bank", "one", data, options, GENERATOR)


# Held out by --val-fraction

THIRD = dataclasses.replace(OPTIONS, val_fraction=0.34)


def held_out_names(data: Path, options: TrainingOptions) -> set[str]:
    folder = find_pairs(data).with_held_out(options.val_fraction, options.seed)
    return {pair.name for pair in folder.held_out}


def test_a_share_of_the_training_images_is_held_out_by_seed(tmp_path: Path) -> None:
    data = draw_pairs(tmp_path / "boxes", train=6, test=0)
    chosen = set()
    for seed in range(4):
        options = dataclasses.replace(THIRD, seed=seed)
        assert len(held_out_names(data, options)) == 2
        chosen.add(frozenset(held_out_names(data, options)))
    assert len(chosen) > 1
    teach(tmp_path / "bank", "one", data, THIRD, GENERATOR)
    counts = Bank.open(tmp_path / "bank").card("one")["data"]
    assert (counts["train_pairs"], counts["held_out_pairs"]) == (4, 2)


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_images_that_are_held_out_are_never_trained_on(tmp_path: Path, mode: str) -> None:
    options = dataclasses.replace(THIRD, mode=mode, epochs=1)
    banks = []
    for name in ("one", "other"):
        data = draw_pairs(tmp_path / name / "boxes", train=6, test=0)
        if name == "other":
            for held_out in held_out_names(data, options):
                Image.fromarray(np.full((24, 48, 3), 99, np.uint8)).save(data / "train" / held_out)
        teach(tmp_path / name / "bank", "one", data, options, GENERATOR)
        banks.append(Bank.open(tmp_path / name / "bank"))
    one, other = (bank.generator("one").state_dict() for bank in banks)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert banks[0].card("one")["validation"] != banks[1].card("one")["validation"]


def test_a_second_held_out_split_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(PiggybackError, match="test is held out already"):
        teach(tmp_path / "bank", "one", data, THIRD, GENERATOR)
    assert not run_folder(tmp_path / "bank", "one").exists()
