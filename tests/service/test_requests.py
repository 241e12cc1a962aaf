"""What is a request, and what it asks, by the letter of RFC 9112."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexrelay.service.requests import MAX_HEADER_BYTES, MAX_HEADER_LINES, Methods
from tests.service.transports import HeldTransport, Service, receive, status

CHUNKED = b"transfer-encoding: chunked\r\n"


async def repeat(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with what it was asked."""
    request = Request(scope, receive)
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "host": request.headers.get("host"),
        "body": (await request.body()).decode(),
    }
    await JSONResponse(seen)(scope, receive, send)


def exchange(*pieces: bytes, app: Callable[..., Awaitable[None]] = repeat) -> HeldTransport:
    """The connection after these bytes came, one after the other."""
    made: list[HeldTransport] = []

    async def body() -> None:
        service = Service(app)
        connection = service.connect()
        made.append(connection)
        for piece in pieces:
            receive(connection, piece)
            await service.settle()

    asyncio.run(body())
    return made[0]


def answers(connection: HeldTransport) -> list[tuple[int, Any]]:
    """Each status with its body."""
    found = []
    for answer in bytes(connection.written).split(b"HTTP/1.1 ")[1:]:
        head, _, content = answer.partition(b"\r\n\r\n")
        found.append((int(head[:3]), json.loads(content) if content else None))
    return found


def request(line: bytes, *headers: bytes, host: bytes = b"x") -> bytes:
    return b"\r\n".join([line, b"host: " + host, *headers, b"", b""])


@pytest.mark.parametrize(
    ("sent", "mistake"),
    [
        (b"GET / HTTP/1.1\nhost: x\n\n", "the lines of a header end in CR and LF"),
        (request(b"GET / HTTP/1.1", b"a: b\nc: d"), "the lines of a header end in CR and LF"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\n", "the lines of a header end in CR and LF"),
        (
            request(b"POST / HTTP/1.0", CHUNKED[:-2]) + b"2\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.0 has no Transfer-Encoding",
        ),
        (request(b"POST / HTTP/1.1", CHUNKED + b"content-length: 2"), "the body has two lengths"),
        (request(b"GET health HTTP/1.1"), "the target of a request is a path, or an http URI"),
        (request(b"GET ftp://x/ HTTP/1.1"), "the target of a request is a path, or an http URI"),
        (request(b"GET http:///a HTTP/1.1"), "the target of a request is a path, or an http URI"),
        (request(b"GET http://me@x/ HTTP/1.1"), "or an http URI without a user"),
        (request(b"GET / HTTP/1.1", b"a: b\rc: d"), "Invalid HTTP request"),
        (request(b"GET / HTTP/1.1", b"a: b\r\n c"), "a line of a header does not go on"),
        (
            request(b"POST / HTTP/1.1", b"transfer-encoding:\r\n\tchunked"),
            "a line of a header does not go on",
        ),
        (request(b"GET / HTTP/2.0"), "the version of a request is HTTP/1.0 or HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the version of a request is HTTP/1.0 or HTTP/1.1"),
        (request(b"GET /v1%2fstate HTTP/1.1"), "a path has no encoded slash"),
        (request(b"GET http://x/v1%2Fstate HTTP/1.1"), "a path has no encoded slash"),
        (2 * b"\r\n" + request(b"GET / HTTP/1.1"), "Invalid HTTP request"),
    ],
)
def test_what_others_may_read_in_another_way_is_refused_and_the_connection_ends(
    sent: bytes, mistake: str
) -> None:
    connection = exchange(sent, request(b"GET /next HTTP/1.1"))
    [(code, problem)] = answers(connection)
    assert (code, connection.closed) == (400, True)
    assert mistake in problem["detail"]


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/a?b=c", "/a", "b=c", "x"),
        (b"http://y:80/a?b=c", "/a", "b=c", "y:80"),
        (b"HTTPS://y", "/", "", "y"),
        (b"http://[::1]:80?b", "/", "b", "[::1]:80"),
        (b"*", "*", "", "x"),
    ],
)
def test_a_target_in_absolute_form_names_the_path_and_in_place_of_the_header_the_host(
    target: bytes, path: str, query: str, host: str
) -> None:
    [(code, seen)] = answers(exchange(request(b"GET %s HTTP/1.1" % target)))
    assert (code, seen["path"], seen["query"], seen["host"]) == (200, path, query, host)


