"""The tables of a report: what their cells and CSV files hold, on an experiment that was made up."""

import csv
import html
import io
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from experiments_drawn import draw_experiment
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report import tables as views
from piggyback_gan.experiments.report.findings import findings
from piggyback_gan.experiments.report.labels import name_of
from piggyback_gan.experiments.report.page import write_report
from piggyback_gan.experiments.report.table import Table, show
from piggyback_gan.experiments.results import Results, rate_folder, write_stage

NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return draw_experiment(tmp_path_factory.mktemp("experiments") / "drawn")


@pytest.fixture(scope="module")
def page(drawn: Results) -> str:
    return words_of(drawn.folder)


def words_of(folder: Path) -> str:
    """The words of an experiment's report."""
    text = write_report(folder).read_text(encoding="utf-8")
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split()))


def lines(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv().decode(), newline="")))


def test_costs_csv_has_numbers_or_nothing_behind_its_words(drawn: Results) -> None:
    rows = lines(views.costs(drawn))
    for row in rows:
        del row["strategy"], row["task"]
        for heading, field in row.items():
            assert field == "" or NUMBER.fullmatch(field), (heading, field)
    first = lines(views.costs(drawn))[3]
    assert (first["strategy"], first["task"]) == ("finetune", "cityscapes")
    assert first["parameters added"] == "1000", "whole numbers have no .0"
    assert first["minutes"] == first["minutes low"] == "", "the first network was taken over"
    assert "shared" in [cell.note for cell in views.costs(drawn).rows[3]], "the page says so"


def test_counts_of_identical_outputs_have_two_columns(drawn: Results) -> None:
    shown = {row[0].text: row for row in views.overview(drawn, "standalone").rows}
    rows = {row["strategy"]: row for row in lines(views.overview(drawn, "standalone"))}
    heading = "earlier outputs bit-identical"
    for label, counts in (("piggyback-1-4", ("48", "48")), ("finetune", ("0", "48"))):
        assert (rows[label][heading], rows[label][f"{heading} of"]) == counts
        assert shown[label][3].text == " of ".join(counts)


def test_the_learning_rate_used_stands_behind_the_candidates(drawn: Results, page: str) -> None:
    assert re.search(r"learning_rates( 0.0002, 0.0005){4} rate used( 0.0002){4} ", page)

    def used(*stages: tuple[int, int, float]) -> str:
        found = tuple(
            replace(drawn.stages[0], strategy="lora", seed=seed, order=order, learning_rate=rate)
            for seed, order, rate in stages
        )
        return views.rate_used(Results(drawn.folder, drawn.experiment, found), "lora")

    assert used((0, 1, 1e-3), (0, 2, 5e-4), (1, 2, 5e-4)) == "0.0005", "not the first task's"
    assert used((0, 2, 2e-4), (1, 2, 5e-4)) == "0.0002 (seed 0), 0.0005 (seed 1)"
    assert used((0, 1, 1e-3)) == "—"


def test_minutes_leave_out_the_first_task_which_most_strategies_take_over(drawn: Results) -> None:
    rows = {row["strategy"]: row for row in lines(views.overview(drawn, "standalone"))}
    # Standalone learned the first task, finetune took it over: both count tasks 2 and 3 only.
    for label in ("standalone", "finetune"):
        later = [s.seconds for s in drawn.stages if s.strategy == label and s.order > 1]
        minutes = float(rows[label]["minutes of training, tasks 2 and on"])
        assert len(later) == 4
        assert minutes == pytest.approx(sum(later) / 2 / 60)


def test_each_table_has_the_words_for_what_stands_below_its_cells(
    drawn: Results, page: str, tmp_path: Path
) -> None:
    def sections(text: str) -> tuple[str, str]:
        overview, quality = text.split(" All held-out images, after the last task.")
        return overview, quality.split("Compared with standalone networks")[0]

    overview, quality = sections(page)
    assert "smallest and the largest of any seed. Minutes" in overview
    assert "bootstrap" not in overview
    assert "where only one seed is done, a metric has its 95 % bootstrap interval" in quality
    draw_experiment(tmp_path, seeds=[0])
    overview, quality = sections(words_of(tmp_path))
    assert "bootstrap" not in overview
    assert "One seed: how far another training would move these figures is unknown." in overview
    assert "Below a metric is its 95 % bootstrap interval over images" in quality


