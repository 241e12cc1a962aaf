"""Every view: in light and dark, on a phone, for who cannot see it, and with hostile data in it."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visiting
from tests.browser.documents import MARKUP

pytestmark = pytest.mark.server

VIEWS = {
    "overview": "Overview",
    "components": "Components",
    "components/similar": "similar",
    "readers": "Readers",
    "releases": "Releases",
    "releases/1": "Release 1",
    "map": "Map",
    "lab": "Search lab",
    "history": "History",
    "alerts": "Alerts",
    "dead-letters": "Dead letters",
    "schedules": "Schedules",
    "backups": "Backups",
    "audit": "Audit",
}
"""The heading of each, by its route."""
SERIOUS = ("serious", "critical")


def settled(page: Page, route: str) -> None:
    """Wait until a view is drawn with what it asked for."""
    page.evaluate("route => { location.hash = `#/${route}`; }", route)
    heading = page.get_by_role("heading", level=1, name=VIEWS[route], exact=True)
    expect(heading).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


def violations(page: Page, **options: object) -> list[str]:
    """What axe finds that is serious, each with where it is."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def test_axe_finds_nothing_serious_in_any_view(visiting: Visiting) -> None:
    page = visiting(color_scheme="light", reduced_motion="reduce").page
    found = {}
    for route in VIEWS:
        settled(page, route)
        found[route] = violations(page)
    assert {route: each for route, each in found.items() if each} == {}


def test_every_view_has_enough_contrast_in_the_dark(visiting: Visiting) -> None:
    page = visiting(color_scheme="dark", reduced_motion="reduce").page
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert re.fullmatch(r"rgb\(\d{1,2}, \d{1,2}, \d{1,2}\)", dark), dark
    found = {}
    for route in VIEWS:
        settled(page, route)
        found[route] = violations(page, runOnly=["color-contrast"])
    assert {route: each for route, each in found.items() if each} == {}


def test_the_switch_changes_the_colours_and_is_remembered(visiting: Visiting) -> None:
    page = visiting(color_scheme="light").page
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Dark colours").click()
    whole = page.locator("html")
    expect(whole).not_to_have_css("background-color", light)
    page.reload()
    expect(page.get_by_test_id("verdict")).to_be_visible()
    expect(whole).not_to_have_css("background-color", light)


def test_every_view_fits_a_phone(visiting: Visiting) -> None:
    page = visiting(viewport=PHONE, has_touch=True, is_mobile=True).page
    page.get_by_role("button", name="Views").click()
    page.get_by_role("navigation").get_by_role("link", name="Readers").click()
    expect(page.get_by_role("heading", level=1, name="Readers")).to_be_visible()
    expect(page.get_by_role("navigation")).to_be_hidden()
    wide = {}
    for route in VIEWS:
        settled(page, route)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide[route] = width
    assert wide == {}


def test_hostile_texts_are_shown_as_text(visiting: Visiting) -> None:
    visit = visiting(route="readers")
    page = visit.page
    expect(page.get_by_text(MARKUP[:20]).first).to_be_visible()
    for route in VIEWS:
        settled(page, route)
        # Neither made an element nor a line that is as long as the text.
        assert page.locator("main img[src=x], main script").count() == 0, route
        assert len(page.locator("main").inner_html()) < 2_000_000, route
