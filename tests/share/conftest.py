"""Banks to share, made once; only read."""

import shutil
from pathlib import Path

import pytest

from mixed_banks import MIXED, fill
from piggyback_gan.bank.bank import Bank


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with every kind of task."""
    return fill(tmp_path_factory.mktemp("mixed") / "bank", *MIXED).path


@pytest.fixture(scope="session")
def three(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first three tasks."""
    return _first(3, mixed, tmp_path_factory.mktemp("three") / "bank")


@pytest.fixture(scope="session")
def networks(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first four tasks."""
    return _first(4, mixed, tmp_path_factory.mktemp("networks") / "bank")


def _first(count: int, mixed: Path, path: Path) -> Path:
    bank = Bank.open(shutil.copytree(mixed, path))
    for task in reversed(bank.tasks[count:]):
        bank.remove(task)
    return path
