"""Who may look and who may change things, at an application that has next to nothing else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from indexrelay.admin.access import (
    CSRF_HEADER,
    PREFIX,
    Access,
    AccessCheck,
    Operator,
    Viewer,
    access_routes,
)
from indexrelay.admin.logins import FAILURES_OF_ADDRESS
from indexrelay.schemas.settings import Settings
from indexrelay.service.bodies import mistakes_text
from indexrelay.service.problems import RefusedError, problem
from indexrelay.service.tokens import new_token
from indexrelay.storage.audit import AuditLog
from indexrelay.testing.clock import FakeClock
from tests.admin.people import PASSWORDS, TOKENS, cheap_hash, people

HERE: Final = "http://127.0.0.1:8090"


class Page:
    """A small application, as the settings in it say."""

    def __init__(self, folder: Path, *, is_local: bool = True, **admin: Any) -> None:
        self.clock = FakeClock()
        self.settings = Settings.model_validate({"data_dir": folder / "data", "admin": admin})
        self.audit = AuditLog.of(self.settings, clock=self.clock)
        self.access = Access(self.settings, clock=self.clock, is_local=is_local)
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        self.done: list[str] = []
        self.app.include_router(access_routes(self.access), prefix=PREFIX)
        self._add_routes()
        self.app.add_middleware(AccessCheck, access=self.access)

    def _add_routes(self) -> None:
        @self.app.exception_handler(RefusedError)
        def refused(_request: Request, error: RefusedError) -> Response:
            return problem(error.status, str(error), error.headers)

        @self.app.exception_handler(RequestValidationError)
        def invalid(_request: Request, error: RequestValidationError) -> Response:
            return problem(422, mistakes_text(error.errors()))

        @self.app.get("/")
        async def page() -> str:
            return "page"

        @self.app.get(f"{PREFIX}/health")
        async def health() -> str:
            return "well"

        @self.app.get(f"{PREFIX}/state")
        async def state(caller: Viewer) -> str:
            return caller.who

        @self.app.get(f"{PREFIX}/forgotten")
        async def forgotten() -> str:
            return "secret"

        @self.app.api_route(f"{PREFIX}/changes", methods=["POST", "PUT", "PATCH", "DELETE"])
        async def change(request: Request) -> str:
            self.done.append(request.method)
            return "done"

        @self.app.get(f"{PREFIX}/for-operators")
        async def for_operators(caller: Operator) -> str:
            return caller.who

        @self.app.post(f"{PREFIX}/lab/search")
        async def search(caller: Viewer) -> str:
            return caller.who

    @contextmanager
    def browser(self, user: str | None = None) -> Iterator["Browser"]:
        """Somebody who looks at the page, logged in where a user is named."""
        with TestClient(self.app, base_url=HERE, client=("127.0.0.1", 1)) as client:
            browser = Browser(client)
            if user is not None:
                assert browser.log_in(user, PASSWORDS[user]).status_code == 204
            yield browser

    def lines(self) -> list[dict[str, Any]]:
        """Of the audit log."""
        return self.audit.newest(1000)


class Browser:
    """A client as a page is one."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def log_in(self, user: str, password: str, **headers: str) -> Any:
        given = {"user": user, "password": password}
        return self.client.post(f"{PREFIX}/login", json=given, headers=headers)

    def me(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{PREFIX}/me").json()
        return found

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(PREFIX + path, headers=headers)

    def change(self, path: str = "/changes", *, method: str = "POST", **headers: str) -> Any:
        return self.client.request(method, PREFIX + path, headers=headers)

    def csrf(self) -> dict[str, str]:
        return {CSRF_HEADER: self.me()["csrf"]}


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path, **people())


def test_nothing_is_answered_before_login_but_the_page_and_health(page: Page) -> None:
    with page.browser() as browser:
        assert browser.client.get("/").status_code == 200
        assert browser.get("/health").status_code == 200
        for path in ("/me", "/state", "/forgotten", "/not-there", "", "/health/", "/login/x"):
            answer = browser.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["cache-control"] == "no-store"
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            assert browser.change(method=method).status_code == 401
    assert page.done == []


