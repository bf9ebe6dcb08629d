"""The page of `pbgan serve` in a browser: choosing a task, adding an image, viewing its translation."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import browsing
import page_server
from browsing import CYAN, RED, Visit, bring, choose, colours, file, picture, progress, row
from page_server import PageServer, make_task, problem


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server.running(make_task("maps"), make_task("winter", mode="unpaired")) as running:
        yield running


def said(page: Page, words: str) -> None:
    """Wait until these words are announced to screen readers."""
    expect(page.get_by_role("status").filter(has_text=words)).to_be_attached()


def test_a_chosen_image_is_translated_and_its_exact_output_downloaded(
    page: Page, server: PageServer
) -> None:
    choose(page, "maps")
    content = picture()
    bring(page, file("Größe 写真.jpg", content))
    progress(page, "1 of 1 done")

    expect(page.locator("#view-facts")).to_contain_text(
        "maps · 64 \N{MULTIPLICATION SIGN} 48 px · "
    )
    expect(page.locator("#view-facts")).to_contain_text("output: Größe 写真.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "Größe 写真.png"
    assert Path(download.value.path()).read_bytes() == page_server.translated(content)
    (asked,) = server.asked
    assert (asked.task, asked.name, asked.content) == ("maps", "Größe 写真.jpg", content)
    assert asked.query == {"direction": "AtoB", "format": "best", "views": "true"}


def test_a_dropped_image_is_translated(page: Page) -> None:
    choose(page, "maps")
    page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "dropped.png"));
            for (const type of ["dragenter", "dragover", "drop"]) {
                const options = { dataTransfer, bubbles: true, cancelable: true };
                document.querySelector("h1").dispatchEvent(new DragEvent(type, options));
            }
        }""",
        base64.b64encode(picture()).decode(),
    )
    progress(page, "1 of 1 done")
    expect(row(page, "dropped.png")).to_be_visible()


def test_a_dropped_folder_is_walked_and_only_images_are_taken(page: Page, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "second").mkdir(parents=True)
    for name in ("10.png", "9.PNG", "second/1.png", ".hidden.png"):
        (scans / name).write_bytes(picture())
    (scans / "notes.txt").write_text("no image")
    choose(page, "maps")

    data = {"items": [], "files": [str(scans)], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"type": kind, "x": 400, "y": 200, "data": data}
        devtools.send("Input.dispatchDragEvent", place)

    progress(page, "3 of 3 done")
    names = page.locator(".job .name").all_text_contents()
    assert names == ["scans/9.PNG", "scans/10.png", "scans/second/1.png"]
    said(page, "1 file left out: not an image.")


def test_an_image_is_pasted(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, "maps")
    page.evaluate(
        """async text => {
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            const image = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""",
        base64.b64encode(picture()).decode(),
    )
    page.keyboard.press("Control+V")
    progress(page, "1 of 1 done")
    expect(row(page, "pasted-1.png")).to_be_visible()


def test_the_slider_moves_with_arrow_keys(page: Page) -> None:
    choose(page, "maps")
    bring(page, file("a.png"))
    slider = page.get_by_role("slider")
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "50 % input, 50 % output"
    assert colours(page, 0.45, 0.55) == [RED, CYAN]

    for _ in range(10):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "60 % input, 40 % output"
    assert colours(page, 0.55, 0.65) == [RED, CYAN]
    slider.press("Home")
    assert colours(page, 0.05) == [CYAN]


def test_the_slider_follows_the_pointer_anywhere_on_the_picture(page: Page) -> None:
    choose(page, "maps")
    bring(page, file("a.png"))
    page.locator("#compare").scroll_into_view_if_needed()
    box = page.locator("#compare").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    assert colours(page, 0.25, 0.35) == [RED, CYAN]
    page.mouse.move(box["x"] + box["width"] * 0.7, middle)
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"] * 0.1, middle)

    assert colours(page, 0.65, 0.75) == [RED, CYAN]
    expect(page.get_by_role("slider")).to_have_value("70")


def test_input_and_output_stand_side_by_side(page: Page) -> None:
    choose(page, "maps")
    bring(page, file("a.png"))
    page.get_by_role("radio", name="Side by side").check()
    expect(page.get_by_role("slider")).to_have_count(0)
    assert colours(page, 0.2, 0.8) == [RED, CYAN]


def test_an_error_stands_beside_the_image_and_in_the_view(visit: Visit, server: PageServer) -> None:
    visit.expected.append("422")
    sentence = "a.png has 4 channels, and maps takes 3: take the transparency out of it."
    server.failing["a.png"] = problem("wrong-image", 422, sentence)
    choose(visit.page, "maps")
    bring(visit.page, file("a.png"))
    progress(visit.page, "0 of 1 done, 1 failed")
    expect(row(visit.page, "a.png")).to_contain_text(sentence)
    expect(visit.page.locator("#view-error")).to_have_text(sentence)
    expect(visit.page.get_by_role("button", name="Retry")).to_have_count(0)


