"""Small data sets of coloured boxes for training runs."""

from pathlib import Path

import pytest

from drawn import draw_pairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, and two to validate. No test changes them."""
    return draw_pairs(tmp_path_factory.mktemp("pairs") / "boxes")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The same, for a test to change."""
    return draw_pairs(tmp_path / "boxes")
