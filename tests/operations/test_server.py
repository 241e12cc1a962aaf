"""The port of a role: who is answered, who is not, and that nobody keeps others out."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import pytest

from indexrelay.operations.server import CONNECTIONS, MonitoringServer, Page
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import check_settings

TOKEN = "ir_only-for-this-test"


def pages(path: str) -> Page | None:
    return (200, "text/plain", b"fine") if path == "/metrics" else None


@pytest.fixture(scope="module")
def server() -> Iterator[MonitoringServer]:
    found = MonitoringServer("127.0.0.1:0", pages)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def closed_server() -> Iterator[MonitoringServer]:
    digest = sha256(TOKEN.encode()).hexdigest()
    found = MonitoringServer("127.0.0.1:0", pages, token_sha256=digest)
    found.start()
    yield found
    found.stop()


def connected(server: MonitoringServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def answer(server: MonitoringServer, request: str) -> tuple[int, str]:
    with connected(server) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode("latin-1"))
        raw = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, body = raw.partition("\r\n\r\n")
    return int(head.split()[1]), body


def test_a_page_is_answered_and_another_path_is_a_problem(server: MonitoringServer) -> None:
    host = "Host: localhost:9464\n\n"
    assert answer(server, f"GET /metrics?x=1 HTTP/1.1\n{host}") == (200, "fine")
    assert answer(server, f"HEAD /metrics HTTP/1.1\n{host}") == (200, "")
    status, body = answer(server, f"GET /other HTTP/1.1\n{host}")
    assert (status, json.loads(body)["detail"]) == (404, "there is /metrics and /health")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /metrics HTTP/1.1\nHost: rebinding.example\n\n", 421),
        ("GET /metrics HTTP/1.1\n\n", 421),
        ("GET /metrics HTTP/1.1\nHost: [::1]:9\n\n", 200),
        ("POST /metrics HTTP/1.1\nHost: localhost\nContent-Length: 9\n\n", 501),
        ("GET /metrics HTTP/9.9\n\n", 505),
        ("nonsense\n\n", 400),
        (f"GET /{'a' * 70_000} HTTP/1.1\n\n", 414),
        ("GET /metrics HTTP/1.1\n" + "a: b\n" * 101 + "\n", 431),
    ],
)
def test_what_is_no_request_of_this_machine_is_refused(
    server: MonitoringServer, request_text: str, status: int
) -> None:
    found, body = answer(server, request_text)
    assert found == status
    if status != 200:
        assert json.loads(body[body.index("{") :])["status"] == status


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Authorization: Bearer {TOKEN}\n", 200),
        (f"Authorization: bearer  {TOKEN}\n", 200),
        ("", 401),
        ("Authorization: Bearer \xff\n", 401),
        (f"Authorization: Basic {TOKEN}\n", 401),
        (f"Authorization: Bearer {TOKEN}x\n", 401),
        (f"Authorization: Bearer {TOKEN}\nAuthorization: Bearer {TOKEN}\n", 401),
    ],
)
def test_with_a_token_nothing_is_answered_without_it(
    closed_server: MonitoringServer, header: str, status: int
) -> None:
    request = f"GET /metrics HTTP/1.1\nHost: anything.example\n{header}\n"
    assert answer(closed_server, request)[0] == status


def test_slow_clients_do_not_keep_others_out(server: MonitoringServer) -> None:
    slow = [connected(server) for _ in range(CONNECTIONS + 1)]
    try:
        for each in slow:
            each.sendall(b"GET /metr")
        assert answer(server, "GET /metrics HTTP/1.1\nHost: localhost\n\n") == (200, "fine")
        assert slow[0].recv(1) == b""  # the oldest gave way
    finally:
        for each in slow:
            each.close()


def test_it_stops_before_it_was_started_and_twice() -> None:
    never = MonitoringServer("127.0.0.1:0", pages)
    never.stop()
    never.start()
    assert never.port == 0
    once = MonitoringServer("127.0.0.1:0", pages)
    once.start()
    port = once.port
    with connected(once) as waiting:
        once.stop()
        once.stop()
        with suppress(ConnectionResetError):  # where it was not even accepted yet
            assert waiting.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "monitor.example:9464", "[::]:9464"])
def test_other_machines_reach_it_only_with_a_token(address: str) -> None:
    with pytest.raises(ValueError, match="there is no token"):
        MonitoringServer(address, pages)
    with pytest.raises(SettingsError, match="set token_sha256"):
        check_settings({"monitoring": {"operator": address}}, origin="test")
    digest = sha256(TOKEN.encode()).hexdigest()
    check_settings({"monitoring": {"operator": address, "token_sha256": digest}}, origin="test")


@pytest.mark.parametrize("address", ["9464", "localhost", "localhost:99999", "::1:9464", "a b:1"])
def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(SettingsError, match=r"monitoring\.rebuilder.*127\.0\.0\.1:9464"):
        check_settings({"monitoring": {"rebuilder": address}}, origin="test")
