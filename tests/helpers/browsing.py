"""A Chromium for tests of pages; each visit ends with a check of its log and its requests."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    FilePayload,
    Locator,
    Page,
    expect,
    sync_playwright,
)

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RED, CYAN = (200, 30, 30), (55, 225, 225)
"""Colours of an input and its output: the stand-in server inverts."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser inside the block; without a Chromium, skip the tests."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a Chromium: none of {PROGRAMS} is installed")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """An open page.

    Attributes:
        expected: parts of lines that the browser may log, such as the status of a response.
        logged: errors and warnings in the browser's log.
        asked: all requested URLs.
    """

    page: Page
    expected: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def log(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.logged.append(message.text)


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Open a page in a fresh context; afterwards, check that nothing unexpected was logged or requested.

    Tests list what the browser logs about errors that they provoke in `expected`.
    """
    context = browser.new_context(**options)
    try:
        open_page = Visit(context.new_page())
        open_page.page.set_default_timeout(20_000)
        open_page.page.on("console", open_page.log)
        open_page.page.on("pageerror", lambda error: open_page.logged.append(str(error)))
        context.on("request", lambda request: open_page.asked.append(request.url))
        open_page.page.goto(url)
        yield open_page
        known = open_page.expected
        logged = [line for line in open_page.logged if not any(part in line for part in known)]
        assert not logged, logged
        strange = [to for to in open_page.asked if not to.startswith((url, "blob:"))]
        assert not strange, strange
    finally:
        context.close()


def picture(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (64, 48)) -> bytes:
    """Make a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def file(name: str, content: bytes | None = None) -> FilePayload:
    """Make a file for a file input."""
    content = picture() if content is None else content
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def choose(page: Page, task: str) -> None:
    page.get_by_role("radio", name=task, exact=True).check()


def bring(page: Page, *files: FilePayload) -> None:
    page.locator("#files").set_input_files(list(files))


def progress(page: Page, words: str) -> None:
    """Wait until the progress has this text."""
    expect(page.locator("#progress-text")).to_have_text(words)


def row(page: Page, name: str) -> Locator:
    """The row of an image in the list."""
    return page.locator(".job").filter(has_text=name)


def colours(page: Page, *shares: float) -> list[tuple[int, ...]]:
    """Colours of the large view at these shares of its width, away from the slider's handle."""
    with Image.open(io.BytesIO(page.locator("#compare").screenshot())) as shot:
        shown = shot.convert("RGB")
    places = [(round(share * (shown.width - 1)), round(shown.height * 0.8)) for share in shares]
    return [shown.getpixel(place) for place in places]  # type: ignore[misc]
