"""Banks that tests of the server read, and a server for tests that need no options of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from exports import bank_of
from piggyback_gan import Bank
from served import Served, serving


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of two paired tasks, first and second; tests do not change it."""
    return bank_of(tmp_path_factory.mktemp("paired") / "bank")


@pytest.fixture(scope="session")
def unpaired_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of two tasks that translate in both directions; tests do not change it."""
    return bank_of(tmp_path_factory.mktemp("unpaired") / "bank", unpaired=True)


@pytest.fixture
def copied_bank(bank: Bank, tmp_path: Path) -> Bank:
    """A copy of `bank` that a test may change."""
    return Bank.open(shutil.copytree(bank.path, tmp_path / "bank"))


@pytest.fixture(scope="session")
def served(unpaired_bank: Bank) -> Iterator[Served]:
    """`unpaired_bank`, served image by image: pixels do not depend on batches."""
    with serving(unpaired_bank.path, max_batch=1) as running:
        yield running
