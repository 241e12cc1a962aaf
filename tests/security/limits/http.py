"""What a client of the reader service may keep of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit, check_payload_values
from indexrelay.reloaders import Consistency, NotFreshError, Reloader
from indexrelay.reloaders.catalog import Moment
from indexrelay.reloaders.consistency import FreshWait
from indexrelay.schemas.session import Life, SessionToken
from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.service.answers import Answering, encoded
from indexrelay.service.bodies import (
    BatchRequest,
    CountRequest,
    EntriesRequest,
    NeighboursRequest,
    ScrollRequest,
    SearchRequest,
    read_body,
)
from indexrelay.service.connections import fitting
from indexrelay.service.consistency import WaitingRoom, consistency_of
from indexrelay.service.limits import BodyLimit, SearchThreads
from indexrelay.service.problems import OverloadedError, ProblemDetails
from indexrelay.service.requests import PIECE_BYTES
from indexrelay.service.tokens import digest_of
from tests.security.limits.table import Row, exercises
from tests.service.test_connections import CHUNKED, POST, WHOLE, Application
from tests.service.transports import HeldTransport, Service, receive, status
from tests.storage.artifacts.samples import MovedClock

SETTINGS = HttpSettings()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type] # a coroutine is what these give


@exercises("connections to a reader")
def _connections(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(Application(), most=row.number)
        first, *others = [service.connect() for _ in range(row.number)]
        assert not first.closed
        service.connect()
        assert first.aborted
        assert not any(each.closed for each in others)

    run(body)


def ended_after(row: Row, sent: bytes, *, reads: bool = True) -> HeldTransport:
    """The connection, once it ended, after exactly the seconds of the row."""
    ended: list[HeldTransport] = []

    async def body() -> None:
        service = Service(BodyLimit(Application(1_000_000), max_bytes=10_000))
        connection = service.connect(reads=reads)
        receive(connection, sent)
        await service.settle()
        for seconds, is_over in ((row.number - 0.1, False), (row.number, True)):
            service.now = seconds
            service.connections.expire()
            assert connection.closed is is_over
        await service.settle()
        ended.append(connection)

    run(body)
    return ended[0]


@exercises("seconds until a request's header is whole")
def _header(row: Row, _request: pytest.FixtureRequest) -> None:
    assert status(ended_after(row, WHOLE[:-1])) == 408


@exercises("seconds until its body is whole")
def _body(row: Row, _request: pytest.FixtureRequest) -> None:
    assert status(ended_after(row, POST % 10 + b"x")) == 408


@exercises("seconds in which a client reads 64 kB of its answer")
def _answer(row: Row, _request: pytest.FixtureRequest) -> None:
    assert ended_after(row, WHOLE, reads=False).aborted


@exercises("bytes of a request's header")
def _header_bytes(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(Application())
        for more, code in ((0, 200), (1, 400)):
            connection = service.connect()
            filler = b"a" * (row.number - len(WHOLE) - len(b"b: \r\n") + more)
            receive(connection, WHOLE[:-2] + b"b: " + filler + b"\r\n\r\n")
            await service.settle()
            assert status(connection) == code

    run(body)


@exercises("lines of a request's header")
def _header_lines(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(Application())
        for more, code in ((0, 200), (1, 400)):
            connection = service.connect()
            receive(connection, WHOLE[:-2] + b"b:\r\n" * (row.number - 1 + more) + b"\r\n")
            await service.settle()
            assert status(connection) == code

    run(body)


@exercises("lines after a body in chunks")
def _trailers(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=SETTINGS.max_body_bytes))
        for more, code in ((0, 200), (1, 400)):
            connection = service.connect()
            lines = b"b:\r\n" * (row.number + more)
            receive(connection, CHUNKED + b"1\r\nx\r\n0\r\n" + lines + b"\r\n")
            await service.settle()
            assert status(connection) == code

    run(body)


@exercises("bytes of a request's body")
def _body_bytes(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=SETTINGS.max_body_bytes))
        fits, announced = service.connect(), service.connect()
        receive(fits, POST % row.number)
        for _ in range(row.number // 65_536):
            receive(fits, b"x" * 65_536)
            await service.settle()
        assert status(fits) == 200
        receive(announced, POST % (row.number + 1))
        await service.settle()
        assert status(announced) == 413

    run(body)


def search_request(body: bytes) -> SearchRequest:
    return read_body(body, SearchRequest)


def refused(body: bytes) -> str:
    with pytest.raises(InvalidQueryError) as caught:
        search_request(body)
    assert len(str(caught.value)) < 500
    return str(caught.value)


@exercises("pieces in which a body may come, beside one for each 256 bytes")
def _pieces(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=SETTINGS.max_body_bytes))
        for more, code in ((0, 200), (1, 400)):
            connection = service.connect()
            allowed = row.number + row.number // PIECE_BYTES
            receive(connection, CHUNKED + b"1\r\nx\r\n" * (allowed + more) + b"0\r\n\r\n")
            while not connection.written:
                await service.settle()
            assert status(connection) == code

    run(body)


@exercises("elements of a body: its commas, brackets and braces")
def _elements(row: Row, _request: pytest.FixtureRequest) -> None:
    said = f"at most {row.number}"
    assert said not in refused(b"[" * row.number)
    assert said in refused(b"[" * (row.number + 1))


@exercises("colons of a body, those in texts included")
def _colons(row: Row, _request: pytest.FixtureRequest) -> None:
    said = f"at most {row.number} keys"
    assert said not in refused(b'{"' + b":" * row.number)
    assert said in refused(b'{"' + b":" * (row.number + 1))


@exercises("levels of lists and objects in a body")
def _levels(row: Row, _request: pytest.FixtureRequest) -> None:
    for more, is_json in ((0, True), (1, False)):
        levels = row.number - 1 + more
        body = b'{"vector":' + b"[" * levels + b"]" * levels + b"}"
        assert ("no JSON" not in refused(body)) is is_json


@exercises("numbers of a vector in a query")
def _dimension(row: Row, _request: pytest.FixtureRequest) -> None:
    request = search_request(json.dumps({"vector": [0.5] * row.number}).encode())
    assert len(request.vector or ()) == row.number
    assert "vector" in refused(json.dumps({"vector": [0.5] * (row.number + 1)}).encode())


@exercises("characters of an id or text in a query")
def _characters(row: Row, _request: pytest.FixtureRequest) -> None:
    for name in ("id", "text"):
        assert search_request(json.dumps({name: "ü" * row.number}).encode())
        assert name in refused(json.dumps({name: "ü" * (row.number + 1)}).encode())


@exercises("hits of a search")
def _hits(row: Row, _request: pytest.FixtureRequest) -> None:
    assert search_request(json.dumps({"id": "a", "k": row.number}).encode()).k == row.number
    assert "k" in refused(json.dumps({"id": "a", "k": row.number + 1}).encode())


@exercises("ids and vectors of `like`, and of `unlike`")
def _examples(row: Row, _request: pytest.FixtureRequest) -> None:
    for name in ("like", "unlike"):
        for more, fits in ((0, True), (1, False)):
            asked = {"like": ["a"], name: ["a"] * (row.number + more)}
            body = json.dumps(asked).encode()
            if fits:
                assert search_request(body).like
            else:
                assert f"{name}: " in refused(body)


@exercises("ids that a request gets or leaves out, and entries of a page")
def _ids(row: Row, _request: pytest.FixtureRequest) -> None:
    for model, asked in (
        (SearchRequest, lambda count: {"id": "a", "without": ["b"] * count}),
        (EntriesRequest, lambda count: {"ids": ["b"] * count}),
        (ScrollRequest, lambda count: {"limit": count}),
    ):
        assert read_body(json.dumps(asked(row.number)).encode(), model)
        with pytest.raises(InvalidQueryError):
            read_body(json.dumps(asked(row.number + 1)).encode(), model)


@exercises("searches of a batch, and ids whose neighbours are asked for")
def _queries(row: Row, _request: pytest.FixtureRequest) -> None:
    for model, asked in (
        (BatchRequest, lambda count: {"queries": [{"id": "a"}] * count}),
        (NeighboursRequest, lambda count: {"ids": ["a"] * count}),
    ):
        assert read_body(json.dumps(asked(row.number)).encode(), model)
        with pytest.raises(InvalidQueryError):
            read_body(json.dumps(asked(row.number + 1)).encode(), model)


@exercises("bytes of an answer to a query, a batch whole")
def _answer_bytes(row: Row, _request: pytest.FixtureRequest) -> None:
    def answer(payload_bytes: int) -> bytes:
        hit = Hit(id="a", score=1.0, payload="x" * payload_bytes)
        return encoded(
            [hit, hit],
            Answering(component="c", release=1, version="v"),
            max_bytes=SETTINGS.max_answer_bytes,
        )

    assert len(answer(row.number // 2 - 200)) <= row.number
    with pytest.raises(InvalidQueryError, match="with a k of 1 or less"):
        answer(row.number // 2 + 200)


@exercises(
    "values in the payloads of entries that are read for an answer, of those that are parsed: "
    "their commas, brackets and braces"
)
def _payload_values(row: Row, _request: pytest.FixtureRequest) -> None:
    payloads = ["[" * 1000, None, "," * (row.number - 1000)]
    check_payload_values(payloads, row.number + 1)
    with pytest.raises(InvalidQueryError, match=f"more than {row.number} values"):
        check_payload_values([*payloads, "{"], row.number + 1)


@exercises("bytes of all bodies and answers on their way")
def _buffered(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(Application(), most=3)
        first, second = service.connect().protocol, service.connect().protocol
        assert first is not None
        assert second is not None
        assert first.hold(row.number)
        assert second.hold(1)
        assert first.gone
        assert not second.hold(row.number)

    run(body)


@exercises("seconds for which the event loop of a reader's service may stand still")
def _silent(row: Row, request: pytest.FixtureRequest) -> None:
    clock = MovedClock()
    reader = Reloader(
        Settings(data_dir=request.getfixturevalue("tmp_path")), reader_id="a", clock=clock
    )

    async def body() -> None:
        async with reader.watching_loop():
            for more, stands_still in ((row.number - 0.1, False), (0.1, True)):
                clock.advance(more)
                assert (reader.state.service_silent_since is not None) is stands_still

    run(body)


@exercises("searches that run")
def _searches(row: Row, _request: pytest.FixtureRequest) -> None:
    assert _peak(HttpSettings(max_waiting_searches=100), asked=row.number + 5) == (row.number, 0)


@exercises("searches that wait")
def _waiting(row: Row, _request: pytest.FixtureRequest) -> None:
    one = HttpSettings(searches=1)
    assert _peak(one, asked=1 + row.number + 3) == (1, 3)


@exercises("searches of one token, where there are several, that run or wait")
def _of_one_token(row: Row, _request: pytest.FixtureRequest) -> None:
    tokens = {name: {"sha256": digest_of(name)} for name in ("shop", "bank")}
    settings = HttpSettings.model_validate({"tokens": tokens})
    assert _peak(settings, asked=row.number + 3) == (settings.searches, 3)


def fresh_wait() -> FreshWait:
    """A request that nothing ends."""
    freshness: Any = SimpleNamespace(end=lambda wait: wait.settle(NotFreshError([])))
    return FreshWait(freshness, Consistency.strong(), None, Moment(0, 0.0))


def _waiting_together(settings: HttpSettings, *, asked: int) -> tuple[int, int]:
    """How many waited at a time, and how many were refused."""

    async def body() -> tuple[int, int]:
        room = WaitingRoom(settings)
        waits = [fresh_wait() for _ in range(asked)]
        tasks = [asyncio.create_task(room.wait(each, caller="shop")) for each in waits]
        for _ in range(3):
            await asyncio.sleep(0)
        peak = len(room)
        for each in waits:
            each.settle(OverloadedError("no more to wait for"))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(room) == 0
        return peak, sum("until it is fresh" in str(each) for each in ended)

    return asyncio.run(body())


@exercises("requests that wait for a fresh answer")
def _waiting_reads(row: Row, _request: pytest.FixtureRequest) -> None:
    assert _waiting_together(SETTINGS, asked=row.number + 3) == (row.number, 3)
    for connections, most in ((500, row.number), (40, 10), (1, 1)):
        few = fitting(HttpSettings(max_connections=connections))
        assert few.max_waiting_reads == most


@exercises("requests of one token, where there are several, that wait for a fresh answer")
def _waiting_reads_of_one(row: Row, _request: pytest.FixtureRequest) -> None:
    tokens = {name: {"sha256": digest_of(name)} for name in ("shop", "bank")}
    settings = HttpSettings.model_validate({"tokens": tokens})
    assert _waiting_together(settings, asked=row.number + 3) == (row.number, 3)


@exercises("seconds that a request waits for a fresh answer")
def _fresh_seconds(row: Row, request: pytest.FixtureRequest) -> None:
    timeout, waited = asyncio.timeout, list[float]()

    def over(seconds: float) -> asyncio.Timeout:
        waited.append(seconds)
        return timeout(0)

    request.getfixturevalue("monkeypatch").setattr(asyncio, "timeout", over)
    with pytest.raises(NotFreshError):
        asyncio.run(WaitingRoom(SETTINGS).wait(fresh_wait(), caller=None))
    assert waited == [row.number]


@exercises("characters of a session token")
def _session_characters(row: Row, _request: pytest.FixtureRequest) -> None:
    def read(count: int) -> None:
        asked = read_body(json.dumps({"session": "x" * count}).encode(), CountRequest)
        consistency_of(asked, Request({"type": "http", "headers": []}))

    for count, says in ((row.number, "session: this is no"), (row.number + 1, "at most")):
        with pytest.raises(InvalidQueryError, match=says):
            read(count)


@exercises("collections, each once for each epoch, that a session token names")
def _session_collections(row: Row, _request: pytest.FixtureRequest) -> None:
    lives = [Life(f"c{number}", "e", 1) for number in range(row.number + 1)]
    assert set(SessionToken(lives)) == set(lives[1:])


def _peak(settings: HttpSettings, *, asked: int) -> tuple[int, int]:
    """How many ran at a time, and how many were refused."""
    import threading

    found: list[tuple[int, int]] = []

    async def body() -> None:
        threads, go, lock = SearchThreads(settings), threading.Event(), threading.Lock()
        inside, peak = 0, 0

        def search() -> None:
            nonlocal inside, peak
            with lock:
                inside += 1
                peak = max(peak, inside)
            go.wait()
            with lock:
                inside -= 1

        running = [asyncio.create_task(threads.run(search, connection=None)) for _ in range(asked)]
        while inside < settings.searches:
            await asyncio.sleep(0.001)
        go.set()
        ended = await asyncio.gather(*running, return_exceptions=True)
        found.append((peak, sum(isinstance(each, OverloadedError) for each in ended)))

    run(body)
    return found[0]


@exercises("characters of an error's `detail`")
def _detail(row: Row, _request: pytest.FixtureRequest) -> None:
    assert ProblemDetails.of(422, "x" * row.number).detail == "x" * row.number
    assert len(ProblemDetails.of(422, "x" * (row.number + 1)).detail) == row.number
