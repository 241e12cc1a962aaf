"""The frame around all views: whether it is live, and its dialogs."""

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Visiting
from tests.browser.installation import OPERATOR, VIEWER

pytestmark = pytest.mark.server


def test_an_open_stream_of_a_service_that_does_not_answer_is_not_called_live(
    visiting: Visiting,
) -> None:
    visit = visiting(None)
    visit.allowed.append("ERR_FAILED")
    page = visit.page
    page.clock.install()
    visit.open()
    visit.log_in()
    connection = page.get_by_test_id("connection")
    expect(connection).to_contain_text("Live")
    page.route("**/api/admin/state", lambda route: route.abort())
    page.clock.run_for(31_000)
    page.clock.run_for(5_000)
    expect(connection).not_to_contain_text("Live")
    page.unroute("**/api/admin/state")
    page.clock.run_for(30_000)
    expect(connection).to_contain_text("Live")


def test_a_login_whose_cookie_is_not_kept_says_so(visiting: Visiting) -> None:
    page = visiting(None).page

    def without_cookie(route: Route) -> None:
        route.fulfill(status=204)

    page.route("**/api/admin/login", without_cookie)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("right")
    button = page.get_by_role("button", name="Log in", exact=True)
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("did not keep its cookie")
    expect(button).to_be_enabled()


def test_a_login_in_another_tab_disarms_this_one_for_others_only(visiting: Visiting) -> None:
    visit = visiting(route="components/similar")
    visit.allowed.append("403 (Forbidden)")
    page = visit.page
    origin = visit.site.url.rstrip("/")
    dialog = page.get_by_role("dialog")
    for who, verb in ((OPERATOR, "Pause"), (OPERATOR, "Resume"), (VIEWER, "Pause")):
        name, password = who
        page.context.request.post(  # as another tab does: the cookie is one for all
            f"{origin}/api/admin/login",
            data={"user": name, "password": password},
            headers={"Origin": origin},
        )
        page.get_by_role("button", name=verb).click()
        if verb == "Pause":
            dialog.get_by_label("Reason").fill("to see")
        dialog.get_by_role("button", name=verb).click()
        if who == OPERATOR:
            expect(dialog).to_have_count(0)
    expect(dialog).to_contain_text("somebody else has logged in here")


def test_escape_hides_nothing_of_what_becomes_of_an_action(visiting: Visiting) -> None:
    visit = visiting(route="components/similar")
    visit.allowed.append("409 (Conflict)")
    page = visit.page
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/api/admin/components/similar/pause", hold)
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("to see")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog.get_by_role("button", name="Cancel")).to_be_disabled()
    for _ in range(3):
        page.keyboard.press("Escape")
    waiting[0].fulfill(status=409, json={"status": 409, "detail": "somebody else was faster"})
    expect(dialog).to_contain_text("somebody else was faster")

    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    pause.click()
    expect(dialog).to_be_visible()
