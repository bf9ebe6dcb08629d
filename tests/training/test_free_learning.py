"""Tasks that are trained free and then factorized: in the middle of a training, and the same after every stop."""

import copy
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from drawn import draw_pairs
from piggyback_gan import Bank, PiggybackError, TrainingOptions, teach
from piggyback_gan.cli.progress import TrainingProgress, describe
from piggyback_gan.core.free_tasks import Factorized
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.banked import BankedGenerators, keeps_quality
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.plan import plan_task
from piggyback_gan.training.starts import Start
from running import GENERATOR, OPTIONS, Watch, bank_files, records, run_folder, stop

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("without_curves", "same_time")]

# Of the steps of OPTIONS, 3 in each of 2 epochs, half are free.
FREE = dataclasses.replace(OPTIONS, budget=0.3, free_share=0.5, init="standalone")


class Watching(Watch):
    """Keeps when tasks were factorized, and how much that changed."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__(at)
        self.found: list[tuple[int, dict[str, Factorized]]] = []

    def factorized(self, position: Position, found: Mapping[str, Factorized]) -> None:
        self.found.append((position.step, dict(found)))


def with_first(bank: Path, pairs: Path, mode: Any = "paired") -> TrainingOptions:
    teach(bank, "one", pairs, dataclasses.replace(OPTIONS, mode=mode, epochs=1), GENERATOR)
    return dataclasses.replace(FREE, mode=mode)


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_a_task_stopped_at_any_step_ends_as_one_left_alone(
    tmp_path: Path, pairs: Path, mode: Any
) -> None:
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    for bank in (alone, stopped):
        options = with_first(bank, pairs, mode)
    watch = Watching()
    teach(alone, "two", pairs, options, callback=watch)
    assert [step for step, _ in watch.found] == [3]
    names = {"forward"} if mode == "paired" else {"forward", "backward"}
    found = watch.found[0][1]
    assert found.keys() == names and all(how.change > 0 for how in found.values())
    # While it is free, before it is factorized, and after that.
    assert stop(2, stopped, "two", pairs, options).step == 2
    assert stop(1, stopped, "two", resume=True).step == 3
    # Validation, which ends the epoch, has moments of its own.
    assert stop(3, stopped, "two", resume=True).step in (4, 5)
    teach(stopped, "two", resume=True)
    assert bank_files(stopped) == bank_files(alone)


def test_what_it_adds_keeps_to_the_budget_and_is_in_its_card(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    options = with_first(bank, pairs)
    teach(bank, "two", pairs, options)
    network, card = Bank.open(bank).network(), Bank.open(bank).card("two")
    count = network.parameter_count("two")
    assert 0.2 < count.share <= 0.3
    assert card.parameters is not None and card.parameters.total == count.total
    assert card.options["learn"] == "free" and card.options["free_share"] == 0.5


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_what_was_pulled_to_the_bank_is_changed_less_by_factorization(
    tmp_path: Path, pairs: Path, mode: Any
) -> None:
    changes = []
    for pull_share in (0.0, 0.25):
        bank, watch = tmp_path / f"bank-{pull_share}", Watching()
        still = {"learning_rate": 0.0, "backward_learning_rate": 0.0, "pull_share": pull_share}
        options = dataclasses.replace(with_first(bank, pairs, mode), **still)
        teach(bank, "two", pairs, options, callback=watch)
        changes.append(watch.found[0][1])
    at_once, pulled = changes
    assert all(how.change < 0.8 * at_once[name].change for name, how in pulled.items())


@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_a_task_is_factorized_as_was_decided_when_it_was_first_pulled(
    tmp_path: Path, pairs: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the network has changed since so much that another decision would be taken."""
    decided: list[dict[str, Any]] = []

    class Keep(Callback):
        def checkpoint(self, position: Position, state: Mapping[str, Any]) -> None:
            decided.append(copy.deepcopy(state["banked"]))

    drawn = torch.Generator().manual_seed(0)
    pull = BankedGenerators.pull

    def pull_and_change(generators: BankedGenerators, pulls: Mapping[str, float]) -> None:
        pull(generators, pulls)
        for network in generators.networks.values():
            with torch.no_grad():
                for parameter in network.trainable_parameters():
                    noise = torch.randn(parameter.shape, generator=drawn)
                    parameter.copy_(noise * parameter.std().nan_to_num())

    monkeypatch.setattr(BankedGenerators, "pull", pull_and_change)
    bank = tmp_path / "bank"
    options = with_first(bank, pairs, mode)
    teach(bank, "two", pairs, options, callback=Keep())
    assert len(decided[-1]) == (1 if mode == "paired" else 2)
    assert all(own["made"] == own["pulled"] for own in decided[-1].values())