@pytest.mark.parametrize(
    ("trailers", "code"),
    [
        (b"", 200),
        (b"a: b\r\n" * MAX_HEADER_LINES, 200),
        (b"no colon\r\n", 200),  # they are dropped unread
        (b"a: b\r\n" * (MAX_HEADER_LINES + 1), 400),
        (b"a: b\n" * 2, 400),
        (b"a: " + b"b" * MAX_HEADER_BYTES, 400),
    ],
)
def test_what_follows_the_last_chunk_is_dropped_and_has_few_lines(
    trailers: bytes, code: int
) -> None:
    sent = request(b"POST /a HTTP/1.1", CHUNKED[:-2]) + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"
    connection = exchange(sent, request(b"GET /next HTTP/1.1"))
    found = answers(connection)
    if code == 200:
        assert [(each, seen["body"]) for each, seen in found] == [(200, "{}"), (200, "")]
    else:
        assert [each for each, _ in found] == [400]
        assert connection.closed


def test_an_encoded_slash_after_the_path_is_no_mistake() -> None:
    [(code, seen)] = answers(exchange(request(b"GET /a?id=b%2Fc HTTP/1.1")))
    assert (code, seen["query"]) == (200, "id=b%2Fc")


def test_an_empty_line_before_each_request_is_ignored() -> None:
    ask = b"\r\n" + request(b"POST /a HTTP/1.1", b"content-length: 2") + b"\n\n"
    connection = exchange(ask, ask)
    assert [seen["body"] for _, seen in answers(connection)] == ["\n\n", "\n\n"]
    assert not connection.closed


@pytest.mark.parametrize("at_once", [True, False])
def test_a_header_of_exactly_the_limit_is_read_and_one_byte_more_is_not(*, at_once: bool) -> None:
    shortest = request(b"GET / HTTP/1.1", b"a: ")
    for more, code in ((0, 200), (1, 400)):
        filler = b"a: " + b"b" * (MAX_HEADER_BYTES - len(shortest) + more)
        sent = request(b"GET / HTTP/1.1", filler)
        assert len(sent) == MAX_HEADER_BYTES + more
        pieces = [sent] if at_once else [sent[:900], sent[900:-1], sent[-1:]]
        assert status(exchange(*pieces)) == code


@pytest.mark.parametrize(
    "sent",
    [
        request(b"HEAD / HTTP/1.1", CHUNKED[:-2]) + b"no length\r\n",
        request(b"HEAD / HTTP/1.1", CHUNKED + b"content-length: 2"),
        request(b"HEAD / HTTP/1.0", CHUNKED[:-2]),
    ],
)
def test_a_head_with_a_body_that_cannot_be_read_is_refused_without_a_body(sent: bytes) -> None:
    connection = exchange(sent)
    assert answers(connection) == [(400, None)]
    assert connection.closed
    assert not connection.aborted


def test_a_head_is_answered_as_a_get_without_its_body_and_the_connection_goes_on() -> None:
    connection = exchange(
        request(b"HEAD /a HTTP/1.1"),
        request(b"GET /b HTTP/1.1"),
        request(b"GET no-path HTTP/1.1"),
        app=Methods(repeat),
    )
    (head, nothing), (get, seen), (refused, problem) = answers(connection)
    assert (head, nothing, get, seen["method"], seen["path"]) == (200, None, 200, "GET", "/b")
    assert (refused, problem["status"]) == (400, 400)


def test_what_is_asked_of_the_whole_service_has_an_answer_and_a_proxy_it_is_not() -> None:
    options = exchange(request(b"OPTIONS * HTTP/1.1"), app=Methods(repeat))
    assert (status(options), options.closed) == (204, False)
    assert b"allow: GET, HEAD, POST" in options.written
    connect = exchange(request(b"CONNECT other:80 HTTP/1.1"), app=Methods(repeat))
    assert status(connect) == 405
    assert b"allow: GET, HEAD, POST" in connect.written
    [(code, seen)] = answers(exchange(request(b"OPTIONS /a HTTP/1.1"), app=Methods(repeat)))
    assert (code, seen["method"]) == (200, "OPTIONS")