def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_gets(page: Page) -> None:
    with page.browser() as browser:
        answer = browser.log_in("ada", PASSWORDS["ada"])
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("indexrelay_indexrelay=")
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert browser.get("/state").json() == "admin/ada"
        me = browser.me()
        assert (me["user"], me["role"], me["anonymous"]) == ("ada", "operator", False)
        assert me["session_ends_at"] == "2026-01-01T12:00:00Z"


def test_behind_https_the_cookie_is_sent_over_https_only(tmp_path: Path) -> None:
    with Page(tmp_path, https=True, **people()).browser() as browser:
        cookie = browser.log_in("ada", PASSWORDS["ada"]).headers["set-cookie"]
        assert cookie.startswith("__Host-indexrelay_indexrelay=")
        assert {"Secure", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie


@pytest.mark.parametrize(
    "given",
    [
        {"user": "ada", "password": PASSWORDS["ben"]},
        {"user": "ada", "password": ""},
        {"user": "eve", "password": PASSWORDS["ada"]},
        {"user": "", "password": ""},
        {"user": "ada", "password": "\ud800"},
        {"user": "ada\x00<script>", "password": "\x00"},
        {"token": "ir_not_one"},
        {"token": "\ud800"},
    ],
)
def test_a_wrong_login_is_refused_and_says_nothing_of_what_was_wrong(
    page: Page, given: dict[str, str]
) -> None:
    with page.browser() as browser:
        answer = browser.client.post(
            f"{PREFIX}/login",
            content=json.dumps(given),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert answer.json()["detail"] in ("wrong user or password", "there is no such token")
    [line] = page.lines()
    assert line["action"] == "refused"
    assert line["who"] == ("admin/ada" if given.get("user") == "ada" else "admin/unknown")
    assert line["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"user": "ada"},
        {"user": "ada", "password": "x", "token": "y"},
        {"user": "ada", "token": "y"},
        {"user": "ada", "password": "x" * 2000},
        {"user": "x" * 200, "password": "x"},
        {"user": ["ada"], "password": "x"},
        {"user": "\ud800", "password": "x"},
        [],
    ],
)
def test_what_is_no_login_is_refused_before_a_hash_is_made(page: Page, given: Any) -> None:
    with page.browser() as browser:
        body, kind = json.dumps(given), {"content-type": "application/json"}
        answer = browser.client.post(f"{PREFIX}/login", content=body, headers=kind)
        assert answer.status_code == 422
        plain = {"content-type": "text/plain"}
        assert browser.client.post(f"{PREFIX}/login", content=body, headers=plain).is_error
    assert page.lines() == []


def test_logging_out_ends_the_session_for_copies_of_its_cookie(page: Page) -> None:
    with page.browser("ada") as browser:
        copied = dict(browser.client.cookies)
        answer = browser.change("/logout", **browser.csrf())
        assert answer.status_code == 204
        assert 'indexrelay_indexrelay=""' in answer.headers["set-cookie"]
        assert browser.get("/state").status_code == 401
        browser.client.cookies.update(copied)
        assert browser.get("/state").status_code == 401
    assert [line["action"] for line in page.lines()] == ["logged_in", "logged_out"]


def test_a_session_ends_by_its_age_also_where_a_stream_lasts(page: Page) -> None:
    with page.browser("ada") as browser:
        session = page.access.caller(_headers(browser))
        assert session is not None
        assert page.access.still(session)
        page.clock.advance(43_200)
        assert browser.get("/state").status_code == 401
        assert not page.access.still(session)


def _headers(browser: Browser) -> Headers:
    return Headers({"cookie": browser.client.build_request("GET", HERE).headers["cookie"]})


def test_an_operator_changes_things_with_the_token_of_the_session_alone(page: Page) -> None:
    with page.browser("ada") as browser, page.browser("ada") as another:
        for wrong in ({}, {CSRF_HEADER: ""}, {CSRF_HEADER: "x" * 64}, another.csrf()):
            answer = browser.change(**wrong)
            assert answer.status_code == 403
            assert CSRF_HEADER in answer.json()["detail"]
        assert page.done == []
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert browser.change(method=method, **browser.csrf()).status_code == 200
    assert page.done == ["POST", "PUT", "PATCH", "DELETE"]
    assert browser.get("/for-operators").json() == "admin/ada"


def test_a_viewer_changes_nothing_and_that_it_was_tried_is_recorded(page: Page) -> None:
    with page.browser("ben") as browser:
        assert browser.get("/state").json() == "admin/ben"
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = browser.change(method=method, **browser.csrf())
            assert answer.status_code == 403
            assert "operator" in answer.json()["detail"]
        assert browser.get("/for-operators").status_code == 403
        assert browser.change("/lab/search", **browser.csrf()).json() == "admin/ben"
        assert browser.change("/lab/search").status_code == 403
        assert browser.change("/logout", **browser.csrf()).status_code == 204
    assert page.done == []
    refused = [line for line in page.lines() if line["action"] == "refused"]
    assert [line["subject"] for line in refused[:4]] == [
        f"{method} {PREFIX}/changes" for method in ("POST", "PUT", "PATCH", "DELETE")
    ]
    assert {line["who"] for line in refused} == {"admin/ben"}


def test_a_program_shows_a_token_and_nothing_else(page: Page) -> None:
    with page.browser() as browser:
        ours = {"Authorization": f"Bearer {TOKENS['deploys']}"}
        assert browser.get("/state", **ours).json() == "token/deploys"
        assert browser.change(**ours).status_code == 200
        assert browser.client.get(f"{PREFIX}/me", headers=ours).json()["csrf"] is None
        watches = {"Authorization": f"bearer {TOKENS['watches']}"}
        assert browser.get("/state", **watches).json() == "token/watches"
        assert browser.change(**watches).status_code == 403
        for wrong in (f"Bearer {new_token()}", "Bearer ", "Basic YTpi", "Bearer é", ""):
            headers = {b"authorization": wrong.encode()}
            assert browser.client.get(f"{PREFIX}/state", headers=headers).status_code == 401
        assert browser.get("/state?token=" + TOKENS["deploys"]).status_code == 401


def test_a_wrong_token_counts_for_nothing_beside_a_right_cookie(page: Page) -> None:
    with page.browser("ada") as browser:
        assert browser.get("/state", Authorization="Bearer x").status_code == 401


def test_a_token_may_log_in_to_the_page_too_and_needs_the_token_of_the_session_then(
    page: Page,
) -> None:
    with page.browser() as browser:
        answer = browser.client.post(f"{PREFIX}/login", json={"token": TOKENS["deploys"]})
        assert answer.status_code == 204
        assert browser.get("/state").json() == "token/deploys"
        assert browser.change().status_code == 403
        assert browser.change(**browser.csrf()).status_code == 200


def test_pages_of_others_may_not_ask(page: Page) -> None:
    with page.browser("ada") as browser:
        csrf = browser.csrf()
        for site in ("cross-site", "same-site"):
            assert browser.get("/state", **{"Sec-Fetch-Site": site}).status_code == 403
            assert browser.change(**csrf, **{"Sec-Fetch-Site": site}).status_code == 403
        for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://[", "x"):
            assert browser.change(**csrf, Origin=origin).status_code == 403
            assert browser.log_in("ada", PASSWORDS["ada"], Origin=origin).status_code == 403, origin
        assert browser.change(**csrf, Origin=HERE).status_code == 200
        passed_on = {"Origin": "https://relay.example", "Sec-Fetch-Site": "same-origin"}
        assert browser.change(**csrf, **passed_on).status_code == 200
    assert page.done == ["POST", "POST"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8090", 200),
        ("localhost", 200),
        ("[::1]:8090", 200),
        ("relay.example:443", 200),
        ("RELAY.example", 200),
        ("evil.example", 421),
        ("10.0.0.1:8090", 421),
        ("localhost.evil.example:8090", 421),
        ("", 421),
    ],
)
def test_on_loopback_it_answers_to_this_machine_and_the_names_of_the_settings(
    tmp_path: Path, host: str, status: int
) -> None:
    with Page(tmp_path, hosts=["relay.example"]).browser() as browser:
        for path in ("/", f"{PREFIX}/health", f"{PREFIX}/me"):
            answer = browser.client.get(path, headers={"Host": host})
            assert answer.status_code == status, path
        if status == 421:
            assert "admin.hosts" in answer.json()["detail"]


