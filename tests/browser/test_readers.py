"""The matrix of readers and components, with more of both than fit on a screen."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Visit, Visiting
from tests.browser.documents import MARKUP

pytestmark = pytest.mark.server
READERS, COMPONENTS = 200, 30
REFUSED = f"the budget has 1.2 GiB left {MARKUP}"


def crowded(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with many readers and components, in the place of those that there are.

    The last reader refuses the last component.
    """
    component = next(each for each in state["components"] if each["name"] == "similar")
    names = [f"component_{number:02d}" for number in range(COMPONENTS)]
    served = {"state": "serving", "version": "a" * 64, "wanted": "a" * 64, "error": None}
    readers = [
        {
            **state["readers"]["items"][0],
            "id": f"web-{number}:0123456789abcdef",
            "label": f"web-{number}",
            "state": "serving",
            "components": dict.fromkeys(names, served),
        }
        for number in range(READERS)
    ]
    refused = {**served, "state": "refused", "error": REFUSED}
    readers[-1] |= {"state": "refused", "components": {**dict.fromkeys(names, served)}}
    readers[-1]["components"][names[-1]] = refused
    return {
        **state,
        "problems": [],
        "components": [{**component, "name": name} for name in names],
        "readers": {"live": READERS, "converged": READERS - 1, "left_out": 0, "items": readers},
    }


def crowded_visit(visiting: Visiting) -> Visit:
    """A visit to the readers, where the service tells of a crowd."""
    visit = visiting(None)

    def tell(route: Route) -> None:
        answer = route.fetch()
        if answer.ok:
            route.fulfill(response=answer, body=json.dumps(crowded(answer.json())))
        else:
            route.fulfill(response=answer)

    visit.page.route("**/api/admin/state", tell)
    # A stream that says nothing: the page asks for the state again.
    visit.page.route(
        "**/api/admin/stream*", lambda route: route.fulfill(content_type="text/event-stream")
    )
    visit.log_in()
    visit.open("readers")
    expect(drawn(visit.page).first).to_be_visible()
    return visit


def drawn(page: Page) -> Locator:
    """The rows of readers that are in the document."""
    return page.get_by_role("grid").locator("tbody tr[aria-rowindex]")


def focused(page: Page) -> tuple[str | None, int]:
    """The number of the row that has the focus, and its column."""
    found = page.evaluate(
        "() => { const cell = document.activeElement;"
        " return [cell.closest('tr')?.ariaRowIndex, cell.cellIndex]; }"
    )
    return found[0], found[1]


def test_two_hundred_readers_are_walked_through_by_keyboard_while_few_are_drawn(
    visiting: Visiting,
) -> None:
    page = crowded_visit(visiting).page
    drawn(page).first.get_by_role("rowheader").focus()
    walk = {
        "ArrowRight": ("2", 1),
        "ArrowDown": ("3", 1),
        "End": ("3", COMPONENTS + 2),
        "Control+End": (str(READERS + 1), COMPONENTS + 2),
        "ArrowUp": (str(READERS), COMPONENTS + 2),
        "Control+Home": ("2", 0),
        "ArrowUp ": ("2", 0),
    }
    for key, place in walk.items():
        page.keyboard.press(key.strip())
        assert focused(page) == place, key
        assert drawn(page).count() < READERS / 3
    page.keyboard.press("PageDown")
    row, _ = focused(page)
    assert int(row or 0) > 5
    assert page.get_by_role("grid").locator("[tabindex='0']").count() == 1


def test_a_cell_tells_its_error_on_focus_and_on_hover(visiting: Visiting) -> None:
    page = crowded_visit(visiting).page
    refusing = drawn(page).first
    expect(refusing).to_contain_text(f"web-{READERS - 1}")  # what needs a look comes first
    told = page.get_by_test_id("described")
    cell = refusing.get_by_role("gridcell").nth(COMPONENTS - 1)
    cell.hover()
    expect(told).to_contain_text(REFUSED)
    drawn(page).nth(3).get_by_role("gridcell").first.hover()
    expect(told).not_to_contain_text(REFUSED)
    cell.focus()
    page.mouse.move(0, 0)
    expect(told).to_contain_text(REFUSED)
    expect(told).to_contain_text(f"web-{READERS - 1}")

    page.get_by_label("Filter: readers by name, host or state").fill("web-19")
    expect(drawn(page)).to_have_count(11)
