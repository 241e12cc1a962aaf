"""The map's picture: what it takes and gives back, and the line that is drawn on it."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visit, Visiting
from tests.browser.test_operating import picture_of

pytestmark = pytest.mark.server

COUNT_CONTEXTS = """
const original = HTMLCanvasElement.prototype.getContext;
window.contexts = new Set();
const count = () => {
  const held = [...window.contexts].filter((each) => !each.isContextLost()).length;
  document.documentElement.dataset.contexts = held;
};
HTMLCanvasElement.prototype.getContext = function (...given) {
  const context = original.apply(this, given);
  if (context && given[0] === "webgl2" && !window.contexts.has(context)) {
    window.contexts.add(context);
    this.addEventListener("webglcontextlost", count);
    setTimeout(count); // one that is given back at once was never held
  }
  return context;
};
"""
LOSE = """
for (const each of window.contexts) {
  if (!each.isContextLost()) each.getExtension("WEBGL_lose_context").loseContext();
}
document.documentElement.dataset.contexts = 0;
"""


@pytest.fixture
def visit(visiting: Visiting) -> Visit:
    """Somebody who looks at the map."""
    made = visiting(None, reduced_motion="reduce")
    made.page.add_init_script(COUNT_CONTEXTS)
    made.page.reload()
    made.log_in()
    made.open("map")
    drawn_of(made.page)
    return made


def holds(page: Page, contexts: int) -> None:
    """Wait until the page has so many pictures that the browser draws."""
    expect(page.locator("html")).to_have_attribute("data-contexts", str(contexts))


def drawn_of(page: Page) -> Locator:
    """The map, once it is drawn."""
    drawn = page.get_by_role("application", name="Map of 243 entries")
    expect(drawn).to_have_attribute("data-points", "243")
    holds(page, 1)
    return drawn


def test_a_map_gives_its_picture_back_when_it_is_left(visit: Visit) -> None:
    for _ in range(2):
        visit.open("readers")
        holds(visit.page, 0)
        visit.open("map")
        drawn_of(visit.page)


def test_a_picture_that_the_browser_took_away_is_drawn_anew_where_one_looked(visit: Visit) -> None:
    page = visit.page
    drawn = drawn_of(page)
    drawn.focus()
    page.keyboard.press("+")
    entries = page.get_by_role("tab", name="In view")
    expect(entries).not_to_contain_text("243")
    seen = entries.text_content() or ""
    for _ in range(3):
        page.evaluate(LOSE)
        holds(page, 1)
        drawn_of(page)
    assert len(picture_of(drawn)) > 20, "there are points on the ground"
    expect(entries).to_have_text(seen.strip())

    page.evaluate(LOSE)
    expect(page.get_by_text("The browser took the picture away")).to_be_visible()
    expect(entries).to_contain_text("243")


def test_escape_ends_the_line_that_is_drawn_around_entries(visit: Visit) -> None:
    page = visit.page
    drawn = drawn_of(page)
    tool = page.get_by_role("button", name="Draw around entries")
    box = drawn.bounding_box()
    assert box is not None
    circled = page.get_by_role("tab", name=re.compile("Circled"))
    for escapes in (True, False):
        tool.click()
        expect(tool).to_have_attribute("aria-pressed", "true")
        corners = [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]
        for place, (across, down) in enumerate(corners):
            page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
            if place == 0:
                page.mouse.down()
        expect(page.locator(".map-line")).to_be_visible()
        if escapes:
            page.keyboard.press("Escape")
            expect(tool).to_have_attribute("aria-pressed", "false")
            expect(page.locator(".map-line")).to_have_count(0)
        page.mouse.up()
        if escapes:
            expect(circled).to_have_count(0)
    expect(circled).to_have_attribute("aria-selected", "true")


def test_history_shows_no_range_under_the_name_of_another(visiting: Visiting) -> None:
    visit = visiting(route="history")
    visit.allowed.append("ERR_FAILED")
    page = visit.page
    totals = page.get_by_text("Rebuilds at a glance")
    expect(totals).to_be_visible()
    page.route("**/api/admin/history?*", lambda route: route.abort())
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(totals).to_have_count(0)
    page.unroute("**/api/admin/history?*")
    page.get_by_role("button", name="Try again").click()
    expect(totals).to_be_visible()
