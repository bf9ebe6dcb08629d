"""The card of a task: what describes it in its file. No times or places: equal runs give equal files."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from piggyback_gan.folders import PairedFolder
from piggyback_gan.planning import TaskPlan


def task_card(
    plan: TaskPlan,
    library_version: str,
    data_name: str,
    epoch: int,
    validation: Mapping[str, float] | None,
) -> dict[str, Any]:
    """What a finished task's file says of it, JSON values only.

    Args:
        plan: the task.
        library_version: what it was trained with.
        data_name: what the folder of images was called when the run began.
        epoch: whose weights it has.
        validation: the held-out metrics of that epoch.
    """
    folder = plan.folder
    if isinstance(folder, PairedFolder):
        counts = {"train_pairs": len(folder.train), "held_out_pairs": len(folder.held_out)}
    else:
        counts = {
            "train_a": len(folder.train_a),
            "train_b": len(folder.train_b),
            "held_out_a": len(folder.held_out_a),
            "held_out_b": len(folder.held_out_b),
        }
    first, second = plan.formats
    return {
        "library_version": library_version,
        "mode": plan.options.mode,
        "data": {"name": data_name, "layout": folder.layout, **counts},
        "image": {
            "size": plan.options.image_size,
            "size_multiple": plan.config.size_multiple,
            "input": asdict(first),
            "output": asdict(second),
            "tensor_range": [-1, 1],
        },
        "options": asdict(plan.options),
        "effective_batch": plan.effective_batch,
        "epoch": epoch,
        "parameters": {
            **asdict(plan.parameters),
            "total": plan.parameters.total,
            "share": plan.parameters.share,
        },
        "validation": None if validation is None else dict(validation),
    }
