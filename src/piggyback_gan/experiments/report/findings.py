"""Findings of a report in words: whether the method keeps its promises on this data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from piggyback_gan.evaluation.metric_names import higher_is_better
from piggyback_gan.experiments.report import summary
from piggyback_gan.experiments.report.labels import DIRECTIONS, heading, metric_of, name_of
from piggyback_gan.experiments.report.summary import Spread
from piggyback_gan.experiments.report.table import show
from piggyback_gan.experiments.results import Results

_RIVALS = ("narrow", "factorization", "mask", "lora")
"""Other kinds that add little for each task."""


@dataclass(frozen=True)
class Finding:
    """Whether a promise of the method is held; None if the figures can't tell."""

    held: bool | None
    promise: str
    text: str


def findings(results: Results, standalone: str | None) -> dict[str, list[Finding]]:
    """Return findings by strategy: whether piggyback keeps its promises, and what fine-tuning loses."""
    kinds = {s["label"]: s.get("kind") for s in results.experiment["strategies"]}
    found = {}
    for label, kind in kinds.items():
        if kind == "piggyback" and summary.reached(results, label) > 1:
            rivals = [other for other, of in kinds.items() if of in _RIVALS]
            promises = _kept(results, label), _par(results, label, standalone)
            better = _better(results, label, rivals)
            found[label] = [*promises, _small(results, label), *better]
    tuned = [label for label, kind in kinds.items() if kind == "finetune"]
    return found | {label: [_lost(results, label)] for label in tuned}


def _kept(results: Results, label: str) -> Finding:
    same, of = summary.identical_in_all(results, label)
    text = f"{same} of {of} outputs of earlier tasks have the bits they had when learned."
    return Finding(same == of if of else None, "Nothing is forgotten", text)


def _par(results: Results, label: str, standalone: str | None) -> Finding:
    base, promise = summary.headline(results), "On par with standalone networks"
    ratio = summary.mean_ratio(results, label, standalone, base) if standalone else None
    if standalone is None or ratio is None:
        return Finding(None, promise, "There is no standalone network to compare with.")
    higher = higher_is_better(base)
    held, chance = _told(results, label, standalone, base, ratio)
    seeds = f" (seeds: {show(ratio.low, 3)} to {show(ratio.high, 3)})"
    others = {
        heading(other): summary.mean_ratio(results, label, standalone, other)
        for other in summary.metrics(results)
        if other != base
    }
    return Finding(
        held,
        promise,
        f"On tasks 2 and on its {name_of(base)} is {show(ratio.mean, 3)} times "
        f"{standalone}'s on average{seeds if len(ratio.by_seed) > 1 else ''}; "
        f"on par means at {'least' if higher else 'most'} 1.{chance}{_by_others(others, 3)}",
    )


def _told(
    results: Results, label: str, standalone: str, base: str, ratio: Spread
) -> tuple[bool | None, str]:
    """Whether a strategy is on par, None if it may be chance; and a remark on chance."""
    held = ratio.mean >= 1 if higher_is_better(base) else ratio.mean <= 1
    if ratio.low < 1 < ratio.high:
        return None, " Seeds lie on both sides of 1: chance can't be told from difference."
    if len(ratio.by_seed) > 1:
        return held, ""
    if all(_overlap(results, label, standalone, base, seed) for seed in ratio.by_seed):
        return None, " One seed: chance can't be told from difference, the intervals overlap."
    return (
        held,
        " One seed: the difference is larger than the choice of held-out images explains, but it may vary between seeds.",
    )


def _overlap(results: Results, label: str, standalone: str, base: str, seed: int) -> bool:
    """Whether both bootstrap intervals overlap for every task but the first, in all directions."""
    for task in summary.tasks(results)[1:]:
        for direction in summary.directions(results, task):
            metric = metric_of(results, task, base, direction)
            one = summary.final(results, label, task, metric).get(seed)
            other = summary.when_learned(results, standalone, task, metric).get(seed)
            if one and other and (one.low > other.high or other.low > one.high):
                return False
    return True