def test_pulls_are_spread_over_their_share_of_the_steps(tmp_path: Path) -> None:
    network = PiggybackNetwork(torch.nn.Conv2d(3, 16, 3))
    network.add_task("one")
    network.finish_task()
    options = TrainingOptions(free_share=0.8, pull_share=0.3, learn="free", budget=0.5)
    data: Any = None
    generators = BankedGenerators({"forward": network}, data, options, Processes())
    for asked, expected in (
        (options, {50: 0.75, 60: 0.5, 70: 0.25}),
        (dataclasses.replace(options, pull_share=0.0), {}),
        (dataclasses.replace(options, quality=1.03), {}),
        # Not before the first step.
        (dataclasses.replace(options, free_share=0.15), {5: 0.5, 10: 0.25}),
    ):
        network.add_task("two", asked)
        pulls = {step: generators.pulls(step, 100) for step in range(80)}
        found = {step: left["forward"] for step, left in pulls.items() if left}
        assert found == expected
        assert generators.due(round(100 * asked.free_share), 100) == ["forward"]
        network.discard_task()


def test_the_discriminator_and_what_stays_of_the_generator_go_on(
    tmp_path: Path, pairs: Path
) -> None:
    """One step with and one without factorization before it start from the same state of these."""
    kept: list[dict[str, Any]] = []

    class Keep(Callback):
        def checkpoint(self, position: Position, state: Mapping[str, Any]) -> None:
            kept.append(copy.deepcopy(state["trainer"]))

    bank = tmp_path / "bank"
    options = dataclasses.replace(
        with_first(bank, pairs), learning_rate=0.0, discriminator_learning_rate=0.0
    )
    teach(bank, "two", pairs, options, callback=Keep())
    before, after = kept[0], kept[1]
    for name, tensor in before["discriminators"]["discriminator"].items():
        assert torch.equal(tensor, after["discriminators"]["discriminator"][name])
    steps = [
        sorted({int(found["step"]) for found in state["optimizers"][1]["state"].values()})
        for state in (before, after)
    ]
    assert steps == [[3], [6]]
    # Of the generator, biases and the last layer's filters go on, and mixing weights begin.
    counts = {int(found["step"]) for found in after["optimizers"][0]["state"].values()}
    assert counts == {3, 6}


@contextmanager
def scripted(*l1: float) -> Iterator[None]:
    """Let held-out images have these L1 distances, one each time that they are judged."""
    values = iter(l1)

    def judged(*_: Any, **more: Any) -> Any:
        return type("Evaluated", (), {"metrics": {"l1": next(values), "psnr": 1.0, "ssim": 1.0}})()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("piggyback_gan.runs.run.evaluate", judged)
        yield
    assert next(values, None) is None, "all are used"


