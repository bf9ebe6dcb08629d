"""Names and dependencies of an experiment's parts."""

from dataclasses import dataclass

from piggyback_gan.experiments.settings import FIRST, Experiment


@dataclass(frozen=True)
class PartName:
    """A part: `STRATEGY/seed-S`, `STRATEGY/rate-R` to choose a learning rate by, or `first/seed-S`.

    Attributes:
        label: the strategy, or "first".
        seed: random seed.
        rate: the candidate learning rate, in a part of the search for one.
        needs: parts that must be finished before.
    """

    label: str
    seed: int
    rate: float | None = None
    needs: tuple["PartName", ...] = ()

    def __str__(self) -> str:
        last = f"seed-{self.seed}" if self.rate is None else f"rate-{self.rate!r}"
        return f"{self.label}/{last}"


def part_names(experiment: Experiment) -> list[PartName]:
    """List all parts, each after those that it needs."""
    strategies = experiment.strategies
    seeds = sorted({seed for settings in strategies.values() for seed in settings.seeds})
    first = {seed: PartName(FIRST, seed) for seed in seeds}
    candidates = {
        label: [
            PartName(label, settings.seeds[0], rate, (first[settings.seeds[0]],))
            for rate in settings.learning_rates
            if len(settings.learning_rates) > 1
        ]
        for label, settings in strategies.items()
    }
    names = [*first.values(), *(name for listed in candidates.values() for name in listed)]
    for seed in seeds:
        for label, settings in strategies.items():
            if seed in settings.seeds:
                needs = (first[seed], *candidates[settings.rate_of or label])
                names.append(PartName(label, seed, needs=needs))
    return names
