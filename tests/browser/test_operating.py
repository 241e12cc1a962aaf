"""What an operator does with the page, each from the beginning to what it brings about."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visiting

pytestmark = pytest.mark.server


def test_a_killed_reader_is_gone_and_comes_back(visiting: Visiting) -> None:
    visit = visiting(route="readers")
    page = visit.page
    row = page.get_by_role("grid").get_by_role("row").filter(has_text="south")
    expect(row).to_contain_text("Serving")
    visit.site.kill("south")
    expect(row).to_contain_text("Gone")
    visit.site.start("south")
    expect(row.filter(has_text="Serving").first).to_be_visible()
