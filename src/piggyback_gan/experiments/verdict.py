"""What an experiment's figures say in words: does the method keep its promises on this data?"""

from dataclasses import dataclass

from piggyback_gan.experiments import summary
from piggyback_gan.experiments.results import Results
from piggyback_gan.experiments.tables import show
from piggyback_gan.experiments.wording import DIRECTIONS, heading, metric_of, name_of


@dataclass(frozen=True)
class Finding:
    """What the figures say of one thing the method promises; `held` is None where they can't tell."""

    held: bool | None
    promise: str
    text: str


def findings(results: Results, standalone: str | None) -> dict[str, list[Finding]]:
    """Whether the method keeps its promises on this data, and what fine-tuning loses.

    Returns:
        For every strategy of the method's kind, and then for every one of fine-tuning's, what was found.
    """
    kinds = {s["label"]: s.get("kind") for s in results.experiment["strategies"]}
    found = {}
    for label, kind in kinds.items():
        if kind == "piggyback" and summary.reached(results, label) > 1:
            promises = _kept(results, label), _par(results, label, standalone)
            found[label] = [*promises, _small(results, label)]
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
    higher = summary.higher_is_better(base)
    held = ratio.mean >= 1 if higher else ratio.mean <= 1
    seeds = f" (seeds: {show(ratio.low, 3)} to {show(ratio.high, 3)})"
    others = []
    for other in summary.metrics(results):
        mean = summary.mean_ratio(results, label, standalone, other) if other != base else None
        if mean is not None:
            others.append(f"{heading(other)} {show(mean.mean, 3)}")
    return Finding(
        held,
        promise,
        f"On tasks 2 and on its {name_of(base)} is {show(ratio.mean, 3)} times "
        f"{standalone}'s on average{seeds if len(ratio.by_seed) > 1 else ''}; "
        f"on par means at {'least' if higher else 'most'} 1."
        + (f" By other metrics: {', '.join(others)}." if others else ""),
    )


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
    means = [sum(f.value for f in figures.values()) / len(figures) for figures in (before, after)]
    return Finding(
        None,
        promise,
        f"The {name_of(base)} of {first}{DIRECTIONS[direction]} goes from {show(means[0])} to "
        f"{show(means[1])}; average forgetting {show(lost.mean)} (positive is lost).",
    )
