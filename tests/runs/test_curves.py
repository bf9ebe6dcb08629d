"""Claims about the picture of a run's curves: what is drawn where, what is marked, how it is written."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from piggyback_gan.errors import PiggybackError
from piggyback_gan.runs.curves import draw_curves, plot_curves

UNPAIRED = [
    *("discriminator_A", "discriminator_B", "gan_AtoB", "gan_BtoA"),
    *("cycle_A", "cycle_B", "identity_A", "identity_B"),
]


def record(epoch: int, validation: object = None, **losses: float) -> dict[str, Any]:
    losses = losses or {"discriminator": 0.25, "gan": 0.3, "l1": 0.5 / epoch}
    return {
        "epoch": epoch,
        "step": epoch * 100,
        "learning_rate": 2e-4,
        "loss": losses,
        "validation": validation,
    }


def panels(records: list[dict[str, Any]]) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in draw_curves(records).axes}


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def rings(axes: Axes) -> list[tuple[float, float]]:
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    return [(float(mark.get_xdata()[0]), float(mark.get_ydata()[0])) for mark in marks]


def test_a_paired_run_has_a_panel_for_adversarial_losses_for_l1_and_for_each_metric() -> None:
    drawn = panels([record(1, {"l1": 0.2, "psnr": 15.0, "ssim": 0.3})])
    assert {title: legend(axes) for title, axes in drawn.items()} == {
        "adversarial losses": ["discriminator", "gan"],
        "other losses": ["l1"],
        "held-out L1: lower is better": ["best: 0.2 in epoch 1"],
        "held-out PSNR (dB): higher is better": ["best: 15 in epoch 1"],
        "held-out SSIM: higher is better": ["best: 0.3 in epoch 1"],
    }


def test_the_best_epoch_is_the_lowest_l1_and_the_highest_psnr_and_the_first_of_equals() -> None:
    series = [(0.3, 10.0), (0.1, 12.0), (0.1, 14.0), (0.2, 13.0)]
    drawn = panels([record(i + 1, {"l1": l1, "psnr": db}) for i, (l1, db) in enumerate(series)])
    assert rings(drawn["held-out L1: lower is better"]) == [(2, 0.1)]
    assert rings(drawn["held-out PSNR (dB): higher is better"]) == [(3, 14.0)]


@pytest.mark.parametrize(
    "validation",
    [
        {"AtoB": {"l1": 0.2}, "BtoA": {"l1": 0.1}},
        {"AtoB_l1": 0.2, "BtoA_l1": 0.1},
        {"l1_AtoB": 0.2, "l1_BtoA": 0.1},
    ],
)
def test_both_sides_of_an_unpaired_task_share_panel_and_colour_and_differ_in_dashes(
    validation: dict[str, Any],
) -> None:
    drawn = panels([record(1, validation, **dict.fromkeys(UNPAIRED, 0.5))])
    assert list(drawn) == ["adversarial losses", "other losses", "held-out L1: lower is better"]
    assert legend(drawn["adversarial losses"]) == UNPAIRED[:4]
    for axes in drawn.values():
        first, second = [line for line in axes.lines if line.get_marker() != "o"][:2]
        assert first.get_color() == second.get_color()
        assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert legend(drawn["held-out L1: lower is better"]) == [
        "AtoB, best: 0.2 in epoch 1",
        "BtoA, best: 0.1 in epoch 1",
    ]


def test_losses_of_very_different_size_can_be_read_in_one_panel_but_gan_losses_start_at_zero() -> (
    None
):
    losses = {"discriminator": 0.001, "gan": 1.0, "cycle": 0.5, "identity": 0.01}
    drawn = panels([record(1, **losses), record(2, **losses)])
    assert drawn["other losses"].get_yscale() == "log"
    assert drawn["adversarial losses"].get_yscale() == "linear"
    assert drawn["adversarial losses"].get_ylim()[0] == 0


def test_negative_losses_as_of_wgan_are_seen() -> None:
    drawn = panels(
        [record(1, discriminator=-8.0, gan=3.0), record(2, discriminator=-2.0, gan=-1.0)]
    )
    low, high = drawn["adversarial losses"].get_ylim()
    assert low < -8 and high > 3


def test_missing_and_infinite_values_are_left_out_and_the_others_keep_their_epochs() -> None:
    validations = [None, {"l1": 0.3}, {"l1": math.nan}, {}, {"l1": 0.2, "psnr": math.inf}]
    drawn = panels([record(i + 1, v) for i, v in enumerate(validations)])
    (axes,) = (axes for title, axes in drawn.items() if title.startswith("held-out"))
    assert list(axes.lines[0].get_xdata()) == [2, 5]
    assert axes.get_xlim() == drawn["other losses"].get_xlim() == (0.5, 5.5)


def test_without_anything_held_out_there_are_only_losses() -> None:
    assert list(panels([record(1), record(2)])) == ["adversarial losses", "other losses"]


def test_a_single_epoch_is_seen_as_a_dot() -> None:
    for axes in panels([record(1, {"l1": 0.1})]).values():
        assert axes.lines[0].get_marker() == "."


def test_the_same_records_give_the_same_png_and_nothing_else_is_left(tmp_path: Path) -> None:
    lines = [json.dumps(record(epoch, {"l1": 1 / epoch})) for epoch in range(1, 201)]
    for name in ("a.png", "b.png", "a.png"):
        plot_curves([json.loads(line) for line in lines], tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 16) or []) > 10  # not a blank page


def test_what_cannot_be_drawn_or_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiggybackError, match="no curves to draw"):
        plot_curves([], tmp_path / "curves.png")
    with pytest.raises(PiggybackError, match="no curves to draw"):
        plot_curves([record(1, gan=math.nan)], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
    with pytest.raises(PiggybackError, match=r"curves.png can't be written"):
        plot_curves([record(1)], tmp_path / "missing" / "curves.png")


def test_drawing_leaves_pyplot_alone_and_importing_the_module_does_not_load_matplotlib(
    tmp_path: Path,
) -> None:
    program = """
import sys, pathlib
from piggyback_gan.runs.curves import plot_curves
assert "matplotlib" not in sys.modules and "torch" not in sys.modules
plot_curves([{"epoch": 1, "loss": {"gan": 1.0}, "validation": None}], pathlib.Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "curves.png")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
