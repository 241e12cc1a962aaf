"""Who keeps the service waiting: for how long, and who makes room for whom."""

import asyncio
import json
import resource
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import connections
from indexrelay.service.answers import LargeResponse
from indexrelay.service.connections import (
    ACCEPTED_AT_ONCE,
    TURN_SECONDS,
    GuardedConnection,
    Phase,
    fitting,
)
from indexrelay.service.limits import BodyLimit
from indexrelay.service.requests import MAX_HEADER_BYTES, MAX_HEADER_LINES, TURN_PIECES
from indexrelay.service.server import listening
from tests.service.transports import HeldTransport, Service, receive, status

WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
HALF = WHOLE[:-2]
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Application:
    """Answers with so many bytes, once it may."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.may = asyncio.Event()
        self.may.set()
        self.ended = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await self.may.wait()
            await LargeResponse(b"x" * self.size)(scope, receive, send)
        finally:
            self.ended += 1


def running(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type] # a coroutine is what these tests give


def test_a_header_that_does_not_end_is_refused_after_its_time() -> None:
    async def body() -> None:
        service = Service(Application(), header_seconds=10)
        half = service.connect()
        for second in range(10):  # a byte now and then does not make it longer
            service.now = second
            receive(half, HALF[second : second + 1])
            service.connections.expire()
            assert not half.closed
        service.now = 10
        service.connections.expire()
        assert (half.closed, status(half)) == (True, 408)

    running(body)


def test_silence_is_ended_too_and_each_request_has_a_time_of_its_own() -> None:
    async def body() -> None:
        service = Service(Application(), header_seconds=10)
        silent, asking = service.connect(), service.connect()
        service.now = 9
        receive(asking, WHOLE)
        await service.settle()
        service.now = 11
        service.connections.expire()
        assert silent.closed
        assert (asking.closed, status(asking)) == (False, 200)
        receive(asking, HALF)
        service.now = 19
        service.connections.expire()
        assert (asking.closed, status(asking)) == (True, 408)

    running(body)


def test_a_body_that_does_not_come_is_refused_after_its_time_and_the_application_hears_of_it() -> (
    None
):
    async def body() -> None:
        inner = Application()
        service = Service(BodyLimit(inner, max_bytes=1000), header_seconds=1, body_seconds=20)
        half = service.connect()
        receive(half, POST % 100 + b"x")
        await service.settle()
        service.now = 19
        service.connections.expire()
        assert not half.closed
        service.now = 20
        service.connections.expire()
        await service.settle()
        assert (half.closed, status(half)) == (True, 408)
        assert inner.ended == 0, "it was never asked"
        assert service.connections.buffered_bytes == 0

    running(body)


def test_while_the_service_works_no_time_limit_runs() -> None:
    async def body() -> None:
        inner = Application()
        inner.may.clear()
        service = Service(inner)
        asking = service.connect()
        receive(asking, WHOLE)
        await service.settle()
        service.now = 10_000
        service.connections.expire()
        assert not asking.closed
        inner.may.set()
        await service.settle()
        assert status(asking) == 200

    running(body)


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_an_answer_that_nobody_reads_is_cut_whether_it_fits_into_the_buffer_or_not(
    size: int,
) -> None:
    async def body() -> None:
        service = Service(Application(size), send_seconds=10, header_seconds=100)
        deaf = service.connect(reads=False)
        receive(deaf, WHOLE)
        await service.settle()
        service.now = 9
        service.connections.expire()
        assert not deaf.aborted
        service.now = 10
        service.connections.expire()
        assert deaf.aborted
        await service.settle()
        assert service.connections.buffered_bytes == 0
        assert deaf.unread <= 3 * 64 * 1024, "the rest never left the application"

    running(body)


def test_an_answer_that_is_read_slowly_may_take_long() -> None:
    async def body() -> None:
        service = Service(Application(1_000_000), send_seconds=10)
        slow = service.connect(reads=False)
        receive(slow, WHOLE)
        for _ in range(100):
            await service.settle()
            service.now += 9
            service.connections.expire()
            assert not slow.aborted
            slow.read()
        assert len(slow.written) > 1_000_000

    running(body)


def test_an_answer_that_is_read_at_once_leaves_the_event_loop_a_turn_after_each_piece() -> None:
    async def body() -> None:
        service = Service(Application(1_000_000))
        fast = service.connect()
        receive(fast, WHOLE)
        turns = 0
        while len(fast.written) < 1_000_000:
            before = len(fast.written)
            await asyncio.sleep(0)
            turns += 1
            assert len(fast.written) - before <= 2 * 64 * 1024
        assert turns >= 1_000_000 // (64 * 1024)

    running(body)


def test_the_client_that_was_waited_for_the_longest_makes_room_for_one_more() -> None:
    async def body() -> None:
        inner = Application()
        service = Service(inner, most=3)
        working = service.connect()
        inner.may.clear()
        receive(working, WHOLE)
        await service.settle()
        service.now = 1
        second = service.connect()
        service.now = 2
        third = service.connect()
        receive(second, HALF)
        service.now = 3
        fourth = service.connect()
        assert second.aborted, "a byte now and then keeps no place"
        assert [each.closed for each in (working, third, fourth)] == [False, False, False]
        assert len(service.connections) == 3

    running(body)


def test_a_client_that_has_asked_is_waited_for_a_moment_before_it_makes_room() -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(400_000), max_bytes=10), max_buffered_bytes=700_000)
        reading, second, third = (service.connect(reads=False) for _ in range(3))
        receive(reading, WHOLE)
        await service.settle()
        service.now = 0.9
        receive(second, WHOLE)
        await service.settle()
        assert (reading.aborted, status(second)) == (False, 503)
        reading.read()
        await service.settle()
        service.now = 1.5
        receive(third, WHOLE)
        await service.settle()
        assert (reading.aborted, status(third)) == (False, 503), "it has read since"
        service.now = 2
        receive(third, WHOLE)
        third.read()
        await service.settle()
        assert (reading.aborted, status(third)) == (True, 200)

    running(body)


def test_idle_clients_keep_their_place_for_a_moment_and_silent_ones_do_not() -> None:
    async def body() -> None:
        service = Service(Application(), most=3)
        idle, half, _ = (service.connect() for _ in range(3))
        receive(idle, WHOLE)
        receive(half, HALF)
        await service.settle()
        service.connect()
        assert (idle.closed, half.aborted) == (False, True)
        service.now = 1
        service.connect()
        service.connect()
        assert idle.aborted

    running(body)


def test_where_all_are_at_work_some_more_come_in_and_the_next_is_refused() -> None:
    async def body() -> None:
        inner = Application()
        inner.may.clear()
        service = Service(inner, most=100)
        working = []
        for _ in range(100 + 10):
            working.append(service.connect())
            assert not working[-1].closed
            receive(working[-1], WHOLE)
            await service.settle()
        refused = service.connect()
        assert (refused.closed, status(refused)) == (True, 503)
        assert b"retry-after: 1" in refused.written.lower()
        inner.may.set()
        await service.settle()
        assert {status(each) for each in working} == {200}
        service.now += 1
        service.connect()
        assert len(service.connections) == 100, "those beyond the limit made room"

    running(body)


def test_unread_answers_make_room_for_others_and_their_bytes_are_counted_once() -> None:
    async def body() -> None:
        inner = BodyLimit(Application(400_000), max_bytes=10)
        service = Service(inner, most=10, max_buffered_bytes=1_000_000)
        deaf = [service.connect(reads=False) for _ in range(5)]
        for second, each in enumerate(deaf):
            service.now = second
            receive(each, WHOLE)
            await service.settle()
            assert service.connections.buffered_bytes <= 1_000_000
        assert [each.aborted for each in deaf] == [True, True, True, False, False]
        heard = service.connect()
        receive(heard, WHOLE)
        await service.settle()
        assert status(heard) == 200
        assert service.connections.buffered_bytes == 400_000, "of one that does not read"

    running(body)


def test_half_bodies_make_room_too_and_one_that_has_none_is_refused() -> None:
    async def body() -> None:
        limit = BodyLimit(Application(), max_bytes=2_000_000)
        service = Service(limit, most=10, max_buffered_bytes=150_000)
        first, second = service.connect(), service.connect()
        receive(first, POST % 100_000 + b"x" * 90_000)
        await service.settle()
        service.now = 1
        receive(second, POST % 100_000 + b"x" * 90_000)
        await service.settle()
        assert (first.aborted, second.closed) == (True, False)
        alone = service.connect()
        second.abort()
        for _ in range(10):
            receive(alone, (POST % 200_000 if not alone.protocol.cycle else b"") + b"x" * 20_000)  # type: ignore[union-attr]
            await service.settle()
            if alone.closed:
                break
        assert status(alone) == 503

    running(body)


def test_a_header_of_many_lines_is_refused_before_it_is_whole() -> None:
    async def body() -> None:
        service = Service(Application())
        some_lines, many_lines = service.connect(), service.connect()
        receive(some_lines, HALF + b"a:b\r\n" * (MAX_HEADER_LINES - 1) + b"\r\n")
        await service.settle()
        assert status(some_lines) == 200
        receive(many_lines, HALF + b"a:b\r\n" * (MAX_HEADER_LINES + 1))
        assert (many_lines.closed, status(many_lines)) == (True, 400)

    running(body)


def test_headers_wait_for_the_next_turn_once_others_have_taken_their_time() -> None:
    async def body() -> None:
        service = Service(Application(), most=30)
        clients = [service.connect() for _ in range(20)]
        moments = count()
        service.connections.now = lambda: next(moments) * TURN_SECONDS
        for each in clients:
            receive(each, WHOLE)
        at_once = sum(bool(each.protocol and each.protocol.cycle) for each in clients)
        assert at_once == 1
        assert clients[-1].paused
        assert clients[-1].protocol is not None
        assert clients[-1].protocol.update_phase() is Phase.WORK, "it waits for the service"
        for _ in range(5):
            await service.settle()
        assert {status(each) for each in clients} == {200}
        assert not any(each.paused for each in clients)

    running(body)


def test_a_request_that_is_sent_ahead_waits_until_the_answer_before_it_is_read() -> None:
    async def body() -> None:
        inner = Application(64 * 1024)  # more than the buffer with its header, in one piece
        service = Service(inner)
        deaf = service.connect(reads=False)
        receive(deaf, 3 * WHOLE)
        await service.settle()
        assert inner.ended == 1
        for answered in (2, 3):
            deaf.read()
            await service.settle()
            assert inner.ended == answered
        deaf.read()
        await service.settle()
        assert bytes(deaf.written).count(b"HTTP/1.1 200") == 3
        receive(deaf, WHOLE)
        await service.settle()
        assert inner.ended == 4

    running(body)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * MAX_HEADER_BYTES + b"\r\n",
        b"GET /" + b"x" * 2 * MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without a host
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        CHUNKED[:-2] + b"content-length: 0\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_as_a_problem(sent: bytes) -> None:
    async def body() -> None:
        service = Service(Application())
        sending = service.connect()
        receive(sending, sent)
        assert (sending.closed, status(sending)) == (True, 400)
        answer = json.loads(bytes(sending.written).rpartition(b"\r\n\r\n")[2])
        assert answer["status"] == 400
        assert b"application/problem+json" in sending.written

    running(body)


def test_a_body_in_too_many_pieces_is_refused_and_one_in_some_is_not() -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=2_000_000))
        many, some = service.connect(), service.connect()
        receive(many, CHUNKED + b"1\r\nx\r\n" * 5_000)
        await service.settle()
        assert (many.closed, status(many)) == (True, 400)
        receive(some, CHUNKED)
        for _ in range(100):
            receive(some, b"400\r\n" + b"x" * 1024 + b"\r\n")
            await service.settle()
        receive(some, b"0\r\n\r\n")
        await service.settle()
        assert (some.closed, status(some)) == (False, 200)

    running(body)


def test_many_bodies_in_small_pieces_keep_the_event_loop_for_a_moment_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[int] = []
    read_body = GuardedConnection.read_body

    def counted(connection: GuardedConnection) -> bool:
        turns[-1] += 1
        return read_body(connection)

    monkeypatch.setattr(GuardedConnection, "read_body", counted)

    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=2_000_000), most=30)
        senders = [service.connect() for _ in range(20)]
        for each in senders:
            receive(each, CHUNKED + (b"40\r\n" + b"x" * 64 + b"\r\n") * 900 + b"0\r\n\r\n")
        moments = count()
        service.connections.now = lambda: next(moments) * TURN_SECONDS / 4
        while len(turns) < 1000 and {len(each.written) > 0 for each in senders} != {True}:
            turns.append(0)
            await asyncio.sleep(0)
        assert {status(each) for each in senders} == {200}
        assert max(turns) <= 5
        assert sum(turns) >= 20 * (900 // TURN_PIECES) - 1  # the first one of all waits for none

    running(body)


def test_nothing_more_is_read_of_a_connection_before_what_came_has_been_looked_at() -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=2_000_000))
        sending = service.connect()
        receive(sending, POST % 100_000 + b"x" * 50_000)
        assert sending.paused
        assert service.connections.buffered_bytes >= 50_000, "counted as it comes"
        await service.settle()
        assert not sending.paused
        receive(sending, b"x" * 50_000)
        assert sending.paused
        await service.settle()
        assert (sending.paused, status(sending)) == (False, 200)

    running(body)


def test_a_body_that_is_sent_ahead_in_small_pieces_is_read_after_the_answer_before_it() -> None:
    async def body() -> None:
        inner = Application()
        service = Service(BodyLimit(inner, max_bytes=10_000))
        eager = service.connect()
        inner.may.clear()
        receive(eager, WHOLE + CHUNKED + b"1\r\nx\r\n" * 500 + b"0\r\n\r\n")
        inner.may.set()
        await service.settle()
        assert bytes(eager.written).count(b"HTTP/1.1 200") == 2

    running(body)


def test_what_is_sent_ahead_of_answers_is_limited() -> None:
    async def body() -> None:
        inner = Application()
        service = Service(inner)
        eager = service.connect()
        receive(eager, 3 * WHOLE)
        await service.settle()
        assert bytes(eager.written).count(b"HTTP/1.1 200") == 3, "a few requests may be sent ahead"
        inner.may.clear()
        receive(eager, WHOLE)
        for _ in range(MAX_HEADER_BYTES // len(WHOLE) + 1):
            receive(eager, WHOLE)
        assert eager.aborted

    running(body)


def test_a_mistake_after_the_answer_only_ends_the_connection() -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=10))
        sending = service.connect()
        receive(sending, b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        receive(sending, b"20\r\n" + b"x" * 32 + b"\r\n")
        await service.settle()
        assert status(sending) == 413
        receive(sending, b"no chunk\r\n")
        assert sending.closed

    running(body)


def test_a_process_that_may_open_few_files_has_fewer_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = HttpSettings(max_connections=5000)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1024))
    most = fitting(few).max_connections
    assert 500 < most < 1024 - 100
    assert most + most // 10 < 1024 - 100 - 2 * ACCEPTED_AT_ONCE, "with those beyond the limit"
    assert fitting(HttpSettings(max_connections=5)).max_connections == 5
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64))
    assert fitting(few).max_connections == 1
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (unlimited, unlimited))
    assert fitting(few).max_connections == 5000


@pytest.mark.parametrize(
    ("connections", "searches", "waiting"), [(500, 8, 200), (100, 8, 42), (10, 5, 0), (1, 1, 0)]
)
def test_searches_leave_half_of_the_connections_to_others(
    connections: int, searches: int, waiting: int
) -> None:
    found = fitting(HttpSettings(max_connections=connections))
    assert (found.searches, found.max_waiting_searches) == (searches, waiting)


def test_an_idle_connection_waits_for_a_header() -> None:
    async def body() -> None:
        service = Service(Application())
        idle = service.connect()
        assert idle.protocol is not None
        receive(idle, WHOLE)
        assert idle.protocol.update_phase() is Phase.WORK
        await service.settle()
        assert idle.protocol.update_phase() is Phase.HEADER

    running(body)


def test_small_packets_of_an_answer_do_not_wait_for_each_other() -> None:
    """asyncio sees to it only where the listening socket names its protocol; ours does not."""
    with (
        listening("127.0.0.1", 0, None) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert listener.proto == 0
        connections.set_up(accepted)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_memory_is_given_back_once_after_much_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(connections, "give_memory_back", lambda: given_back.append(1))

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))  # what is given it last ends last
        service = Service(Application())
        protocol = service.connect().protocol
        assert protocol is not None
        for held, times in ((1_000_000, 0), (9_000_000, 1), (1_000_000, 1)):
            assert protocol.hold(held)
            service.connections.tick(loop)
            protocol.release()
            service.connections.tick(loop)
            service.connections.tick(loop)
            await loop.run_in_executor(None, int)
            assert len(given_back) == times

    running(body)


def test_memory_that_is_free_can_be_given_back() -> None:
    connections.give_memory_back()


EVENTS = ("connect", "connect_deaf", "half", "whole", "post", "part", "read", "settle", "later")


@given(some.lists(some.tuples(some.sampled_from(EVENTS), some.integers(0, 7)), max_size=40))
def test_no_sequence_of_events_leaves_a_working_connection_among_those_that_wait(
    events: list[tuple[str, int]],
) -> None:
    """`_make_room` once went round such a connection for ever, and the event loop with it."""

    clients: list[HeldTransport] = []

    async def body() -> None:
        inner = BodyLimit(Application(150_000), max_bytes=1_000_000)
        service = Service(inner, most=4, max_buffered_bytes=300_000)
        clients.append(service.connect(reads=False))
        for event, which in events:
            client = clients[which % len(clients)]
            if event.startswith("connect"):
                clients.append(service.connect(reads=event == "connect"))
            elif event == "settle":
                await service.settle()
            elif event == "later":
                service.now += 3
                service.connections.expire()
            elif client.closed or client.paused:
                continue
            elif event == "read":
                client.read()
            else:
                sent = {"half": HALF, "whole": WHOLE, "post": POST % 100_000, "part": b"x" * 9_000}
                receive(client, sent[event])
            waiting = service.connections.waiting()
            assert Phase.WORK not in [each.phase for each in waiting]
            assert len(service.connections) <= 4 + 8
            await asyncio.sleep(0)

    async def ended() -> None:
        try:
            await body()
        finally:  # uvicorn's tasks swallow being cancelled, and would wait for their clients
            for each in clients:
                each.abort()
            await asyncio.sleep(0)

    running(ended)


def test_answers_that_are_read_while_others_want_room_do_not_stop_the_event_loop() -> None:
    async def body() -> None:
        inner = BodyLimit(Application(400_000), max_bytes=10)
        service = Service(inner, most=10, max_buffered_bytes=900_000)
        first, second, third = (service.connect(reads=False) for _ in range(3))
        for each in (first, second):
            receive(each, WHOLE)
            await service.settle()
        first.read()  # the service writes on, from the next turn of the loop
        receive(third, WHOLE)
        await service.settle()
        assert [each.closed for each in (first, second, third)].count(True) <= 1

    running(body)
