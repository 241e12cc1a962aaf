"""Small requests freeze nothing: a real process, attacked over real sockets.

Who makes room for whom, and after which time, is tested without sockets in
``tests/service/test_connections.py``; here the whole of it is.
``python -m tests.security.measure_http`` gives figures.
"""

import json
from collections.abc import Iterator

import pytest

from indexrelay.schemas.settings import HttpSettings
from tests.security.attacks import (
    DEEP,
    LARGEST,
    MANY_KEYS,
    SMALL_CHUNKS,
    UNFINISHED,
    Attack,
    answer_to,
    attacking,
    flooding,
    half_bodies,
    half_headers,
    silent,
    unknown_keys,
    unread,
)
from tests.security.reader_service import Installation, Service, message, received
from tests.streams.polling import eventually

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
def service(installation: Installation) -> Iterator[Service]:
    with installation.serving(http=LIMITS) as service:
        yield service


@pytest.mark.parametrize("attack", [half_headers, half_bodies, silent, unread])
def test_connections_that_are_held_open_keep_nobody_out(service: Service, attack: Attack) -> None:
    before = service.resident_bytes()
    with attacking(attack, service, 150):
        assert service.health_seconds() < HEALTH_SECONDS
        assert service.ask("GET /ready")[0] == 200
        eventually(lambda: answer_to(service, LARGEST)[0] == 200)  # 503 while others' are answered
        assert service.descriptors() < MOST + 60
        assert service.resident_bytes() - before < 60_000_000


def test_no_answer_names_the_software_and_every_refusal_is_a_problem(service: Service) -> None:
    for sent, status in (
        (message("GET /ready", close=True), 200),
        (message("GET /nothing", close=True), 404),
        (message("GET /v1/retry", close=True), 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 20_000 + b"\r\n\r\n", 400),
        (b"POST /v1/retry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999999\r\n\r\n", 413),
        (
            b"POST /v1/retry HTTP/1.1\r\nhost: localhost\r\ncontent-length: "
            + b"9" * 20
            + b"\r\n\r\n",
            413,
        ),
    ):
        with service.connect() as connection:
            connection.sendall(sent)
            head, _, body = received(connection).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert b"\r\nserver:" not in head.lower()
        if status >= 400:
            assert b"content-type: application/problem+json" in head.lower()
            assert json.loads(body)["status"] == status


def test_half_requests_are_ended_after_their_time(service: Service) -> None:
    with service.connect(timeout=10) as half:
        half.sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n")
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


def test_health_is_answered_while_bodies_come_in_small_chunks(installation: Installation) -> None:
    with installation.serving() as service, flooding(SMALL_CHUNKS, service, 50):
        assert max(service.health_seconds() for _ in range(10)) < HEALTH_SECONDS


def test_unfinished_bodies_take_hardly_more_memory_than_they_may(
    installation: Installation,
) -> None:
    """The buffers of each connection come on top, and what the C library keeps between blocks."""
    may = HttpSettings().max_buffered_bytes
    with installation.serving() as service:
        before = service.resident_bytes()
        with flooding(UNFINISHED, service, 100):
            grew = []
            for _ in range(50):
                grew.append(service.resident_bytes() - before)
                assert service.health_seconds() < HEALTH_SECONDS
        assert max(grew) > may / 2, "the attack does what it is for"
        assert max(grew) < 1.75 * may


def test_where_no_file_can_be_opened_any_more_releases_go_on_and_the_log_stays_short(
    installation: Installation,
) -> None:
    with installation.serving(http={"max_connections": 100_000}, descriptors=200) as service:
        with attacking(half_headers, service, 250):
            lines = service.log_lines()
            number = installation.release(5)
            service.wait_log(lambda event: event.get("release") == number)
            assert service.health_seconds() < HEALTH_SECONDS
        assert service.log_lines() - lines < 30
