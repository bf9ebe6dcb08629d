"""Which epoch is kept, when a run stops early, and which images are held out."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, TrainingOptions, teach
from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import find_pairs, find_unpaired
from piggyback_gan.evaluation.evaluate import Evaluation, evaluate
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.runs import run as training_run
from running import GENERATOR, OPTIONS, Watch, records, run_folder

pytestmark = pytest.mark.usefixtures("without_curves")

CPU = torch.device("cpu")
RGB = (ImageFormat(), ImageFormat())
STEADY = dataclasses.replace(OPTIONS, epochs=4, decay_epochs=0)
"""Without a decay, a shorter run is the same until its end."""

Script = Callable[..., None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Give one metric these values, epoch by epoch: which epoch is best must not hang on rounding."""

    scripts: list[tuple[str, Iterator[float]]] = []

    def judged(*given: Any, **more: Any) -> Evaluation:
        found = evaluate(*given, **more)
        metric, values = scripts[-1]
        return dataclasses.replace(found, metrics=found.metrics | {metric: next(values)})

    monkeypatch.setattr(training_run, "evaluate", judged)
    return lambda metric, *values: scripts.append((metric, iter(values)))


@pytest.mark.trains
@pytest.mark.parametrize(
    ("metric", "values"),
    [("l1", (0.3, 0.1, 0.2, 0.1)), ("psnr", (9, 20, 20, 12)), ("ssim", (0.1, 0.5, 0.2, 0.4))],
)
def test_the_task_is_the_best_epochs_and_not_the_last_ones(
    tmp_path: Path, data: Path, script: Script, metric: str, values: tuple[float, ...]
) -> None:
    script(metric, *values)
    options = dataclasses.replace(STEADY, keep_best=metric)
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    bank = Bank.open(tmp_path / "bank")
    assert bank.card("one").epoch == 2, "the first of equals"
    measured = records(bank.path, "one")[1]["validation"]
    assert bank.card("one").validation == measured
    held_out = PairedDataset(find_pairs(data).held_out, direction="AtoB", formats=RGB, size=16)
    found = evaluate([bank.generator("one")], held_out, CPU).metrics
    assert found | {metric: values[1]} == measured


@pytest.mark.trains
def test_the_best_epochs_weights_are_those_that_the_run_had_then(
    tmp_path: Path, data: Path, script: Script
) -> None:
    script("ssim", 0.1, 0.5, 0.4, 0.2)
    teach(tmp_path / "bank", "one", data, dataclasses.replace(STEADY, keep_best="ssim"), GENERATOR)
    kept = Bank.open(tmp_path / "bank").generator("one").state_dict()
    for epochs in (2, 4):
        script("ssim", *[0.5] * epochs)
        path = tmp_path / f"epochs-{epochs}"
        teach(path, "one", data, dataclasses.replace(STEADY, epochs=epochs), GENERATOR)
        expected = Bank.open(path).generator("one").state_dict()
        equal = all(torch.equal(kept[name], expected[name]) for name in expected)
        assert equal == (epochs == 2)


@pytest.mark.trains
def test_both_directions_of_an_unpaired_task_are_the_best_epochs(
    tmp_path: Path, data: Path, script: Script
) -> None:
    script("psnr_BtoA", 10, 30, 20, 25)
    options = dataclasses.replace(STEADY, mode="unpaired", keep_best="psnr_BtoA")
    teach(tmp_path / "bank", "one", data, options, GENERATOR)
    bank = Bank.open(tmp_path / "bank")
    assert bank.card("one").epoch == 2
    folder = find_unpaired(data)
    held_out = UnpairedDataset(folder.held_out_a, folder.held_out_b, formats=RGB, size=16)
    both = bank.generator("one"), bank.generator("one", direction="BtoA")
    found = evaluate(both, held_out, CPU).metrics
    assert found | {"psnr_BtoA": 30} == records(bank.path, "one")[1]["validation"]


@pytest.mark.trains
@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4)])
def test_patience_ends_the_run_and_keeps_the_best_epoch(
    tmp_path: Path, data: Path, script: Script, patience: int, epochs: int
) -> None:
    values = 0.3, 0.1, 0.2, 0.1, 0.05, 0.2
    script("l1", *values)
    teach(tmp_path / "long", "one", data, dataclasses.replace(STEADY, epochs=6), GENERATOR)
    script("l1", *values)
    options = dataclasses.replace(STEADY, epochs=6, keep_best="l1", patience=patience)
    watch = Watch()
    teach(tmp_path / "bank", "one", data, options, GENERATOR, callback=watch)
    assert watch.early == (epochs, 2)
    assert Bank.open(tmp_path / "bank").card("one").epoch == 2
    assert records(tmp_path / "bank", "one") == records(tmp_path / "long", "one")[:epochs]


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
    with pytest.raises(PiggybackError, match="needs held-out images: give val/ or --val-fraction"):
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
    counts = Bank.open(tmp_path / "bank").card("one").data
    assert (counts.train_pairs, counts.held_out_pairs) == (4, 2)


@pytest.mark.trains
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
    assert banks[0].card("one").validation != banks[1].card("one").validation


def test_a_second_held_out_split_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(PiggybackError, match="test is held out already"):
        teach(tmp_path / "bank", "one", data, THIRD, GENERATOR)
    assert not run_folder(tmp_path / "bank", "one").exists()