def test_the_best_epoch_is_one_of_the_bank(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    options = dataclasses.replace(with_first(bank, pairs), epochs=3, keep_best="l1")
    with scripted(0.1, 0.3, 0.2):
        teach(bank, "two", pairs, options)
    assert [record["validation"]["l1"] for record in records(bank, "two")] == [0.1, 0.3, 0.2]
    card = Bank.open(bank).card("two")
    assert card.epoch == 3


@pytest.mark.parametrize(
    ("found", "budget", "accepted"),
    [
        # The end of epoch 1, the free network, budgets .075, .15 and .3, the end of epoch 2.
        ((0.5, 0.100, 0.102, 0.5), 0.075, True),
        ((0.5, 0.100, 0.104, 0.103, 0.5), 0.15, True),
        ((0.5, 0.100, 0.2, 0.104, 0.104, 0.5), 0.3, False),
    ],
)
def test_the_least_budget_that_keeps_the_quality_is_taken(
    tmp_path: Path, pairs: Path, found: tuple[float, ...], budget: float, accepted: bool
) -> None:
    bank, watch = tmp_path / "bank", Watching()
    options = dataclasses.replace(with_first(bank, pairs), budget="auto")
    with scripted(*found):
        teach(bank, "two", pairs, options, callback=watch)
    how = watch.found[0][1]["forward"]
    assert (how.budget, how.accepted) == (budget, accepted)
    card = Bank.open(bank).card("two")
    assert (card.options["budget"], card.options["quality"]) == (budget, 1.03)
    assert 0.8 * budget < card.parameters.share <= budget


def test_a_metric_that_became_worse_by_more_than_the_ratio_does_not_keep_the_quality() -> None:
    free = {"l1": 0.1, "psnr": 20.0, "ssim": 0.5, "psnr_BtoA": 20.0}
    assert keeps_quality(free, free, 1.0)
    assert keeps_quality({**free, "l1": 0.1029, "ssim": 0.486}, free, 1.03)
    assert not keeps_quality({**free, "l1": 0.1031}, free, 1.03)
    assert not keeps_quality({**free, "ssim": 0.485}, free, 1.03)
    # 20 log10(1.03) is .2567 dB.
    assert keeps_quality({**free, "psnr_BtoA": 19.744}, free, 1.03)
    assert not keeps_quality({**free, "psnr_BtoA": 19.743}, free, 1.03)
    assert not keeps_quality({"ssim": -0.1}, {"ssim": 0.1}, 1.03)


def test_a_budget_that_is_to_be_found_needs_held_out_images(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    options = dataclasses.replace(with_first(bank, pairs), budget="auto")
    with pytest.raises(PiggybackError, match="held-out images: give val/, test/ or --val-fraction"):
        teach(bank, "two", draw_pairs(tmp_path / "none", train=4, test=0), options)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"learn": "free", "mixing": "selected"}, "selected mixing learns"),
        ({"learn": "free", "budget": 0.001}, "budget 0.001 is too small"),
        ({"learn": "mixed", "budget": "auto"}, "budget auto and quality are for"),
        ({"learn": "free", "allocation": "even"}, "allocation even is for"),
        ({"learn": "free", "unconstrained": 0.5, "mixing": "low-rank"}, "mixed fully"),
        ({"quality": 1.1, "unconstrained": 0.1}, "exclude each other"),
    ],
)
def test_what_can_not_be_factorized_is_refused_before_training(
    tmp_path: Path, pairs: Path, asked: dict[str, Any], words: str
) -> None:
    bank = tmp_path / "bank"
    with_first(bank, pairs)
    with pytest.raises(PiggybackError, match=words):
        teach(bank, "two", pairs, dataclasses.replace(OPTIONS, **asked))


def test_options_outside_their_range_are_refused() -> None:
    for asked in ({"free_share": 1.0}, {"free_share": -0.1}, {"learn": "slowly"}):
        with pytest.raises(PiggybackError, match=r"free_share|learn"):
            TrainingOptions(**asked)


@pytest.mark.parametrize(("method", "pull_share"), [("due", 0.0), ("pulls", 0.25)])
def test_a_network_that_diverged_is_not_pulled_or_factorized(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, method: str, pull_share: float
) -> None:
    """What diverges differs from processor to processor: here a bias is made so before layers are fitted."""
    asks = getattr(BankedGenerators, method)

    def ask(generators: BankedGenerators, step: int, steps: int) -> Any:
        if found := asks(generators, step, steps):
            for network in generators.networks.values():
                with torch.no_grad():
                    network.trainable_parameters()[0].fill_(float("inf"))
        return found

    bank = tmp_path / "bank"
    options = dataclasses.replace(with_first(bank, pairs), pull_share=pull_share)
    monkeypatch.setattr(BankedGenerators, method, ask)
    with pytest.raises(
        PiggybackError, match=r"the output of layer model.4 is nan in epoch 1, step \d:"
    ):
        teach(bank, "two", pairs, options)
    assert Bank.open(bank).tasks == ("one",)


