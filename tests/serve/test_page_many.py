"""The page of `pbgan serve` with many images, a busy or a missing server, and an access token."""

import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import browsing
import page_server
from browsing import Visit, bring, choose, file, picture, progress, row
from page_server import CUT, PageServer, make_task, problem
from running import wait_for

COUNT_URLS = """
    window.urls = new Set();
    for (const [name, keep] of [["createObjectURL", "add"], ["revokeObjectURL", "delete"]]) {
        const original = URL[name].bind(URL);
        URL[name] = (given) => {
            const result = original(given);
            window.urls[keep](result ?? given);
            return result;
        };
    }
"""


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server.running(make_task("maps"), make_task("winter", has_sample=False)) as running:
        yield running


def download_all(page: Page) -> tuple[str, dict[str, bytes]]:
    """The name and the files of the ZIP, every checksum checked."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    content = Path(download.value.path()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    return download.value.suggested_filename, files


def test_many_images_go_by_fours_with_progress_to_a_zip(page: Page, server: PageServer) -> None:
    inputs = {f"{number}.jpg": picture((number, 0, 255 - number)) for number in range(10)}
    inputs["0.bmp"] = picture((1, 2, 3))
    server.open.clear()
    choose(page, "maps")
    bring(page, *(file(name, content) for name, content in inputs.items()))
    expect(page.locator(".job[data-state=running]")).to_have_count(4)
    progress(page, "0 of 11 done")
    wait_for(lambda: server.under_way == 4, lambda: True)
    server.open.set()
    progress(page, "11 of 11 done")
    assert server.most == 4
    expect(page.get_by_role("status").filter(has_text="Ready: 11 of 11 done")).to_be_attached()

    name, files = download_all(page)
    assert name == "maps.zip"
    wanted = {f"{key.partition('.')[0]}.png": value for key, value in inputs.items()}
    wanted["0.png"], wanted["0 (2).png"] = inputs["0.jpg"], inputs["0.bmp"]
    assert files == {key: page_server.translated(value) for key, value in wanted.items()}


def test_the_zip_has_a_folder_for_each_task(page: Page) -> None:
    choose(page, "maps")
    bring(page, file("a.jpg"))
    progress(page, "1 of 1 done")
    choose(page, "winter")
    page.get_by_role("button", name="Translate 1 image with winter").click()
    progress(page, "2 of 2 done")
    name, files = download_all(page)
    assert (name, sorted(files)) == ("translated.zip", ["maps-AtoB/a.png", "winter-AtoB/a.png"])


def test_each_image_of_the_list_can_be_seen_large(page: Page) -> None:
    choose(page, "maps")
    bring(page, file("a.png"), file("b.png", picture((0, 0, 255))))
    progress(page, "2 of 2 done")
    page.get_by_role("button", name="b.png done in").press("Enter")
    expect(page.get_by_role("heading", name="b.png")).to_be_visible()
    expect(page.get_by_alt_text("output: b.png")).to_be_visible()
    assert browsing.colours(page, 0.2, 0.8) == [(0, 0, 255), (255, 255, 0)]
    page.get_by_role("button", name="Previous image").click()
    expect(page.get_by_role("heading", name="a.png")).to_be_visible()


def test_a_busy_server_is_asked_again_when_it_says(visit: Visit, server: PageServer) -> None:
    visit.expected += ["429", "503"]
    busy = problem("queue-full", 429, "Too many wait.", Retry_After="1")
    server.failures = [busy, problem("overloaded", 503, "Too much to do.", Retry_After="0")]
    choose(visit.page, "maps")
    bring(visit.page, file("a.png"))
    expect(row(visit.page, "a.png")).to_contain_text("the server is busy; next try in 1 s")
    progress(visit.page, "1 of 1 done")
    assert [one.name for one in server.asked] == ["a.png"] * 3


def test_cancel_ends_all_that_is_open_and_retry_begins_anew(page: Page, server: PageServer) -> None:
    server.open.clear()
    choose(page, "maps")
    bring(page, *(file(f"{number}.png") for number in range(6)))
    expect(page.locator(".job[data-state=running]")).to_have_count(4)
    page.get_by_role("button", name="Cancel").click()
    progress(page, "0 of 6 done, 6 cancelled")
    expect(page.get_by_role("heading", name="Images", exact=True)).to_be_focused()
    server.open.set()
    page.get_by_role("button", name="Retry 6", exact=True).click()
    progress(page, "6 of 6 done")


def test_a_lost_server_is_told_once_and_the_rest_waits(visit: Visit, server: PageServer) -> None:
    page = visit.page
    visit.expected.append("ERR_")
    choose(page, "maps")
    server.broken = True
    bring(page, *(file(f"{number}.png") for number in range(6)))
    words = "The server can't be reached. Is it still running?"
    expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(row(page, "0.png")).to_contain_text(words)
    expect(row(page, "5.png")).to_contain_text("queued")
    server.broken = False
    page.get_by_role("button", name="Try again").click()
    progress(page, "6 of 6 done")
    expect(page.get_by_role("alert").filter(has_text=words)).to_be_hidden()


def test_one_connection_that_breaks_costs_one_image(visit: Visit, server: PageServer) -> None:
    page = visit.page
    visit.expected.append("ERR_")
    server.failing["b.png"] = CUT
    choose(page, "maps")
    bring(page, file("a.png"), file("b.png"), file("c.png"))
    progress(page, "2 of 3 done, 1 failed")
    del server.failing["b.png"]
    page.get_by_role("button", name="Retry b.png").click()
    progress(page, "3 of 3 done")


def test_a_token_is_asked_for_and_kept_for_the_tab(browser: Browser, server: PageServer) -> None:
    server.token = "s3cret"
    with browsing.visit(browser, server.url) as visit:
        page = visit.page
        visit.expected.append("401")
        token = page.get_by_label("Token", exact=True)
        expect(token).to_be_focused()
        expect(page.get_by_role("main")).to_be_hidden()
        token.fill("guess")
        token.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="not accepted")).to_be_visible()
        token.fill("s3cret")
        token.press("Enter")
        expect(page.locator(".card img")).to_have_count(1)
        page.reload()
        choose(page, "maps")
        bring(page, file("a.png"))
        progress(page, "1 of 1 done")
        assert "s3cret" not in page.url


@pytest.mark.parametrize("before", [None, "new"], ids=["another", "the same"])
def test_a_token_that_is_given_meanwhile_costs_no_image(
    visit: Visit, server: PageServer, before: str | None
) -> None:
    page = visit.page
    refusal = server.late["b.png"] = threading.Event()
    visit.expected.append("401")
    choose(page, "maps")
    if before is not None:
        page.evaluate("token => sessionStorage.setItem('pbgan token', token)", before)
    server.token = "other"
    bring(page, file("a.png"), file("b.png"))
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    server.token = "new"
    page.get_by_label("Token", exact=True).fill("new")
    page.get_by_role("button", name="Open").click()
    progress(page, "1 of 2 done")
    refusal.set()  # of the token before, when the one that was given has been accepted
    progress(page, "2 of 2 done")
    expect(page.get_by_label("Token", exact=True)).to_be_hidden()


def test_pictures_that_are_no_longer_shown_are_freed(page: Page) -> None:
    page.add_init_script(COUNT_URLS)
    page.reload()
    expect(page.locator(".card img")).to_have_count(1)
    choose(page, "maps")
    bring(page, *(file(f"{number}.png") for number in range(4)))
    progress(page, "4 of 4 done")
    for number in (3, 1, 2):
        page.get_by_role("button", name=f"{number}.png done in").click()
        expect(page.get_by_alt_text(f"output: {number}.png")).to_be_visible()
    assert page.evaluate("urls.size") == 3  # the sample, input and output
    page.get_by_role("button", name="Clear the list").click()
    expect(page.locator(".job")).to_have_count(0)
    assert page.evaluate("urls.size") == 1


def test_fifty_tasks_are_filtered_by_words(page: Page, server: PageServer) -> None:
    styles = [make_task(f"style-{number}", has_sample=False) for number in range(50)]
    styles[7]["description"] = "Snow on roofs"
    server.tasks = styles
    page.reload()
    expect(page.get_by_role("radio", name="style-")).to_have_count(50)
    page.get_by_label("Filter tasks").fill("roofs SNOW")
    expect(page.get_by_role("radio", name="style-")).to_have_count(1)
    expect(page.locator("#tasks-count")).to_have_text("1 of 50 tasks")
    expect(page.locator(".card:visible .initials")).to_have_text("S7")
    page.get_by_label("Filter tasks").fill("nothing like it")
    expect(page.get_by_text("No task matches the filter.")).to_be_visible()
