"""Every strategy through the real trainers: what is learned, kept, forgotten, counted, and survives a kill."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from data_sets import refusal
from piggyback_gan.experiments.strategies import STRATEGIES
from piggyback_gan.experiments.strategies.base import KeptStrategy
from piggyback_gan.experiments.strategies.packnet import PackNet
from piggyback_gan.experiments.strategies.whole_networks import Standalone
from piggyback_gan.networks.config import GeneratorConfig
from task_specs import BATCH_NORM, BOTH, RESNET, UNET, fresh, images, output, take, task_spec, train

TASKS = ("maps", "night.2", "sketch")
KEPT = [name for name, kind in STRATEGIES.items() if issubclass(kind, KeptStrategy)]
EVERY = pytest.mark.parametrize("name", STRATEGIES)


@dataclass
class Learned:
    """Three tasks of one strategy, and what was seen on the way."""

    l1: list[list[float]] = field(default_factory=list)
    at_the_end: list[Tensor] = field(default_factory=list)
    when_learned: list[Tensor] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    after_all: list[Tensor] = field(default_factory=list)


_LEARNED: dict[tuple[str, GeneratorConfig], Learned] = {}


@pytest.fixture
def learned(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Learned:
    """Three tasks, learned once for each strategy and architecture."""
    config = getattr(request, "param", UNET)
    if (name, config) not in _LEARNED:
        strategy, seen = STRATEGIES[name](), Learned()
        for task in TASKS:
            taught = task_spec(task, config)
            learners = strategy.begin(tmp_path, taught)
            seen.l1.append(train(learners, config, level=0.9 - 0.6 * len(seen.l1)))
            strategy.finish(tmp_path, taught, learners)
            with torch.no_grad():
                inputs = images(64 if config is UNET else 16)
                seen.at_the_end.append(learners["forward"].eval()(inputs))
            seen.when_learned.append(output(strategy, tmp_path, task, config=config))
            seen.sizes.append(strategy.size(tmp_path).parameters)
        assert strategy.tasks(tmp_path) == TASKS
        seen.after_all = [output(strategy, tmp_path, task, config=config) for task in TASKS]
        _LEARNED[name, config] = seen
    return _LEARNED[name, config]


ARCHITECTURES = pytest.mark.parametrize(
    "learned", [UNET, BATCH_NORM], ids=["unet", "resnet-batch-norm"], indirect=True
)


@EVERY
@ARCHITECTURES
def test_earlier_tasks_change_if_and_only_if_the_strategy_says_that_it_forgets(
    name: str, learned: Learned
) -> None:
    same = [torch.equal(a, b) for a, b in zip(learned.when_learned, learned.after_all, strict=True)]
    assert same == ([False, False, True] if STRATEGIES[name].forgets else [True, True, True])


@EVERY
@ARCHITECTURES
def test_what_was_trained_is_what_is_kept(name: str, learned: Learned) -> None:
    for trained, kept in zip(learned.at_the_end, learned.when_learned, strict=True):
        torch.testing.assert_close(trained, kept, rtol=0, atol=1e-5)


@EVERY
def test_every_task_is_learned(name: str, learned: Learned) -> None:
    for l1 in learned.l1:
        assert l1[-1] < l1[0]


@EVERY
def test_predicted_sizes_are_those_measured(name: str, learned: Learned) -> None:
    predicted = [STRATEGIES[name]().predicted(fresh(UNET), order) for order in range(len(TASKS))]
    sizes = [sum(predicted[: i + 1]) for i in range(len(TASKS))]
    if name == "piggyback":  # later tasks are trained free: what they may add at most is predicted
        assert learned.sizes[0] == sizes[0]
        assert all(
            0.9 * most < size < most
            for size, most in zip(learned.sizes[1:], sizes[1:], strict=True)
        )
    else:
        assert learned.sizes == sizes


@EVERY
def test_a_generator_is_a_plain_network_in_eval_mode(name: str, tmp_path: Path) -> None:
    strategy = STRATEGIES[name]()
    for task in TASKS[:2]:
        take(strategy, tmp_path, task_spec(task))
    generator = strategy.generator(tmp_path, TASKS[1], "forward", fresh(seed=9))
    assert not generator.training
    assert list(generator.state_dict()) == list(fresh().state_dict())
    assert {type(m) for m in generator.modules()} == {type(m) for m in fresh().modules()}


@EVERY
def test_unpaired_tasks_keep_both_ways_also_after_a_paired_one(name: str, tmp_path: Path) -> None:
    strategy = STRATEGIES[name]()
    take(strategy, tmp_path, task_spec("maps"))
    for level, task in enumerate(("night", "sketch")):
        taught = task_spec(task, directions=BOTH)
        learners = strategy.begin(tmp_path, taught)
        train(learners, RESNET, level)
        strategy.finish(tmp_path, taught, learners)
        for which in BOTH:
            with torch.no_grad():
                trained = learners[which].eval()(images())
            kept = output(strategy, tmp_path, task, which)
            torch.testing.assert_close(trained, kept, rtol=0, atol=1e-5)
    assert strategy.tasks(tmp_path) == ("maps", "night", "sketch")
    backward = [output(strategy, tmp_path, task, "backward") for task in ("night", "sketch")]
    assert torch.equal(*backward) == (name == "finetune")


@EVERY
def test_the_start_of_a_later_task_hangs_on_torchs_seed_alone(name: str, tmp_path: Path) -> None:
    strategy = STRATEGIES[name]()
    take(strategy, tmp_path, task_spec("maps"))
    starts = []
    for _ in range(2):
        taught = task_spec("night")
        torch.manual_seed(1)
        learner = strategy.begin(tmp_path, taught)["forward"]
        starts.append({key: t.clone() for key, t in learner.state_dict().items()})
    for key, tensor in starts[0].items():
        assert torch.equal(tensor, starts[1][key]), key


def test_a_kill_between_writes_loses_at_most_the_task_in_training(tmp_path: Path) -> None:
    strategy = PackNet()
    take(strategy, tmp_path, task_spec("maps"))
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "kept-0001", before)
    take(strategy, tmp_path, task_spec("night"))
    made = output(strategy, tmp_path, "night")
    # Killed before the older state was removed, and again while a third task was written.
    before.rename(tmp_path / "kept-0001")
    half = tmp_path / "kept.tmp" / "forward"
    half.mkdir(parents=True)
    (half / "0001-maps.safetensors").write_bytes(b"half")
    assert strategy.tasks(tmp_path) == ("maps", "night")
    assert torch.equal(output(strategy, tmp_path, "night"), made)
    take(strategy, tmp_path, task_spec("sketch"))
    assert strategy.tasks(tmp_path) == ("maps", "night", "sketch")


@EVERY
def test_weights_are_made_in_full_precision_under_autocast(name: str, tmp_path: Path) -> None:
    strategy = STRATEGIES[name]()
    take(strategy, tmp_path, task_spec("maps"))
    learner = strategy.begin(tmp_path, task_spec("night"))["forward"].train()
    with torch.no_grad():
        for parameter in learner.trainable_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    weights = []
    for half in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            learner(images())
            weights.append(learner.module.model[1].weight.detach().clone())
    assert weights[0].dtype == torch.float32
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("left", [0, 5, 3000])
def test_a_damaged_file_is_named_and_what_to_do(tmp_path: Path, left: int) -> None:
    take(Standalone(), tmp_path, task_spec("maps"))
    path = tmp_path / "kept-0001" / "forward" / "0001-maps.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    for read in (
        lambda: Standalone().generator(tmp_path, "maps", "forward", fresh()),
        lambda: Standalone().size(tmp_path),
    ):
        words = refusal(read)
        assert words.startswith(f"{path} can't be read (")
        assert words.endswith(f": remove {tmp_path} to learn its tasks again")


@pytest.mark.parametrize("name", KEPT)
def test_kept_tensors_of_another_network_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    for task in TASKS[:2]:
        take(STRATEGIES[name](), tmp_path, task_spec(task))
    for path in tmp_path.rglob("*.safetensors"):
        save_file({"other": torch.ones(1)}, path)
    words = refusal(lambda: STRATEGIES[name]().generator(tmp_path, TASKS[1], "forward", fresh()))
    assert words.startswith(f"{tmp_path} can't give the forward network of task {TASKS[1]!r} (")
    assert f"remove {tmp_path} to learn its tasks again" in words


def test_a_task_that_was_not_learned_is_named(tmp_path: Path) -> None:
    take(Standalone(), tmp_path, task_spec("maps"))
    message = refusal(lambda: Standalone().generator(tmp_path, "night", "forward", fresh()))
    assert "'night'" in message
