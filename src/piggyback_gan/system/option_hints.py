"""Help texts of options for the command line."""

import tyro


def default_hint(words: str, metavar: str | None = None) -> object:
    """What --help says in place of None, where no configuration file says otherwise."""

    def hint(default: str) -> str:
        return f"(default: {words if default == 'None' else default})"

    return tyro.conf.arg(help_behavior_hint=hint, metavar=metavar)
