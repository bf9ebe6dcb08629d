"""Output of a training: the plan, a progress bar, a line per epoch."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from piggyback_gan.cli.console import count, new_progress, new_table, wide_console
from piggyback_gan.core.allocation import SMALLEST_SHARED_LAYER
from piggyback_gan.core.task import LayerPlan
from piggyback_gan.data.folders import PairedFolder
from piggyback_gan.evaluation.metric_names import metric_label
from piggyback_gan.names import FORWARD
from piggyback_gan.runs.run_folder import list_runs
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.plan import TaskPlan

_MUCH = 0.05  # share of private parameters that takes most of the default budget


class TrainingProgress(Callback):
    """Callbacks that show a progress bar on stderr; without a terminal, only a line per epoch."""

    def __init__(self) -> None:
        self._progress = new_progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
        )
        self._checking: dict[str, TaskID] = {}
        self._training: TaskID | None = None
        self._batch_size = 1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def planned(self, plan: TaskPlan) -> None:
        self._batch_size = plan.effective_batch
        for bar in self._progress.task_ids:
            self._progress.remove_task(bar)
        self._checking, self._training = {}, None
        self._say(describe(plan))
        for other in list_runs(plan.bank.path):
            if other.checkpoint.exists() and other.task != plan.task:
                self._say(
                    f"note: the run of {other.task!r} is not finished; once {plan.task!r} is in the bank, "
                    "it can't be resumed"
                )
        if not plan.metrics:
            self._say(
                "no val/ or test/ images: nothing is validated, samples are training images; "
                "--val-fraction 0.1 would hold some out"
            )

    def checked(self, split: str, done: int, total: int) -> None:
        if split not in self._checking:
            self._checking[split] = self._progress.add_task(
                f"reading {split}", total=total, words=""
            )
        self._progress.update(self._checking[split], completed=done)

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        if self._training is None:
            self._training = self._progress.add_task("", total=position.steps, words="")
        speed = next(bar.speed for bar in self._progress.tasks if bar.id == self._training)
        words = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        if speed:
            words += f"  {speed * self._batch_size:.1f} images/s"
        self._progress.update(
            self._training,
            description=f"epoch {position.epoch}/{position.epochs}",
            completed=position.step,
            words=words,
        )

    def epoch_ended(self, position: Position, records: Sequence[Mapping[str, Any]]) -> None:
        if metrics := records[-1]["validation"]:
            words = "  ".join(
                f"{metric_label(name)} {value:.4g}" for name, value in metrics.items()
            )
            self._say(f"epoch {position.epoch}/{position.epochs}  held-out images:  {words}")

    def resumed(self, position: Position, differences: Sequence[str]) -> None:
        words = f"resumed after step {position.step} of {position.steps}"
        if differences:
            words += f"; the result may differ by rounding: {', '.join(differences)}"
        self._say(words)

    def stopped_early(self, epoch: int, best: int) -> None:
        self._say(f"stopped early after epoch {epoch}: epoch {best} was the best and is kept")

    def _say(self, words: str) -> None:
        self._progress.console.print(words, highlight=False, markup=False, soft_wrap=True)


def describe(plan: TaskPlan) -> str:
    """Describe a plan in a few lines."""
    added, options, folder = plan.parameters, plan.options, plan.folder
    if isinstance(folder, PairedFolder):
        train, held_out = f"{len(folder.train)} pairs", str(len(folder.held_out))
    else:
        train = f"{len(folder.train_a)} and {len(folder.train_b)} images"
        held_out = f"{len(folder.held_out_a)} and {len(folder.held_out_b)}"
    held_out = f"{held_out} held out ({folder.held_out_name})" if plan.metrics else "none held out"
    first, second = (format.summary for format in plan.formats)
    last = options.decay_epochs
    falling = f", falling in the last {count(last, 'epoch')}" if last else ""
    start = (options.init if plan.bank.tasks else None) or "random filters"
    lines = {
        "task": f"{plan.task}, number {len(plan.bank.tasks) + 1} of {plan.bank.path}; starts from: {start}",
        "data": f"{folder.root} ({folder.layout}, {options.mode}, {options.direction}): {train}, {held_out}; "
        f"{first} -> {second}",
        "network": f"{plan.config.summary}, "
        f"{plan.config.input_channels} -> {plan.config.output_channels} channels, "
        f"{options.image_size} px{', in both directions' if len(plan.networks) > 1 else ''}",
        "steps": f"{plan.steps} of {plan.effective_batch}, in {count(options.epochs, 'epoch')}, on "
        f"{options.device}; rate {options.learning_rate:g}{falling}"
        f"{'; augmented' if options.augment == 'on' else ''}",
        "parameters": f"{added.total:,} new ({added.unconstrained:,} unconstrained, {added.mixing:,} "
        f"mixing, {added.private:,} private): {added.share:.3f} of a standalone network{_private(plan)}",
        "memory": f"about {plan.memory / 1e9:.2f} GB while training",
    }
    return "\n".join(f"{name:<10} {words}" for name, words in lines.items())


def _private(plan: TaskPlan) -> str:
    """Remark on a network with many parameters that can't be shared."""
    share = plan.parameters.private / plan.parameters.standalone
    has_own_layers = len(plan.layers) < len(plan.networks[FORWARD].layouts)
    if share <= _MUCH or has_own_layers:
        return ""
    return f"; {share:.3f} is not in conv filters and added by every task"


def print_plan(plan: TaskPlan) -> None:
    """Print the plan and the table of layers on stdout."""
    console = wide_console()
    console.print(describe(plan), markup=False, soft_wrap=True)
    right = (">filters", ">length", ">bank", ">lambda", ">new", ">mixed", ">parameters")
    table = new_table("layer", "kind", *right, padding=0, pad_edge=False)
    for layer in plan.layers:
        table.add_row(
            layer.name,
            layer.kind,
            *map(str, (layer.filters, layer.length, layer.bank)),
            f"{layer.share:g}{'*' if _is_free(layer) else ''}",
            str(layer.unconstrained),
            str(layer.filters - layer.unconstrained),
            f"{layer.parameters:,}",
        )
    console.print(table)
    console.print(
        "length: values in a filter; bank: filters to mix from; new: unconstrained filters"
    )
    if any(map(_is_free, plan.layers)):
        console.print(
            "*: not shared: mixing so few filters would be a bottleneck and save almost nothing; "
            "a table [unconstrained] in a --config file can share this layer too",
            markup=False,
        )


def _is_free(layer: LayerPlan) -> bool:
    return layer.bank > 0 and layer.share == 1 and layer.filters < SMALLEST_SHARED_LAYER
