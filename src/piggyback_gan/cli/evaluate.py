"""pbgan evaluate: metrics of a bank's tasks on held-out images, with confidence intervals."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from piggyback_gan.cli.arguments import BankPath, optional, parse
from piggyback_gan.cli.console import new_progress, new_table, wide_console
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.metric_names import higher_is_better, metric_label, split_metric
from piggyback_gan.names import Device

if TYPE_CHECKING:
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.evaluation.judge import Judge, Judgement

_SEED = 0
_STDOUT = Path("-")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate tasks on all held-out images: val/, else test/, else what training held out of train/.

    Images have the size of training, uncropped and not mirrored. Intervals are 95 % (docs/evaluating.md).
    """

    bank: BankPath
    """The bank's directory."""
    task: Annotated[str | None, tyro.conf.Positional, optional("TASK")] = None
    """The task's name; without it, all tasks."""
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of images; without TASK, a folder of such folders, named after the tasks or their data."""
    features: Annotated[str | None, optional("SPEC")] = None
    """Feature network of Frechet and kernel distances: inception (FID, KID), a TorchScript file, package.module:callable."""
    distance: Annotated[str | None, optional("SPEC")] = None
    """Network of a perceptual distance to the targets: a TorchScript file, package.module:callable."""
    recogniser: Annotated[str | None, optional("SPEC")] = None
    """Network that segments outputs made from label maps: a TorchScript file, package.module:callable."""
    split_free: tyro.conf.FlagCreatePairsOff[bool] = False
    """Evaluate all images of DIR, including train/: for data that the tasks were not trained on."""
    json: Annotated[Path | None, optional("FILE")] = None
    """Write all results as JSON; - is stdout, instead of the table."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""


def run(arguments: list[str]) -> int:
    """Evaluate one task or all; print the metrics on stdout, warnings on stderr."""
    given = parse(Arguments, "evaluate", arguments)
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.evaluation.feature_networks import (
        load_distance,
        load_features,
        load_recogniser,
    )
    from piggyback_gan.evaluation.judge import Judge
    from piggyback_gan.system.device import choose_device
    from piggyback_gan.system.download import cache_folder
    from piggyback_gan.system.files import require_writable

    bank = Bank.open(given.bank)
    if given.json is not None and given.json != _STDOUT:
        require_writable(given.json.parent)
    folders = _folders(bank, given)
    device = choose_device(given.device)
    judge = Judge(
        (given.features and load_features(given.features, device)) or None,
        (given.distance and load_distance(given.distance, device)) or None,
        (given.recogniser and load_recogniser(given.recogniser, device)) or None,
        cache_folder() / "features",
        _SEED,
    )
    rows: list[dict[str, Any]] = []
    problem = None
    for task, folder in folders.items():
        try:
            judgement = _judge(bank, task, folder, judge, device, split_free=given.split_free)
        except PiggybackError as error:
            if given.task is not None:
                raise
            # Earlier results took their time: print them first.
            problem = PiggybackError(f"{task}: {error}")
            rows.append({"task": task, "problem": str(error)})
            break
        warnings = (*_other_data(bank, task, folder), *judgement.warnings)
        for warning in warnings:
            print(f"pbgan: {task}: {warning}", file=sys.stderr)
        rows.append(_row(bank, task, folder, judgement))
    if given.json is not None:
        _write(given.json, _content(bank, judge, device, rows))
    judged = [row for row in rows if "problem" not in row]
    if given.json != _STDOUT and judged:
        _print_table(judged, judge)
    if problem is not None:
        raise problem
    return 0


def _folders(bank: Bank, given: Arguments) -> Mapping[str, Path]:
    """Find the folder of images of each task."""
    if given.task is not None:
        bank.card(given.task)
        return {given.task: given.data}
    found = {}
    for task in bank.tasks:
        names = (task, bank.card(task).data.name)
        folders = [given.data / name for name in names if name and (given.data / name).is_dir()]
        if not folders:
            wanted = " or ".join(dict.fromkeys(f"{name}/" for name in names if name))
            raise PiggybackError(
                f"{given.data} has no images of task {task!r}: expected a folder {wanted}; or name one TASK"
            )
        found[task] = folders[0]
    if not found:
        raise PiggybackError(f"{bank.path} has no tasks yet")
    return found


