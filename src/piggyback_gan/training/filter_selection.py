"""Selection of the bank filters that a task with selected mixing uses, by gradients of its first batches."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import islice

from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.trainer import Batch, Trainer

_STEPS = 32


def select_filters(
    networks: Mapping[str, PiggybackNetwork],
    probe: Trainer,
    epoch_steps: int,
    batches: Iterable[Batch],
    should_stop: Callable[[], bool],
    team: Processes | None = None,
) -> bool:
    """Select filters by the gradients of the first steps; the networks' values do not change.

    Args:
        networks: each with its task in training, before its first step; those without selected mixing are left unchanged.
        probe: a trainer of these networks with learning rate 0, not to be used afterwards.
        epoch_steps: steps in an epoch.
        batches: of an epoch; the first 32 are used.
        should_stop: called in every step.
        team: the processes that train together; all select the same filters.

    Returns:
        False if `should_stop` returned True in one of the processes: nothing is selected then.
    """
    kept = {
        name: {key: value.clone() for key, value in network.module.state_dict().items()}
        for name, network in networks.items()
    }
    probe.begin_epoch(epoch_steps)
    with ExitStack() as stack:
        sums = {n: stack.enter_context(x.filter_gradients()) for n, x in networks.items()}
        for batch in islice(batches, _STEPS):
            _, stop = probe.step(batch, should_stop)
            if stop:
                return False
    for name, network in networks.items():
        # Batch norm updated its running statistics.
        network.module.load_state_dict(kept[name])
        of_all = {key: (team or Processes()).sum_all(total) for key, total in sums[name].items()}
        network.select_filters(of_all)
    return True
