"""The one error that a person is meant to read: what was wrong, what was found, what to do."""


class PiggybackError(ValueError):
    """A mistake that its reader can mend. The command line prints it as one line and exits with status 2."""


class PartnerEnded(PiggybackError):
    """Another of the processes that train together ended, and this one can't go on without it."""


class SaidElsewhere(PiggybackError):
    """The first of several processes says the same, or what led to this: it need not be said again."""