def _small(results: Results, label: str) -> Finding:
    every = summary.cost(results, label)
    total = every[-1].total.mean
    plain = sum(cost.standalone for cost in every) / every[0].standalone
    shares = ", ".join(show(cost.share.mean, 3) for cost in every[1:])
    return Finding(
        total < plain,
        "Fewer parameters",
        f"{len(every)} tasks take {show(total, 3)} times the parameters of one network, "
        f"standalone networks {show(plain, 3)} times; tasks 2 and on add {shares} of theirs.",
    )


def _better(results: Results, label: str, rivals: Sequence[str]) -> list[Finding]:
    """Compare with other kinds that add little and have results with the same seeds."""
    base = summary.headline(results)
    ratios = {rival: summary.mean_ratio(results, label, rival, base) for rival in rivals}
    found = {rival: ratio for rival, ratio in ratios.items() if ratio is not None}
    if not found:
        return []
    higher = higher_is_better(base)
    told = {rival: _told(results, label, rival, base, ratio)[0] for rival, ratio in found.items()}
    open_ones = [rival for rival, better in told.items() if better is None]
    held = None if open_ones and False not in told.values() else all(told.values())
    chance = f" Chance can't be told from difference: {', '.join(open_ones)}." if open_ones else ""
    each = ", ".join(f"{show(ratio.mean, 3)} times {rival}'s" for rival, ratio in found.items())
    shares = ", ".join(f"{other} {_share(results, other)}" for other in (label, *found))
    text = (
        f"On tasks 2 and on its {name_of(base)} is on average {each}; better means "
        f"{'above' if higher else 'below'} 1.{chance} Parameters that a later task adds, on "
        f"average as a share of its standalone network's: {shares}."
    )
    return [Finding(held, "Better than other ways to add little", text)]


def _share(results: Results, label: str) -> str:
    return show(fmean(cost.share.mean for cost in summary.cost(results, label)[1:]), 3)


def notes_on_rates(results: Results) -> list[str]:
    """A line for each strategy whose chosen learning rate is at an end of several candidates."""
    notes = []
    for strategy in results.experiment["strategies"]:
        label, rates = strategy["label"], strategy.get("learning_rates", [])
        # The first task has a rate that all strategies share.
        chosen = {s.learning_rate for s in results.stages if s.strategy == label and s.order > 1}
        if len(rates) < 2 or strategy.get("learning_rate_of"):
            continue
        ends = (min(rates), "smallest", "smaller"), (max(rates), "largest", "larger")
        for end, which, better in ends:
            if end in chosen:
                notes.append(
                    f"The best learning rate of {label}, {end:g}, is the {which} that was tried: "
                    f"a {better} one may be better."
                )
    return notes


def _lost(results: Results, label: str) -> Finding:
    base, promise = summary.headline(results), "What fine-tuning loses"
    first = summary.tasks(results)[0]
    direction = summary.directions(results, first)[0]
    metric = metric_of(results, first, base, direction)
    before = summary.when_learned(results, label, first, metric)
    after = summary.final(results, label, first, metric)
    lost = summary.forgetting(results, label, base)
    if not before or not after or lost is None:
        return Finding(None, promise, "Not measured after a second task yet.")
    others = {
        name_of(other): summary.forgetting(results, label, other)
        for other in summary.metrics(results)
        if other != base
    }
    # Seeds that are behind have no value after.
    before = {seed: figure for seed, figure in before.items() if seed in after}
    means = [fmean(f.value for f in figures.values()) for figures in (before, after)]
    return Finding(
        None,
        promise,
        f"The {name_of(base)} of {first}{DIRECTIONS[direction]} goes from {show(means[0])} to "
        f"{show(means[1])}; average forgetting {show(lost.mean)} (positive is lost)."
        f"{_by_others(others)}",
    )


def _by_others(spreads: Mapping[str, Spread | None], digits: int = 4) -> str:
    each = [f"{name} {show(s.mean, digits)}" for name, s in spreads.items() if s is not None]
    return f" By other metrics: {', '.join(each)}." if each else ""