def test_on_another_address_it_answers_to_addresses_and_the_names_of_the_settings(
    tmp_path: Path,
) -> None:
    given = {"host": "0.0.0.0", "hosts": ["relay.example"], **people()}  # noqa: S104
    with Page(tmp_path, is_local=False, **given).browser() as browser:
        for host in ("10.0.0.1:8090", "[2001:db8::1]:8090", "relay.example", "localhost"):
            assert browser.get("/health", Host=host).status_code == 200
        for host in ("evil.example", "10.0.0.1.evil.example"):
            assert browser.get("/health", Host=host).status_code == 421


def test_without_users_and_tokens_everybody_is_an_operator_of_our_own_page(tmp_path: Path) -> None:
    page = Page(tmp_path)
    with page.browser() as browser:
        me = browser.me()
        assert (me["anonymous"], me["loopback_only"], me["role"]) == (True, True, "operator")
        assert me["user"] is None
        assert browser.get("/state").json() == "admin/anyone"
        assert browser.change().status_code == 403
        assert browser.change(Authorization="Bearer x").status_code == 403
        assert browser.change(**browser.csrf(), Origin="http://evil.example").status_code == 403
        assert browser.change(**browser.csrf()).status_code == 200
        assert browser.log_in("ada", PASSWORDS["ada"]).status_code == 401
        assert browser.change("/logout", **browser.csrf()).status_code == 204
    assert page.done == ["POST"]


