"""A bank for a test to change."""

import shutil
from pathlib import Path

import pytest

from piggyback_gan import Bank


@pytest.fixture
def bank(template: Path, tmp_path: Path) -> Bank:
    """A copy of the module's `template`."""
    return Bank.open(shutil.copytree(template, tmp_path / "bank"))
