"""The page in a browser, served by the server itself."""

import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from playwright.sync_api import Browser, expect

import browsing
from browsing import Visit, bring, choose, file, progress, row
from drawn import draw_pairs
from piggyback_gan import Bank, teach
from running import OPTIONS
from served import serving


@pytest.fixture(scope="module")
def bank(unpaired_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(unpaired_bank.path, tmp_path_factory.mktemp("page") / "bank")


@pytest.fixture(scope="module")
def address(bank: Path) -> Iterator[str]:
    """Where the bank is served."""
    with serving(bank, device="cpu", max_bytes=100_000) as served:
        yield f"http://127.0.0.1:{served.port}/"


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    with browsing.visit(browser, address) as open_page:
        yield open_page


def photo(seed: int = 0, size: tuple[int, int] = (40, 24), kind: str = "PNG") -> bytes:
    """An image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_what_is_downloaded_is_what_the_bank_translates(visit: Visit, bank: Path) -> None:
    page = visit.page
    choose(page, "second")
    page.get_by_role("radio", name="B → A").check()
    bring(page, file("Straße 写.tif", photo(kind="TIFF")))
    progress(page, "1 of 1 done")
    expect(page.locator("#compare")).to_be_visible()
    for view in ("#before", "#after"):
        sides = page.locator(view).evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert sides == [40, 24]
    page.get_by_role("slider").press("ArrowRight")
    expect(page.get_by_role("slider")).to_have_value("51")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "Straße 写.png"
    with Image.open(download.value.path()) as output, Image.open(io.BytesIO(photo())) as image:
        wanted = Bank.open(bank).translate("second", image, direction="BtoA")
        difference = np.asarray(output, np.int16) - np.asarray(wanted, np.int16)
    assert np.abs(difference).max() <= 1


def test_what_the_server_refuses_stands_next_to_the_image(visit: Visit) -> None:
    page = visit.page
    visit.expected.append("422")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((24, 24), np.uint16))
    choose(page, "first")
    bring(page, file("deep.tif", buffer.getvalue()), file("notes.txt", b"no image"), file("a.png"))
    bring(page, file("large.png", bytes(100_001)))
    progress(page, "1 of 4 done, 3 failed")
    expect(row(page, "deep.tif")).to_contain_text("uint16, the task takes uint8.")
    expect(row(page, "notes.txt")).to_contain_text("not an image.")
    expect(row(page, "large.png")).to_contain_text("100001 bytes, and this server accepts")


def test_many_images_of_many_sizes_are_all_translated(visit: Visit) -> None:
    choose(visit.page, "first")
    sizes = [(20 + number % 3, 24) for number in range(12)]
    bring(visit.page, *(file(f"{n}.png", photo(n, size)) for n, size in enumerate(sizes)))
    progress(visit.page, "12 of 12 done")


def test_a_task_that_is_taught_while_the_page_is_open_can_be_used(
    visit: Visit, bank: Path, tmp_path: Path, without_curves: None
) -> None:
    choose(visit.page, "first")
    data = draw_pairs(tmp_path / "boxes", train=2, test=1)
    teach(bank, "night", data, dataclasses.replace(OPTIONS, epochs=1, mode="unpaired"))
    choose(visit.page, "night")
    bring(visit.page, file("a.png"))
    progress(visit.page, "1 of 1 done")
