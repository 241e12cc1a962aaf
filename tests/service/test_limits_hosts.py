"""A reader on a loopback address answers to names of this machine."""

from collections.abc import Iterator

import httpx
import pytest

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.app import create_app
from indexrelay.service.limits import names_host
from tests.reloaders.bench import Bench
from tests.service.app_server import running


@pytest.mark.parametrize(
    "given",
    ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "127.1.2.3", "[::1]:80", "[::1]", "Known:80"],
)
def test_loopback_names_and_those_of_the_settings_are_known(given: str) -> None:
    assert names_host(given, {"known"})


@pytest.mark.parametrize(
    "given",
    [
        "",
        "evil.example",
        "localhost.evil.example:80",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[",
        "[::1].evil.example",
        "[::1]:80.evil.example",
        "::",
    ],
)
def test_other_names_are_not(given: str) -> None:
    assert not names_host(given, {"known"})


@pytest.fixture
def client(bench: Bench) -> Iterator[httpx.Client]:
    bench.publish(voyager="v1")
    limits = HttpSettings(hosts=("Reader.example",))
    with running(create_app(bench.reader(), limits, is_local=True)) as client:
        yield client


def test_a_web_page_whose_name_leads_here_reads_nothing(client: httpx.Client) -> None:
    assert client.get("/v1/components").status_code == 200
    assert client.get("/v1/components", headers={"host": "reader.example:1"}).status_code == 200
    for path in ("/v1/components", "/v1/components/voyager/document", "/health", "/nothing"):
        refused = client.get(path, headers={"host": "evil.example"})
        assert (refused.status_code, refused.json()["status"]) == (421, 421)
        assert "http.hosts" in refused.json()["detail"]


def test_where_others_may_ask_any_name_is_answered(bench: Bench) -> None:
    bench.publish(voyager="v1")
    with running(create_app(bench.reader())) as client:
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 200
