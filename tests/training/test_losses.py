"""Claims about the objectives: losses against written-out sums, the penalty against algebra."""

import math

import pytest
import torch
from torch import Tensor

from piggyback_gan.networks.config import GAN_LOSSES, DiscriminatorConfig
from piggyback_gan.networks.discriminators import build_discriminator
from piggyback_gan.training.losses import discriminator_loss, generator_loss, gradient_penalty

REAL = [0.5, -2.0, 1.5, 3.0]
FAKE = [-0.5, 0.25, -3.0, 2.0]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


DISCRIMINATOR_SUMS = {
    "lsgan": 0.5 * (mean([(r - 1) ** 2 for r in REAL]) + mean([f**2 for f in FAKE])),
    "vanilla": 0.5
    * (mean([-math.log(sigmoid(r)) for r in REAL]) + mean([-math.log(sigmoid(-f)) for f in FAKE])),
    "wgan-gp": mean(FAKE) - mean(REAL),
    "hinge": mean([max(0, 1 - r) for r in REAL]) + mean([max(0, 1 + f) for f in FAKE]),
}
GENERATOR_SUMS = {
    "lsgan": mean([(f - 1) ** 2 for f in FAKE]),
    "vanilla": mean([-math.log(sigmoid(f)) for f in FAKE]),
    "wgan-gp": -mean(FAKE),
    "hinge": -mean(FAKE),
}


def scores(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.double).reshape(2, 1, 1, 2)


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_losses_are_the_written_out_sums(kind: str) -> None:
    loss = discriminator_loss(kind, scores(REAL), scores(FAKE))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(DISCRIMINATOR_SUMS[kind], rel=1e-12)
    loss = generator_loss(kind, scores(FAKE))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(GENERATOR_SUMS[kind], rel=1e-12)


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_descending_the_losses_moves_scores_the_right_way(kind: str) -> None:
    real, fake = torch.zeros(2, 1, 3, 3, requires_grad=True), torch.zeros(2, 1, 3, 3)
    fake += 0.1
    fake.requires_grad_()
    on_real, on_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    assert (on_real < 0).all() and (on_fake > 0).all()
    (on_fake,) = torch.autograd.grad(generator_loss(kind, fake), fake)
    assert (on_fake < 0).all()


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_losses_stay_finite_for_extreme_scores(kind: str) -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert discriminator_loss(kind, extreme, extreme).isfinite()
    assert generator_loss(kind, extreme).isfinite()


def test_real_and_fake_count_alike_whatever_their_number() -> None:
    many = discriminator_loss("lsgan", torch.full((4, 1, 2, 2), 2.0), torch.full((1, 1, 1, 1), 3.0))
    assert many.item() == pytest.approx(0.5 * (1 + 9))


def test_an_unknown_kind_is_refused_with_the_list_of_kinds() -> None:
    message = "^unknown GAN loss: found 'wgan', choose one of lsgan, vanilla, wgan-gp, hinge$"
    with pytest.raises(ValueError, match=message):
        discriminator_loss("wgan", scores(REAL), scores(FAKE))
    with pytest.raises(ValueError, match=message):
        generator_loss("wgan", scores(FAKE))


def test_the_penalty_of_a_linear_discriminator_is_that_of_its_weights() -> None:
    torch.manual_seed(0)
    weights = torch.randn(3, 4, 4, dtype=torch.double, requires_grad=True)
    real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.double)
    penalty = gradient_penalty(lambda images: (images * weights).sum((1, 2, 3)), real, fake)
    expected = (weights.norm() - 1) ** 2
    torch.testing.assert_close(penalty, expected)
    (found,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(found, 2 * (weights.norm() - 1) * weights / weights.norm())


def test_each_image_is_penalised_for_itself_at_a_point_between_real_and_fake() -> None:
    # The score |x|^2 / 2 has the gradient x: the penalty says where each point was.
    seen = []

    def discriminator(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.square().sum((1, 2, 3)) / 2

    torch.manual_seed(0)
    real, fake = torch.randn(2, 6, 3, 4, 4, dtype=torch.double)
    penalty = gradient_penalty(discriminator, real, fake)
    (points,) = seen
    lengths = points.flatten(1).norm(dim=1)
    torch.testing.assert_close(penalty, (lengths - 1).square().mean())
    share = ((points - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share))
    assert share.min() > 0 and share.max() < 1
    assert share[:, 0].unique().numel() == 6


def test_the_penalty_of_a_constant_discriminator_is_one_with_finite_gradients() -> None:
    weights = torch.zeros(3, 4, 4, requires_grad=True)
    images = torch.randn(2, 3, 4, 4)
    penalty = gradient_penalty(lambda x: (x * weights).sum((1, 2, 3)), images, -images)
    assert penalty.item() == 1
    (found,) = torch.autograd.grad(penalty, weights)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["patch", "pixel"])
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_the_penalty_trains_the_discriminator_and_not_the_generator(name: str, norm: str) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(name=name, ndf=2, norm=norm, init="kaiming")
    network = build_discriminator(config)
    condition, real = torch.randn(2, 2, 3, 32, 32)
    fake = torch.randn(2, 3, 32, 32, requires_grad=True)
    penalty = gradient_penalty(lambda x: network(torch.cat([condition, x], dim=1)), real, fake)
    penalty.backward()
    assert fake.grad is None
    first = next(network.parameters())
    assert first.grad is not None and first.grad.abs().max() > 0
    for parameter in network.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_the_penalty_is_decided_by_its_generator_alone() -> None:
    def penalty(seed: int) -> float:
        drawn = torch.Generator().manual_seed(seed)
        return gradient_penalty(lambda x: x.square().sum(), real, fake, generator=drawn).item()

    torch.manual_seed(0)
    real, fake = torch.randn(2, 2, 3, 4, 4)
    before = torch.get_rng_state()
    assert penalty(1) == penalty(1) != penalty(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_penalty_refuses_images_that_do_not_pair() -> None:
    with pytest.raises(
        ValueError, match=r"differ in shape: found \(2, 3, 4, 4\) and \(1, 3, 4, 4\)"
    ):
        gradient_penalty(lambda x: x.sum(), torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("kind", "score", "discriminator", "generator"),
    [
        ("lsgan", 0.5, 0.25, 0.25),
        ("vanilla", 0.0, math.log(2), math.log(2)),
        ("hinge", 0.3, 2, -0.3),
    ],
)
def test_a_discriminator_that_cannot_tell_does_best_at_the_losses_that_the_docs_name(
    kind: str, score: float, discriminator: float, generator: float
) -> None:
    def loss(offset: float) -> float:
        same = torch.full((4,), score + offset, dtype=torch.double)
        return discriminator_loss(kind, same, same).item()

    assert loss(0) == pytest.approx(discriminator)
    assert all(loss(0) <= loss(offset) + 1e-12 for offset in (-2, -0.1, 0.1, 2))
    same = torch.full((4,), score, dtype=torch.double)
    assert generator_loss(kind, same).item() == pytest.approx(generator)


def test_an_lsgan_discriminator_that_always_can_tell_is_at_0_and_its_generator_at_1() -> None:
    real, fake = torch.ones(4), torch.zeros(4)
    assert discriminator_loss("lsgan", real, fake).item() == 0
    assert generator_loss("lsgan", fake).item() == 1
