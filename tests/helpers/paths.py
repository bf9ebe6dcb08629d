"""Folders of the repository, and the data beside it that tests use where it is present."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