def test_a_file_that_is_too_large_is_not_sent(page: Page, server: PageServer) -> None:
    server.limits["max_bytes"] = 1500
    page.reload()
    choose(page, "maps")
    bring(page, file("scan.tif", bytes(2000)))
    words = "The file has 2.0 kB, and this server accepts images of up to 1.5 kB."
    expect(row(page, "scan.tif")).to_contain_text(words)
    assert server.asked == []


def test_a_file_name_is_text_and_never_markup(page: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    choose(page, "maps")
    bring(page, file(name))
    progress(page, "1 of 1 done")
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert page.locator("img[onerror]").count() == 0


def test_images_wait_for_a_task_and_then_for_a_word_to_be_translated_with_another(
    page: Page, server: PageServer
) -> None:
    bring(page, file("a.png"), file("b.png"))
    expect(page.locator("#offer")).to_contain_text("2 images are here. Choose a task")
    choose(page, "maps")
    progress(page, "2 of 2 done")

    choose(page, "winter")
    assert len(server.asked) == 2
    page.get_by_role("button", name="Translate 2 images with winter, A → B").click()
    progress(page, "4 of 4 done")
    assert [one.task for one in server.asked] == ["maps"] * 2 + ["winter"] * 2
    expect(page.locator("#offer")).to_be_hidden()


def test_arrow_keys_pass_a_task_without_translating_with_it(page: Page, server: PageServer) -> None:
    bring(page, file("a.png"))
    page.get_by_role("radio", name="maps").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("button", name="Translate 1 image with winter, A → B").click()
    progress(page, "1 of 1 done")
    assert [one.task for one in server.asked] == ["winter"]


def test_the_direction_and_the_options_are_asked_for(page: Page, server: PageServer) -> None:
    choose(page, "winter")
    page.get_by_role("radio", name="B → A").check()
    page.get_by_text("Options").click()
    page.get_by_label("Output format").select_option("tif")
    page.get_by_label("Large images").select_option("pixels")
    page.get_by_label("Tile, in pixels").fill("256")
    bring(page, file("a.png"))
    progress(page, "1 of 1 done")
    wanted = {"direction": "BtoA", "format": "tif", "tile": "256", "views": "true"}
    assert server.asked[0].query == wanted


def test_task_and_direction_are_in_the_url_and_outlast_a_reload(page: Page) -> None:
    choose(page, "winter")
    page.get_by_role("radio", name="B → A").check()
    assert page.url.endswith("#task=winter&direction=BtoA")
    page.reload()
    expect(page.get_by_role("radio", name="winter")).to_be_checked()
    expect(page.get_by_role("radio", name="B → A")).to_be_checked()
    page.get_by_role("link", name="Skip to the images").press("Enter")
    assert page.url.endswith("#task=winter&direction=BtoA")
    expect(page.locator("#work")).to_be_focused()


def test_a_task_learned_meanwhile_appears_and_harms_nothing(page: Page, server: PageServer) -> None:
    page.clock.install()
    page.reload()
    choose(page, "maps")
    server.open.clear()
    bring(page, file("a.png"))
    expect(row(page, "a.png")).to_contain_text("translating")
    with page.expect_response("**/v1/tasks") as unchanged:
        page.clock.fast_forward(5100)
    assert unchanged.value.status == 304
    server.tasks = [server.tasks[0], make_task("night")]
    page.clock.fast_forward(5100)
    expect(page.get_by_role("radio", name="night")).to_be_visible()
    expect(page.get_by_role("radio", name="winter")).to_have_count(0)
    said(page, "New task: night.")
    said(page, "No longer in the bank: winter.")
    expect(page.get_by_role("radio", name="maps")).to_be_checked()
    server.open.set()
    progress(page, "1 of 1 done")


def test_an_empty_bank_says_how_to_teach_it_until_it_has_one(
    page: Page, server: PageServer
) -> None:
    learned, server.tasks = server.tasks, []
    page.clock.install()
    page.reload()
    expect(page.get_by_role("heading", name="No tasks in the bank yet")).to_be_visible()
    server.tasks = learned[:1]
    page.clock.fast_forward(5100)
    expect(page.get_by_role("radio", name="maps")).to_be_visible()
    expect(page.get_by_text("No tasks in the bank yet")).to_be_hidden()


def test_below_the_prefix_of_a_proxy_all_is_found(browser: Browser, server: PageServer) -> None:
    server.prefix = "/shared/bank"
    with browsing.visit(browser, f"{server.url}shared/bank/") as visit:
        choose(visit.page, "maps")
        bring(visit.page, file("a.png"))
        progress(visit.page, "1 of 1 done")
        expect(visit.page.locator(".card img").first).to_be_visible()
