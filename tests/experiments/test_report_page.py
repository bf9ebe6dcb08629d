"""pbgan report, on an experiment that was made up: its words, its files, and how a browser shows it."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_sets import refusal
from experiments_drawn import KINDS, MISSING, draw_experiment
from piggyback_gan.cli import report as command
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.report import plots, summary
from piggyback_gan.experiments.report import tables as views
from piggyback_gan.experiments.report.findings import findings, notes_on_rates
from piggyback_gan.experiments.report.page import write_report
from piggyback_gan.experiments.report.table import Cell, Table, escape, show
from piggyback_gan.experiments.results import EXPERIMENT_FILE, Results, part_folder, stage_file

HOSTILE = '<script>document.title="owned"</script>&"\''
MARKUP = "<img src=x onerror=alert(1)>"


class Links(HTMLParser):
    """Everything that a page refers to, and pictures without words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.wordless: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.targets += [value for key in ("src", "href") if (value := given.get(key))]
        if tag == "img" and not given.get("alt"):
            self.wordless.append(given.get("src") or "")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """An experiment, and its report beside it."""
    folder = tmp_path_factory.mktemp("experiments") / "drawn"
    results = draw_experiment(folder, title=HOSTILE)
    write_report(folder)
    return results


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of one strategy and one task, whose report is quick to make."""
    folder = tmp_path_factory.mktemp("experiments") / "small"
    one = {"label": "standalone", "kind": "standalone"}
    draw_experiment(folder, {"maps": "paired"}, strategies=[one], seeds=[0], samples=1)
    return folder


@pytest.fixture(scope="module")
def page(drawn: Results) -> str:
    return (drawn.folder / "report" / "index.html").read_text(encoding="utf-8")


def lines(drawn: Results, name: str) -> list[dict[str, str]]:
    text = (drawn.folder / "report" / "tables" / f"{name}.csv").read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_all_that_the_page_refers_to_is_there_and_needs_no_network(
    drawn: Results, page: str
) -> None:
    links = Links(page)
    files = [target for target in links.targets if not target.startswith("#")]
    assert len(files) > 60
    for file in files:
        assert (drawn.folder / "report" / file).is_file(), file
    for target in set(links.targets) - set(files):
        assert f'id="{target[1:]}"' in page
    assert not links.wordless
    assert not re.search(r"https?://|@import|url\(", page)
    for picture in (drawn.folder / "report").rglob("*.png"):
        with Image.open(picture) as opened:
            opened.load()


def test_no_word_of_an_experiment_becomes_markup(page: str) -> None:
    assert "script" not in Links(page).tags
    assert html.escape("<script>document") in page


def test_every_option_seed_version_and_warning_is_on_the_page(drawn: Results, page: str) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for words in (
        "options.unconstrained",
        "options.l1_weight",
        "resnet-6",
        "2.13.0",
        "x86_64",
        "0, 1",
        "ab" * 32,
        "pbgan experiment drawn.toml",
        'name = "drawn"',
        "256 images, 1280 dimensions",
    ):
        assert words in text, words


def test_what_is_missing_is_said(drawn: Results, page: str) -> None:
    label, seed = MISSING
    assert f"{label}, seed {seed}: maps, horses" in page
    assert "seed 0 only" in page


def test_csv_files_hold_the_figures_with_all_digits(drawn: Results) -> None:
    found = {
        (r["strategy"], int(r["seed"]), int(r["after"]), r["task"], r["metric"]): (
            float(r["value"]),
            float(r["low"]),
            float(r["high"]),
        )
        for r in lines(drawn, "figures")
    }
    expected = {
        (s.strategy, s.seed, s.order, task, metric): (f.value, f.low, f.high)
        for s in drawn.stages
        for task, figures in s.figures.items()
        for metric, f in figures.items()
    }
    assert found == expected
    for row in lines(drawn, "forgetting"):
        spread = summary.forgetting(drawn, row["strategy"], "l1")
        assert spread is not None
        assert float(row["L1"]) == spread.mean
    for row in lines(drawn, "costs"):
        (cost,) = (c for c in summary.cost(drawn, row["strategy"]) if c.task == row["task"])
        assert float(row["parameters added"]) == cost.added.mean
    mean = [row for row in lines(drawn, "ratios") if row["task"] == "mean, tasks 2 and on"]
    assert [row["strategy"] for row in mean] == ["finetune", "piggyback-1-4", "lora"]
    spread = summary.mean_ratio(drawn, "piggyback-1-4", "standalone", "ssim")
    assert spread is not None
    assert float(mean[1]["SSIM ↑"]) == spread.mean
    assert float(mean[1]["SSIM ↑ low"]) == spread.low


def test_latex_rows_have_the_cells_of_the_csv(drawn: Results) -> None:
    text = (drawn.folder / "report" / "tables" / "quality-1.tex").read_text(encoding="utf-8")
    columns = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns == ["lrrrrrr"]
    rows = [line[:-3].split(" & ") for line in text.splitlines() if line.endswith(r" \\")]
    expected = lines(drawn, "quality-1")
    assert len(rows) == 1 + len(expected)
    for row, line in zip(rows[1:], expected, strict=True):
        assert len(row) == len(columns[0])
        assert row[0].startswith(line["strategy"])
        shown = float(row[4].split(" ")[0].replace(",", ""))
        assert shown == pytest.approx(float(line["L1 ↓"]), rel=1e-3)


def test_latex_special_characters_are_escaped() -> None:
    assert escape("a_b & 5 % $x$ #1 {y}\n~^\\") == (
        r"a\_b \& 5 \% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    table = Table("t", "t", ("a|b", "c"), ((Cell("<&>"), Cell(show(-1.0, 1), -1.0)),))
    assert table.latex().decode().splitlines()[4] == r"\textless{}\&\textgreater{} & $-$1 \\"


def test_numbers_are_shown_with_the_digits_that_say_something() -> None:
    shown = [show(value) for value in (0.0, 5.0, 18.5312, 1234567.0, -0.25, float("inf"))]
    assert shown == ["0.000", "5.000", "18.53", "1,234,567", "\u22120.2500", "∞"]
    assert show(12.4, 0) == "12"
    assert show(float("nan")) == "not a number"
    assert Cell("1", 1.0, (1.0, 1.00001)).interval == "", "no interval that digits can't show"


def test_the_names_of_lines_can_be_read_where_all_lines_meet(drawn: Results) -> None:
    (axes,) = plots.first_task(drawn, "l1").axes
    names = [text for text in axes.texts if text.get_text() in KINDS]
    heights = sorted(text.get_position()[1] for text in names)
    assert len(heights) == len(KINDS)
    assert heights[0] >= 0
    assert min(b - a for a, b in pairwise(heights)) > 0.07


def with_kind(results: Results, label: str, kind: str) -> Results:
    """The same figures, but one strategy is another kind."""
    experiment: Mapping[str, Any] = json.loads(json.dumps(results.experiment))
    for strategy in experiment["strategies"]:
        strategy["kind"] = kind if strategy["label"] == label else KINDS[strategy["label"]]
    return Results(results.folder, experiment, results.stages)


def test_the_summary_says_what_held_and_what_did_not(drawn: Results) -> None:
    by_strategy = findings(drawn, "standalone")
    assert list(by_strategy) == ["piggyback-1-4", "finetune"]
    held = {f.promise: f for group in by_strategy.values() for f in group}
    assert [f.held for f in held.values()] == [True, False, True, True, None]
    than_lora = findings(drawn, "lora")["piggyback-1-4"]
    assert [f.held for f in than_lora] == [True, True, True, True]
    assert "48 of 48" in held["Nothing is forgotten"].text
    assert "1.03 times standalone's" in held["On par with standalone networks"].text
    assert "take 2.02 times" in held["Fewer parameters"].text
    assert "902.1 to 1,617" in held["What fine-tuning loses"].text
    better = held["Better than other ways to add little"].text
    assert "Fréchet distance is on average 0.920 times lora's; better means below 1." in better
    assert "standalone network's: piggyback-1-4 0.340, lora 0.330." in better

    worn = findings(with_kind(drawn, "finetune", "piggyback"), "standalone")["finetune"]
    assert [f.held for f in worn] == [False, False, True, False]
    assert "0 of 48" in worn[0].text
    alone = findings(drawn, None)["piggyback-1-4"]
    assert alone[1].held is None, "nothing to compare with is neither yes nor no"


def test_fine_tunings_loss_is_told_of_the_same_seeds_before_and_after(drawn: Results) -> None:
    behind = [s for s in drawn.stages if (s.strategy, s.seed) != ("finetune", 1) or s.order == 1]
    alone = [s for s in drawn.stages if s.seed == 0]
    texts = [
        findings(Results(drawn.folder, drawn.experiment, tuple(stages)), None)["finetune"][0].text
        for stages in (behind, alone)
    ]
    assert texts[0] == texts[1]


def test_the_method_must_beat_every_rival_that_is_there(drawn: Results) -> None:
    rivals = with_kind(drawn, "finetune", "narrow")
    (better,) = [f for f in findings(rivals, None)["piggyback-1-4"] if "little" in f.promise]
    assert "on average 1.07 times finetune's, 0.920 times lora's;" in better.text
    assert better.held is False, "better than one of two"
    none = with_kind(drawn, "lora", "packnet")
    assert len(findings(none, None)["piggyback-1-4"]) == 3


def test_a_ratio_of_fewer_seeds_than_its_row_says_so(drawn: Results) -> None:
    stages = tuple(s for s in drawn.stages if (s.strategy, s.seed) != ("standalone", 1))
    found = Results(drawn.folder, drawn.experiment, stages)
    rows = {row[0].text: row for row in views.overview(found, "standalone").rows}
    assert rows["piggyback-1-4"][0].note == ""
    assert rows["piggyback-1-4"][1].note == "seed 0 only"
    assert rows["lora"][0].note == "seed 0 only", "said once for the row"
    assert rows["lora"][1].note == ""
    means = [row for row in views.ratios(found, "standalone").rows if "mean" in row[1].text]
    assert [row[2].note for row in means] == ["seed 0 only", "seed 0 only", ""]
    whole = views.overview(drawn, "standalone")
    assert {row[1].note for row in whole.rows} == {""}


def test_a_learning_rate_at_an_end_of_its_candidates_is_named(drawn: Results, page: str) -> None:
    line = "The best learning rate of {}, {}, is the {} that was tried: a {} one may be better."
    assert line.format("lora", "0.0002", "smallest", "smaller") in page

    def notes(*rates: float, of: str | None = None) -> list[str]:
        experiment: dict[str, Any] = json.loads(json.dumps(drawn.experiment))
        for strategy in experiment["strategies"]:
            strategy["learning_rates"] = []
        experiment["strategies"][3] |= {"learning_rates": [*rates], "learning_rate_of": of}
        return notes_on_rates(Results(drawn.folder, experiment, drawn.stages))

    assert notes(1e-4, 2e-4) == [line.format("lora", "0.0002", "largest", "larger")]
    assert notes(1e-4, 2e-4, 5e-4) == []
    assert notes(2e-4) == []
    assert notes(1e-4, 2e-4, of="standalone") == []


def test_a_report_replaces_only_a_report(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    first = write_report(small, out).read_bytes()
    (out / "pictures" / "1-maps-0-input-0.png").unlink()
    assert write_report(small, out).read_bytes() == first
    assert (out / "pictures" / "1-maps-0-input-0.png").is_file()
    (out / "notes.txt").write_text("mine")
    words = refusal(lambda: write_report(small, out))
    assert words == f"{out} is not a report's folder: found notes.txt; choose another with --out"
    assert (out / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["report"], "nothing is left behind"
    assert "is not a report's folder" in refusal(lambda: write_report(small, small))
    assert "is a file" in refusal(lambda: write_report(small, out / "notes.txt"))


def test_an_unfinished_experiment_without_a_standalone_strategy_has_a_report(
    small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    experiment = json.loads((folder / EXPERIMENT_FILE).read_text())
    experiment["strategies"] = [{"label": "standalone"}, {"label": "lora"}]
    experiment["tasks"] += [{"name": "night"}]
    experiment["features"] = {"name": MARKUP}
    (folder / EXPERIMENT_FILE).write_text(json.dumps(experiment))
    for picture in folder.rglob("*.png"):
        picture.unlink()
    page = write_report(folder).read_text(encoding="utf-8")
    assert "lora, seed 0: maps, night" in page
    assert html.escape(MARKUP) in page
    assert MARKUP not in page
    assert "There are none." in page, "no pictures"
    assert "nothing is compared" in page
    assert 'id="transfer"' not in page


def test_mistakes_are_said_in_one_line(small: Path, tmp_path: Path) -> None:
    assert "is not an experiment's folder" in refusal(lambda: write_report(tmp_path))
    words = refusal(lambda: write_report(small, tmp_path / "r", standalone="alone"))
    assert words == "no strategy is called 'alone'; there are: standalone"
    (tmp_path / EXPERIMENT_FILE).write_text("{}")
    assert "experiment.json is damaged" in refusal(lambda: write_report(tmp_path))
    nothing = {"strategies": [{"label": "lora"}], "seeds": [0], "tasks": [{"name": "maps"}]}
    (tmp_path / EXPERIMENT_FILE).write_text(json.dumps(nothing))
    assert "no finished task" in refusal(lambda: write_report(tmp_path))
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    stage_file(part_folder(folder, "standalone", 0), 1).write_text("{")
    assert "stage-1.json is damaged" in refusal(lambda: write_report(folder))
    with pytest.raises(PiggybackError, match="DIR"):
        command.run([])


def test_the_command_prints_where_the_page_is(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run([str(small), "--out", str(tmp_path / "deep" / "page")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'deep' / 'page' / 'index.html'}\n"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no Chromium here to look at the page with")
    return found


def browse(chromium: str, page: Path, profile: Path, *options: str) -> str:
    """What headless Chromium prints when it opens a page."""
    done = subprocess.run(
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--allow-file-access-from-files",
            "--virtual-time-budget=5000",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_a_phone_shows_the_page_without_scrolling_sideways(
    drawn: Results, chromium: str, tmp_path: Path
) -> None:
    # A window can't be as narrow as a phone, but a frame in it can.
    frame = drawn.folder / "frame.html"
    frame.write_text(
        """<iframe id=f src="report/index.html" style="width:375px;height:700px;border:0"></iframe>
        <script>onload = () => {
          const d = document.getElementById("f").contentDocument;
          const images = [...d.images];
          document.title = JSON.stringify({
            title: d.title, shown: d.documentElement.clientWidth, wide: d.documentElement.scrollWidth,
            images: images.length, broken: images.filter(i => !i.naturalWidth).map(i => i.src)})
        }</script>""",
        encoding="utf-8",
    )
    dom = browse(chromium, frame, tmp_path, "--dump-dom")
    found = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", dom)[0]))
    assert found["shown"] == found["wide"] == 375
    assert found["broken"] == []
    assert found["images"] > 40
    assert found["title"] == HOSTILE, "the words are shown, not run"


def test_the_page_prints_on_several_sheets(drawn: Results, chromium: str, tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    browse(
        chromium,
        drawn.folder / "report" / "index.html",
        tmp_path / "profile",
        f"--print-to-pdf={printed}",
    )
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 < len(re.findall(rb"/Type\s*/Page\b", content)) < 40