def test_forward_transfer_warns_of_standalone_networks_that_get_worse(page: str) -> None:
    warning = "If a standalone network gets worse towards the end of its training"
    assert warning in page.split("Forward transfer")[2]


def compared(
    drawn: Results, promise: str, piggyback: dict[int, float], reach: float
) -> tuple[bool | None, str]:
    """A finding where piggyback's figures, by seed, are so many times the standalone's, which is LoRA too."""
    stages = [
        replace(stage, strategy=strategy, figures={t: {"l1": figure} for t in stage.figures})
        for stage in drawn.stages
        if stage.seed in piggyback and stage.strategy in ("standalone", "piggyback-1-4")
        for value in [piggyback[stage.seed] if stage.strategy != "standalone" else 1.0]
        for figure in [Figure(value, value - reach, value + reach)]
        for strategy in {stage.strategy, stage.strategy.replace("standalone", "lora")}
    ]
    found = Results(drawn.folder, drawn.experiment, tuple(stages))
    by_promise = {f.promise: f for f in findings(found, "standalone")["piggyback-1-4"]}
    return by_promise[promise].held, by_promise[promise].text


def test_better_than_others_is_open_where_chance_could_make_the_difference(drawn: Results) -> None:
    better = partial(compared, drawn, "Better than other ways to add little")
    held, text = better({0: 0.9}, reach=0.1)
    assert held is None and "Chance can't be told from difference: lora." in text
    assert [better({0: value}, reach=0.01)[0] for value in (0.9, 1.1)] == [True, False]


def test_on_par_is_open_where_chance_could_make_the_difference(drawn: Results) -> None:
    par = partial(compared, drawn, "On par with standalone networks")
    held, text = par({0: 0.9}, reach=0.1)
    assert held is None
    assert "is 0.900 times standalone's" in text
    assert "One seed: chance can't be told from difference" in text
    assert par({0: 1.1}, reach=0.1)[0] is None
    assert [par({0: value}, reach=0.01)[0] for value in (0.9, 1.1)] == [True, False]
    assert "One seed" in par({0: 0.9}, reach=0.01)[1]
    held, text = par({0: 0.9, 1: 1.05}, reach=0.01)
    assert held is None
    assert "both sides of 1: chance can't be told from difference" in text
    assert par({0: 0.9, 1: 0.95}, reach=0.1)[0] is True, "seeds agree"
    assert par({0: 1.05, 1: 1.1}, reach=0.1)[0] is False


def test_fine_tunings_box_lists_what_it_loses_by_every_metric(drawn: Results) -> None:
    text = findings(drawn, "standalone")["finetune"][0].text
    for base in ("l1", "ssim", "kernel_distance"):
        lost = summary.forgetting(drawn, "finetune", base)
        assert lost is not None
        assert f"{name_of(base)} {show(lost.mean)}" in text.split("By other metrics: ")[1]


def test_pictures_of_an_unpaired_task_name_their_direction(page: str) -> None:
    assert "Task 3, horses A → B input" in page
    assert "Task 2, maps input" in page


def try_rates(drawn: Results, folder: Path, label: str, worse: dict[float, float]) -> None:
    """Stages of a learning rate's candidates, with figures so much worse than those of the first seed."""
    for stage in drawn.stages:
        if (stage.strategy, stage.seed) != (label, 0):
            continue
        for rate, factor in worse.items():
            figures = {
                task: {m: replace(f, value=f.value * factor) for m, f in found.items()}
                for task, found in stage.figures.items()
            }
            part = rate_folder(folder, label, rate)
            part.mkdir(parents=True, exist_ok=True)
            write_stage(part, replace(stage, learning_rate=rate, figures=figures))


SEARCH = {"val_fraction": 0.15, "tasks": 2, "steps": None, "metric": "perceptual_distance"}


