"""Which bank filters a task with selected mixing mixes from: those that its first images ask for."""

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
    """Choose by the gradients of the first steps, in which the networks themselves don't change.

    Args:
        networks: each with its task in training, at its start; those that select nothing are left alone.
        probe: a trainer of these networks at a rate of 0, of no use afterwards.
        epoch_steps: how many steps an epoch has.
        batches: of an epoch; the first 32 serve.
        should_stop: asked in every step.
        team: the processes that train together; all of them choose the same.

    Returns:
        Whether they are chosen: not if one of the processes was asked to stop.
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
        # Batch norm's statistics have moved.
        network.module.load_state_dict(kept[name])
        of_all = {key: (team or Processes()).sum_all(total) for key, total in sums[name].items()}
        network.select_filters(of_all)
    return True
