"""The training loop by itself: events in order, nothing on disk, and the same end from any state."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from piggyback_gan import Interrupted
from piggyback_gan.training.callbacks import Callback, Diverged, Position
from piggyback_gan.training.loop import TrainingLoop
from piggyback_gan.training.plan import plan_task
from piggyback_gan.training.task_data import load_task_data
from running import GENERATOR, OPTIONS, files


class Noted(Callback):
    """Notes all events, and keeps copies of the states."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.states: list[Any] = []

    def started(self, position: Position) -> None:
        self.events.append(("started", position.step))

    def epoch_started(self, epoch: int, epochs: int) -> None:
        self.events.append(("epoch_started", epoch, epochs))

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        self.events.append(("stepped", position.step, *sorted(losses)))

    def epoch_ended(self, position: Position, records: Sequence[Mapping[str, Any]]) -> None:
        self.events.append(("epoch_ended", position.step, records[-1]["validation"]["l1"]))

    def checkpoint(self, position: Position, state: Mapping[str, Any]) -> None:
        self.events.append(("checkpoint", position.step))
        self.states.append(copy.deepcopy(state))


def loop_of(pairs: Path, callback: Callback, *values: float, stop_at: int = 0) -> TrainingLoop:
    """Two epochs of three steps, whose validation gives these values; stops after a step if asked."""
    plan = plan_task(pairs.parent / "bank", "one", pairs, OPTIONS, GENERATOR)
    data = load_task_data(plan.folder, plan.formats, plan.options, lambda *_: None)
    metrics = iter(values)
    loop = TrainingLoop(
        plan.networks,
        plan.config,
        plan.options,
        data,
        lambda: {"l1": next(metrics)},
        effective_batch=plan.effective_batch,
        callbacks=[callback],
        should_stop=lambda: 0 < stop_at == loop.position.step + 1,
    )
    return loop


def weights(loop: TrainingLoop) -> list[torch.Tensor]:
    generators = loop.generators.values()
    return [tensor for g in generators for tensor in g.module.state_dict().values()]


def test_events_come_in_order_and_training_writes_nothing(pairs: Path) -> None:
    before, noted = files(pairs.parent), Noted()
    loop = loop_of(pairs, noted, 0.5, 0.25)
    loop.begin()
    loop.run()
    assert noted.events == [
        ("started", 0),
        ("epoch_started", 1, 2),
        ("stepped", 1, "discriminator", "gan", "l1"),
        ("epoch_ended", 3, 0.5),
        ("checkpoint", 3),
        ("epoch_started", 2, 2),
        ("epoch_ended", 6, 0.25),
        ("checkpoint", 6),
    ]
    assert [record["step"] for record in loop.progress.records] == [3, 6]
    assert files(pairs.parent) == before


def test_a_loop_that_resumes_from_a_state_ends_as_one_left_alone(pairs: Path) -> None:
    noted = Noted()
    whole = loop_of(pairs, Callback(), 0.5, 0.25)
    whole.begin()
    whole.run()
    stopped = loop_of(pairs, noted, stop_at=2)
    stopped.begin()
    with pytest.raises(Interrupted) as interrupted:
        stopped.run()
    assert interrupted.value.position.step == 2
    (state,) = noted.states
    resumed = loop_of(pairs, Callback(), 0.5, 0.25)
    resumed.resume(state)
    resumed.run()
    assert all(map(torch.equal, weights(resumed), weights(whole)))
    assert resumed.progress.records == whole.progress.records


def test_a_metric_that_is_not_a_number_ends_training(pairs: Path) -> None:
    loop = loop_of(pairs, Callback(), float("nan"))
    loop.begin()
    with pytest.raises(Diverged, match="the l1 of held-out images is nan in epoch 1, step 3"):
        loop.run()
