"""Record the settings of an experiment's folder, and refuse to continue with others."""

import functools
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import piggyback_gan
from piggyback_gan.bank.manifest import now
from piggyback_gan.data.fingerprint import fingerprint
from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.results import (
    EXPERIMENT_FILE,
    PARTS,
    STAGE,
    read_experiment_file,
    to_json,
)
from piggyback_gan.experiments.settings import (
    TASK_OPTIONS,
    Experiment,
    StrategySettings,
    TaskSettings,
)
from piggyback_gan.experiments.tasks import Task
from piggyback_gan.names import Device
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.system.files import atomic_write, require_writable

# May change in a folder with results: strategies and seeds can be added.
_FREE = ("title", "strategies", "seeds", "file")
_NETWORKS = ("features", "distance", "recogniser")


def describe(
    experiment: Experiment, tasks: Sequence[Task], config: GeneratorConfig
) -> dict[str, Any]:
    """Describe an experiment's settings as JSON values; hashes all images.

    Raises:
        PiggybackError: an image can't be read.
    """
    content = {
        "title": experiment.title,
        "generator": asdict(config),
        "first_learning_rate": experiment.first_learning_rate,
        "val_fraction": experiment.val_fraction,
        "tasks": [_describe_task(*pair) for pair in zip(tasks, experiment.tasks, strict=True)],
        "strategies": [_describe_strategy(s) for s in experiment.strategies.values()],
        "search": asdict(experiment.search),
        "seeds": sorted({seed for s in experiment.strategies.values() for seed in s.seeds}),
        "samples": experiment.samples,
        "curve_images": experiment.curve_images,
        "compare_images": experiment.compare_images,
        **{key: _describe_network(getattr(experiment, key)) for key in _NETWORKS},
        "file": experiment.text,
    }
    return through_json(content)


def write_record(out: Path, content: Mapping[str, Any], device: Device, command: str) -> None:
    """Write the settings, versions and machine.

    Args:
        out: the experiment's folder.
        content: by `describe`.
        device: to compute on.
        command: the command line; that of the first call is kept.

    Raises:
        PiggybackError: it can't be written.
    """
    require_writable(out)
    calls = {"command": command, "started": now()}
    if (out / EXPERIMENT_FILE).exists():
        before = read_experiment_file(out)
        # Of the first call: parts that run side by side have other command lines.
        calls = {key: before.get(key, value) for key, value in calls.items()}
    is_cuda = device.startswith("cuda")
    cpu = f"{device}, {torch.get_num_threads()} threads"
    surroundings = {
        "library_version": version("piggyback-gan"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": {
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if is_cuda else cpu,
        },
    }
    atomic_write(out / EXPERIMENT_FILE, to_json({**content, **surroundings, **calls}))


def check_record(out: Path, now: Mapping[str, Any]) -> None:
    """Check that the settings are those of the folder's results.

    Raises:
        PiggybackError: names the difference.
    """
    if not any((out / PARTS).rglob(f"{STAGE}*.json")):
        return
    before = read_experiment_file(out)
    for key, value in now.items():
        if key not in _FREE and before.get(key) != value:
            raise PiggybackError(
                f"{out} was started with different {_what_changed(key, before.get(key), value)}: what is there "
                "can't be compared with it; choose another --out"
            )


def _what_changed(key: str, before: Any, now: Any) -> str:
    """Name the changed setting; of tasks, the first that differs and in what."""
    if key == "tasks" and isinstance(before, list) and len(before) == len(now):
        for old, new in zip(before, now, strict=True):
            for field, value in new.items():
                if old.get(field) != value:
                    what = "images" if field == "images_sha256" else field
                    return f"{what} of task {new['name']!r}"
    return key


def _describe_task(task: Task, settings: TaskSettings) -> dict[str, Any]:
    files = fingerprint(task.folder.paths, root=task.folder.root)
    options = {key: value for key, value in asdict(task.options).items() if key in TASK_OPTIONS}
    return {
        "name": task.name,
        "mode": task.options.mode,
        "direction": task.options.direction,
        "data": settings.data.name,
        "images_sha256": hashlib.sha256(to_json(files)).hexdigest(),
        "train_images": task.train_images,
        "held_out_images": task.held_out_images,
        "image_size": task.options.image_size,
        "epochs": task.options.epochs,
        "steps": task.steps,
        "options": options,
    }


def _describe_strategy(settings: StrategySettings) -> dict[str, Any]:
    return {
        "label": settings.label,
        "kind": settings.kind,
        "options": asdict(settings.strategy),
        "learning_rates": settings.learning_rates,
        "learning_rate_of": settings.rate_of,
        "seeds": settings.seeds,
    }


def _describe_network(spec: str | None) -> dict[str, str | None] | None:
    if spec is None:
        return None
    path = Path(spec)
    if not path.is_file():
        return {"name": spec, "sha256": None}
    return {"name": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def through_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings as writing and reading JSON does."""
    return dict(json.loads(json.dumps(content)))


@functools.cache
def source_sha256(package: Path = Path(piggyback_gan.__file__).parent) -> str:
    """Hash of this library's source, or of another copy of it, to match results with commits."""
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".html"))
    return hashlib.sha256(to_json(fingerprint(files, root=package))).hexdigest()
