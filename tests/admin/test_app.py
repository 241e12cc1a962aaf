"""The application as a whole: the page's files, the headers of every answer, and its errors."""

import gzip
from collections.abc import Iterator

import httpx
import pytest

from indexrelay.admin.app import CSP, HEADERS
from indexrelay.admin.service import AdminService
from tests.admin.conftest import MakeService


@pytest.fixture
def page(service: AdminService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.address, headers={"Accept-Encoding": "identity"}) as page:
        yield page


def test_the_page_and_its_files_are_anybody_s(page: httpx.Client) -> None:
    index = page.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.content == page.get("/index.html").content
    assert page.get("/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert page.head("/").headers["etag"] == index.headers["etag"]


def test_a_file_that_the_browser_has_is_not_sent_again(page: httpx.Client) -> None:
    first = page.get("/style.css")
    assert first.headers["cache-control"] == "no-cache"
    again = page.get("/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_files_and_answers_come_compressed_to_who_takes_that(page: httpx.Client) -> None:
    for path in ("/main.js", "/api/admin/openapi.json"):
        plain = page.get(path)
        with page.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as packed:
            raw = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in packed.headers["vary"].lower()
        assert len(raw) == int(packed.headers["content-length"]) < len(plain.content)
        assert gzip.decompress(raw) == plain.content


@pytest.mark.parametrize(
    "path",
    ["/", "/main.js", "/none.js", "/api/admin/health", "/api/admin/none", "/api/admin/state"],
)
def test_every_answer_has_the_safe_headers(page: httpx.Client, path: str) -> None:
    answer = page.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    assert answer.headers["content-security-policy"] == CSP


@pytest.mark.parametrize(
    "path", ["/none.js", "/../app.py", "/%2e%2e/app.py", "/views", "/main.js/"]
)
def test_only_files_of_the_page_are_given(page: httpx.Client, path: str) -> None:
    answer = page.get(path)
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")
    assert page.post("/main.js").status_code == 405


def test_errors_are_problems_that_name_the_field(client: httpx.Client) -> None:
    unknown = client.get("none")
    assert unknown.headers["content-type"] == "application/problem+json"
    wrong = client.post("login", json={"user": "ada", "password": "x", "more": 1})
    assert wrong.status_code == 422
    assert [each["field"] for each in wrong.json()["errors"]] == ["more"]
    large = client.post("login", content=b" " * 1_100_000)
    assert (large.status_code, large.json()["title"]) == (413, "Request Entity Too Large")


def test_a_public_address_without_credentials_is_refused_before_it_listens(
    make_service: MakeService,
) -> None:
    from indexrelay.admin import PublicAddressError

    service = make_service(host="0.0.0.0")  # noqa: S104 - it is refused
    with pytest.raises(PublicAddressError, match=r"admin\.users"):
        service.start()
    assert service.address == ""
