"""Restore a bank's tasks into its networks, and verify them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from piggyback_gan.bank.manifest import TaskEntry
from piggyback_gan.bank.store import StoredTask
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import BACKWARD, FORWARD


@dataclass(frozen=True)
class Finding:
    """What `Bank.verify` found in one task; `problem` is None if it is intact."""

    part: str
    problem: str | None


def check_tasks(
    tasks: Iterable[tuple[TaskEntry, StoredTask | PiggybackError]],
    network_of: Callable[[str], PiggybackNetwork],
) -> list[Finding]:
    """Restore each task into the networks and return a finding for it; tasks that miss what they need are skipped.

    Args:
        tasks: each task's entry, and its content or the error of reading it.
        network_of: network name -> the bank's network without tasks; called when a task is in it.
    """
    findings = []
    broken: list[str] = []
    for entry, result in tasks:
        problem = None
        if isinstance(result, PiggybackError):
            problem = str(result)
        elif (missing := _first_needed(result, broken)) is not None:
            problem = f"task {entry.name!r}: can't be composed without {missing!r}"
        else:
            problem = _composition_problem(network_of, result)
        if problem:
            broken.append(entry.name)
        findings.append(Finding(entry.name, problem))
    return findings


def state_in(stored: StoredTask, which: str) -> TaskState | None:
    return stored.state if which == FORWARD else stored.others.get(which)


def restore_task(network: PiggybackNetwork, state: TaskState) -> None:
    """Append a task to a network and check that it needs there what its file says."""
    network.restore_task(state)
    found = network.ledger.needs_of(state.name)
    assert state.needs is not None
    if state.needs != found:
        raise PiggybackError(
            f"task {state.name!r} does not fit the network: it was composed with "
            f"{state.needs.bank_filters} bank filters and {len(state.needs.tasks)} tasks, "
            f"and here it has {found.bank_filters} and {len(found.tasks)}"
        )


def _first_needed(stored: StoredTask, tasks: Sequence[str]) -> str | None:
    """Return the first of these earlier tasks that a task needs."""
    states = (stored.state, *stored.others.values())
    needed = {task for state in states if state.needs for task in state.needs.tasks}
    return next((task for task in tasks if task in needed), None)


def _composition_problem(
    network_of: Callable[[str], PiggybackNetwork], stored: StoredTask
) -> str | None:
    name = stored.state.name
    unpaired = stored.card.get("mode") == "unpaired"
    if unpaired != (BACKWARD in stored.others):
        return f"task {name!r}: its card and its tensors disagree on whether it is unpaired"
    for which in (FORWARD, BACKWARD):
        state = state_in(stored, which)
        if state is None:
            continue
        network = network_of(which)
        try:
            restore_task(network, state)
        except PiggybackError as error:
            return str(error)
        if bad := network.not_finite(name):
            return f"task {name!r}: {bad} has values that are not finite"
    return None
