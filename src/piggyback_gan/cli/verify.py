"""pbgan verify: check a bank's integrity."""

import sys
from dataclasses import dataclass

from piggyback_gan.cli.arguments import BankPath, parse


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Check every file's hash, the chain of tasks and all shapes, and compose each task."""

    bank: BankPath
    """The bank's directory."""


def run(arguments: list[str]) -> int:
    """Print a line for each task; the exit status is 1 if anything is wrong."""
    given = parse(Arguments, "verify", arguments)
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.errors import PiggybackError

    try:
        bank = Bank.open(given.bank)
    except PiggybackError as error:
        print(f"pbgan: {error}", file=sys.stderr)
        return 1 if given.bank.is_dir() else 2
    findings = bank.verify()
    for finding in findings:
        print(f"{'damaged' if finding.problem else 'ok':<8} {finding.part}")
    for path in bank.leftovers():
        print(f"note     {path} is not part of the bank")
    problems = [finding.problem for finding in findings if finding.problem]
    for problem in problems:
        print(f"pbgan: {problem}", file=sys.stderr)
    return 1 if problems else 0