def test_rates_rise_when_a_task_is_factorized_also_after_a_stop(
    tmp_path: Path, pairs: Path
) -> None:
    bank = tmp_path / "bank"
    options = dataclasses.replace(
        with_first(bank, pairs), epochs=4, decay_epochs=0, learning_rate=1e-4, factorized_rate=2.0
    )
    assert stop(11, bank, "two", pairs, options).step > 6
    teach(bank, "two", resume=True)
    rates = [record["learning_rate"] for record in records(bank, "two")]
    assert rates == pytest.approx([1e-4, 1e-4, 2e-4, 2e-4])


def test_a_stop_while_budgets_are_judged_loses_no_step(tmp_path: Path, pairs: Path) -> None:
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    for bank in (alone, stopped):
        options = with_first(bank, pairs)
        options = dataclasses.replace(options, budget="auto", epochs=3, free_share=0.5)
    teach(alone, "two", pairs, options)
    steps = []
    # The free part ends in the middle of epoch 2: after 4 of 9 steps.
    for asked in range(1, 60):
        try:
            steps.append(stop(asked, stopped, "two", pairs, options).step)
        except PiggybackError:
            break
        if steps[-1] == 4:
            break
        teach_runs_discard(stopped)
    assert steps[-1] == 4
    resumed = Resumed()
    teach(stopped, "two", resume=True, callback=resumed)
    assert resumed.step == 4
    assert bank_files(stopped) == bank_files(alone)


class Resumed(Callback):
    """Keeps the step after which a run was resumed."""

    step = -1

    def resumed(self, position: Position, differences: Any) -> None:
        self.step = position.step


def teach_runs_discard(bank: Path) -> None:
    shutil.rmtree(run_folder(bank, "two"))


def test_an_unpaired_task_keeps_the_quality_of_both_free_generators(
    tmp_path: Path, pairs: Path
) -> None:
    bank, watch = tmp_path / "bank", Watching()
    options = dataclasses.replace(with_first(bank, pairs, "unpaired"), budget="auto")
    # Epoch 1; the free networks; forward .075 and .15; backward .075: within 1.03 of the free ones, .15; epoch 2.
    with scripted(0.5, 0.100, 0.104, 0.102, 0.1035, 0.1025, 0.5):
        teach(bank, "two", pairs, options, callback=watch)
    found = watch.found[0][1]
    assert {name: how.budget for name, how in found.items()} == {"forward": 0.15, "backward": 0.15}
    assert all(how.accepted for how in found.values())


def test_a_share_of_new_filters_in_all_layers_is_mixed_from_the_start() -> None:
    for asked in ({"allocation": "even"}, {"unconstrained": 0.25}, {"mixing": "selected"}):
        assert TrainingOptions(**asked).with_filter_defaults(factorizes=True).learn == "mixed"
    assert TrainingOptions().with_filter_defaults(factorizes=True).learn == "free"
    assert TrainingOptions().with_filter_defaults().learn == "mixed"


def test_the_plan_says_what_a_free_task_adds_at_most(tmp_path: Path, pairs: Path) -> None:
    bank = tmp_path / "bank"
    options = with_first(bank, pairs)
    for asked, words in (
        ({"budget": 0.3}, "at most 0.3 of a standalone network's 31,939\n"),
        ({"budget": 0.3, "quality": 1.1}, "at most 0.3 of a standalone network's 31,939\n"),
        ({"mode": "unpaired"}, "at most 0.3 of a standalone network forward, and a whole one back"),
        ({"budget": "auto"}, "0.15 or 0.3 of a standalone network's 31,939: the least that keeps"),
    ):
        plan = plan_task(bank, "two", pairs, dataclasses.replace(options, **asked), GENERATOR)
        assert words in describe(plan)
        keeps = "quality" in asked or asked.get("budget") == "auto"
        pulled = "" if keeps else " (from step 1 on pulled towards mixtures of the bank's filters)"
        assert f"; the first 3 free{pulled}, then factorized" in describe(plan)
    at_once = dataclasses.replace(options, free_share=0.0)
    plan = plan_task(bank, "two", pairs, at_once, GENERATOR)
    assert "; factorized before the first step" in describe(plan)


def test_the_command_line_says_why_random_filters_are_not_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = Start("one", {"one": 0.8, "standalone": 0.75, "two": 0.9}, 2)
    TrainingProgress().start_chosen("forward", start)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("starts from one, of 2 earlier tasks")
    assert said.endswith("two 0.9 (random filters would have to be below 0.9 of that)")
