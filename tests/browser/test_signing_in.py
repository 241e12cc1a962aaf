"""Who gets in, and what a viewer may do."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visiting
from tests.browser.installation import OPERATOR, VIEWER

pytestmark = pytest.mark.server


def test_a_wrong_password_is_refused_and_the_right_one_opens_the_overview(
    visiting: Visiting,
) -> None:
    visit = visiting(None)
    page = visit.page
    page.get_by_label("Name").fill(OPERATOR[0])
    page.get_by_label("Password").fill("guessed")
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Password")).to_have_value("")
    expect(page.get_by_role("navigation")).to_have_count(0)

    visit.log_in()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] in ("Strict", "Lax")


def test_a_session_that_was_ended_shows_nothing_more(visiting: Visiting) -> None:
    visit = visiting()
    page = visit.page
    expect(page.get_by_test_id("verdict")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_test_id("verdict")).to_have_count(0)


def test_a_viewer_reads_why_a_button_does_nothing(visiting: Visiting) -> None:
    page = visiting(VIEWER).page
    expect(page.get_by_role("button", name=re.compile("^Rebuild"))).to_be_disabled()
    expect(page.get_by_text("Viewer: may look, not change")).to_be_visible()
