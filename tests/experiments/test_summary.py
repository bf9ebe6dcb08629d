"""What is computed from an experiment's figures, against numbers worked out by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_sets import refusal
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.summary import Spread
from piggyback_gan.experiments.results import Results, Stage


def stage(label: str, seed: int, figures: Mapping[str, Mapping[str, float]], **more: Any) -> Stage:
    """A stage after the tasks that have figures."""
    defaults: dict[str, Any] = {
        "strategy": label,
        "seed": seed,
        "order": len(figures),
        "task": list(figures)[-1],
        "learning_rate": 2e-4,
        "steps": 10,
        "seconds": 5.0,
        "peak_memory": None,
        "parameters": 100.0,
        "predicted": 100.0,
        "standalone": 100,
        "bytes": 400,
        "figures": {
            task: {name: Figure(value, value - 1, value + 1) for name, value in values.items()}
            for task, values in figures.items()
        },
        "identical": {},
    }
    return Stage(**(defaults | more))


def results(*stages: Stage, seeds: tuple[int, ...] = (0,)) -> Results:
    """Results of tasks a, b and c by the strategies that the stages name, and a standalone one."""
    labels = dict.fromkeys(["standalone", *(s.strategy for s in stages)])
    experiment = {
        "tasks": [{"name": name} for name in "abc"],
        "strategies": [
            {"label": label, "kind": "standalone" if label == "standalone" else "other"}
            for label in labels
        ],
        "seeds": list(seeds),
    }
    return Results(Path("nowhere"), experiment, stages)


WORN = (
    stage("s", 0, {"a": {"l1": 2, "ssim": 0.5}}),
    stage("s", 0, {"a": {"l1": 1, "ssim": 0.75}, "b": {"l1": 4, "ssim": 0.5}}),
    stage(
        "s",
        0,
        {"a": {"l1": 5, "ssim": 0.25}, "b": {"l1": 3, "ssim": 0.25}, "c": {"l1": 1, "ssim": 1}},
    ),
)


def test_forgetting_is_measured_from_the_best_a_task_ever_was() -> None:
    # a: best 1, at the end 5: lost 4. b: best 4, at the end 3: lost -1. The mean is 1.5.
    assert summary.forgetting(results(*WORN), "s", "l1") == Spread({0: 1.5})
    # a: best .75, at the end .25: lost .5. b: lost .25.
    assert summary.forgetting(results(*WORN), "s", "ssim") == Spread({0: 0.375})


def test_backward_transfer_is_measured_from_when_a_task_was_learned() -> None:
    # a: 2 -> 5 is -3. b: 4 -> 3 is +1.
    assert summary.backward_transfer(results(*WORN), "s", "l1") == Spread({0: -1.0})
    # a: .5 -> .25, b: .5 -> .25.
    assert summary.backward_transfer(results(*WORN), "s", "ssim") == Spread({0: -0.25})


def test_one_task_alone_can_not_be_forgotten() -> None:
    assert summary.forgetting(results(WORN[0]), "s", "l1") is None
    assert summary.backward_transfer(results(WORN[0]), "s", "l1") is None
    assert summary.forgetting(results(*WORN), "s", "unheard_of") is None


def test_the_matrix_has_every_task_after_every_task() -> None:
    found = summary.matrix(results(*WORN), "s", "l1")
    values = {task: [s and s.mean for s in spreads] for task, spreads in found.items()}
    assert values == {"a": [2, 1, 5], "b": [None, 4, 3], "c": [None, None, 1]}


def test_final_and_when_learned_keep_each_seeds_interval() -> None:
    other = [stage("s", 1, {"a": {"l1": 7}})]
    found = results(*WORN, *other, seeds=(0, 1))
    assert summary.final(found, "s", "a", "l1") == {0: Figure(5, 4, 6)}
    assert summary.when_learned(found, "s", "a", "l1") == {0: Figure(2, 1, 3), 1: Figure(7, 6, 8)}


def test_a_seed_that_is_not_at_the_end_changes_no_row_of_the_matrix() -> None:
    behind = stage("s", 1, {"a": {"l1": 99}})
    found = results(*WORN, behind, seeds=(0, 1))
    assert summary.matrix(found, "s", "l1") == summary.matrix(results(*WORN), "s", "l1")
    assert summary.missing(found)[-1] == ("s", 1, ("b", "c"))


def test_a_ratio_is_to_the_standalone_network_of_the_same_seed() -> None:
    def part(label: str, seed: int, b: float, c: float) -> list[Stage]:
        first = {"a": {"l1": 1.0}}
        return [
            stage(label, seed, first),
            stage(label, seed, first | {"b": {"l1": b}}),
            stage(label, seed, first | {"b": {"l1": b}, "c": {"l1": c}}),
        ]

    found = results(
        *part("standalone", 0, 2, 4),
        *part("standalone", 1, 4, 4),
        *part("s", 0, 3, 4),
        *part("s", 1, 4, 8),
        *part("s", 2, 1, 1),
        seeds=(0, 1, 2),
    )
    assert summary.ratio(found, "s", "standalone", "b", "l1") == Spread({0: 1.5, 1: 1.0})
    mean = summary.mean_ratio(found, "s", "standalone", "l1")
    assert mean == Spread({0: 1.25, 1: 1.5})  # seed 2 has no standalone network
    assert mean is not None
    assert (mean.mean, mean.low, mean.high) == (1.375, 1.25, 1.5)


def test_a_seed_that_lacks_a_task_is_left_out_of_the_mean_ratio() -> None:
    two = {"a": {"l1": 1.0}, "b": {"l1": 1.0}}
    three = two | {"c": {"l1": 1.0}}
    found = results(
        stage("standalone", 0, two),
        stage("standalone", 0, three),
        stage("standalone", 1, two),
        stage("s", 0, three | {"c": {"l1": 3.0}}),
        stage("s", 1, three),
        seeds=(0, 1),
    )
    assert summary.mean_ratio(found, "s", "standalone", "l1") == Spread({0: 2.0})


def test_no_ratio_to_a_value_that_is_not_positive() -> None:
    first = {"a": {"kernel_distance": 1.0}}
    found = results(
        stage("standalone", 0, first),
        stage("standalone", 0, first | {"b": {"kernel_distance": -0.001}}),
        stage("s", 0, first),
        stage("s", 0, first | {"b": {"kernel_distance": 0.1}}),
    )
    assert summary.ratio(found, "s", "standalone", "b", "kernel_distance") is None
    assert summary.mean_ratio(found, "s", "standalone", "kernel_distance") is None


def test_both_directions_of_an_unpaired_task_count_as_one_value() -> None:
    first = {"a": {"frechet_distance_AtoB": 2.0, "frechet_distance_BtoA": 4.0}}
    worse = {"a": {"frechet_distance_AtoB": 4.0, "frechet_distance_BtoA": 4.0}, "b": {"l1": 1.0}}
    found = results(stage("s", 0, first), stage("s", 0, worse))
    assert summary.forgetting(found, "s", "frechet_distance") == Spread({0: 1.0})
    assert summary.metrics(found) == ("frechet_distance", "l1")
    assert summary.directions(found, "a") == ("AtoB", "BtoA")
    assert summary.directions(found, "b") == ("",)
    assert summary.base_of("cycle_l1_B") == ("cycle_l1", "BtoA")
    assert higher_is_better("ssim_AtoB")
    assert not higher_is_better("l1_AtoB")


def test_an_unpaired_tasks_ratio_is_the_mean_of_its_directions_ratios() -> None:
    def part(label: str, there: float, back: float) -> list[Stage]:
        first = {"a": {"l1": 1.0}}
        directed = {"frechet_distance_AtoB": there, "frechet_distance_BtoA": back}
        return [stage(label, 0, first), stage(label, 0, first | {"b": directed})]

    # 10 / 5 is 2 and 100 / 200 is .5: 1.25 on the mean. The ratio of the means would be 110 / 205.
    found = results(*part("standalone", 5, 200), *part("s", 10, 100))
    assert summary.ratio(found, "s", "standalone", "b", "frechet_distance") == Spread({0: 1.25})
    none = results(*part("standalone", 5, -1), *part("s", 10, 100))
    assert summary.ratio(none, "s", "standalone", "b", "frechet_distance") is None


def test_the_headline_is_the_metric_that_most_tasks_have() -> None:
    both = {"l1": 1.0, "frechet_distance": 1.0, "perceptual_distance": 1.0}
    assert summary.headline(results(stage("s", 0, {"a": both}))) == "perceptual_distance"
    found = results(stage("s", 0, {"a": both, "b": {"frechet_distance_AtoB": 1.0}}))
    assert summary.headline(found) == "frechet_distance"


def curve(*values: float, name: str = "l1") -> tuple[dict[str, float], ...]:
    return tuple({"step": 10 * k, name: value} for k, value in enumerate(values, 1))


def test_forward_transfer_counts_steps_until_the_standalone_networks_end() -> None:
    two = {"a": {"l1": 1.0}, "b": {"l1": 1.0}}
    found = results(
        stage("standalone", 0, two, curve=curve(9, 5, 4)),
        stage("standalone", 1, two, curve=curve(9, 5, 4)),
        stage("standalone", 2, two, curve=curve(9, 5, 4)),
        stage("s", 0, two, curve=curve(6, 4, 3)),
        stage("s", 1, two, curve=curve(6, 5, 4.5)),
        stage("s", 2, two, curve=curve(1, name="perceptual_distance")),
        stage("s", 3, two, curve=curve(1)),
        seeds=(0, 1, 2, 3),
    )
    assert summary.steps_to_reach(found, "s", "standalone", "b") == {0: 20, 1: None}
    assert summary.steps_to_reach(found, "standalone", "standalone", "b")[0] == 30


def test_a_curve_is_read_by_the_perceptual_distance_if_it_has_one() -> None:
    points = ({"step": 5, "l1": 1.0, "perceptual_distance": 3.0},)
    found = summary.curve(stage("s", 0, {"a": {}}, curve=points))
    assert found == ("perceptual_distance", {5: 3.0})
    both = ({"step": 5, "l1_AtoB": 1.0, "l1_BtoA": 3.0},)
    assert summary.curve(stage("s", 0, {"a": {}}, curve=both)) == ("l1", {5: 2.0})
    assert summary.curve(stage("s", 0, {"a": {}})) == ("", {})
    cycles = ({"step": 5, "cycle_l1_A": 0.0, "cycle_l1_B": 0.0},)
    assert summary.curve(stage("s", 0, {"a": {}}, curve=cycles)) == ("", {})


def test_identical_outputs_are_counted_over_seeds_without_the_newest_task() -> None:
    two = {"a": {"l1": 1.0}, "b": {"l1": 1.0}}
    found = results(
        stage("s", 0, two, identical={"a": (3, 4), "b": (4, 4)}),
        stage("s", 1, two, identical={"a": (4, 4), "b": (4, 4)}),
        seeds=(0, 1),
    )
    assert summary.identical(found, "s") == {"a": (7, 8)}
    assert summary.identical_in_all(found, "s") == (7, 8)


def test_costs_are_shares_of_the_tasks_own_standalone_networks() -> None:
    first, second = {"a": {"l1": 1.0}}, {"a": {"l1": 1.0}, "b": {"l1": 1.0}}
    found = results(
        stage("s", 0, first, parameters=100.0),
        # An unpaired task: two networks, of which a quarter each is added.
        stage(
            "s",
            0,
            second,
            parameters=150.0,
            predicted=51.0,
            standalone=200,
            bytes=600,
            steps=20,
            peak_memory=7,
        ),
    )
    one, two = summary.cost(found, "s")
    assert (one.share.mean, one.total.mean, one.peak_memory) == (1, 1, None)
    assert (two.task, two.order, two.added.mean, two.predicted.mean) == ("b", 2, 50, 51)
    assert (two.share.mean, two.total.mean, two.standalone) == (0.25, 1.5, 200)
    assert (two.bytes.mean, two.steps.mean, two.seconds.mean) == (600, 20, 5)
    assert two.peak_memory == Spread({0: 7})


def test_the_standalone_strategy_is_found_by_kind_or_label() -> None:
    found = results(*WORN)
    assert summary.standalone_label(found) == "standalone"
    assert summary.standalone_label(found, "s") == "s"
    words = refusal(lambda: summary.standalone_label(found, "alone"))
    assert words == "no strategy is called 'alone'; there are: standalone, s"
    found.experiment["strategies"].pop(0)
    assert summary.standalone_label(found) is None


def test_a_spread_is_over_seeds() -> None:
    spread = Spread({3: 1.0, 5: 4.0})
    assert (spread.mean, spread.low, spread.high) == (pytest.approx(2.5), 1, 4)
