"""Many large answers at a time: a real process, over real sockets."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.testing import Pipeline
from tests.security.attacks import answer_to, half_headers
from tests.security.reader_service import DIMENSION, Installation, Service, settings_in

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


def test_payloads_of_many_small_values_are_not_parsed(tmp_path: Path) -> None:
    folder = tmp_path / "small_values"
    folder.mkdir()
    similar = {"kind": "vector_index", "from": "tracks", "index": "Flat", "max_latency_ms": 10_000}
    words = {"kind": "text_index", "from": "tracks"}
    settings = settings_in(folder, components={"similar": similar, "words": words})
    values = Installation(folder, Pipeline(settings, folder))
    ids = [f"track-{row}" for row in range(10)]
    with values.pipeline.producer.batch("tracks") as batch:
        vectors = np.eye(10, DIMENSION, dtype=np.float32)
        payloads: list[Any] = [[[]] * 15_000 for _ in ids]
        batch.upsert(ids, vectors, texts=["song"] * 10, payloads=payloads)
    values.pipeline.rebuild()
    with values.serving() as service:
        for name, question in (
            ("similar", {"vector": [0.1] * DIMENSION}),
            ("words", {"text": "song"}),
        ):
            body = json.dumps({**question, "k": 10}).encode()
            status, answer = service.ask(f"POST /v1/components/{name}/search", body)
            before = service.resident_bytes()
            for _ in range(20):  # parsed, 150,000 lists would take 10 MB and more
                assert service.ask(f"POST /v1/components/{name}/search", body) == (status, answer)
            assert service.resident_bytes() - before < 8_000_000
            assert status == 200
            hits = json.loads(answer)["hits"]
            assert [hit["payload"] for hit in hits] == payloads
    values.pipeline.close()
