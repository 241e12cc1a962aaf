"""Small requests freeze nothing: a real process, attacked over real sockets.

Who makes room for whom, and after which time, is tested without sockets in
``tests/reloaders/http``; here the whole of it is. ``python -m tests.security.measure_http`` gives
figures.
"""

import json
from collections.abc import Iterator

import pytest

from tests.security.attacks import (
    DEEP,
    LARGEST,
    MANY_KEYS,
    Attack,
    answer_to,
    attacking,
    half_bodies,
    half_headers,
    silent,
    unknown_keys,
    unread,
)
from tests.security.reader_service import Installation, Service

MOST = 40
HEALTH_SECONDS = 2.0
"""A loaded machine is slow; frozen it was for 7 s and more."""
LIMITS = {
    "max_connections": MOST,
    "header_seconds": 1,
    "body_seconds": 1,
    "send_seconds": 1,
    "max_buffered_bytes": 8_000_000,
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation.made(tmp_path_factory.mktemp("attacked"), entries=1000, payload_bytes=1000)
    made.tables = {"http": LIMITS}
    yield made
    made.pipeline.close()


@pytest.fixture(scope="module")
def service(installation: Installation) -> Iterator[Service]:
    with installation.serving() as service:
        yield service


@pytest.mark.parametrize("attack", [half_headers, half_bodies, silent, unread])
def test_connections_that_are_held_open_keep_nobody_out(service: Service, attack: Attack) -> None:
    before = service.resident_bytes()
    with attacking(attack, service, 150):
        assert service.health_seconds() < HEALTH_SECONDS
        assert service.ask("GET /ready")[0] == 200
        assert answer_to(service, LARGEST)[0] == 200
        assert service.descriptors() < MOST + 60
        assert service.resident_bytes() - before < 60_000_000


def test_half_requests_are_ended_after_their_time(service: Service) -> None:
    with service.connect(timeout=10) as half:
        half.sendall(b"GET /ready HTTP/1.1\r\nhost: reader\r\n")
        assert half.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert half.recv(1000) == b""


@pytest.mark.parametrize(
    "body", [MANY_KEYS, DEEP, b"[" * 90_000, b'{"vector": [' + b"0," * 200_000 + b"0]}"]
)
def test_a_body_of_many_or_deep_things_costs_little_and_its_error_is_short(
    service: Service, body: bytes
) -> None:
    status, answer = answer_to(service, body)
    assert status == 422
    assert len(answer) < 1500
    assert json.loads(answer)["detail"]


def test_health_is_answered_while_large_bodies_are_refused(service: Service) -> None:
    with attacking(unknown_keys, service, 30):
        assert service.health_seconds() < HEALTH_SECONDS


def test_where_no_file_can_be_opened_any_more_releases_go_on_and_the_log_stays_short(
    installation: Installation,
) -> None:
    tables, installation.tables = installation.tables, {"http": {"max_connections": 100_000}}
    try:
        with installation.serving(descriptors=200) as service:
            with attacking(half_headers, service, 250):
                lines = service.log_lines()
                number = installation.release(5)
                service.wait_log(lambda event: event.get("release") == number)
                assert service.health_seconds() < HEALTH_SECONDS
            assert service.log_lines() - lines < 30
    finally:
        installation.tables = tables
