"""What all tests share: one thread, as more only slow tiny networks down, and training without its picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from browsing import Visit
    from page_server import PageServer

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves.png takes several times as long as the epochs of tiny networks."""
    monkeypatch.setattr("piggyback_gan.runs.recorder.plot_curves", lambda records, path: None)


@pytest.fixture
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written at different times is equal."""
    from running import SAME_TIME  # imports torch

    for name, value in SAME_TIME.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs of coloured boxes, and two to validate. No test changes them."""
    from drawn import draw_pairs

    return draw_pairs(tmp_path_factory.mktemp("pairs") / "boxes")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The same, for a test to change."""
    from drawn import draw_pairs

    return draw_pairs(tmp_path / "boxes")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    import browsing

    with browsing.chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: PageServer) -> Iterator[Visit]:
    """The page of the `server` that a test module has, open."""
    import browsing

    with browsing.visit(browser, server.url) as open_page:
        yield open_page


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
