"""Claims about judging: the same figures as training's, honest intervals, features kept and kept right."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from data_sets import GRAY, RGB, dataset, noise, refusal, save
from drawn import draw_pairs
from judging_networks import Colours, Difference, Thirds, saved
from piggyback_gan.data.datasets import PairedDataset, UnpairedDataset
from piggyback_gan.data.folders import find_pairs, find_unpaired
from piggyback_gan.evaluation.distances import frechet_distance, kernel_distance
from piggyback_gan.evaluation.evaluate import evaluate
from piggyback_gan.evaluation.feature_networks import (
    DistanceNetwork,
    FeatureNetwork,
    Recogniser,
    load_distance,
    load_features,
    load_recogniser,
)
from piggyback_gan.evaluation.judge import Judge, Judgement, class_overlaps
from piggyback_gan.images.format import ImageFormat

CPU = torch.device("cpu")
PAIRS = 21  # two batches and a half


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("data"), train=1, test=PAIRS)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> PairedDataset:
    return dataset(find_pairs(folder).held_out, 24)


@pytest.fixture(scope="module")
def sides(folder: Path) -> UnpairedDataset:
    found = find_unpaired(folder)
    return UnpairedDataset(found.held_out_a, found.held_out_b, formats=(RGB, RGB), size=24)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name, module in (
        ("colours", Colours()),
        ("difference", Difference()),
        ("thirds", Thirds()),
    ):
        saved(module, folder / f"{name}.pt")
    return folder


@pytest.fixture
def features(networks: Path) -> FeatureNetwork:
    return load_features(str(networks / "colours.pt"), CPU)


@pytest.fixture
def distance(networks: Path) -> DistanceNetwork:
    return load_distance(str(networks / "difference.pt"), CPU)


@pytest.fixture
def judge(features: FeatureNetwork, distance: DistanceNetwork) -> Judge:
    return Judge(features, distance)


@pytest.fixture
def recogniser(networks: Path) -> Recogniser:
    return load_recogniser(str(networks / "thirds.pt"), CPU)


def inverted(images: Tensor) -> Tensor:
    return -images


def faded(images: Tensor) -> Tensor:
    return -0.7 * images + 0.1


def values(judgement: Judgement) -> dict[str, float]:
    return {name: figure.value for name, figure in judgement.figures.items()}


def test_the_figures_of_pairs_are_those_of_validation_and_more(
    pairs: PairedDataset, judge: Judge
) -> None:
    judged = judge.judge([faded], pairs, CPU)
    validated = evaluate([faded], pairs, CPU)
    assert list(judged.figures) == [
        *validated.metrics, "perceptual_distance", "frechet_distance", "kernel_distance",
    ]  # fmt: skip
    assert {name: judged.figures[name].value for name in validated.metrics} == validated.metrics
    assert judged.output_hashes == validated.output_hashes
    assert judged.outputs_sha256 == validated.outputs_sha256
    assert judged.images == PAIRS
    for figure in judged.figures.values():
        assert figure.low < figure.value < figure.high


def test_distances_are_between_outputs_and_targets(
    pairs: PairedDataset, features: FeatureNetwork, distance: DistanceNetwork
) -> None:
    judged = values(Judge(features, distance).judge([faded], pairs, CPU))
    inputs, targets = (
        torch.stack(images) for images in zip(*map(pairs.pair, range(PAIRS)), strict=True)
    )
    made, real = features(faded(inputs)), features(targets)
    assert judged["frechet_distance"] == pytest.approx(frechet_distance(made, real), rel=1e-6)
    kernel, _ = kernel_distance(made, real, partners=True)
    assert judged["kernel_distance"] == pytest.approx(kernel, rel=1e-6)
    perceptual = distance(faded(inputs), targets).mean().item()
    assert judged["perceptual_distance"] == pytest.approx(perceptual, rel=1e-6)


def test_a_perfect_generator_has_no_distance_to_the_targets(
    pairs: PairedDataset, judge: Judge
) -> None:
    judged = values(judge.judge([inverted], pairs, CPU))
    assert judged["l1"] == pytest.approx(0, abs=1e-6)
    for name in ("frechet_distance", "kernel_distance", "perceptual_distance"):
        assert judged[name] == pytest.approx(0, abs=1e-9)


def test_the_batch_size_changes_nothing(
    pairs: PairedDataset,
    sides: UnpairedDataset,
    features: FeatureNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_figures() -> dict[str, float]:
        judge = Judge(features)
        found = values(judge.judge([faded], pairs, CPU))
        both = judge.judge((faded, inverted), sides, CPU)
        return found | values(both)

    eights = all_figures()
    monkeypatch.setattr("piggyback_gan.evaluation.evaluate.BATCH_SIZE", 5)
    monkeypatch.setattr("piggyback_gan.evaluation.judge.BATCH_SIZE", 3)
    assert all_figures() == pytest.approx(eights, rel=1e-5, abs=1e-9)


def test_an_unpaired_task_is_judged_both_ways(sides: UnpairedDataset, judge: Judge) -> None:
    both = faded, inverted
    found = judge.judge(both, sides, CPU)
    validated = evaluate(both, sides, CPU)
    assert {name: found.figures[name].value for name in validated.metrics} == validated.metrics
    assert found.output_hashes == validated.output_hashes
    others = found.figures.keys() - validated.metrics.keys()
    kinds = ("perceptual_distance", "frechet_distance", "kernel_distance")
    assert others == {f"{kind}_{way}" for kind in kinds for way in ("AtoB", "BtoA")}
    # The first generator is not perfect, the way back is.
    assert found.figures["frechet_distance_AtoB"].value > 0.01
    assert found.figures["frechet_distance_BtoA"].value == pytest.approx(0, abs=1e-9)


def test_the_other_direction_has_its_own_sides(folder: Path, features: FeatureNetwork) -> None:
    found = find_unpaired(folder)
    turned = UnpairedDataset(found.held_out_b, found.held_out_a, formats=(RGB, RGB), size=24)
    judged = Judge(features).judge((inverted, faded), turned, CPU, direction="BtoA", paired=True)
    assert judged.figures["frechet_distance_BtoA"].value == pytest.approx(0, abs=1e-9)
    assert judged.figures["l1_BtoA"].value == pytest.approx(0, abs=1e-6)
    assert judged.figures["frechet_distance_AtoB"].value > 0.01


def test_sides_without_partners_are_compared_as_sets_only(tmp_path: Path, judge: Judge) -> None:
    for name, count in (("trainA", 1), ("trainB", 1), ("testA", 5), ("testB", 7)):
        for i in range(count):
            save(tmp_path / name / f"{name}{i}.png", noise(24, 24, i))
    found = find_unpaired(tmp_path)
    sides = UnpairedDataset(found.held_out_a, found.held_out_b, formats=(RGB, RGB), size=24)
    judged = judge.judge((faded, inverted), sides, CPU, direction="AtoB", paired=False)
    assert set(judged.figures) == {
        "cycle_l1_A", "cycle_l1_B", "frechet_distance_AtoB", "frechet_distance_BtoA",
        "kernel_distance_AtoB", "kernel_distance_BtoA",
    }  # fmt: skip
    assert any("no perceptual distance" in line for line in judged.warnings)
    assert judged.images == 12


def test_the_same_seed_gives_the_same_judgement_and_another_other_intervals(
    pairs: PairedDataset, features: FeatureNetwork
) -> None:
    first, again, other = (
        Judge(features, seed=seed).judge([faded], pairs, CPU) for seed in (1, 1, 2)
    )
    assert first == again
    assert values(first) == values(other)
    assert first.figures["l1"].low != other.figures["l1"].low


def test_it_can_be_stopped_between_batches(pairs: PairedDataset) -> None:
    moments = []

    def between() -> None:
        moments.append(1)
        if len(moments) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Judge().judge([faded], pairs, CPU, between=between)


# --- warnings and refusals ---


def test_too_few_images_are_told_by_both_numbers(folder: Path, features: FeatureNetwork) -> None:
    few = dataset(find_pairs(folder).held_out[:11], 24)
    (line,) = Judge(features).judge([faded], few, CPU).warnings
    assert "frechet_distance is biased upwards: 11 images" in line
    assert "12 features of colours" in line
    enough = dataset(find_pairs(folder).held_out[:12], 24)
    assert Judge(features).judge([faded], enough, CPU).warnings == ()


def test_gray_targets_are_judged_too(folder: Path, features: FeatureNetwork) -> None:
    gray = dataset(find_pairs(folder).held_out, 24, formats=(RGB, GRAY))

    def darkened(images: Tensor) -> Tensor:
        return -images.mean(1, keepdim=True)

    assert Judge(features).judge([darkened], gray, CPU).figures["frechet_distance"].value > 0


@pytest.mark.parametrize(
    ("format", "words"),
    [
        (ImageFormat(channels=4), "not images of 4 channels"),
        (ImageFormat(channels=3, labels=True), "not label maps"),
    ],
)
def test_networks_refuse_what_they_cant_see_before_anything_is_computed(
    tmp_path: Path,
    features: FeatureNetwork,
    distance: DistanceNetwork,
    format: ImageFormat,
    words: str,
) -> None:
    pairs = labelled(tmp_path, (RGB, format)) if format.labels else four_channels(tmp_path)

    def never(images: Tensor) -> Tensor:
        raise AssertionError

    for judge in (Judge(features), Judge(distance=distance)):
        assert words in refusal(lambda judge=judge: judge.judge([never], pairs, CPU))


def four_channels(folder: Path) -> PairedDataset:
    four = np.dstack([noise(16, 16), noise(16, 16, 1)[:, :, 0]])
    for side, image in (("A", noise(16, 16)), ("B", four)):
        save(folder / f"train{side}" / "0.png", image)
    return dataset(find_pairs(folder).train, 16, formats=(RGB, ImageFormat(channels=4)))


# --- recognition ---


def labelled(
    folder: Path, formats: tuple[ImageFormat, ImageFormat], *, count: int = 6
) -> PairedDataset:
    """Label maps of three classes, and photos that show them as red, green and blue."""
    colours = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]], np.uint8)
    chance = np.random.default_rng(0)
    for index in range(count):
        classes = chance.integers(0, 3, (4, 4)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
        label, photo = ("A", "B") if formats[0].labels else ("B", "A")
        for side, image in ((label, classes), (photo, colours[classes])):
            (folder / f"train{side}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"train{side}" / f"{index}.png")
    return dataset(find_pairs(folder).train, 24, formats=formats)


LABELS = ImageFormat(channels=3, labels=True)


def test_photos_that_show_labels_are_recognised(tmp_path: Path, recogniser: Recogniser) -> None:
    pairs = labelled(tmp_path, (LABELS, RGB))
    judged = Judge(recogniser=recogniser).judge([lambda images: 0.8 * images], pairs, CPU)
    for name in ("pixel_accuracy", "mean_iou"):
        figure = judged.figures[name]
        assert (figure.value, figure.low, figure.high) == (1, 1, 1)


def test_recognition_is_the_textbooks_on_all_pixels(tmp_path: Path, recogniser: Recogniser) -> None:
    pairs = labelled(tmp_path, (LABELS, RGB))

    def half_wrong(images: Tensor) -> Tensor:
        return torch.cat([images[..., :12], images[..., 12:].roll(1, 1)], -1)

    judged = Judge(recogniser=recogniser).judge([half_wrong], pairs, CPU).figures
    truth = torch.stack([pairs.pair(i)[0] for i in range(len(pairs))])
    found, labels = half_wrong(truth).argmax(1), truth.argmax(1)
    assert judged["pixel_accuracy"].value == pytest.approx((found == labels).double().mean().item())
    shares = []
    for k in range(3):
        both, either = (found == k) & (labels == k), (found == k) | (labels == k)
        shares.append(both.sum().item() / either.sum().item())
    assert judged["mean_iou"].value == pytest.approx(np.mean(shares))
    assert judged["mean_iou"].low < judged["mean_iou"].value < judged["mean_iou"].high


def test_a_class_that_is_nowhere_does_not_count() -> None:
    same = torch.tensor([[[0, 1], [1, 1]]])
    assert class_overlaps(same, same, 4).tolist() == [[[1, 3, 0, 0]] * 3]


def test_a_recogniser_needs_label_map_inputs(pairs: PairedDataset, recogniser: Recogniser) -> None:
    said = refusal(lambda: Judge(recogniser=recogniser).judge([faded], pairs, CPU))
    assert "compared with label maps, but the task's inputs are not label maps" in said


def test_the_way_from_labels_is_recognised(tmp_path: Path, recogniser: Recogniser) -> None:
    labelled(tmp_path, (RGB, LABELS))
    found = find_unpaired(tmp_path)
    sides = UnpairedDataset(found.train_a, found.train_b, formats=(RGB, LABELS), size=24)
    judged = Judge(recogniser=recogniser).judge((faded, lambda images: images), sides, CPU)
    assert judged.figures["pixel_accuracy_BtoA"].value == 1
    assert "pixel_accuracy_AtoB" not in judged.figures


# --- kept features ---


def test_kept_features_give_the_same_judgement(
    tmp_path: Path, pairs: PairedDataset, features: FeatureNetwork
) -> None:
    expected = Judge(features).judge([faded], pairs, CPU)
    judge = Judge(features, cache=tmp_path)
    assert judge.judge([faded], pairs, CPU) == judge.judge([faded], pairs, CPU) == expected
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as kept:
        targets = torch.stack([pairs.pair(index)[1] for index in range(PAIRS)])
        assert torch.equal(kept.get_tensor("features"), features(targets))


def test_both_sides_of_an_unpaired_task_are_kept(
    tmp_path: Path, sides: UnpairedDataset, features: FeatureNetwork
) -> None:
    Judge(features, cache=tmp_path).judge((faded, inverted), sides, CPU)
    assert len(list(tmp_path.iterdir())) == 2
