"""Selection of the bank filters that a task with selected mixing uses, by gradients of its first batches."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import islice

from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.system.distributed import Processes
from piggyback_gan.training.trainer import Batch, Trainer

_STEPS = 32


def select_filters(
    networks: Sequence[PiggybackNetwork],
    probe: Trainer,
    batches: Iterable[Batch],
    should_stop: Callable[[], bool],
    team: Processes,
) -> bool:
    """Select filters by the gradients of the first 32 batches; the networks' values do not change.

    Args:
        networks: each with its task in training, before its first step; those without selected mixing are left unchanged.
        probe: a trainer of these networks with learning rate 0 in its first epoch, not to be used afterwards.
        batches: of an epoch.
        should_stop: called in every step.
        team: the processes that train together; all select the same filters.

    Returns:
        False if `should_stop` returned True in one of the processes: nothing is selected then.
    """
    kept = [
        {key: value.clone() for key, value in network.module.state_dict().items()}
        for network in networks
    ]
    with ExitStack() as stack:
        sums = [stack.enter_context(network.filter_gradients()) for network in networks]
        for batch in islice(batches, _STEPS):
            _, stop = probe.step(batch, should_stop)
            if stop:
                return False
    for network, values, own in zip(networks, kept, sums, strict=True):
        # Batch norm updated its running statistics.
        network.module.load_state_dict(values)
        network.select_filters({key: team.sum_all(total) for key, total in own.items()})
    return True
