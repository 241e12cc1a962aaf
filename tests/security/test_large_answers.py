"""Many large answers at a time: a real process, over real sockets."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.security.attacks import answer_to, half_headers
from tests.security.reader_service import DIMENSION, Installation, Service

HEALTH_SECONDS = 2.0
LARGE = json.dumps({"vector": [0.1] * DIMENSION, "k": 1000}).encode()
"""Its answer has a megabyte."""


@pytest.fixture(scope="module")
def service(installation: Installation) -> Iterator[Service]:
    limits = {"max_buffered_bytes": 4_000_000, "max_connections": 40}
    with installation.serving(http=limits) as service:
        yield service


def asked(service: Service, *, clients: int, times: int) -> Counter[object]:
    """What so many clients got, each one answer after the other, read at once."""
    got: Counter[object] = Counter()

    def ask() -> None:
        for _ in range(times):
            try:
                status, body = answer_to(service, LARGE)
            except OSError as error:
                got[type(error).__name__] += 1
                continue
            whole = status != 200 or body.endswith(b"]}")
            got[status if whole else "cut"] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return got


def test_clients_whose_answers_have_no_room_together_do_not_stop_the_reader(
    service: Service,
) -> None:
    got = asked(service, clients=12, times=10)
    assert got[200] > 0
    assert service.health_seconds() < HEALTH_SECONDS


def test_large_answers_and_half_headers_at_a_time_do_not_stop_the_reader(
    service: Service,
) -> None:
    with ExitStack() as stack:
        threads = [
            threading.Thread(target=asked, args=(service,), kwargs={"clients": 10, "times": 5})
            for _ in range(2)
        ]
        for each in threads:
            each.start()
        half_headers(service, stack, 300)
        for each in threads:
            each.join()
        assert service.health_seconds() < HEALTH_SECONDS
