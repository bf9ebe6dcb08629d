"""Plot quality against cost per task from recorded experiments on the same tasks.

    python benchmarks/cost_curve.py NAME [NAME ...]

Reads docs/results/NAME.json (see record.py), takes each strategy from the first experiment that has it, and writes
docs/results/cost-METRIC.png and, as rows, docs/results/cost.csv. Strategies that forget are not plotted.
"""

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from lifelong import RESULTS
from piggyback_gan.evaluation.judge import Figure
from piggyback_gan.experiments.report import plots, summary
from piggyback_gan.experiments.results import Results, Stage

FORGETS = ("finetune", "distill")
METRICS = ("perceptual_distance", "frechet_distance")


def read(name: str) -> Results:
    content = json.loads((RESULTS / f"{name}.json").read_text())
    stages = []
    for row in content["stages"]:
        figures = {
            task: {metric: Figure(**figure) for metric, figure in found.items()}
            for task, found in row["figures"].items()
        }
        stages.append(Stage(**{**row, "figures": figures}))
    return Results(Path(name), content["experiment"], tuple(stages))


def together(every: list[Results]) -> Results:
    """Return all strategies, each from the first experiment that has it, with the first seed only."""
    merged = every[0]
    seed = merged.experiment["seeds"][0]
    for other in every[1:]:
        if [t["images_sha256"] for t in other.experiment["tasks"]] != [
            t["images_sha256"] for t in merged.experiment["tasks"]
        ]:
            raise SystemExit(f"{other.folder} has other tasks than {every[0].folder}")
        known = summary.strategies(merged)
        new = [s for s in other.experiment["strategies"] if s["label"] not in known]
        labels = [s["label"] for s in new]
        merged = replace(
            merged,
            experiment={
                **merged.experiment,
                "strategies": [*merged.experiment["strategies"], *new],
            },
            stages=merged.stages + tuple(s for s in other.stages if s.strategy in labels),
        )
    return replace(merged, stages=tuple(s for s in merged.stages if s.seed == seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    results = together([read(name) for name in parser.parse_args().names])
    rows = []
    for label in summary.strategies(results):
        later = summary.cost(results, label)[1:]
        ratios = [summary.mean_ratio(results, label, "standalone", metric) for metric in METRICS]
        if later and all(ratios):
            share = fmean(one.share.mean for one in later)
            rows.append([label, f"{share:.4f}", *(f"{r.mean:.3f}" for r in ratios if r)])
    with (RESULTS / "cost.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["strategy", "networks_per_later_task", *METRICS])
        writer.writerows(sorted(rows, key=lambda row: float(row[1])))
    kept = [s for s in results.experiment["strategies"] if s["label"] not in FORGETS]
    results = replace(results, experiment={**results.experiment, "strategies": kept})
    with plots.style():
        for metric in METRICS:
            figure = plots.cost(results, "standalone", metric)
            (content,) = (c for suffix, c in plots.files(figure) if suffix == ".png")
            (RESULTS / f"cost-{metric}.png").write_bytes(content)
    print(f"{RESULTS}/cost.csv and cost-*.png are written")


if __name__ == "__main__":
    main()
