"""Whose turn it is to compute: threads that share a device, in the order in which they asked."""

import itertools
import threading
from types import TracebackType


class Turns:
    """A lock that is given in the order in which it was asked for.

    A long piece of work gives way between its parts: who has asked meanwhile goes first.
    """

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._called = 0
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        with self._condition:
            ticket = next(self._tickets)
            self._condition.wait_for(lambda: self._called == ticket)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._condition:
            self._called += 1
            self._condition.notify_all()

    def give_way(self) -> None:
        """Let those go first who have asked; of the thread whose turn it is."""
        self.__exit__(None, None, None)
        self.__enter__()
