"""Banks to export tasks of, and what was exported of them; only read."""

import functools
from collections.abc import Callable, Iterator, Mapping

import pytest

from exports import BANKS, DEEP, PLAIN, bank_of, plain_may_run
from piggyback_gan import Exported, ExportOptions, export_task
from piggyback_gan.bank.bank import Bank
from piggyback_gan.names import ExportFormat, ExportPrecision


@pytest.fixture(autouse=True)
def in_each_test() -> Iterator[None]:
    with plain_may_run():
        yield


@pytest.fixture(scope="session")
@plain_may_run()
def banks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bank]:
    """A bank for each kind of network."""
    folder = tmp_path_factory.mktemp("banks")
    banks = {name: bank_of(folder / name, config) for name, config in BANKS.items()}
    return {**banks, "deep": bank_of(folder / "deep", PLAIN, DEEP)}


@pytest.fixture(scope="session")
def exported(
    banks: Mapping[str, Bank], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Exported]:
    """(bank's name, format, precision) -> its second task, exported once for all tests."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    @plain_may_run()
    def export(which: str, format: ExportFormat, precision: ExportPrecision) -> Exported:
        path = folder / f"{which}-{format}-{precision}" / "second.pt2"
        options = ExportOptions(format=format, precision=precision)
        return export_task(banks[which], "second", path, options)

    return lambda which, format, precision="fp32": export(which, format, precision)


@pytest.fixture
def resnet(banks: Mapping[str, Bank]) -> Bank:
    return banks["resnet"]
