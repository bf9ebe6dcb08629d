"""Accessibility of the page: keyboard, screen readers, phones, contrast."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import browsing
import page_server
from browsing import Visit, bring, choose, file, progress
from page_server import PageServer, make_task, problem

CONTROLS = {"button", "radio", "textbox", "searchbox", "combobox", "slider", "spinbutton", "link"}
# Each text with its ratio to what lies behind it (WCAG 2.2, 1.4.3), and the ratio that its size asks for.
CONTRASTS = """() => {
    const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        brush.clearRect(0, 0, 1, 1);
        brush.fillStyle = colour;
        brush.fillRect(0, 0, 1, 1);
        return [...brush.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
    };
    const over = ([r, g, b, a], back) => [r, g, b].map((value, at) => value * a + back[at] * (1 - a));
    const behind = (element) => {
        if (element === null) return [1, 1, 1];
        const colour = rgba(getComputedStyle(element).backgroundColor);
        return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const judge = (element, style, text) => {
        const back = behind(element);
        const pair = [light(over(rgba(style.color), back)), light(back)].sort((a, b) => b - a);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        found.push([text.trim().slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05), large ? 3 : 4.5]);
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const { data, parentElement: element } = walker.currentNode;
        if (!data.trim() || !element.checkVisibility() || element.closest(":disabled, .unseen")) continue;
        judge(element, getComputedStyle(element), data);
    }
    for (const element of document.querySelectorAll("input:not([type=range]), select")) {
        if (!element.checkVisibility()) continue;
        judge(element, getComputedStyle(element), element.value);
        if (element.placeholder) judge(element, getComputedStyle(element, "::placeholder"), "placeholder");
    }
    return found;
}"""


@pytest.fixture
def server() -> Iterator[PageServer]:
    tasks = [make_task(f"style-{number}", has_sample=number < 3) for number in range(8)]
    winter = make_task(
        "winter", mode="unpaired", description="Summer becomes winter.", license="mit"
    )
    with page_server.running(*tasks, winter) as running:
        yield running


def states(visit: Visit, server: PageServer) -> Iterator[str]:
    """Yield once for each state of the page."""
    page = visit.page
    visit.expected += ["401", "422", "ERR_"]
    expect(page.locator(".card img")).not_to_have_count(0)
    yield "at first"
    choose(page, "winter")
    page.get_by_text("Options").click()
    page.get_by_label("Large images").select_option("pixels")
    server.failing["bad.png"] = problem("wrong-image", 422, "bad.png has transparency.")
    bring(page, file(f"{'long-' * 30}.png"), file("bad.png"))
    progress(page, "1 of 2 done, 1 failed")
    expect(page.locator("#pictures")).to_be_visible()
    yield "under the slider"
    page.get_by_role("radio", name="Side by side").check()
    choose(page, "style-1")
    expect(page.locator("#offer")).to_be_visible()
    yield "side by side, with another task"
    page.get_by_role("button", name="bad.png").click()
    server.broken = True
    bring(page, file("a.png"))
    expect(page.locator("#trouble")).to_be_visible()
    yield "with errors"
    server.broken, server.token = False, "s3cret"
    page.reload()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    yield "asking for a token"
    server.token, server.tasks = None, []
    page.reload()
    expect(page.get_by_text("No tasks in the bank yet")).to_be_visible()
    yield "with an empty bank"


def unnamed(page: Page) -> list[str]:
    """The roles of controls, pictures and regions without a name for screen readers."""
    devtools = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = devtools.send("Accessibility.getFullAXTree")["nodes"]
    devtools.detach()
    named = CONTROLS | {"progressbar", "radiogroup", "group", "region", "image", "heading"}
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in named]
    assert found
    return [node["role"]["value"] for node in found if not node.get("name", {}).get("value")]


def test_all_texts_have_contrast_and_all_controls_a_name(visit: Visit, server: PageServer) -> None:
    for state in states(visit, server):
        assert unnamed(visit.page) == [], state
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            contrasts = visit.page.evaluate(CONTRASTS)
            assert len(contrasts) > 5
            assert [one for one in contrasts if one[1] < one[2]] == [], (scheme, state)


def test_a_narrow_window_needs_no_scrolling_to_the_side(visit: Visit, server: PageServer) -> None:
    for state in states(visit, server):
        for width in (320, 360, 640, 1280):
            visit.page.set_viewport_size({"width": width, "height": 740})
            wide = visit.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (width, state)


def test_a_finger_moves_the_slider(browser: Browser, server: PageServer) -> None:
    size = {"width": 360, "height": 740}
    with browsing.visit(browser, server.url, viewport=size, has_touch=True) as visit:
        page = visit.page
        choose(page, "winter")
        bring(page, file("a.png"))
        compare = page.locator("#compare")
        compare.scroll_into_view_if_needed()
        box = compare.bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
        expect(page.get_by_role("slider", name="How much of the input")).to_have_value("20")
        assert "pan-y" in compare.evaluate("element => getComputedStyle(element).touchAction")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_the_keyboard_leads_from_a_task_to_its_translation(page: Page, server: PageServer) -> None:
    # From the beginning: a chooser that opens at once after the listener came is missed.
    page.on("filechooser", lambda chooser: chooser.set_files([file("a.png")]))
    expect(page.get_by_role("radio", name="winter")).to_be_visible()
    tab_to(page, "#filter")
    page.keyboard.type("winter")
    tab_to(page, "[name=task]")
    page.keyboard.press("Space")
    expect(page.get_by_role("heading", name="winter")).to_be_visible()
    tab_to(page, "[name=direction]")
    page.keyboard.press("ArrowRight")
    tab_to(page, "#pick")
    page.keyboard.press("Enter")
    expect(page.locator("#compare")).to_be_visible()
    tab_to(page, "#split")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#split")).to_have_attribute("aria-valuetext", "49 % input, 51 % output")
    assert server.asked[0].query["direction"] == "BtoA"
    # No trap: it goes on to the end of the page, and begins again.
    tab_to(page, "#clear")
    tab_to(page, ".skip")


def test_what_has_the_focus_shows_it(page: Page) -> None:
    choose(page, "winter")
    bring(page, file("a.png"))
    expect(page.locator("#compare")).to_be_visible()
    page.locator("h1").click()
    seen = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => {
                const now = document.activeElement;
                if (now === document.body) return ["the end", true];
                const near = [now, now.closest("label"), now.nextElementSibling].filter(Boolean);
                const styles = near.flatMap((one) => [getComputedStyle(one), getComputedStyle(one, "::after")]);
                return [now.id || now.className || now.name, styles.some((style) => style.outlineStyle === "solid")];
            }"""
        )
        seen.add(shown[0])
        assert shown[1], shown[0]
    assert {"skip", "pick", "split", "download", "clear"} <= seen


def test_who_wants_less_motion_gets_it(browser: Browser, server: PageServer) -> None:
    with browsing.visit(browser, server.url, reduced_motion="reduce") as visit:
        card = visit.page.locator(".card").first
        still = card.evaluate("element => getComputedStyle(element).transitionProperty")
        assert still == "none"
