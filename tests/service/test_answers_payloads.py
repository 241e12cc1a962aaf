"""Payloads of entries stand in an answer as they are stored, and are never parsed."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components import served
from indexrelay.components.errors import CorruptFileError, InvalidQueryError
from indexrelay.components.query import Hits
from indexrelay.components.search import ArmHit, HybridHit
from indexrelay.components.served import Hit, stored_hits
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import answers
from indexrelay.service.answers import Answering, LargeResponse, SearchAnswer, encoded, encoded_hits
from indexrelay.service.connections import connection_of
from indexrelay.service.limits import AnswerRoom, SearchThreads
from indexrelay.service.problems import OverloadedError, problem
from tests.service.transports import Service, receive, status

FILE = Path("payloads.bin")
WHO = Answering(component="tracks", release=3, version="a" * 64)
STORED = b'{ "b":1,  "a":[1.0e0,"\\ud800\\u00e9"], "a": 2 }'
"""No two programs would write it so again."""


def found(*payloads: bytes | None) -> list[Hit]:
    ids = [f"id-{number}" for number in range(len(payloads))]
    return stored_hits(ids, [0.5] * len(ids), list(payloads), [FILE] * len(ids))


def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "parsed_payload", lambda *_: pytest.fail("it is parsed"))


def test_a_stored_payload_is_written_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    unparsed(monkeypatch)
    answer = encoded(Hits(found(STORED, None, b"[]")), WHO, max_bytes=10_000, are_json=True)
    assert STORED in answer
    read = SearchAnswer.model_validate(json.loads(answer))
    assert (read.component, read.release, read.version) == ("tracks", 3, "a" * 64)
    assert [hit.id for hit in read.hits] == ["id-0", "id-1", "id-2"]
    assert [hit.payload for hit in read.hits] == [json.loads(STORED), None, []]


def test_an_answer_that_is_less_than_was_asked_for_says_why() -> None:
    hits = Hits(found(b"1"))
    hits.degraded = "rerank took too long"
    read = SearchAnswer.model_validate(json.loads(encoded(hits, WHO, max_bytes=10_000)))
    assert (read.degraded, read.reason) == (True, "rerank took too long")
    behind = replace(WHO, degraded=True, reason="changes are missing")
    read = SearchAnswer.model_validate(json.loads(encoded(hits, behind, max_bytes=10_000)))
    assert read.reason == "changes are missing; rerank took too long"
    hits.degraded = None
    read = SearchAnswer.model_validate(json.loads(encoded(hits, WHO, max_bytes=10_000)))
    assert (read.degraded, read.reason) == (False, None)


def test_an_answer_without_hits_and_one_of_a_users_kind_have_the_same_shape() -> None:
    assert encoded_hits([], max_bytes=2, are_json=True) == b"[]"
    hits = [Hit("é", 1.25, {"a": "\ud800"}), Hit("b", -0.0, None)]
    of_ours, of_theirs = (
        json.loads(encoded_hits(hits, max_bytes=1000, are_json=are_json))
        for are_json in (True, False)
    )
    assert of_ours == of_theirs


def test_a_payload_that_was_read_and_changed_is_written_as_it_is_now() -> None:
    [hit] = found(b'{"a":1}')
    hit.payload["b"] = 2
    [read] = json.loads(encoded_hits([hit], max_bytes=1000, are_json=True))
    assert read["payload"] == {"a": 1, "b": 2}


def test_a_hit_of_several_searches_says_what_each_of_them_found_and_is_not_parsed_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unparsed(monkeypatch)
    hit = HybridHit(found(STORED)[0], 0.25, arms={"vector": ArmHit(1, 0.5)})
    answer = encoded_hits([hit], max_bytes=1000, are_json=True)
    assert STORED in answer
    [read] = json.loads(answer)
    assert (read["score"], read["arms"]) == (0.25, {"vector": {"rank": 1, "score": 0.5}})


@pytest.mark.parametrize(
    "stored", [b"1},{", b"\xff", b"{", b'"' + b"x" * 100_000, b"NaN", b"1\x00"]
)
def test_a_stored_payload_that_is_no_json_breaks_no_answer(stored: bytes) -> None:
    with pytest.raises((CorruptFileError, ValueError)) as caught:
        encoded_hits(found(b"{}", stored), max_bytes=1_000_000, are_json=True)
    says = str(caught.value)
    assert "is no JSON" in says or "not JSON" in says
    assert len(says) < 200
    if stored != b"NaN":  # which our own parser takes
        assert isinstance(caught.value, CorruptFileError)
        assert str(FILE) in says


def test_an_answer_may_have_exactly_its_limit_and_says_how_many_hits_fit() -> None:
    hits = found(b"1" * 500, b"2" * 500, b"3" * 500)
    size = len(encoded_hits(hits, max_bytes=10_000, are_json=True))
    assert len(encoded_hits(hits, max_bytes=size, are_json=True)) == size
    with pytest.raises(InvalidQueryError, match="with a k of 2 or less"):
        encoded_hits(hits, max_bytes=size - 1, are_json=True)
    with pytest.raises(InvalidQueryError, match="the first one alone has"):
        encoded_hits(hits, max_bytes=500, are_json=True)


def test_what_an_answer_takes_is_counted_before_its_payloads_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "first_invalid", lambda _: pytest.fail("it goes on"))
    held: list[int] = []

    def hold(count: int) -> None:
        held.append(count)
        raise OverloadedError("no room")

    hits = found(b"[]", None, STORED)
    with pytest.raises(OverloadedError):
        encoded_hits(hits, max_bytes=10_000, are_json=True, hold=hold)
    monkeypatch.undo()
    assert held == [len(encoded_hits(hits, max_bytes=10_000, are_json=True))]


def test_an_answer_that_is_being_encoded_takes_the_room_of_others_and_gives_it_back() -> None:
    """The service, its threads and its connections; the clock is the test's."""
    limit, size = 1_000_000, 700_000
    began, go = threading.Event(), threading.Event()

    async def body() -> None:
        threads = SearchThreads(HttpSettings())

        async def app(scope: Any, receive: Any, send: Any) -> None:
            connection = connection_of(scope)
            room = AnswerRoom(connection)

            def work() -> bytes:
                room.hold(size)
                began.set()
                go.wait()
                return b"x" * size

            try:
                answer = await threads.run(work, connection=connection)
            except OverloadedError as error:
                await problem(503, str(error))(scope, receive, send)
                return
            response = LargeResponse(answer)
            response.held_bytes = room.held_bytes
            await response(scope, receive, send)
            assert connection is not None
            connection.release()

        service = Service(app, max_buffered_bytes=limit)
        first, second = service.connect(), service.connect()
        ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        receive(first, ask)
        while not began.is_set():
            await asyncio.sleep(0)
        assert service.connections.buffered_bytes == size
        receive(second, ask)
        while not second.written:
            await asyncio.sleep(0)
        assert status(second) == 503
        assert service.connections.buffered_bytes == size
        go.set()
        while len(first.written) < size:
            await asyncio.sleep(0)
        await service.settle()
        assert status(first) == 200
        assert service.connections.buffered_bytes == 0

    asyncio.run(body())


def test_an_answer_is_counted_without_the_event_loop_where_there_is_room() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    async def body() -> None:
        service = Service(app, max_buffered_bytes=1000)
        connection: Any = service.connect().protocol
        with ThreadPoolExecutor(1) as thread:  # while it is waited for, the loop does not turn
            assert thread.submit(connection.hold_on_thread, 400).result()
            assert thread.submit(connection.hold_on_thread, 600).result()
        assert service.connections.buffered_bytes == 1000
        refused = asyncio.to_thread(connection.hold_on_thread, 1)
        assert await refused is False  # the loop has looked whether another one makes room
        connection.release()
        assert service.connections.buffered_bytes == 0

    asyncio.run(body())
