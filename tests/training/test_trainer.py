"""Training steps, paired and unpaired: what is summed, what is seen, how often, and how it goes on."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from banks import evenly
from piggyback_gan import TrainingOptions
from piggyback_gan.core.filters import FilterLayout
from piggyback_gan.core.layer_filters import LayerFilters
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system.seeding import generator_at
from piggyback_gan.training import augment as augment_module
from piggyback_gan.training.augment import Augmentation
from piggyback_gan.training.image_pool import ImagePool
from piggyback_gan.training.losses import discriminator_loss, generator_loss
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.trainer import Batch, Trainer
from piggyback_gan.training.unpaired import UnpairedTrainer

pytestmark = pytest.mark.trains

CONFIG = GeneratorConfig(name="resnet-6", ngf=4)
PAIRED = TrainingOptions(
    epochs=4, batch_size=2, image_size=16, discriminator_layers=1, ndf=4, device="cpu"
)
UNPAIRED = dataclasses.replace(PAIRED, mode="unpaired")
MODES = pytest.mark.parametrize("options", [PAIRED, UNPAIRED], ids=["paired", "unpaired"])
CPU = torch.device("cpu")


def trainer(options: TrainingOptions, config: GeneratorConfig = CONFIG, tasks: int = 1) -> Trainer:
    torch.manual_seed(0)
    networks = [PiggybackNetwork(build_generator(config)) for _ in range(2)]
    for network in networks:
        for task in range(tasks):
            if task:
                network.finish_task()
            network.add_task(
                f"task-{task}", evenly({"*": 0.5}, init="standalone" if task else None)
            )
    options = options.resolved(earlier=(), device="cpu")
    made: Trainer
    if options.mode == "paired":
        made = PairedTrainer(networks[0], config, options, CPU)
    else:
        made = UnpairedTrainer(networks[0], networks[1], config, options, CPU)
    made.begin_epoch(steps=100)
    return made


def images(count: int, seed: int) -> Tensor:
    return torch.rand((count, 3, 16, 16), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(step: int = 0, count: int = 2) -> Batch:
    return Batch(step, images(count, 2 * step), images(count, 2 * step + 1), count)


def gradients(made: Trainer) -> list[Tensor]:
    networks = made.generators | made.discriminators
    trained = [p for n in networks.values() for p in n.parameters() if p.requires_grad]
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]


def weights(made: Trainer) -> dict[str, Tensor]:
    networks = made.generators | made.discriminators
    return {f"{n}.{k}": t.clone() for n, x in networks.items() for k, t in x.state_dict().items()}


def assert_close(found: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=atol)


@contextmanager
def calls_of(network: nn.Module) -> Iterator[list[int]]:
    """The batch sizes that a network is called with."""
    sizes: list[int] = []
    hook = network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    yield sizes
    hook.remove()


# --- the formulas ---


def test_an_unpaired_steps_losses_and_gradients_are_those_of_cyclegan() -> None:
    options = dataclasses.replace(UNPAIRED, cycle_weight=7.0, identity_weight=3.0)
    made = trainer(options)
    one, two = (made.generators[name].fold("task-0") for name in ("forward", "backward"))
    judges = copy.deepcopy(made.discriminators)
    these = batch()
    a, b = these.first, these.second

    losses, stopped = made.step(these)

    fake_b, fake_a = one(a), two(b)
    l1 = nn.L1Loss()
    expected = {
        "gan_AtoB": (judges["B"](fake_b) - 1).square().mean(),
        "gan_BtoA": (judges["A"](fake_a) - 1).square().mean(),
        "cycle_A": l1(two(fake_b), a),
        "cycle_B": l1(one(fake_a), b),
        "identity_A": l1(two(a), a),
        "identity_B": l1(one(b), b),
        "discriminator_A": discriminator_loss(
            "lsgan", judges["A"](a), judges["A"](fake_a.detach())
        ),
        "discriminator_B": discriminator_loss(
            "lsgan", judges["B"](b), judges["B"](fake_b.detach())
        ),
    }
    assert not stopped and losses.images == 2
    assert losses.sums.keys() == expected.keys()
    for name, value in expected.items():
        assert losses.sums[name].item() / 2 == pytest.approx(value.item(), rel=1e-5), name
    weight = {"gan": 1.0, "cycle": 7.0, "identity": 3.0}
    total = sum(
        weight[name.split("_")[0]] * value
        for name, value in expected.items()
        if not name.startswith("discriminator")
    )
    total.backward()
    for name, folded in (("forward", one), ("backward", two)):
        layer = folded.get_submodule("model.1")
        filters = made.generators[name].module.get_submodule("model.1").unconstrained_filters
        wanted = FilterLayout.of(layer).to_filters(layer.weight.grad)
        torch.testing.assert_close(filters.grad, wanted, rtol=1e-3, atol=1e-5)
    for side, judge in judges.items():
        judge.zero_grad()
        expected[f"discriminator_{side}"].backward()
        found = [p.grad for p in made.discriminators[side].parameters()]
        assert_close(found, [p.grad for p in judge.parameters()])


def test_a_paired_steps_losses_and_gradients_are_those_of_pix2pix() -> None:
    made = trainer(PAIRED)
    assert isinstance(made, PairedTrainer)
    generator, judge = made.network.fold("task-0"), copy.deepcopy(made.discriminator)
    these = batch()
    inputs, targets = these.first, these.second
    outputs = generator(inputs)
    real, fake = torch.cat([inputs, targets], 1), torch.cat([inputs, outputs], 1)

    losses, _ = made.step(these)

    discriminator_loss("lsgan", judge(real), judge(fake.detach())).backward()
    assert_close(
        [p.grad for p in made.discriminator.parameters()], [p.grad for p in judge.parameters()]
    )
    # The generator is judged by the discriminator after its step.
    gan = generator_loss("lsgan", made.discriminator(fake))
    l1 = (outputs - targets).abs().mean()
    assert losses.sums["gan"].item() / 2 == pytest.approx(gan.item(), rel=1e-5)
    assert losses.sums["l1"].item() / 2 == pytest.approx(l1.item(), rel=1e-5)
    (gan + 100 * l1).backward()
    layer = generator.get_submodule("model.1")
    filters = made.network.module.get_submodule("model.1").unconstrained_filters
    wanted = FilterLayout.of(layer).to_filters(layer.weight.grad)
    torch.testing.assert_close(filters.grad, wanted, rtol=1e-3, atol=1e-5)
    assert not torch.equal(filters, FilterLayout.of(layer).to_filters(layer.weight))
    moved = [next(side.parameters()) for side in (judge, made.discriminator)]
    assert not torch.equal(*moved), "each side is trained by its own loss"


def test_the_sides_of_a_task_that_goes_from_b_to_a_are_named_so() -> None:
    made = trainer(dataclasses.replace(UNPAIRED, direction="BtoA"))
    losses, _ = made.step(batch())
    assert {"gan_BtoA", "gan_AtoB", "cycle_A", "identity_B"} < losses.sums.keys()
    assert list(made.discriminators) == ["B", "A"]
    with torch.no_grad():
        back = made.generators["backward"].fold("task-0")(images(2, 1))
    assert back.shape == (2, 3, 16, 16)


# --- how often ---


@pytest.mark.parametrize(
    ("options", "switch", "network", "sizes"),
    [
        (UNPAIRED, "_together", "forward", [4, 2]),
        (UNPAIRED, "_judged_together", "B", [2, 4]),
        (PAIRED, "_judged_together", "discriminator", [4, 2]),
    ],
    ids=["both sides", "judged, unpaired", "judged, paired"],
)
def test_images_that_go_through_a_network_together_give_what_they_give_apart(
    options: TrainingOptions, switch: str, network: str, sizes: list[int]
) -> None:
    together, apart = trainer(options), trainer(options)
    assert getattr(together, switch)
    setattr(apart, switch, False)
    networks = [(made.generators | made.discriminators)[network] for made in (together, apart)]
    with calls_of(networks[0]) as few, calls_of(networks[1]) as more:
        losses = together.step(batch())[0].sums
        others = apart.step(batch())[0].sums
    assert (few, more) == (sizes, [2, 2, 2])
    for name, value in losses.items():
        assert value.item() == pytest.approx(others[name].item(), rel=1e-5)
    assert_close(gradients(together), gradients(apart))


@pytest.mark.parametrize(
    ("options", "change", "network"),
    [
        (dataclasses.replace(PAIRED, discriminator_norm="batch"), {}, "discriminator"),
        (UNPAIRED, {"norm": "batch"}, "backward"),
        (UNPAIRED, {"dropout": True}, "backward"),
    ],
    ids=["discriminator", "batch norm", "dropout"],
)
def test_images_that_would_change_each_other_take_passes_of_their_own(
    options: TrainingOptions, change: dict[str, object], network: str
) -> None:
    made = trainer(options, dataclasses.replace(CONFIG, **change))
    with calls_of((made.generators | made.discriminators)[network]) as sizes:
        made.step(batch())
    assert sizes == [2, 2, 2]


def test_without_identity_weight_the_other_side_is_not_translated() -> None:
    made = trainer(dataclasses.replace(UNPAIRED, identity_weight=0.0))
    with calls_of(made.generators["forward"]) as sizes:
        losses, _ = made.step(batch())
    assert sizes == [2, 2]
    assert not any(name.startswith("identity") for name in losses.sums)


@pytest.mark.parametrize("accumulate", [1, 2])
@MODES
def test_filters_are_composed_once_for_a_step(
    monkeypatch: pytest.MonkeyPatch, options: TrainingOptions, accumulate: int
) -> None:
    made = trainer(dataclasses.replace(options, accumulate=accumulate), tasks=2)
    made.step(batch(0, 2 * accumulate))  # after the first, where a task stands at its start
    composed: list[object] = []
    real = LayerFilters.compose

    def counting(parts: LayerFilters, *, exact: bool) -> Tensor:
        composed.append(exact)
        return real(parts, exact=exact)

    monkeypatch.setattr(LayerFilters, "compose", counting)
    made.step(batch(1, 2 * accumulate))
    layers = sum(len(network.layouts) for network in made.generators.values())
    assert composed == [False] * layers


# --- accumulation ---


@pytest.mark.parametrize("augment", ["off", "on"])
@MODES
def test_accumulated_batches_have_the_gradient_of_one_large_batch(
    options: TrainingOptions, augment: str
) -> None:
    options = dataclasses.replace(options, augment=augment)
    whole = trainer(dataclasses.replace(options, batch_size=5))
    parts = trainer(dataclasses.replace(options, batch_size=2, accumulate=3))
    losses, others = whole.step(batch(0, 5))[0], parts.step(batch(0, 5))[0]
    assert losses.images == others.images == 5
    for name, value in losses.sums.items():
        assert others.sums[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert_close(gradients(parts), gradients(whole))


# --- the pool ---


def test_a_full_pool_hands_out_an_earlier_image_half_of_the_time_each_equally_often() -> None:
    pool, chance = ImagePool(50), torch.Generator().manual_seed(0)
    numbers = torch.arange(4050.0).reshape(-1, 1, 1, 1)
    first = pool.query(numbers[:50], chance)
    assert torch.equal(first, numbers[:50]), "a pool that is not full hands images through"
    shown = torch.cat([pool.query(part, chance) for part in numbers[50:].split(4)]).flatten()
    new = numbers[50:].flatten()
    assert len(pool.images) == 50
    share = (shown != new).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.03)  # 4 standard deviations
    # An image waits for 2 * 50 others on the average; each is shown once more at most.
    earlier = shown[shown != new]
    assert len(set(earlier.tolist())) == len(earlier)
    waited = (new[shown != new] - earlier).mean().item()
    assert waited == pytest.approx(100, rel=0.15)


def test_a_pool_of_size_0_keeps_nothing() -> None:
    pool = ImagePool(0)
    shown = images(3, 0)
    assert pool.query(shown, torch.Generator()) is shown
    assert pool.images == []
    assert len(ImagePool(2).query(images(0, 0), torch.Generator())) == 0


def test_images_in_the_pool_do_not_change_with_what_was_given() -> None:
    pool, given = ImagePool(2), images(2, 0)
    pool.query(given, torch.Generator())
    kept = given.clone()
    given.zero_()
    assert torch.equal(torch.stack(pool.images), kept)


def test_the_discriminators_are_shown_what_the_pool_gives() -> None:
    made = trainer(dataclasses.replace(UNPAIRED, pool_size=1, batch_size=1))
    assert isinstance(made, UnpairedTrainer)
    earlier = images(1, 77)
    made.pools = {side: ImagePool(1) for side in "AB"}
    for pool in made.pools.values():
        pool.images = [earlier[0].clone()]
    draws = (torch.rand((), generator=generator_at(0, s, 2, 0)) for s in range(9))
    step = next(s for s, draw in enumerate(draws) if draw < 0.5)  # side A's draw
    judge = copy.deepcopy(made.discriminators["A"])
    these = batch(step, 1)
    losses, _ = made.step(these)
    expected = discriminator_loss("lsgan", judge(these.first), judge(earlier))
    assert losses.sums["discriminator_A"].item() == pytest.approx(expected.item(), rel=1e-5)


# --- augmentation ---


@MODES
def test_real_and_fake_images_are_augmented_by_the_same_draws_in_both_phases(
    monkeypatch: pytest.MonkeyPatch, options: TrainingOptions
) -> None:
    calls: list[tuple[int, Tensor]] = []
    real = Augmentation.__call__

    def noting(
        self: Augmentation, sides: list[Tensor], draws: Tensor, **how: object
    ) -> list[Tensor]:
        calls.append((len(sides), draws.clone()))
        return real(self, sides, draws, **how)

    monkeypatch.setattr(augment_module.Augmentation, "__call__", noting)
    made = trainer(dataclasses.replace(options, augment="on"))
    made.step(batch(3))
    # Paired: real, fake, and fake again for the generator. Unpaired: that for each side.
    assert len(calls) == (3 if options.mode == "paired" else 6)
    assert all(torch.equal(draws, calls[0][1]) for _, draws in calls)
    made.step(batch(4))
    assert not torch.equal(calls[-1][1], calls[0][1])
    calls.clear()
    trainer(options).step(batch(3))
    assert not calls, "off by default"


def test_the_generators_gradient_comes_through_the_augmentation() -> None:
    plain = trainer(dataclasses.replace(PAIRED, l1_weight=0.0))
    augmented = trainer(dataclasses.replace(PAIRED, l1_weight=0.0, augment="on"))
    for made in (plain, augmented):
        made.step(batch())
    found, other = gradients(augmented), gradients(plain)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    assert not torch.allclose(found[0], other[0], rtol=1e-2)
    assert found[0].abs().sum() > 0


# --- going on ---


@pytest.mark.parametrize("extra", [{}, {"augment": "on", "accumulate": 2}, {"gan_loss": "wgan-gp"}])
@MODES
def test_training_goes_on_bit_for_bit_from_a_saved_state(
    options: TrainingOptions, extra: dict[str, object]
) -> None:
    options = dataclasses.replace(options, **extra)
    if options.mode == "unpaired":
        options = dataclasses.replace(options, pool_size=3)
    config = dataclasses.replace(CONFIG, dropout=True)
    straight, again = trainer(options, config), trainer(options, config)
    for step in range(2):
        straight.step(batch(step, 3))
    state = copy.deepcopy(straight.state())
    torch.manual_seed(99)
    again.load_state(state)
    for made in (straight, again):
        torch.manual_seed(id(made) % 1000)  # nothing comes from the random state as it is
        made.begin_epoch(steps=100)
        for step in range(2, 4):
            losses, _ = made.step(batch(step, 3))
    left, right = weights(straight), weights(again)
    assert all(torch.equal(left[key], right[key]) for key in left)
    fresh = weights(trainer(options, config))
    assert not all(torch.equal(left[key], fresh[key]) for key in left)


def test_a_state_is_not_moved_by_later_steps_of_another_trainer_that_loaded_it() -> None:
    made = trainer(UNPAIRED)
    made.step(batch())
    state = made.state()
    before = {k: v.clone() for k, v in state["generators"]["forward"].items()}
    other = trainer(UNPAIRED)
    other.load_state(copy.deepcopy(state))
    other.step(batch(1))
    assert all(torch.equal(state["generators"]["forward"][k], before[k]) for k in before)


# --- precision and rates ---


@MODES
def test_bf16_steps_stay_finite_and_keep_filters_in_full_precision(
    options: TrainingOptions,
) -> None:
    made = trainer(dataclasses.replace(options, precision="bf16"), tasks=2)
    full = trainer(options, tasks=2)
    types: set[torch.dtype] = set()
    layer = made.generators["forward"].module.get_submodule("model.1")
    layer.register_forward_hook(lambda *call: types.add(call[2].dtype))
    for step in range(3):
        losses, _ = made.step(batch(step))
        others, _ = full.step(batch(step))
        assert all(torch.isfinite(value) for value in losses.sums.values())
        for name, value in losses.sums.items():
            assert value.item() == pytest.approx(others.sums[name].item(), rel=0.1, abs=0.02), name
    assert types == {torch.bfloat16}
    assert {t.dtype for t in weights(made).values() if t.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(t).all() for t in weights(made).values())


@MODES
def test_rates_are_constant_and_then_fall_linearly_from_step_to_step_to_nothing(
    options: TrainingOptions,
) -> None:
    options = dataclasses.replace(
        options, epochs=4, decay_epochs=2, learning_rate=1.0, discriminator_learning_rate=10.0
    )
    if options.mode == "unpaired":
        options = dataclasses.replace(options, backward_learning_rate=100.0)
    made = trainer(options)
    made.begin_epoch(steps=2)
    rates = []
    for step in range(8):
        made.step(batch(step))
        rates.append([g["lr"] for o in made.state()["optimizers"] for g in o["param_groups"]])
    scales = [1.0, 10.0] if options.mode == "paired" else [1.0, 100.0, 10.0]
    factors = [1.0] * 5 + [0.75, 0.5, 0.25]
    assert rates == [pytest.approx([f * scale for scale in scales]) for f in factors]
    assert made.learning_rate() == pytest.approx(0.25)


def test_without_decay_epochs_rates_stay() -> None:
    made = trainer(dataclasses.replace(PAIRED, decay_epochs=0, learning_rate=1e-3))
    made.begin_epoch(steps=1)
    made.step(batch(3))
    assert made.learning_rate() == 1e-3


@MODES
def test_a_step_says_whether_it_was_asked_to_stop(options: TrainingOptions) -> None:
    made = trainer(options)
    before = weights(made)
    _, stopped = made.step(batch(), lambda: True)
    assert stopped
    after = weights(made)
    assert not all(torch.equal(before[key], after[key]) for key in before), "the step is done"


def test_wgan_gp_trains_unpaired_tasks_too() -> None:
    made = trainer(dataclasses.replace(UNPAIRED, gan_loss="wgan-gp"))
    losses, _ = made.step(batch())
    assert all(torch.isfinite(value) for value in losses.sums.values())
