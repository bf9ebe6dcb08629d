"""What each strategy is made of: counts, gradients, masks, ownership, penalties, what its options refuse."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from data_sets import refusal
from paths import ROOT
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.strategies.base import Kept, Strategy, conv_layers, values_of
from piggyback_gan.experiments.strategies.distill import Distill
from piggyback_gan.experiments.strategies.feature_extractor import FeatureExtractor
from piggyback_gan.experiments.strategies.low_rank import LowRank
from piggyback_gan.experiments.strategies.mask import Mask
from piggyback_gan.experiments.strategies.narrow import Narrow
from piggyback_gan.experiments.strategies.packnet import PackNet
from piggyback_gan.experiments.strategies.piggyback import Piggyback, layer_parameters
from piggyback_gan.experiments.strategies.weights import pack, shared_layers, unpack
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from task_specs import BATCH_NORM, RESNET, UNET, fresh, images, learn, output, task_spec

DOCS = ROOT / "docs"
WEIGHT = "model.10.conv_block.1"


def without_values(config: GeneratorConfig) -> nn.Module:
    with torch.device("meta"):
        return build_generator(config)


def scramble(*modules: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def kept_first(config: GeneratorConfig = RESNET) -> Kept:
    network = fresh(config)
    scramble(network)
    return Kept().with_task("maps", values_of(network))


# --- what piggyback adds, and who is measured by it ---


@pytest.mark.parametrize(
    ("unconstrained", "added"),
    [(0.125, (0.224, 0.236, 0.249)), (0.25, (0.335, 0.356, 0.377)), (0.5, (0.557, 0.585, 0.613))],
)
def test_piggyback_adds_the_parameters_of_the_papers_formula(
    unconstrained: float, added: tuple[float, ...]
) -> None:
    network = without_values(GeneratorConfig())
    layers = {name: unconstrained for name in conv_layers(network)}
    options = FilterOptions(unconstrained=layers).with_filter_defaults()
    whole = sum(layer_parameters(network, options, 0).values())
    for order, share in enumerate(added, 1):
        found = sum(layer_parameters(network, options, order).values()) / whole
        assert found == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize("unconstrained", [0.125, 0.25, 0.5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_low_rank_updates_have_as_many_parameters_as_piggyback_adds_or_a_few_less(
    unconstrained: float, order: int
) -> None:
    network = without_values(GeneratorConfig(ngf=32))
    target = Piggyback(unconstrained=unconstrained).predicted(network, order)
    found = LowRank(unconstrained=unconstrained).predicted(network, order)
    assert 0.99 * target <= found <= target


@pytest.mark.parametrize("config", [RESNET, UNET], ids=["resnet", "unet"])
def test_a_narrow_network_of_equal_size_has_the_nearest_width(config: GeneratorConfig) -> None:
    network = without_values(replace(config, ngf=16))
    target = Piggyback(unconstrained=0.5).predicted(network, 2)
    sizes = {
        width: Narrow().predicted(without_values(replace(config, ngf=width)), 0)
        for width in range(1, 33)
    }
    found = Narrow(unconstrained=0.5, equal_parameters=True).predicted(network, 2)
    assert found == min(sizes.values(), key=lambda size: abs(size - target))


def test_a_narrow_network_has_a_share_of_the_channels_rounded_up() -> None:
    config = replace(RESNET, ngf=6)
    learner = Narrow().learner(kept_first(config), fresh(config))
    assert [len(layer.weight) for layer in conv_layers(learner.module).values()][:3] == [2, 4, 8]


# --- low rank, masks ---


def test_a_low_rank_update_starts_as_task_1_and_has_the_rank_that_is_asked_for() -> None:
    kept = kept_first()
    learner = LowRank(rank=2).learner(kept, fresh(seed=1))
    first = fresh(seed=1)
    first.load_state_dict(kept.first)
    assert torch.equal(learner(images()), first(images()))
    scramble(learner)
    # The frozen weights were scrambled as well: compare with them.
    weight = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.original")
    update = learner.module.get_submodule(WEIGHT).weight - weight
    assert torch.linalg.matrix_rank(update.reshape(len(update), -1), atol=1e-4) == 2


def test_the_gradient_of_a_mask_goes_straight_through_to_its_scores() -> None:
    kept = kept_first()
    learner = Mask().learner(kept, fresh())
    plain = fresh()
    plain.load_state_dict(kept.first)
    for network in (learner, plain):
        network(images()).square().mean().backward()
    scores = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.0.scores")
    weight = plain.get_parameter(f"{WEIGHT}.weight")
    assert weight.grad is not None
    # With respect to what is trained, the scores over their relative rate.
    torch.testing.assert_close(scores.grad, 0.1 * weight.grad * weight.detach())
    frozen = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.original")
    assert frozen.grad is None


def test_scores_move_by_a_share_of_the_rate_of_all_else() -> None:
    learner = Mask(score_rate=0.25).learner(kept_first(), fresh())
    optimizer = torch.optim.Adam(learner.trainable_parameters(), 0.004)
    learner(images()).square().mean().backward()
    optimizer.step()
    scores = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.0.scores")
    moved = (scores.detach() * 0.25 - 0.01).abs()
    assert moved.max() == pytest.approx(0.25 * 0.004, rel=1e-3)


@torch.no_grad()
def test_a_masked_weight_is_task_1s_where_its_score_is_above_the_threshold_and_else_0() -> None:
    kept = kept_first()
    learner = Mask().learner(kept, fresh())
    scores = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.0.scores")
    scores.copy_(torch.where(torch.rand_like(scores) < 0.5, 0.04, 0.06))
    kept = Mask().keep(kept, "night", learner)
    rebuilt = Mask().rebuild(kept, "night", fresh()).get_parameter(f"{WEIGHT}.weight")
    expected = torch.where(scores > 0.05, kept.first[f"{WEIGHT}.weight"], 0)
    assert torch.equal(rebuilt, expected)
    assert 0 < int((expected == 0).sum()) < expected.numel()


@pytest.mark.parametrize("shape", [(8, 3, 1, 1), (5,), (3, 3, 3)])
def test_packed_masks_come_back_and_take_a_bit_for_each_value(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) < 0.5
    bits = pack(mask)
    assert torch.equal(unpack(bits, mask.shape), mask)
    assert bits.dtype == torch.uint8 and len(bits) == -(-mask.numel() // 8)


# --- PackNet ---


def pack_tasks(strategy: PackNet, tasks: int) -> Kept:
    kept = Kept()
    for task in range(tasks):
        learner = strategy.learner(kept, fresh(seed=task))
        scramble(learner, seed=task)
        with torch.no_grad():
            kept = strategy.keep(kept, f"task-{task}", learner)
    return kept


def test_no_weight_is_owned_by_two_tasks_and_each_owns_its_share() -> None:
    kept = pack_tasks(PackNet(kept=0.5), 3)
    for name, layer in shared_layers(fresh()).items():
        owned = [unpack(t[f"{name}.own"], layer.weight.shape) for t in kept.tasks.values()]
        assert int(torch.stack(owned).sum(0).max()) == 1
        assert [int(mask.sum()) / mask.numel() for mask in owned] == [0.5, 0.25, 0.125]
        free = torch.stack(owned).sum(0) == 0
        assert not kept.shared[f"{name}.weight"][free].any()


def test_the_weights_that_are_given_up_are_the_smallest_of_their_layer() -> None:
    learner = PackNet(kept=0.25).learner(Kept(), fresh())
    before = learner.module.get_submodule(WEIGHT).weight.detach().abs()
    learner.begin_epoch(4, 4)
    after = learner.module.get_submodule(WEIGHT).weight.detach()
    given_up = after == 0
    assert int(given_up.sum()) == 0.75 * after.numel()
    assert before[given_up].max() <= before[~given_up].min()
    assert torch.equal(after.abs()[~given_up], before[~given_up])


@pytest.mark.parametrize(("epochs", "first"), [(8, 7), (5, 4), (2, 2), (1, None)])
def test_pruning_is_before_the_last_epochs_or_at_the_end(epochs: int, first: int | None) -> None:
    learner = PackNet(retrain=0.25).learner(Kept(), fresh())

    def pruned() -> bool:
        return bool((learner.module.get_submodule(WEIGHT).weight == 0).any())

    seen = []
    for epoch in range(1, epochs + 1):
        learner.begin_epoch(epoch, epochs)
        seen.append(pruned())
    assert seen == [first is not None and epoch >= first for epoch in range(1, epochs + 1)]
    with torch.no_grad():
        PackNet().keep(Kept(), "maps", learner)
    assert pruned()


def test_only_the_free_weights_get_a_gradient_and_start_at_0() -> None:
    kept = pack_tasks(PackNet(), 1)
    learner = PackNet().learner(kept, fresh())
    weight = learner.module.get_submodule(WEIGHT).weight
    own = unpack(kept.first[f"{WEIGHT}.own"], weight.shape)
    assert torch.equal(weight == 0, ~own)
    learner(images()).sum().backward()
    trained = learner.module.get_parameter(f"{WEIGHT}.parametrizations.weight.original")
    assert trained.grad is not None
    assert not trained.grad[own].any() and trained.grad[~own].any()


def test_a_task_that_finds_no_free_weights_is_refused() -> None:
    greedy = PackNet(kept=0.99999)
    message = refusal(lambda: greedy.learner(pack_tasks(greedy, 1), fresh()))
    assert "no free weights left after 1 task" in message and "kept" in message


# --- distillation, feature extractor ---


def distill_learner(tasks: int) -> nn.Module:
    strategy, kept = Distill(weight=100), Kept()
    for task in range(tasks):
        learner = strategy.learner(kept, fresh())
        scramble(learner.module.model[23], seed=task)
        with torch.no_grad():
            kept = strategy.keep(kept, f"task-{task}", learner)
    return strategy.learner(kept, fresh()).train()


def test_the_penalty_is_0_at_the_start_and_grows_with_what_the_outputs_move() -> None:
    learner = distill_learner(1)
    assert learner.penalty(images()).item() == 0
    before = learner(images()).detach()
    with torch.no_grad():
        learner.module.model[1].weight.mul_(-1)
    # With one task, the new output layer starts as the old one's.
    moved = (learner(images()) - before).abs().mean()
    torch.testing.assert_close(learner.penalty(images()), 100 * moved)
    assert moved > 0


def test_the_penaltys_gradient_reaches_what_is_shared_and_the_old_output_layer_alone() -> None:
    learner = distill_learner(1)
    with torch.no_grad():
        learner.module.model[1].weight.mul_(-1)
    learner.penalty(images()).backward()
    reached = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert {"module.model.1.weight", "heads.0.weight", "heads.0.bias"} <= reached
    assert not any(name.startswith(("module.model.23.", "_teacher")) for name in reached)
    assert learner.module.model[1].weight.grad.any()


def test_earlier_tasks_are_held_in_turn() -> None:
    learner = distill_learner(2)
    with torch.no_grad():
        learner.heads[1].bias.add_(0.5)
    assert [learner.penalty(images()).item() > 0 for _ in range(4)] == [False, True] * 2


def test_a_first_task_has_no_penalty() -> None:
    assert Distill().learner(Kept(), fresh()).penalty(images()) is None


def test_a_feature_extractor_trains_the_last_layers_and_their_norms_alone(tmp_path: Path) -> None:
    strategy = FeatureExtractor(trained_layers=2)
    for task in ("maps", "night"):
        learn(strategy, tmp_path, task_spec(task, BATCH_NORM), BATCH_NORM)
    first, second = (
        strategy.generator(tmp_path, task, "forward", fresh(BATCH_NORM)).state_dict()
        for task in ("maps", "night")
    )
    changed = {key for key in first if not torch.equal(first[key], second[key])}
    # The last up-convolution (which has no bias beside batch norm), its norm, the output layer.
    fields = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    norm = {f"model.20.{key}" for key in fields}
    assert changed == {"model.19.weight", "model.23.weight", "model.23.bias"} | norm


# --- options ---


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FeatureExtractor(trained_layers=0), "trained_layers"),
        (lambda: FeatureExtractor(trained_layers=99).predicted(fresh(), 1), "trained_layers"),
        (lambda: Narrow(unconstrained=0), "unconstrained"),
        (lambda: LowRank(rank=0), "rank"),
        (lambda: LowRank(unconstrained=2).predicted(fresh(), 1), "unconstrained"),
        (lambda: PackNet(kept=0), "kept"),
        (lambda: PackNet(retrain=1.5), "retrain"),
        (lambda: Distill(weight=-1), "weight"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_with_what_was_found(
    make: Callable[[], object], field: str
) -> None:
    with pytest.raises(PiggybackError, match=field):
        make()


# --- docs ---


def test_the_docs_example_of_an_own_strategy_works_and_forgets_nothing(tmp_path: Path) -> None:
    text = (DOCS / "strategies.md").read_text()
    example, registered = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "biases.py"
    file.write_text(example)
    spec = importlib.util.spec_from_file_location("biases", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    strategies = eval("{" + registered + "}", vars(module))
    strategy = strategies["biases"]()
    assert isinstance(strategy, Strategy)
    folder = tmp_path / "kept"
    learn(strategy, folder, task_spec("maps", BATCH_NORM), BATCH_NORM)
    before = output(strategy, folder, "maps", config=BATCH_NORM)
    l1 = learn(strategy, folder, task_spec("night", BATCH_NORM), BATCH_NORM)
    assert l1[-1] < l1[0]
    assert torch.equal(output(strategy, folder, "maps", config=BATCH_NORM), before)
    predicted = [strategy.predicted(fresh(), order) for order in range(2)]
    assert predicted[1] < 0.05 * predicted[0]
