"""Output of a training: the plan, a progress bar, a line per epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from piggyback_gan.cli.console import count, new_progress, new_table, wide_console
from piggyback_gan.core.allocation import SMALLEST_SHARED_LAYER
from piggyback_gan.core.free_tasks import Factorized
from piggyback_gan.core.task import LayerPlan
from piggyback_gan.data.folders import PairedFolder
from piggyback_gan.evaluation.metric_names import metric_label
from piggyback_gan.names import AUTO, FORWARD, STANDALONE
from piggyback_gan.runs.run_folder import list_runs
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.plan import TaskPlan
from piggyback_gan.training.starts import RANDOM_MARGIN, Start

_START_NAMES = {
    STANDALONE: "random filters",
    AUTO: "an earlier task, chosen by training images",
}
_NAMED = 4  # of the starts that were compared
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
        self._quality: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def planned(self, plan: TaskPlan) -> None:
        self._batch_size, self._quality = plan.effective_batch, plan.options.quality
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

    def start_chosen(self, generator: str, start: Start) -> None:
        errors = sorted(start.errors.items(), key=lambda each: each[1])
        named = [*errors[:_NAMED], *(each for each in errors[_NAMED:] if each[0] == STANDALONE)]
        listed = ", ".join(f"{_START_NAMES.get(n, n)} {error:.3g}" for n, error in named)
        others = len(errors) - len(named)
        more = f" and {count(others, 'other')}" if others else ""
        compared = sum(name != STANDALONE for name in start.errors)
        of_all = f" ({compared} compared)" if compared < start.tasks else ""
        random = start.errors.get(STANDALONE, math.inf)
        rule = ""
        if start.init != STANDALONE and random < start.errors[start.init]:
            rule = f" (random filters would have to be below {RANDOM_MARGIN:g} of that)"
        direction = "" if generator == FORWARD else f" ({generator})"
        self._say(
            f"starts from {_START_NAMES.get(start.init, start.init)}{direction}, of {count(start.tasks, 'earlier task')}{of_all}: "
            f"error of training images predicted from its features, relative to their variance: {listed}{more}{rule}"
        )

    def factorized(self, position: Position, found: Mapping[str, Factorized]) -> None:
        changed = " and ".join(f"{how.change:.1%}" for how in found.values())
        self._say(
            f"factorized after step {position.step} of {position.steps}: outputs on training images changed by "
            f"{changed} of their standard deviation; training goes on in the bank"
        )
        for name, how in found.items():
            if self._quality is None:
                continue
            kept = f"held-out figures are within a ratio of {self._quality:g} of the free network's"
            which = "" if len(found) == 1 else f" of the {name} generator"
            figures = ", ".join(
                f"{metric_label(name)} {before:.4g} -> {after:.4g}"
                for name, (before, after) in how.figures.items()
            )
            if not how.accepted:
                kept = f"the largest one that is tried; not even with it {kept}"
            self._say(f"budget {how.budget:g}{which}: {kept} ({figures})")

    def collapsed(self, position: Position, generator: str) -> None:
        which = "the generator" if generator == FORWARD else f"the {generator} generator"
        self._say(
            f"warning: at the end of epoch {position.epoch} {which} makes nearly the same image of all inputs "
            "(collapse): look at the samples; if it stays so, stop and try a lower --learning-rate or another --init"
        )

    def stopped_early(self, epoch: int, best: int) -> None:
        self._say(f"stopped early after epoch {epoch}: epoch {best} was the best and is kept")

    def _say(self, words: str) -> None:
        self._progress.console.print(words, highlight=False, markup=False, soft_wrap=True)


def describe(plan: TaskPlan) -> str:
    """Describe a plan in a few lines."""
    options, folder = plan.options, plan.folder
    if isinstance(folder, PairedFolder):
        train, held_out = f"{len(folder.train)} pairs", str(len(folder.held_out))
    else:
        train = f"{len(folder.train_a)} and {len(folder.train_b)} images"
        held_out = f"{len(folder.held_out_a)} and {len(folder.held_out_b)}"
    held_out = f"{held_out} held out ({folder.held_out_name})" if plan.metrics else "none held out"
    first, second = (format.summary for format in plan.formats)
    last = options.decay_epochs
    falling = f", falling in the last {count(last, 'epoch')}" if last else ""
    start = (options.init if plan.bank.tasks else None) or STANDALONE
    start = _START_NAMES.get(start, start)
    lines = {
        "task": f"{plan.task}, number {len(plan.bank.tasks) + 1} of {plan.bank.path}; starts from: {start}",
        "data": f"{folder.root} ({folder.layout}, {options.mode}, {options.direction}): {train}, {held_out}; "
        f"{first} -> {second}",
        "network": f"{plan.config.summary}, "
        f"{plan.config.input_channels} -> {plan.config.output_channels} channels, "
        f"{options.image_size} px{', in both directions' if len(plan.networks) > 1 else ''}",
        "steps": f"{plan.steps} of {count(plan.effective_batch, 'image')} each, in "
        f"{count(options.epochs, 'epoch')}, on "
        f"{options.device}; rate {options.learning_rate:g}{falling}"
        f"{'; augmented' if options.augment == 'on' else ''}{_free(plan)}",
        "parameters": f"{_parameters(plan)}{_private(plan)}",
        "memory": f"about {plan.memory / 1e9:.2f} GB while training",
    }
    return "\n".join(f"{name:<10} {words}" for name, words in lines.items())


def _free(plan: TaskPlan) -> str:
    """How long the task is trained free."""
    free = plan.networks[FORWARD].to_factorize
    if free is None:
        return ""
    factorized = int(free.free_share * plan.steps)
    if not factorized:
        return "; factorized before the first step"
    pulled = ""
    if free.pulled_share:
        first = int((free.free_share - free.pulled_share) * plan.steps)
        pulled = f" (from step {first} on pulled towards mixtures of the bank's filters)"
    return f"; the first {factorized} free{pulled}, then factorized"


def _parameters(plan: TaskPlan) -> str:
    """How many parameters the task adds."""
    added = plan.parameters
    if _is_by_need(plan):
        budgets = " or ".join(f"{budget:g}" for budget in plan.options.budgets)
        words = f"at most {budgets} of a standalone network's {added.standalone:,}"
        if any(network.to_factorize is None for network in plan.networks.values()):
            # The bank's first unpaired task begins the other direction.
            words = f"at most {budgets} of a standalone network forward, and a whole one backward"
        if _has_own_layers(plan):
            words += ", and its layers for other channels"
        if len(plan.options.budgets) > 1:
            words += (
                f": the least that keeps held-out figures within a ratio of {plan.options.quality:g} "
                "of the free network's"
            )
        return words
    return (
        f"{added.total:,} new ({added.unconstrained:,} unconstrained, {added.mixing:,} mixing, "
        f"{added.private:,} private): {added.share:.3f} of a standalone network"
    )


def _has_own_layers(plan: TaskPlan) -> bool:
    return len(plan.layers) < len(plan.networks[FORWARD].layouts)


def _is_by_need(plan: TaskPlan) -> bool:
    """Whether the layers of new filters are chosen when the task is factorized."""
    return plan.networks[FORWARD].to_factorize is not None and plan.options.budget is not None


def _private(plan: TaskPlan) -> str:
    """Remark on a network with many parameters that can't be shared."""
    share = plan.parameters.private / plan.parameters.standalone
    if share <= _MUCH or _has_own_layers(plan):
        return ""
    return f"; {share:.3f} is not in conv filters and added by every task"


def print_plan(plan: TaskPlan) -> None:
    """Print the plan and the table of layers on stdout."""
    console = wide_console()
    console.print(describe(plan), markup=False, soft_wrap=True)
    columns = ["layer", "kind", ">filters", ">length", ">bank"]
    if not _is_by_need(plan):
        columns += [">lambda", ">new", ">mixed", ">parameters"]
    table = new_table(*columns, padding=0, pad_edge=False)
    for layer in plan.layers:
        row = [
            layer.name,
            layer.kind,
            *map(str, (layer.filters, layer.length, layer.bank)),
            f"{layer.share:g}{'*' if _is_free(layer) else ''}",
            str(layer.unconstrained),
            str(layer.filters - layer.unconstrained),
            f"{layer.parameters:,}",
        ]
        table.add_row(*row[: len(columns)])
    console.print(table)
    if _is_by_need(plan):
        console.print(
            "length: values in a filter; bank: filters to mix from\n"
            "Which layers have new filters, and the rank of each other layer's mixing, is measured during the training."
        )
        return
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
