"""The one error that a person is meant to read: what was wrong, what was found, what to do."""


class PiggybackError(ValueError):
    """A mistake that its reader can mend. The command line prints it as one line and exits with status 2."""
