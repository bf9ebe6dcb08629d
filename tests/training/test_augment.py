"""Claims about differentiable augmentation: what each policy does, its gradient, split batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import AUGMENTATIONS
from piggyback_gan.training.augment import Augmentation

POLICIES = [[], ["color"], ["translation"], ["cutout"], list(AUGMENTATIONS)]
TRANSLATE = Augmentation(["translation"])
CUT = Augmentation(["cutout"])
COLOUR = Augmentation(["color"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.double) * 2 - 1


def chosen(**numbers: float) -> Tensor:
    """Draws of one image that change nothing, but for those named."""
    names = ["down", "right", "cut_y", "cut_x", "brightness", "saturation", "contrast"]
    draws = {"down": 0.5, "right": 0.5, "brightness": 0.5, "saturation": 0.5, "contrast": 0.5}
    return torch.tensor([[(draws | numbers).get(name, 0.0) for name in names]])


def test_an_empty_policy_changes_nothing() -> None:
    sides = [images(2, 3, 8, 8), images(2, 1, 8, 8)]
    for before, after in zip(
        sides, Augmentation([])(sides, torch.rand(2, 10), coloured=[True, False]), strict=True
    ):
        assert torch.equal(before, after)


@pytest.mark.parametrize("policy", POLICIES, ids="-".join)
@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(0, 4),
    channels=st.lists(st.sampled_from([1, 2, 3, 4, 19]), min_size=1, max_size=3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_shapes_inputs_and_results_hold_for_any_images_in_any_split(
    policy: list[str], count: int, channels: list[int], height: int, width: int, seed: int
) -> None:
    augmentation = Augmentation(policy)
    sides = [images(count, c, height, width, seed=seed + i) for i, c in enumerate(channels)]
    copies = [side.clone() for side in sides]
    draws = augmentation.draw(count, seeded(seed), sides=3)
    whole = augmentation(sides, draws)
    again = augmentation(sides, draws)
    cut = seed % (count + 1)
    parts = [augmentation([s[r] for s in sides], draws[r]) for r in (slice(cut), slice(cut, None))]
    for index, side in enumerate(sides):
        assert torch.equal(side, copies[index])
        assert whole[index].shape == side.shape
        assert whole[index].dtype == side.dtype
        assert torch.equal(whole[index], again[index])
        joined = torch.cat([part[index] for part in parts])
        if "color" in policy:
            torch.testing.assert_close(joined, whole[index], rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(joined, whole[index])


def test_draws_come_from_the_generator_alone_and_differ_from_row_to_row() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    draws = COLOUR.draw(5, seeded(3))
    assert torch.equal(draws, CUT.draw(5, seeded(3)))
    assert torch.equal(torch.get_rng_state(), state)
    assert draws.unique().numel() == draws.numel()
    assert draws.min() >= 0
    assert draws.max() < 1


@pytest.mark.parametrize("policy", POLICIES, ids="-".join)
def test_the_gradient_is_that_of_finite_differences_and_can_be_differentiated(
    policy: list[str],
) -> None:
    augmentation = Augmentation(policy)
    sides = (images(2, 3, 4, 5).requires_grad_(), images(2, 1, 4, 5, seed=2).requires_grad_())
    draws = augmentation.draw(2, seeded(4))

    def augment(*sides: Tensor) -> tuple[Tensor, ...]:
        return tuple(augmentation(sides, draws))

    assert torch.autograd.gradcheck(augment, sides)
    assert torch.autograd.gradgradcheck(augment, sides)


def test_the_gradient_of_a_translated_sum_is_the_weight_moved_back() -> None:
    image, weight = images(1, 2, 16, 16).requires_grad_(), images(1, 2, 16, 16, seed=2)
    draws = chosen(down=0.99, right=0.0)  # 2 px down, 2 px to the left
    (TRANSLATE([image], draws)[0] * weight).sum().backward()
    expected = torch.zeros_like(weight)
    expected[:, :, :-2, 2:] = weight[:, :, 2:, :-2]
    assert torch.equal(image.grad, expected)


def test_the_gradient_of_what_is_cut_out_is_nothing_and_elsewhere_all() -> None:
    image, weight = images(1, 3, 8, 8).requires_grad_(), images(1, 3, 8, 8, seed=2)
    augmented = CUT([image], chosen(cut_y=0.5, cut_x=0.5))[0]
    (augmented * weight).sum().backward()
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert torch.equal(image.grad, weight.where(~inside, 0))
    assert torch.equal(augmented, image.detach().where(~inside, 0))


def test_a_translation_shifts_by_up_to_an_eighth_each_way_and_fills_with_nothing() -> None:
    image = images(1, 1, 16, 32)
    shifts = set()
    for row in torch.rand((400, 7), generator=seeded()):
        moved = TRANSLATE([image], row[None])[0]
        rows, columns = moved[0, 0].any(1).nonzero(), moved[0, 0].any(0).nonzero()
        top, left = int(rows[0]), int(columns[0])
        down = top or int(rows[-1]) - 15
        right = left or int(columns[-1]) - 31
        kept = image[:, :, max(-down, 0) : 16 - max(down, 0), max(-right, 0) : 32 - max(right, 0)]
        assert torch.equal(moved[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], kept)
        shifts.add((down, right))
    assert shifts == {(down, right) for down in range(-2, 3) for right in range(-4, 5)}


def test_a_cutout_is_a_square_of_half_the_side_that_may_reach_over_the_rim() -> None:
    ones = torch.ones(300, 2, 16, 16)
    holes = CUT([ones], CUT.draw(300, seeded()))[0] == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    heights, widths = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), heights * widths)
    assert heights.max() == widths.max() == 8
    assert heights.min() == widths.min() == 4  # the centre stays in the image
    assert holes[:, 0].any(0).all()


def test_sides_of_an_image_move_and_are_cut_alike_but_images_of_a_batch_differ() -> None:
    picture = images(4, 3, 16, 16)
    augmentation = Augmentation(["translation", "cutout"])
    first, second = augmentation([picture, picture], augmentation.draw(4, seeded()))
    assert torch.equal(first, second)
    marked = augmentation([torch.ones(4, 1, 16, 16)], augmentation.draw(4, seeded()))[0]
    assert len({mark.numpy().tobytes() for mark in marked}) == 4


def test_sides_of_an_image_get_colours_of_their_own() -> None:
    picture = images(1, 3, 16, 16)
    first, second = COLOUR([picture, picture], COLOUR.draw(1, seeded()))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(("number", "offset"), [(0.0, -0.5), (0.5, 0.0), (1.0, 0.5)])
def test_brightness_is_added_to_every_value(number: float, offset: float) -> None:
    image = images(1, 3, 4, 4)
    torch.testing.assert_close(COLOUR([image], chosen(brightness=number))[0], image + offset)


def test_saturation_reaches_from_gray_to_twice_the_distance_from_it() -> None:
    image = images(1, 3, 4, 4)
    gray = image.mean(1, keepdim=True)
    none = COLOUR([image], chosen(saturation=0.0))[0]
    torch.testing.assert_close(none, gray.expand_as(image))
    twice = COLOUR([image], chosen(saturation=1.0))[0]
    torch.testing.assert_close(twice, gray + 2 * (image - gray))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_saturation_leaves_images_of_other_than_three_channels(channels: int) -> None:
    image = images(1, channels, 4, 4)
    torch.testing.assert_close(COLOUR([image], chosen(saturation=0.0))[0], image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_contrast_moves_values_from_the_mean_which_stays(channels: int) -> None:
    image = images(1, channels, 4, 4)
    flat = COLOUR([image], chosen(contrast=0.0))[0]
    torch.testing.assert_close(flat, image.mean() + (image - image.mean()) / 2)


def test_labels_keep_their_values_under_color_but_move_with_their_image() -> None:
    labels, picture = images(2, 19, 16, 16).sign(), images(2, 3, 16, 16)
    augmentation = Augmentation(AUGMENTATIONS)
    draws = augmentation.draw(2, seeded(5))
    augmented = augmentation([labels, picture], draws, coloured=[False, True])
    plain = Augmentation(["translation", "cutout"])([labels, picture], draws)
    assert torch.equal(augmented[0], plain[0])
    assert not torch.equal(augmented[1], plain[1])


def test_half_precision_stays_half_precision() -> None:
    augmentation = Augmentation(AUGMENTATIONS)
    image = images(2, 3, 8, 8).bfloat16()
    (augmented,) = augmentation([image], augmentation.draw(2, seeded()))
    assert augmented.dtype == torch.bfloat16


def test_images_on_another_device_stay_there_though_draws_are_on_the_cpu() -> None:
    augmentation = Augmentation(AUGMENTATIONS)
    sides = [torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)] * 2
    augmented = augmentation(sides, augmentation.draw(2, seeded()))
    torch.cat(augmented, 1).sum().backward()
    assert sides[0].grad is not None and sides[0].grad.device == augmented[0].device
    assert augmented[0].device.type == "meta"


def test_what_does_not_fit_is_refused_with_what_was_found() -> None:
    with pytest.raises(PiggybackError, match="found 'colour', choose one of color, translation"):
        Augmentation(["colour"])
    with pytest.raises(PiggybackError, match="is listed twice: found cutout, cutout"):
        Augmentation(["cutout", "cutout"])
    with pytest.raises(PiggybackError, match=r"found \(2, 3, 8, 8\), \(2, 3, 8, 9\)"):
        CUT([images(2, 3, 8, 8), images(2, 3, 8, 9)], torch.rand(2, 10))
    with pytest.raises(
        PiggybackError, match=r"found \(2, 10\), give draw\(2, generator, sides=3\)"
    ):
        CUT([images(2, 1, 8, 8)] * 3, torch.rand(2, 10))
    with pytest.raises(PiggybackError, match=r"found \(1, 10\)"):
        CUT([images(2, 1, 8, 8)], torch.rand(1, 10))
    with pytest.raises(PiggybackError, match="coloured says 1 sides, found 2"):
        CUT([images(2, 1, 8, 8)] * 2, torch.rand(2, 10), coloured=[True])