def test_who_fails_too_often_is_told_how_long_to_wait(page: Page) -> None:
    with page.browser() as browser:
        for _ in range(FAILURES_OF_ADDRESS):
            assert browser.log_in("ada", "wrong").status_code == 401
        answer = browser.log_in("ada", PASSWORDS["ada"])
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "60"
        page.clock.advance(60)
        assert browser.log_in("ada", PASSWORDS["ada"]).status_code == 204


def test_a_proxy_says_who_asks_if_the_settings_name_it(tmp_path: Path) -> None:
    for proxies, seen in (
        ([], "127.0.0.1"),
        (["127.0.0.1"], "10.0.0.9"),
        (["127.0.0.1", "10.0.0.9"], "2001:db8::8"),
        (["127.0.0.1", "10.0.0.9", "2001:0db8:0::8"], "2001:db8::8"),
    ):
        page = Page(tmp_path / str(len(proxies)), proxies=proxies, **people())
        with page.browser() as browser:
            forwarded = {"X-Forwarded-For": "<script>, [2001:db8::8]:4711, 10.0.0.9:4711"}
            browser.log_in("ada", PASSWORDS["ada"], **forwarded)
        assert page.lines()[-1]["address"] == seen


def test_strangers_do_not_fill_the_audit_log(page: Page) -> None:
    with page.browser() as browser:
        for _ in range(10):
            for _ in range(FAILURES_OF_ADDRESS + 1):
                browser.log_in("ada", "wrong")
            page.clock.advance(60)
    assert len(page.lines()) == 100 < 10 * (FAILURES_OF_ADDRESS + 1)


def test_no_secret_is_written_down_anywhere(
    page: Page, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with page.browser("ada") as browser:
        browser.log_in("hunter2 in the wrong field", "hunter2 as a password")
        browser.get("/state", Authorization=f"Bearer {TOKENS['deploys']}")
        browser.change()
        secrets = [*PASSWORDS.values(), *TOKENS.values(), *browser.client.cookies.values()]
        answers = json.dumps(browser.me())
    written = "".join(capfd.readouterr()) + "".join(
        file.read_text() for file in (tmp_path / "data").iterdir() if "key" not in file.name
    )
    assert "hunter2" not in written
    assert cheap_hash(PASSWORDS["ada"]) not in written + answers + repr(page.settings)
    for secret in secrets:
        assert secret not in written
