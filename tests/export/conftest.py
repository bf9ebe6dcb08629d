"""Banks to export tasks of; only read."""

from collections.abc import Mapping

import pytest

from exports import BANKS, bank_of
from piggyback_gan.bank.bank import Bank


@pytest.fixture(scope="session")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bank]:
    """A bank for each kind of network."""
    folder = tmp_path_factory.mktemp("banks")
    return {name: bank_of(folder / name, config) for name, config in BANKS.items()}


@pytest.fixture
def resnet(banks: Mapping[str, Bank]) -> Bank:
    return banks["resnet"]
