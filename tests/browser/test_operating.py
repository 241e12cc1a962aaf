"""What an operator does with the page, each from the beginning to what it brings about."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visiting
from tests.browser.documents import CONTROLS, MARKUP, WAIT
from tests.browser.installation import COMPONENTS, OPERATOR, Site

pytestmark = pytest.mark.server


def start_rebuild(page: Page, reason: str, *chosen: str) -> Locator:
    """By the overview's dialog, from scratch: all components, or those chosen.

    Returns:
        The part of the overview that is about it.
    """
    page.get_by_role("button", name="Rebuild…").click()
    dialog = page.get_by_role("dialog", name="Rebuild")
    if chosen:
        dialog.get_by_label("Chosen components").check()
        for name in chosen:
            dialog.get_by_label(name, exact=True).check()
    else:
        dialog.get_by_label("Everything").check()
    dialog.get_by_label("From scratch").check()
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name="Rebuild").click()
    expect(dialog).to_be_hidden()
    about = page.get_by_test_id("rebuild")
    expect(about).to_contain_text(reason)
    return about


def has_ended(about: Locator, how: str = "Complete") -> None:
    """Wait for its end."""
    expect(about.get_by_text(how, exact=True).first).to_be_visible()


@pytest.fixture
def broken(running: Site) -> Iterator[str]:
    """Builds of ``topics`` fail with these words, until the test is over."""
    words = f"the baker is ill {MARKUP} {CONTROLS}".replace("\x00", "")
    running.breaks.write_text(words, encoding="utf-8")
    yield words
    running.breaks.unlink(missing_ok=True)


@pytest.fixture
def waiting(running: Site) -> Iterator[Path]:
    """Builds of ``topics`` wait until this file is removed, or the test is over."""
    running.breaks.write_text(WAIT, encoding="utf-8")
    yield running.breaks
    running.breaks.unlink(missing_ok=True)


def test_a_rebuild_is_watched_from_its_button_to_its_release(
    visiting: Visiting, waiting: Path
) -> None:
    page = visiting().page
    release = page.get_by_test_id("tiles").get_by_role("link").first
    before = int(release.inner_text())
    about = start_rebuild(page, "for the first test")
    expect(page.get_by_role("button", name="Rebuilding…")).to_be_disabled()
    topics = about.get_by_role("listitem").filter(has=page.get_by_role("link", name="topics"))
    expect(topics.get_by_role("progressbar")).to_be_visible()
    expect(topics).to_contain_text("Building")
    waiting.unlink()
    has_ended(about)
    for name in COMPONENTS:
        row = about.get_by_role("listitem").filter(has=page.get_by_role("link", name=name))
        expect(row).to_contain_text("Released")
    expect(release).not_to_have_text(str(before))
    expect(page.get_by_role("button", name="Rebuild…")).to_be_enabled()


def test_a_failed_component_says_why_and_heals(visiting: Visiting, broken: str) -> None:
    visit = visiting()
    page = visit.page
    about = start_rebuild(page, "it will fail", "topics")
    has_ended(about, "Failed")
    expect(about).to_contain_text("the baker is ill <img src=x")
    problems = page.get_by_test_id("problems").get_by_role("listitem")
    problem = problems.filter(has_text="the baker is ill")
    problem.get_by_role("link", name="See the component").click()
    expect(page.get_by_role("heading", level=1, name="topics")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("the baker is ill <img src=x")

    visit.site.breaks.unlink()
    visit.open()
    has_ended(start_rebuild(page, "it is mended", "topics"))
    expect(problem).to_have_count(0)


def test_a_rollback_says_what_it_will_change_before_it_does(visiting: Visiting) -> None:
    visit = visiting()
    page = visit.page
    before = visit.site.store.newest_release()
    assert before is not None
    has_ended(start_rebuild(page, "for a new version", "similar"))

    visit.open("releases")
    row = page.get_by_role("row").filter(
        has=page.get_by_role("link", name=str(before.number), exact=True)
    )
    row.get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(re.compile(r"Release \d+ is made"))
    expect(dialog.get_by_role("table")).to_contain_text("similar")
    newest = visit.site.store.newest_release()
    dialog.get_by_role("button", name="Cancel").click()
    assert visit.site.store.newest_release() == newest, "nothing was changed by looking"

    row.get_by_role("button", name="Roll back").click()
    dialog.get_by_label("Reason").fill("it was better before")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("row").filter(has_text="it was better before").first).to_be_visible()
    after = visit.site.store.newest_release()
    assert after is not None
    assert after.components["similar"] == before.components["similar"]

    visit.open("audit")
    expect(page.get_by_role("row").filter(has_text=OPERATOR[0]).first).to_be_visible()

    visit.open("components/similar")
    page.get_by_role("button", name="Lift the hold").click()
    dialog.get_by_role("button", name="Lift").click()
    expect(page.get_by_role("button", name="Hold")).to_be_visible()
    newest = visit.site.store.newest_release()
    assert newest is not None
    assert set(newest.holds) == set(COMPONENTS) - {"similar"}
    visit.site.store.lift(*newest.holds, reason="the test is over")


def test_a_killed_reader_is_gone_and_comes_back(visiting: Visiting) -> None:
    visit = visiting(route="readers")
    page = visit.page
    row = page.get_by_role("grid").get_by_role("row").filter(has_text="south")
    expect(row).to_contain_text("Serving")
    visit.site.kill("south")
    expect(row).to_contain_text("Gone")
    visit.site.start("south")
    expect(row.filter(has_text="Serving").first).to_be_visible()


def test_the_page_outlives_its_service(visiting: Visiting) -> None:
    visit = visiting()
    # The browser complains of each connection that is refused.
    visit.allowed += ["net::ERR_"]
    page = visit.page
    connection = page.get_by_test_id("connection")
    expect(connection).to_have_text("Live")
    visit.site.stop("admin")
    expect(connection).to_have_text("Reconnecting")
    expect(page.get_by_test_id("verdict")).to_be_visible()
    visit.site.start("admin")
    expect(connection).to_have_text("Live")
    # It is the same session, and what is pushed arrives again.
    has_ended(start_rebuild(page, "after the restart", "words"))


def test_a_search_lights_its_results_on_the_map_and_in_the_list(visiting: Visiting) -> None:
    page = visiting(route="map").page
    drawn = page.get_by_role("application", name="Map of 243 entries")
    expect(drawn).to_have_attribute("data-points", "243")
    expect(drawn).to_have_attribute("data-lit", "0")
    plain = picture_of(drawn)
    assert len(plain) > 20, "there are points on the ground"

    page.get_by_label("Words to find").fill("curtain applause")
    page.get_by_role("button", name="Search", exact=True).click()
    entries = page.get_by_role("list", name="Entries").get_by_role("listitem")
    expect(entries.first).to_contain_text("theatre-")
    expect(drawn).not_to_have_attribute("data-lit", "0")
    assert picture_of(drawn) != plain, "what is lit looks otherwise"

    entries.first.get_by_role("button").first.click()
    expect(entries.first).to_contain_text("topic")
    page.get_by_role("button", name="Draw around entries").click()
    page.get_by_role("button", name="Take all in view").click()
    expect(page.get_by_role("tab", name="Circled")).to_have_attribute("aria-selected", "true")
    drawn.focus()
    page.keyboard.press("0")
    expect(drawn).not_to_have_attribute("data-lit", "0")


def picture_of(drawn: Locator) -> dict[Any, int]:
    """How often each colour is in what is seen of it."""
    picture = Image.open(BytesIO(drawn.screenshot(animations="disabled"))).convert("RGB")
    counts = picture.getcolors(maxcolors=picture.width * picture.height)
    return {colour: count for count, colour in counts or ()}


def test_the_keyboard_is_enough(visiting: Visiting) -> None:
    visit = visiting(None)
    page = visit.page
    keys = page.keyboard
    expect(page.get_by_label("Name")).to_be_focused()
    keys.type(OPERATOR[0])
    keys.press("Tab")
    keys.type(OPERATOR[1])
    keys.press("Enter")
    expect(page.get_by_test_id("verdict")).to_be_visible()

    reach(page, page.get_by_role("link", name="Skip to the content"))
    keys.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    button = page.get_by_role("button", name="Rebuild…")
    reach(page, button)
    keys.press("Enter")
    dialog = page.get_by_role("dialog", name="Rebuild")
    expect(dialog).to_be_visible()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    keys.press("Enter")
    reach(page, dialog.get_by_label("Everything"))
    keys.press("Space")
    reach(page, dialog.get_by_label("Reason"))
    keys.type("by keyboard")
    reach(page, dialog.get_by_role("button", name="Rebuild"))
    keys.press("Enter")
    expect(dialog).to_be_hidden()
    about = page.get_by_test_id("rebuild")
    expect(about).to_contain_text("by keyboard")
    has_ended(about)

    reach(page, page.get_by_role("link", name="Readers"))
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Readers")).to_be_visible()
    grid = page.get_by_role("grid")
    reach(page, grid.locator("[tabindex='0']"))
    keys.press("ArrowRight")
    expect(page.get_by_test_id("described")).to_contain_text("both")


def reach(page: Page, wanted: Locator) -> None:
    """Press Tab until it has the focus, which has to be seen there."""
    for _ in range(80):
        if wanted.first.evaluate("element => element === document.activeElement"):
            outline = wanted.first.evaluate(
                "element => { const style = getComputedStyle(element);"
                " return style.outlineStyle !== 'none' || style.boxShadow !== 'none'; }"
            )
            assert outline, f"the focus is not seen on {wanted}"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {wanted}")