def _other_data(bank: Bank, task: str, folder: Path) -> list[str]:
    """Return a warning if the folder's name differs from that of the training data."""
    name, trained_on = folder.resolve().name, bank.card(task).data.name
    if trained_on in (None, name):
        return []
    return [
        f"it was trained on {trained_on!r}, and this is {name!r}: are these images of the task?"
    ]


def _judge(
    bank: Bank, task: str, folder: Path, judge: Judge, device: str, *, split_free: bool
) -> Judgement:
    import torch

    from piggyback_gan.data.datasets import PairedDataset
    from piggyback_gan.evaluation.evaluate import BATCH_SIZE
    from piggyback_gan.evaluation.held_out import load_held_out

    with new_progress() as progress:
        bar = progress.add_task(f"{task}: reading")

        def checked(split: str, done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        dataset, partners = load_held_out(bank, task, folder, checked, split_free=split_free)
        generators = [
            bank.generator(task, device, direction) for direction in bank.directions(task)
        ]
        if isinstance(dataset, PairedDataset):
            counts = [len(dataset)]
        else:
            counts = [len(dataset.first), len(dataset.second)]
        batches = sum(-(-count // BATCH_SIZE) for count in counts)
        progress.reset(bar, description=f"{task}: evaluating", total=batches)

        return judge.judge(
            generators,
            dataset,
            torch.device(device),
            direction=bank.directions(task)[0],
            paired=partners,
            between=lambda: progress.advance(bar),
        )


def _row(bank: Bank, task: str, folder: Path, judgement: Judgement) -> dict[str, Any]:
    """Return the JSON object of a task."""
    card = bank.card(task)
    return {
        "task": task,
        "task_sha256": bank.manifest.entry(task).sha256,
        "mode": card.mode,
        "directions": list(bank.directions(task)),
        "image_size": card.image.size,
        "training_seed": card.options.get("seed"),
        "data": str(folder),
        "images": judgement.images,
        "outputs_sha256": judgement.outputs_sha256,
        "figures": {name: asdict(figure) for name, figure in judgement.figures.items()},
        "warnings": list(judgement.warnings),
    }


def _content(bank: Bank, judge: Judge, device: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    networks = {
        "features": judge.features,
        "distance": judge.distance,
        "recogniser": judge.recogniser,
    }
    return {
        "bank": str(bank.path),
        "device": device,
        "seed": judge.seed,
        "versions": {name: version(name) for name in ("piggyback-gan", "torch")},
        **{
            name: network and {"name": network.name, "sha256": network.sha256}
            for name, network in networks.items()
        },
        "tasks": rows,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    from piggyback_gan.system.files import atomic_write

    text = json.dumps(content, indent=1)
    if path == _STDOUT:
        print(text)
    else:
        atomic_write(path, f"{text}\n".encode())


def _print_table(rows: list[dict[str, Any]], judge: Judge) -> None:
    table = new_table("task", "figure", ">value", ">95 % interval", "better")
    for row in rows:
        for name, figure in row["figures"].items():
            table.add_row(
                row["task"],
                _called(name, judge),
                f"{figure['value']:.4g}",
                f"{figure['low']:.4g} to {figure['high']:.4g}",
                "higher" if higher_is_better(name) else "lower",
            )
    console = wide_console()
    console.print(table)
    for row in rows:
        size = row["image_size"]
        console.print(f"{row['task']}: {row['images']} outputs of {size}x{size}", markup=False)


def _called(name: str, judge: Judge) -> str:
    """Return a metric's name for display; distances are named FID and KID only with FID's own network."""
    kind, suffix = split_metric(name)
    distances = {"frechet_distance": ("FD", "FID"), "kernel_distance": ("KD", "KID")}
    if judge.features and kind in distances:
        short, classic = distances[kind]
        label = classic if judge.features.is_inception else f"{short}-{judge.features.name}"
    elif judge.distance and kind == "perceptual_distance":
        label = f"perceptual distance ({judge.distance.name})"
    else:
        return metric_label(name)
    return f"{label} {suffix}".rstrip()