def test_the_rates_that_were_tried_have_their_scores_and_say_which_was_used(tmp_path: Path) -> None:
    drawn = draw_experiment(tmp_path / "drawn", search=SEARCH)
    try_rates(drawn, tmp_path / "drawn", "lora", {2e-4: 1.0, 5e-4: 1.5})
    try_rates(drawn, tmp_path / "drawn", "piggyback-1-4", {5e-4: 2.0})
    table = views.rates_tried(Results.read(tmp_path / "drawn"))
    assert table is not None
    first, *later = summary.tasks(drawn)
    assert table.headings == ("strategy", "rate", *later, "used")
    assert [[cell.text for cell in row[:2]] for row in table.rows] == [
        ["piggyback-1-4", "0.0005"],
        ["lora", "0.0002"],
        ["lora", "0.0005"],
    ]
    assert [row[-1].text for row in table.rows] == ["", "yes", ""], "the other used 2e-4, too"
    at_once, slower = table.rows[1][2].number, table.rows[2][2].number
    assert at_once is not None and slower == pytest.approx(1.5 * at_once)
    assert [row[-2].text for row in table.rows] == ["—"] * 3, "an unpaired task has no such figure"
    experiment = {**drawn.experiment, "search": {**SEARCH, "metric": "frechet_distance"}}
    table = views.rates_tried(replace(Results.read(tmp_path / "drawn"), experiment=experiment))
    assert table is not None
    assert all(row[-2].number for row in table.rows), "its trained direction has this one"
    page = write_report(tmp_path / "drawn", tmp_path / "page").read_text()
    assert "Learning rates tried" in page
    assert (tmp_path / "page" / "tables" / "learning-rates.csv").exists()


def test_where_no_rate_was_chosen_there_is_no_table_of_rates(drawn: Results, page: str) -> None:
    assert views.rates_tried(drawn) is None
    assert "Learning rates tried" not in page


def test_a_rate_at_which_training_failed_is_in_the_table_of_rates(tmp_path: Path) -> None:
    drawn = draw_experiment(tmp_path / "drawn", search=SEARCH)
    try_rates(drawn, tmp_path / "drawn", "lora", {2e-4: 1.0})
    failed = rate_folder(tmp_path / "drawn", "lora", 5e-4)
    failed.mkdir()
    (failed / "diverged.json").write_text("{}")
    table = views.rates_tried(Results.read(tmp_path / "drawn"))
    assert table is not None
    assert [row[-1].text for row in table.rows] == ["yes", "diverged"]
    assert [cell.text for cell in table.rows[1][2:-1]] == ["—", "—"]


def test_candidates_without_their_figure_and_of_any_seed_are_shown(tmp_path: Path) -> None:
    drawn = draw_experiment(tmp_path / "drawn", search=SEARCH)
    try_rates(drawn, tmp_path / "drawn", "lora", {2e-4: 1.0})
    path = rate_folder(tmp_path / "drawn", "lora", 2e-4) / "stage-2.json"
    stage = json.loads(path.read_text())
    del stage["figures"][stage["task"]]
    path.write_text(json.dumps(stage | {"seed": 7}))
    table = views.rates_tried(Results.read(tmp_path / "drawn"))
    assert table is not None
    assert table.rows[0][2].text == "—"


def test_a_candidates_stage_at_another_rate_is_refused(tmp_path: Path) -> None:
    drawn = draw_experiment(tmp_path / "drawn", search=SEARCH)
    try_rates(drawn, tmp_path / "drawn", "lora", {2e-4: 1.0})
    part = rate_folder(tmp_path / "drawn", "lora", 2e-4)
    part.rename(rate_folder(tmp_path / "drawn", "lora", 5e-4))
    with pytest.raises(PiggybackError, match="is of another learning rate: remove it"):
        Results.read(tmp_path / "drawn")


@pytest.mark.parametrize("search", ["x", {"metric": ["l1"]}, {"metric": 3}])
def test_a_damaged_search_is_refused_in_one_line(tmp_path: Path, search: object) -> None:
    with pytest.raises(PiggybackError, match=r"is damaged: Expected .* at `\$\.search"):
        draw_experiment(tmp_path / "drawn", search=search)


def test_a_candidates_stage_of_another_strategy_is_refused(tmp_path: Path) -> None:
    drawn = draw_experiment(tmp_path / "drawn", search=SEARCH)
    part = rate_folder(tmp_path / "drawn", "lora", 2e-4)
    part.mkdir(parents=True)
    write_stage(part, drawn.stages[0])
    with pytest.raises(PiggybackError, match="of another experiment, strategy or seed: remove it"):
        Results.read(tmp_path / "drawn")
